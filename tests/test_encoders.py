"""One contract for every encoder in the table: a line in ENCODERS is all that a newcomer needs to be tested.

One that can't be built without options has them in `backbones.ENCODERS`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import backbones
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avdetect.batch import LIPS
from avdetect.encoders import ENCODERS, build_encoder
from avdetect.encoders.lcnn import LinearSpectrum
from avdetect.errors import ConfigError
from avdetect.types import FRAME_RATE, SAMPLE_RATE, EncoderOutput

UNITS = {"audio": SAMPLE_RATE, "mouth": FRAME_RATE, "mouth_crops": FRAME_RATE, "face": 5}
"""Input units per second of each modality."""
SHAPES = {"audio": (), "mouth": (2 * len(LIPS),), "mouth_crops": (64, 64), "face": (3, 64, 64)}
SHORTEST = {"audio": SAMPLE_RATE // FRAME_RATE, "mouth": 1, "mouth_crops": 1, "face": 1}
"""The least that `batch.collate` ever gives: one frame of the video grid."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    f"{name}: {variant}" if variant else name: (name, options)
    for name in sorted(ENCODERS)
    for variant, options in backbones.ENCODERS.get(name, {"": {}}).items()
}

Built = tuple[nn.Module, str]


def rows(modality: str, *seconds: float, seed: int = 0) -> list[Tensor]:
    """One random row per length, with a level and an offset as real inputs have them."""
    source = torch.Generator().manual_seed(seed)
    shape = SHAPES[modality]
    counts = [round(length * UNITS[modality]) for length in seconds]
    if modality == "audio":
        return [0.1 * torch.randn(count, generator=source) for count in counts]
    if modality == "face":  # shapes that are larger than a pixel
        coarse = [torch.rand(count, 3, 8, 8, generator=source) for count in counts]
        large = [nn.functional.interpolate(crops, shape[1:], mode="bilinear") for crops in coarse]
        return [(255 * crops).round() / 255 for crops in large]  # as bytes
    return [torch.rand(count, *shape, generator=source) for count in counts]


def batch(parts: list[Tensor], extra: int = 0, fill: float = 0.0) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(part) for part in parts])
    out = torch.full((len(parts), int(lengths.max()) + extra, *parts[0].shape[1:]), fill)
    for row, part in enumerate(parts):
        out[row, : len(part)] = part
    return out, lengths


@pytest.fixture(scope="module", params=CASES)
def built(request: pytest.FixtureRequest) -> Iterator[Built]:
    """An encoder as after some training: its normalisation layers have seen data, and no weights are all zero."""
    torch.manual_seed(0)
    name, options = CASES[request.param]
    encoder = build_encoder(name, **options)
    assert isinstance(encoder, nn.Module)
    for parameter in encoder.parameters():
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    for module in encoder.train().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        encoder(*batch(rows(encoder.modality, 2.0, 1.6, seed=9)))
    yield encoder.eval(), encoder.modality


