"""Small autoencoders of faces of the project's own: what a decoder makes of a sixteenth of a picture's numbers.

The decoders end as those of face generators do: in nearest-neighbour up-sampling, transposed convolutions or sub-pixel
shuffles (Odena et al., "Deconvolution and checkerboard artifacts", 2016), behind one encoder of 8 x 8 pixels to a
place, as latent diffusion has it (Rombach et al., 2022). `examples/train_face_decoders.py` trains them; what it wrote
lies in `decoders/`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from avdetect import stored

WEIGHTS = Path(__file__).parent / "decoders"
"""Where the trained autoencoders lie, one file each."""
STRIDE = 8
"""Pixels of a side of what one place of the code stands for."""
ENDINGS = ("nearest", "transposed", "shuffled")
"""How a decoder makes pictures larger."""


class _Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(nn.functional.silu(self.first(nn.functional.silu(x))))
        return x + y


def _larger(inputs: int, outputs: int, ending: str) -> nn.Module:
    """Twice the sides: [B, inputs, H, W] -> [B, outputs, 2 H, 2 W]."""
    if ending == "nearest":
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1))
    if ending == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
    return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2))


class Decoder(nn.Module):
    """Code [B, channels, H / 8, W / 8] -> picture [B, 3, H, W], about 0..1."""

    def __init__(self, channels: int, width: int, ending: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 2 * width, 3, padding=1),
            _Residual(2 * width),
            _larger(2 * width, 2 * width, ending),
            _Residual(2 * width),
            _larger(2 * width, width, ending),
            _Residual(width),
            nn.SiLU(),
            _larger(width, 3, ending),
        )

    def forward(self, code: Tensor) -> Tensor:
        """Pictures of codes."""
        picture: Tensor = self.layers(code) + 0.5
        return picture


class FaceCoder(nn.Module):
    """An encoder, and a decoder for each of ENDINGS: [B, 3, H, W] in 0..1 -> the same shape; sides divide by STRIDE."""

    def __init__(self, channels: int = 12, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, width, 3, padding=1),
            _Residual(width),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            _Residual(2 * width),
            nn.Conv2d(2 * width, 2 * width, 4, 2, 1),
            _Residual(2 * width),
            nn.Conv2d(2 * width, channels, 3, padding=1),
            nn.Tanh(),
        )
        self.decoders = nn.ModuleDict({ending: Decoder(channels, width, ending) for ending in ENDINGS})

    def forward(self, pictures: Tensor, ending: str, noise: float = 0.0) -> Tensor:
        """Pictures as one decoder makes them; `noise` is added to a code in -1..1."""
        code = self.encoder(pictures - 0.5)
        decoded: Tensor = self.decoders[ending](code + noise * torch.randn_like(code) if noise else code)
        return decoded


def save(model: FaceCoder, settings: dict[str, int], path: Path) -> None:
    """Write an autoencoder's weights in half precision, with what `load` needs to build it."""
    stored.save(model, {"settings": json.dumps(settings)}, path)


@cache
def load(path: Path) -> FaceCoder:
    """The autoencoder that `save` wrote; ModelError where the file is none."""
    return stored.load(path, lambda about: FaceCoder(**json.loads(about["settings"])), "an autoencoder")


def names() -> list[str]:
    """The autoencoders that ship with the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
