"""RawNet2: its filter bank and scaling worked by hand, how rows become steps, and the paper's own size."""

from __future__ import annotations

import pytest
import torch

from avdetect.encoders.raw_res import FILTERS, POOL, TAPS, sinc_filters
from avdetect.encoders.rawnet2 import CHANNELS, STEP, FeatureMapScaling, FilterBank, RawNet2
from avdetect.errors import ConfigError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_paper_s_sizes_give_the_paper_s_number_of_weights() -> None:
    with torch.device("meta"):
        network = RawNet2(narrow=128, wide=512, hidden=1024, layers=3, dim=1024)
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(25.43e6, rel=0.02)  # theirs has 128 filters and an output layer


@pytest.mark.parametrize("samples", [3, 23, 24, 1000, 2187])
def test_bands_are_the_largest_outputs_of_the_filters(samples: int) -> None:
    waveform = noise(2, samples)
    filters = sinc_filters()[:CHANNELS, None]
    heard = torch.nn.functional.conv1d(waveform[:, None], filters, padding=TAPS // 2).abs()
    expected = torch.nn.functional.max_pool1d(heard, POOL)
    torch.testing.assert_close(FilterBank(20).eval()(waveform), expected, rtol=1e-4, atol=1e-6)


def test_training_silences_neighbouring_filters() -> None:
    torch.manual_seed(3)
    bands, waveform = FilterBank(FILTERS - 1).train(), noise(1, 4000)
    silent = torch.stack([(bands(waveform)[0] == 0).all(1) for _ in range(8)])
    assert silent.any() and not silent.all()
    for row in silent.int():
        inside = torch.cat([row.new_zeros(1), row, row.new_zeros(1)]).diff()
        assert inside.abs().sum() <= 2  # one stretch
    assert not (bands.eval()(waveform) == 0).all(2).any()


def test_scaling_reads_the_mean_of_valid_steps_alone() -> None:
    torch.manual_seed(0)
    scaling = FeatureMapScaling(3)
    mask = torch.tensor([[[1.0, 1.0, 0.0]]])
    x = noise(1, 3, 3) * mask
    weight = torch.sigmoid(scaling.weigh(x[..., :2].mean(2)))[..., None]
    expected = (x[..., :2] + 1) * weight
    out = scaling(x, mask)
    torch.testing.assert_close(out[..., :2], expected)
    assert not out[..., 2].any()


@pytest.mark.parametrize(
    ("samples", "steps"), [(1, 1), (STEP - 1, 1), (2 * STEP - 1, 1), (2 * STEP, 2), (64_600, 29)]
)
def test_a_step_is_a_whole_stretch_of_samples(samples: int, steps: int) -> None:
    out = RawNet2(narrow=4, wide=4, hidden=4, dim=4).eval()(noise(1, samples), torch.tensor([samples]))
    assert out.lengths.tolist() == [steps]
    assert out.features.shape[1] >= steps and out.frame_rate == pytest.approx(7.316, abs=1e-3)


def test_a_step_remembers_what_was_before_it() -> None:
    torch.manual_seed(0)
    encoder = RawNet2().eval()
    state = encoder.recurrent(noise(1, 6, 96))[0]
    changed = noise(1, 6, 96)
    changed[:, 0] += 1
    after = encoder.recurrent(changed)[0]
    assert ((state - after).abs().amax(2) > 1e-4).all()


@pytest.mark.parametrize("masked", [-1, FILTERS + 1])
def test_more_masked_filters_than_there_are_are_refused(masked: int) -> None:
    with pytest.raises(ConfigError, match=f"masked = {masked}"):
        RawNet2(masked=masked)
