"""Xception on face crops, the baseline of FaceForensics++, as an encoder and as the published detector.

Chollet, "Xception: deep learning with depthwise separable convolutions" (2017); Rössler et al., "FaceForensics++:
learning to detect manipulated facial images" (2019). `XceptionDetector` adds the two-class output of the latter and
reads checkpoints by the names that they have in public: those trained on ImageNet, and FaceForensics++'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from avdetect.encoders.masking import step_mask
from avdetect.encoders.published import read_weights
from avdetect.errors import ConfigError, ModelError
from avdetect.types import EncoderOutput

SIZE = 299
"""Pixels of a face in all published results."""
SMALLEST = 48
"""Pixels that leave something to see after five halvings."""
DIM = 2048
AT_ONCE = 16
"""Crops that are looked at together outside training: one of 299 pixels takes about 30 MB."""


class Separable(nn.Sequential):
    """A 3x3 convolution of each channel for itself, then one across channels: [B, C, H, W] -> [B, outputs, H, W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)


class Block(nn.Module):
    """Separable convolutions to the `widths` in turn, halved in size with `stride` 2, and a shortcut."""

    def __init__(self, inputs: int, widths: tuple[int, ...], stride: int = 1, rectified: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = inputs
        for number, outputs in enumerate(widths):
            if rectified or number:
                layers.append(nn.ReLU())
            layers += [Separable(width, outputs), nn.BatchNorm2d(outputs)]
            width = outputs
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.layers = nn.Sequential(*layers)
        changed = stride > 1 or width != inputs
        self.skip = nn.Conv2d(inputs, width, 1, stride, bias=False) if changed else None
        self.skip_norm = nn.BatchNorm2d(width) if changed else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, widths[-1], H / stride, W / stride]."""
        shortcut = x
        if self.skip is not None and self.skip_norm is not None:
            shortcut = self.skip_norm(self.skip(x))
        return self.layers(x) + shortcut


class XceptionNetwork(nn.Module):
    """Pictures [B, 3, H, W] in -1..1 -> [B, DIM]: the mean of the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64)
        self.blocks = nn.Sequential(
            Block(64, (128, 128), 2, rectified=False),
            Block(128, (256, 256), 2),
            Block(256, (728, 728), 2),
            *(Block(728, (728, 728, 728)) for _ in range(8)),
            Block(728, (728, 1024), 2),
        )
        self.conv3, self.bn3 = Separable(1024, 1536), nn.BatchNorm2d(1536)
        self.conv4, self.bn4 = Separable(1536, DIM), nn.BatchNorm2d(DIM)

    def forward(self, x: Tensor) -> Tensor:
        """`x` of at least SMALLEST pixels."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = self.blocks(x)
        x = functional.relu(self.bn3(self.conv3(x)))
        return functional.relu(self.bn4(self.conv4(x))).mean((2, 3))


class Xception(nn.Module):
    """Face crops [B, N, 3, H, W] in 0..1 -> [B, N, DIM], one step per crop; crops are brought to `size` pixels."""

    modality = "face"
    dim = DIM

    def __init__(self, size: int = SIZE, frame_rate: float = 5.0, dropout: float = 0.5) -> None:
        super().__init__()
        if size < SMALLEST:
            raise ConfigError(f"size = {size!r}: Xception needs faces of {SMALLEST} pixels or more")
        self.size, self.frame_rate = size, frame_rate
        self.network = XceptionNetwork()
        self.dropout = nn.Dropout(dropout)

    def _seen(self, crops: Tensor) -> Tensor:
        """[M, 3, H, W] in 0..1 -> [M, DIM]."""
        if crops.shape[-2:] != (self.size, self.size):
            crops = functional.interpolate(crops, (self.size, self.size), mode="bilinear", antialias=True)
        crops = (2 * crops - 1).to(next(self.network.parameters()).dtype)
        crops = crops.contiguous(memory_format=torch.channels_last)
        # Batch norms in training need all at once; else some at a time, for the sake of memory in long clips.
        parts = [crops] if self.training else crops.split(AT_ONCE)
        return torch.cat([self.network(part) for part in parts])

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of face crops; `lengths` [B] in crops. Only real crops are computed, padding costs nothing."""
        mask = step_mask(inputs.shape[1], lengths)
        features = inputs.new_zeros(*mask.shape, self.dim)
        if mask.any():
            seen = self.dropout(self._seen(inputs[mask].float()))
            features = features.masked_scatter(mask[..., None], seen.to(features.dtype))
        return EncoderOutput(features, lengths, self.frame_rate)