def run(built: Built, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
    with torch.no_grad():
        output = built[0](inputs, lengths)
    assert isinstance(output, EncoderOutput)
    return output


def test_gives_features_at_its_own_frame_rate(built: Built) -> None:
    output = run(built, *batch(rows(built[1], 4.0, 2.0)))
    assert output.features.shape[0] == 2 and output.features.shape[2] == built[0].dim
    assert output.features.dtype is torch.float32
    for length, seconds in zip(output.lengths.tolist(), (4.0, 2.0), strict=True):
        assert length == pytest.approx(seconds * output.frame_rate, abs=1)
    assert int(output.lengths.max()) <= output.features.shape[1]


def test_steps_beyond_a_row_are_zero_and_steps_within_are_not(built: Built) -> None:
    output = run(built, *batch(rows(built[1], 4.0, 2.0)))
    for features, length in zip(output.features, output.lengths, strict=True):
        assert not features[length:].any()
        assert features[:length].abs().sum(-1).gt(0).all()


def test_padding_and_other_rows_change_nothing(built: Built) -> None:
    short, long, other = rows(built[1], 2.0, 4.0, 3.0)
    alone = run(built, *batch([short]))
    among = run(built, *batch([long, short, other], extra=UNITS[built[1]]))
    length = int(alone.lengths[0])
    assert int(among.lengths[1]) == length
    torch.testing.assert_close(among.features[1, :length], alone.features[0, :length], rtol=1e-4, atol=1e-5)


def test_what_stands_in_the_padding_is_not_read(built: Built) -> None:
    parts = rows(built[1], 2.0, 4.0)
    clean, dirty = (run(built, *batch(parts, fill=fill)) for fill in (0.0, 0.7))
    torch.testing.assert_close(clean.features, dirty.features, rtol=1e-4, atol=1e-5)


def test_is_deterministic_in_evaluation_and_leaves_its_input_alone(built: Built) -> None:
    inputs, lengths = batch(rows(built[1], 2.0))
    kept = inputs.clone()
    assert torch.equal(run(built, inputs, lengths).features, run(built, inputs, lengths).features)
    assert torch.equal(inputs, kept)


def test_reads_its_input(built: Built) -> None:
    one, other = (run(built, *batch(rows(built[1], 2.0, seed=seed))).features for seed in (1, 2))
    assert (one - other).abs().max() > 1e-3


def test_comes_back_bit_equal_from_safetensors(
    built: Built, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    encoder, modality = built
    save_file(
        {name: value.contiguous() for name, value in encoder.state_dict().items()}, tmp_path / "e.safetensors"
    )
    name, options = CASES[request.node.callspec.params["built"]]
    again = build_encoder(name, **options)
    assert isinstance(again, nn.Module)
    again.load_state_dict(load_file(tmp_path / "e.safetensors"))
    inputs = batch(rows(modality, 2.0, 1.0))
    assert torch.equal(run((again.eval(), modality), *inputs).features, run(built, *inputs).features)


def test_runs_under_bfloat16_autocast(built: Built) -> None:
    inputs = batch(rows(built[1], 2.0))
    exact = run(built, *inputs).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = run(built, *inputs).features.float()
    assert rough.isfinite().all()
    assert (rough - exact).norm() < 0.1 * exact.norm()


def test_runs_in_bfloat16(built: Built, request: pytest.FixtureRequest) -> None:
    # to a network that knows photographs all noise looks alike: rounded weights move it more than noise from noise
    allowed = 0.4 if "efficientnet_lite" in request.node.callspec.params["built"] else 0.1
    encoder, modality = copy.deepcopy(built[0]).to(torch.bfloat16), built[1]
    inputs, lengths = batch(rows(modality, 2.0))
    exact = run(built, inputs, lengths).features
    rough = run((encoder, modality), inputs, lengths)  # inputs keep their precision
    assert rough.features.isfinite().all()
    assert (rough.features.float() - exact).norm() < allowed * exact.norm()


@pytest.mark.parametrize("still", [0.0, 0.5])
def test_constant_and_shortest_inputs_give_finite_features_and_gradients(built: Built, still: float) -> None:
    encoder, modality = built
    for count in (SHORTEST[modality], 2 * UNITS[modality]):
        inputs = torch.full((1, count, *SHAPES[modality]), still)
        output = encoder(inputs, torch.tensor([count]))
        assert output.features.isfinite().all()
        encoder.zero_grad()
        output.features.square().sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
        encoder.zero_grad()


def test_its_weights_learn_and_only_those_that_are_to(built: Built) -> None:
    encoder, modality = built
    encoder.zero_grad()
    encoder(*batch(rows(modality, 2.0))).features.square().sum().backward()
    reached = {name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
    encoder.zero_grad()
    assert reached == {name for name, p in encoder.named_parameters() if p.requires_grad}


def test_an_unknown_encoder_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="no encoder is called 'lip_moton'; did you mean 'lip_motion'"):
        build_encoder("lip_moton")


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_an_unknown_option_is_refused_with_the_encoder_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"encoder '{name}': .*wdth"):
        build_encoder(name, wdth=3)


def test_what_is_heard_in_pauses_is_no_evidence_on_the_voice() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("spectral_resnet")
    assert isinstance(encoder, nn.Module)
    source = torch.Generator().manual_seed(1)
    speech = torch.randn(1, SAMPLE_RATE, generator=source)
    hum = 0.01 * torch.randn(1, SAMPLE_RATE, generator=source)
    lengths = torch.tensor([2 * SAMPLE_RATE])
    encoder.eval()
    with torch.no_grad():
        clean = encoder(torch.cat([speech, torch.zeros_like(hum)], 1), lengths).features
        noisy = encoder(torch.cat([speech, hum], 1), lengths).features
        other = encoder(torch.cat([speech, 0.5 * speech], 1), lengths).features
    torch.testing.assert_close(noisy, clean, rtol=1e-3, atol=1e-4)
    assert (other - clean).abs().max() > 1e-2


def test_filters_made_for_a_verdict_can_be_trained_with() -> None:
    from avdetect.encoders import spectra

    spectra.linear_bands.cache_clear()
    spectra.hann.cache_clear()
    encoder = build_encoder("tdnn")
    assert isinstance(encoder, nn.Module)
    sound, lengths = torch.randn(1, SAMPLE_RATE, requires_grad=True), torch.tensor([SAMPLE_RATE])
    with torch.inference_mode():
        encoder(sound.detach(), lengths)
    encoder(sound, lengths).features.sum().backward()
    assert sound.grad is not None and sound.grad.isfinite().all()


def tone(hertz: float, seconds: float = 1.0) -> Tensor:
    return torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)[None]


@pytest.mark.parametrize(("window", "apart"), [(400, False), (1024, True)])
def test_a_long_window_tells_harmonics_apart(window: int, apart: bool) -> None:
    torch.manual_seed(0)
    spectrum = LinearSpectrum(160, window=window, high=3400.0)
    sound = torch.cat([tone(1000) + tone(1080), torch.randn(1, SAMPLE_RATE)], 1)  # the mean is taken off
    energy, frames = spectrum(sound, torch.tensor([2 * SAMPLE_RATE]))
    assert energy.shape[1] == 160 and int(frames) == 200
    first, between, second = (energy[0, round((hertz - 60) / 20.75) - 1, 50] for hertz in (1000, 1040, 1080))
    assert bool(min(first, second) > between + 1) is apart


def test_what_lies_above_the_last_band_is_not_heard() -> None:
    torch.manual_seed(0)
    spectrum, lengths = LinearSpectrum(96, window=1024, high=3400.0), torch.tensor([2 * SAMPLE_RATE])
    speech = rows("audio", 2.0)[0][None]
    silence = torch.zeros(1, SAMPLE_RATE)
    high, heard = (spectrum(speech + torch.cat([silence, tone(f)], 1), lengths)[0] for f in (6000, 900))
    plain = spectrum(speech, lengths)[0]
    torch.testing.assert_close(high[..., 5:90], plain[..., 5:90], rtol=0, atol=0.02)
    assert (heard - plain).abs().max() > 1


@pytest.mark.parametrize("wrong", [{"window": 100}, {"window": 10_000}, {"high": 50.0}, {"high": 8000.0}])
def test_a_spectrum_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values()))).rstrip("0").rstrip(".")):
        build_encoder("lcnn", **wrong)
