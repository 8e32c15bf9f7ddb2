"""Image networks of transformers on face crops: ViT, CLIP's visual tower, DINOv2, ConvNeXtV2, EfficientNet, ..."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from avdetect.encoders.backbone import Backbone, BackboneOptions, BackEnd, written_out
from avdetect.encoders.masking import step_mask
from avdetect.encoders.pretrained import image_preprocessing, input_of
from avdetect.errors import ConfigError, ModelError
from avdetect.types import CROP_EVERY, FRAME_RATE, EncoderOutput

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class ImageOptions(BackboneOptions):
    """`size`: pixels of a side that the network sees; `mean`, `std`: of red, green and blue in 0..1.

    None is what the checkpoint says of its own preparation; without a checkpoint, the network's own size and 0.5.
    """

    size: int | None = None
    mean: Colour | None = None
    std: Colour | None = None


def _unseen(config: Any) -> str | None:
    if hasattr(config, "num_frames"):
        return "sees many frames at once; the encoder for it is video_backbone"
    return None if input_of(config) == "pixel_values" else "is no image network"


class ImageBackbone(nn.Module):
    """Face crops [B, N, 3, H, W] in 0..1 -> EncoderOutput [B, N, dim], one step per crop."""

    modality = "face"

    def __init__(self, options: ImageOptions) -> None:
        super().__init__()
        self.backbone = Backbone(options, _unseen, use_mask_token=False)
        network, config = self.backbone.network, self.backbone.config
        options = prepared_as(options, config)
        self.dim, self.options = options.dim, written_out(options, config)
        self.prepare = Preparation(options)
        self.back_end = BackEnd(2 * width_of(config), options)
        self.class_token = any(
            n.endswith(("cls_token", "class_embedding")) for n, _ in network.named_parameters()
        )
        # Positions are learnt for one size: those that can, stretch them to another.
        stretches = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        self.extra = (
            {"interpolate_pos_encoding": True} if stretches and options.size != config.image_size else {}
        )

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of face crops; `lengths` [B] in crops. Only real crops are computed."""
        mask = step_mask(inputs.shape[1], lengths)
        pictures = self.prepare(inputs[mask]).to(self.backbone.dtype)
        features = inputs.new_zeros(*mask.shape, self.dim)
        if len(pictures):
            found = self.back_end(self._summary(self.backbone(pixel_values=pictures, **self.extra)))
            features = features.masked_scatter(mask[..., None], found.to(features.dtype))
        return EncoderOutput(features, lengths, FRAME_RATE / CROP_EVERY)

    def _summary(self, output: Any) -> Tensor:
        """[M, 2 width]: the network's own summary of a picture beside what all its places hold."""
        places: Tensor = output.last_hidden_state
        if places.ndim == 4:  # a convolutional network's map [M, width, h, w]; its summary is the mean
            return torch.cat([output.pooler_output.flatten(1), places.amax((2, 3))], 1)
        own = getattr(output, "pooler_output", None)
        if own is None:
            own = places[:, 0] if self.class_token else places.amax(1)
        return torch.cat([own, places.mean(1)], 1)


class Preparation:
    """Pictures [M, 3, H, W] in 0..1 -> [M, 3, size, size] with the colours that the network was trained on."""

    def __init__(self, options: ImageOptions) -> None:
        assert options.size is not None and options.mean is not None and options.std is not None
        self.size, self.mean, self.std = options.size, options.mean, options.std

    def __call__(self, pictures: Tensor) -> Tensor:
        """In single precision."""
        pictures = pictures.float()
        if len(pictures) and pictures.shape[-2:] != (self.size, self.size):
            pictures = nn.functional.interpolate(
                pictures, (self.size, self.size), mode="bilinear", antialias=True
            )
        mean, std = (pictures.new_tensor(value)[:, None, None] for value in (self.mean, self.std))
        return (pictures - mean) / std


def prepared_as(options: ImageOptions, config: Any) -> ImageOptions:
    """The options with size, mean and std filled in from the checkpoint; ModelError where it doesn't say them."""
    said: Mapping[str, Any] = {}
    if options.pretrained is not None:
        said = image_preprocessing(options.pretrained, options.revision)
    mean, std = options.mean or said.get("image_mean"), options.std or said.get("image_std")
    if options.pretrained is not None and (mean is None or std is None):
        raise ModelError(
            f"{options.pretrained}: no preprocessor_config.json says the mean and std of its pictures; "
            "give the options mean = [r, g, b] and std = [r, g, b]"
        )
    size = options.size
    if size is None:
        size = _side(said) or getattr(config, "image_size", None)
    if not isinstance(size, int) or size < 1:
        raise ConfigError(f"size = {size!r}: say how many pixels of a side the network sees")
    return replace(options, size=size, mean=_colour("mean", mean), std=_colour("std", std))


def _colour(name: str, value: Any) -> Colour:
    value = (0.5, 0.5, 0.5) if value is None else value
    numbers = isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value)
    if not numbers or len(value) != 3 or (name == "std" and min(value) <= 0):
        raise ConfigError(f"{name} = {value!r} is not three numbers for red, green and blue")
    return (float(value[0]), float(value[1]), float(value[2]))


def _side(said: Mapping[str, Any]) -> int | None:
    """Pixels of a side from a preprocessor's "crop_size" or "size", which have had several forms."""
    for name in ("crop_size", "size"):
        value = said.get(name)
        if isinstance(value, Mapping):
            value = value.get("height", value.get("shortest_edge"))
        if isinstance(value, int):
            return value
    return None


def width_of(config: Any) -> int:
    """Features of the network's last layer."""
    for name in ("hidden_sizes", "hidden_size", "hidden_dim"):
        value = getattr(config, name, None)
        if value is not None:
            return int(value[-1] if isinstance(value, list | tuple) else value)
    raise ConfigError(f"a network of type '{config.model_type}' doesn't say how wide its features are")
