"""The first blocks of EfficientNet-Lite0, trained on photographs of everything, on face crops.

Tan & Le, "EfficientNet" (2019), in its variant without squeeze and excitation (Google, "EfficientNet-Lite", 2020). A
few hundred faces can't teach a network to see; a million photographs could. Behind the first half of the blocks stand
edges, textures and parts, not yet things, and that is where rendering leaves its traces. Each normalisation is folded
into the convolution before it, so a small batch of faces doesn't move what was learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from avdetect import stored
from avdetect.encoders.masking import step_mask
from avdetect.errors import ConfigError
from avdetect.types import CROP_EVERY, FRAME_RATE, EncoderOutput

WEIGHTS = Path(__file__).parent / "weights" / "efficientnet_lite0.safetensors"
SIZE = 224
"""Pixels of a side that the network was trained on; smaller faces are enlarged, or its filters would miss."""
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3))
"""Kernel, stride, expansion, channels, blocks of the first five of its seven stages."""
BLOCKS = sum(stage[-1] for stage in STAGES)
TOGETHER = 1
"""Crops computed at once: the maps of more of them don't fit into a core's cache."""
LEAST = 0.01
"""A variance of features that says nothing: over faces, and over voices, each has at least twenty times as much."""


class SamePadded(nn.Conv2d):
    """A convolution [B, C, H, W] -> [B, C', ceil(H / stride), ceil(W / stride)], padded as TensorFlow does it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, 0 if stride > 1 else kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """With a stride, the odd row and column of padding stand at the end."""
        assert self.bias is not None
        weight, bias = self.weight.float(), self.bias.float()
        if self.stride[0] == 1:
            return self._conv_forward(x, weight, bias)
        pad = [self._padding(side) for side in x.shape[-2:]]
        # A row of zeros before the kernel is one more of padding after the maps, which need not be copied for it.
        weight = nn.functional.pad(weight, (pad[1] % 2, 0, pad[0] % 2, 0))
        around = ((pad[0] + 1) // 2, (pad[1] + 1) // 2)
        return nn.functional.conv2d(x, weight, bias, self.stride, around, groups=self.groups)

    def _padding(self, side: int) -> int:
        """Rows that are missing for ceil(side / stride) places of the kernel."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        return max(0, (-(-side // stride) - 1) * stride + kernel - side)


class InvertedResidual(nn.Module):
    """Wide inside, narrow between: [B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = SamePadded(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = SamePadded(wide, wide, kernel, stride, groups=wide)
        self.project = SamePadded(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Adds the input where it has the shape of the output."""
        y = x if self.expand is None else nn.functional.relu6(self.expand(x), inplace=True)
        y = self.project(nn.functional.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y


class Trunk(nn.Module):
    """Pictures [B, 3, H, W] in 0..1 -> maps [B, dim, H / stride, W / stride] of the first `blocks` blocks.

    `trained`: how many of the last blocks are trained; the stem and the others stay as they are (None: all are).
    """

    pretrained = True

    def __init__(self, blocks: int = BLOCKS, trained: int | None = None) -> None:
        super().__init__()
        if not 1 <= blocks <= BLOCKS:
            raise ConfigError(f"EfficientNet-Lite: blocks = {blocks}; there are 1 to {BLOCKS}")
        if trained is not None and not 0 <= trained <= blocks:
            raise ConfigError(
                f"EfficientNet-Lite: trained = {trained}; give 0 to {blocks}, of {blocks} blocks"
            )
        self.trained = trained
        self.stem = SamePadded(3, 32, 3, 2)
        self.blocks = nn.ModuleList()
        self.dim, self.stride = 32, 2
        plan = [
            (kernel, stride if index == 0 else 1, expansion, channels)
            for kernel, stride, expansion, channels, repeats in STAGES
            for index in range(repeats)
        ]
        for kernel, stride, expansion, channels in plan[:blocks]:
            self.blocks.append(InvertedResidual(self.dim, channels, kernel, stride, expansion))
            self.dim, self.stride = channels, self.stride * stride
        self._freeze()

    def _freeze(self) -> None:
        if self.trained is not None:
            for part in (self.stem, *self.blocks[: len(self.blocks) - self.trained]):
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """What is frozen is said here again, since loading a saved model opens everything to training."""
        self._freeze()
        return super().train(mode)

    @torch.autocast("cpu", enabled=False)
    def forward(self, pictures: Tensor) -> Tensor:
        """Through the stem and all blocks, in single precision: depth-wise convolutions gain by no other."""
        x = (pictures.float() * 255 - 127) / 128
        x = nn.functional.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)))
        for block in self.blocks:
            x = block(x)
        return x


def imagenet_unless_loaded(blocks: int, trained: int) -> Trunk:
    """The first blocks as ImageNet taught them; without weights where a saved model's are about to be loaded.

    ModelError where the package's file is damaged.
    """
    trunk = Trunk(blocks, trained)
    if stored.is_wanted(trunk.stem.weight):
        whole = stored.load(WEIGHTS, lambda _: Trunk(), "EfficientNet-Lite0").state_dict()
        trunk.load_state_dict({name: whole[name] for name in trunk.state_dict()})
    return trunk


def folded(weights: Mapping[str, Tensor], epsilon: float = 1e-3) -> Trunk:
    """The trunk of a checkpoint with the names of efficientnet-pytorch, its normalisations folded in.

    KeyError where one is missing.
    """
    trunk = Trunk()

    def put(conv: nn.Conv2d, name: str, norm: str) -> None:
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + epsilon).sqrt()
        assert conv.bias is not None
        conv.weight.copy_(weights[f"{name}.weight"] * scale[:, None, None, None])
        conv.bias.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)

    with torch.no_grad():
        put(trunk.stem, "_conv_stem", "_bn0")
        for index, block in enumerate(trunk.blocks):
            assert isinstance(block, InvertedResidual)
            at = f"_blocks.{index}."
            if block.expand is not None:
                put(block.expand, f"{at}_expand_conv", f"{at}_bn0")
            put(block.depthwise, f"{at}_depthwise_conv", f"{at}_bn1")
            put(block.project, f"{at}_project_conv", f"{at}_bn2")
    return trunk


class EfficientNetLite(nn.Module):
    """Face crops [B, N, 3, H, W] in 0..1 -> [B, N, 2 dim], one step per crop: mean and deviation over its places.

    `blocks`: how many of the network are used, 1 to 11; `trained`: how many of the last of those are trained.
    `every`: in use, not in training, one crop of so many is looked at, which gives as many steps less.
    """

    modality = "face"

    def __init__(self, blocks: int = 8, trained: int = 3, dropout: float = 0.4, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ConfigError(f"encoder 'efficientnet_lite': every = {every} is not a positive number")
        self.trunk = imagenet_unless_loaded(blocks, trained)
        self.every, self.dim = every, 2 * self.trunk.dim
        # with nothing trained, all that are built alike stay alike, and one can stand for several (see `committee`)
        self.norm = nn.BatchNorm1d(self.dim, eps=LEAST) if trained else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    @property
    def precision(self) -> torch.dtype:
        """Of its weights."""
        return self.trunk.stem.weight.dtype

    def _summary(self, crops: Tensor) -> Tensor:
        """[M, 3, H, W] in 0..1 -> [M, dim]."""
        found = []
        for some in crops.split(TOGETHER):
            if some.shape[-2:] != (SIZE, SIZE):
                some = nn.functional.interpolate(some, (SIZE, SIZE), mode="bilinear", antialias=True)
            maps = self.trunk(some)
            found.append(torch.cat([maps.mean((2, 3)), maps.std((2, 3))], 1))
        return torch.cat(found)

    def see(self, crops: Tensor) -> Tensor:
        """[M, 3, H, W] in 0..1 -> [M, dim]."""
        return self.dropout(self.norm(self._summary(crops.float()).to(self.precision)))

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of face crops; `lengths` [B] in crops. Only real crops are computed, padding costs nothing."""
        every = 1 if self.training else self.every
        inputs, lengths = inputs[:, ::every], torch.div(lengths + every - 1, every, rounding_mode="floor")
        mask = step_mask(inputs.shape[1], lengths)
        features = inputs.new_zeros(*mask.shape, self.dim)
        if mask.any():
            features = features.masked_scatter(mask[..., None], self.see(inputs[mask]).to(features.dtype))
        return EncoderOutput(features, lengths, FRAME_RATE / CROP_EVERY / every)
