"""The frequency stream: its transforms against scipy and by hand, and what it must and must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor
from torch.nn import functional

from avdetect.encoders.frequency import RINGS, SIDE, Frequency, block_dct, residual_filters

CPU = torch.device("cpu")


def faces(count: int = 2, side: int = 64, seed: int = 0) -> Tensor:
    """[count, 3, side, side] in 0.1..0.9: something coarse, and grain."""
    dice = torch.Generator().manual_seed(seed)
    coarse = functional.interpolate(torch.rand(count, 3, 8, 8, generator=dice), (side, side), mode="bilinear")
    grain = 0.02 * torch.randn(count, 3, side, side, generator=dice)
    return (0.1 + 0.8 * coarse + grain).clamp(0.1, 0.9)


def test_blocks_are_transformed_as_scipy_does_it() -> None:
    filters, rings = block_dct(CPU)
    block = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    ours = torch.einsum("kyx,yx->k", filters[:, 0], torch.from_numpy(block))
    expected = dctn(block, norm="ortho")
    np.testing.assert_allclose(ours.reshape(SIDE, SIDE), expected, atol=1e-5)
    energy = rings @ ours.square()
    assert energy[0] == pytest.approx((expected[0, 1] ** 2 + expected[1, 0] ** 2) / 2, rel=1e-4)
    assert energy[-1] == pytest.approx(expected[7, 7] ** 2, rel=1e-4)
    assert len(energy) == RINGS


def test_residuals_are_blind_to_slopes() -> None:
    slope = torch.arange(9.0)[:, None] + 2 * torch.arange(9.0)[None]
    seen = functional.conv2d(slope[None, None], residual_filters(CPU))
    assert seen.shape == (1, 3, 5, 5)
    assert seen.abs().max() < 1e-4


def test_brightness_is_no_evidence() -> None:
    torch.manual_seed(0)
    encoder, crops = Frequency().eval(), (faces()[None] * 200).round()
    with torch.no_grad():
        one, other = (encoder(x / 255, torch.tensor([2])).features for x in (crops, crops + 40))
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_half_precision_loses_nothing_of_the_picture() -> None:
    levels = torch.arange(256.0)[None, None, None].expand(1, 3, 8, 256)
    exact, rough = (Frequency()._traces(x) for x in (levels / 255, (levels / 255).bfloat16()))
    assert torch.equal(exact[0], rough[0]) and torch.equal(exact[1], rough[1])


def test_up_sampling_empties_the_upper_rings() -> None:
    crops = faces()
    small = functional.interpolate(crops, scale_factor=0.5, mode="bilinear", antialias=True)
    again = functional.interpolate(small, scale_factor=2, mode="bicubic").clamp(0, 1)
    (_, own), (_, made) = (Frequency()._traces(x) for x in (crops, again))
    gap = (own - made).mean((0, 2, 3))
    assert gap[8:].min() > 0.2 and gap[0].abs() < 0.1


@pytest.mark.parametrize("side", [30, 61, 160])
def test_crops_of_any_size_are_taken_as_they_are(side: int) -> None:
    torch.manual_seed(0)
    encoder = Frequency()
    residuals, energies = encoder._traces(faces(side=side))
    blocks = -(-side // SIDE)
    assert residuals.shape[-2:] == (blocks * SIDE, blocks * SIDE) and energies.shape[-2:] == (blocks, blocks)
    assert residuals.abs().max() <= 1
    out = encoder.eval()(faces(side=side)[None], torch.tensor([2]))
    assert out.features.shape == (1, 2, encoder.dim) and out.features.isfinite().all()
