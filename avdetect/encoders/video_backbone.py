"""Video networks of transformers on face crops: VideoMAE and ViViT, which see several crops of a track at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avdetect.encoders.backbone import Backbone, BackEnd, written_out
from avdetect.encoders.image_backbone import ImageOptions, Preparation, prepared_as, width_of
from avdetect.encoders.masking import step_mask
from avdetect.errors import ConfigError
from avdetect.types import CROP_EVERY, FRAME_RATE, EncoderOutput

KINDS = ("videomae", "vivit")


def _unseen(config: Any) -> str | None:
    return None if config.model_type in KINDS else f"is no video network; there are {', '.join(KINDS)}"


class VideoBackbone(nn.Module):
    """Face crops [B, N, 3, H, W] in 0..1 -> EncoderOutput [B, N, dim], one step per crop.

    A row is cut into stretches of as many crops as the network takes; in the last one the last crop is held. A crop's
    features are the mean over the places of its moment.
    """

    modality = "face"

    def __init__(self, options: ImageOptions) -> None:
        super().__init__()
        self.backbone = Backbone(options, _unseen)
        config = self.backbone.config
        options = prepared_as(options, config)
        if options.size != config.image_size:
            raise ConfigError(
                f"size = {options.size}: the network's positions are learnt for {config.image_size}"
            )
        self.dim, self.options = options.dim, written_out(options, config)
        self.prepare = Preparation(options)
        self.frames: int = config.num_frames
        tubelet = config.tubelet_size  # ViViT gives its height and width too
        self.moments = self.frames // (tubelet if isinstance(tubelet, int) else tubelet[0])
        self.back_end = BackEnd(width_of(config), options)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of face crops; `lengths` [B] in crops. Stretches without a real crop are not computed."""
        crops = inputs.shape[1]
        stretches = -(-crops // self.frames)
        place = torch.arange(stretches * self.frames, device=inputs.device)[None]
        place = torch.minimum(place, (lengths[:, None] - 1).clamp_min(0)).unflatten(
            1, (stretches, self.frames)
        )
        real = step_mask(stretches, torch.div(lengths + self.frames - 1, self.frames, rounding_mode="floor"))
        rows = torch.nonzero(real)[:, 0]
        features = inputs.new_zeros(*place.shape, self.dim)
        if len(rows):
            found = self._clips(inputs[rows[:, None], place[real]])
            features[real] = found.to(features.dtype)
        features = features.flatten(1, 2)[:, :crops]
        mask = step_mask(crops, lengths)[..., None].to(features.dtype)
        return EncoderOutput(features * mask, lengths, FRAME_RATE / CROP_EVERY)

    def _clips(self, clips: Tensor) -> Tensor:
        """[M, frames, 3, H, W] -> [M, frames, dim]."""
        pictures = self.prepare(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        tokens = self.backbone(pixel_values=pictures.to(self.backbone.dtype)).last_hidden_state
        places = tokens.shape[1] // self.moments  # a class token stands before all places
        moments = tokens[:, -places * self.moments :].unflatten(1, (self.moments, places)).mean(2)
        features: Tensor = self.back_end(moments.repeat_interleave(self.frames // self.moments, 1))
        return features