class XceptionDetector(nn.Module):
    """The whole published detector: the encoder, and a linear layer with two outputs (real, fake)."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        self.encoder = Xception(size)
        self.output = nn.Linear(DIM, 2)

    def scores(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """[B, N] log-odds of fake against real for face crops [B, N, 3, H, W] in 0..1; 0 beyond `lengths` [B]."""
        out = self.encoder(inputs, lengths)
        logits = self.output(out.features)
        return (logits[..., 1] - logits[..., 0]) * step_mask(inputs.shape[1], lengths)

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, path)

    @classmethod
    def load(cls, path: Path, size: int = SIZE) -> XceptionDetector:
        """The detector in evaluation mode, from a file that `save` wrote; ModelError where that is not one."""
        try:
            values = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read as safetensors ({error})") from None
        detector = cls(size)
        _fill(detector, values, path)
        return detector.eval()

    @classmethod
    def from_published(cls, path: Path, size: int = SIZE) -> XceptionDetector:
        """The detector in evaluation mode, from a checkpoint (.pth) with names as in FaceForensics++.

        FaceForensics++ itself hands out whole pickled modules, which are refused: their code would run. Whoever
        trusts one writes `model.state_dict()` into a file of its own. ModelError for that, and for other networks.
        """
        values = _translated(read_weights(path, REMEDY))
        if "output.weight" not in values:
            raise ModelError(f"{path}: has no layer with two outputs, real and fake; {REMEDY}")
        detector = cls(size)
        _fill(detector, values, path)
        return detector.eval()


def read_encoder(encoder: Xception, path: Path) -> None:
    """Put a published checkpoint's weights into `encoder`, as a start for training; its output layer is left out.

    For weights from ImageNet (`xception-b5690688.pth`) and for detectors alike. ModelError for other files.
    """
    values = _translated(read_weights(path, REMEDY))
    inner = {
        name.removeprefix("encoder."): value for name, value in values.items() if name.startswith("encoder.")
    }
    _fill(encoder, inner, path)


REMEDY = "give the state_dict of an Xception, such as xception-b5690688.pth"
WRAPPERS = re.compile(r"^(module\.)?(model\.|backbone\.)?")
"""What data-parallel training, FaceForensics++ and DeepfakeBench put before every name."""
OUTPUTS = re.compile(r"^(fc|last_linear)\.(\d+\.)?")
"""The output layer; with dropout it is the second of a sequence."""


def _translated(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published checkpoint's weights under the names and in the shapes that they have here."""
    values = {}
    for name, value in published.items():
        bare = WRAPPERS.sub("", name)
        if OUTPUTS.match(bare):
            if value.shape[0] == 2:  # else ImageNet's classes
                values[OUTPUTS.sub("output.", bare)] = value
            continue
        bare = re.sub(r"^block(\d+)\.", lambda found: f"blocks.{int(found[1]) - 1}.", bare)
        bare = re.sub(r"^((?:conv[34]|blocks\.\d+\.rep\.\d+))\.conv1\.", r"\1.depthwise.", bare)
        bare = bare.replace(".rep.", ".layers.").replace(".skipbn.", ".skip_norm.")
        if bare.endswith("pointwise.weight") and value.ndim == 2:  # the file for ImageNet leaves 1x1 out
            value = value[..., None, None]
        values[f"encoder.network.{bare}"] = value
    return values


def _fill(module: nn.Module, values: Mapping[str, Tensor], path: Path) -> None:
    """Load `values`, which must be all that there are but for counters of batches, which old files lack."""
    state = module.state_dict()
    counters = {name: value for name, value in state.items() if name.endswith("num_batches_tracked")}
    try:
        module.load_state_dict({**counters, **values})
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: the weights do not fit Xception ({problem}); {REMEDY}") from None
