"""AASIST: the published detectors' own numbers, the faster road against the plain one, and how rows become chunks."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from avdetect.encoders import raw_res
from avdetect.encoders.aasist import CHUNK, LIGHT, Aasist, AasistDetector
from avdetect.encoders.graph_attention import GraphPool, MixedGraphAttention
from avdetect.encoders.raw_res import BANDS, FILTERS, POOL, TAPS, ResidualBlock, SincBands, sinc_filters
from avdetect.errors import ConfigError, ModelError
from avdetect.types import SAMPLE_RATE

NAMES = {"aasist": "AASIST", "aasist_l": "AASIST-L"}


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> Path:
    folder = shared_dir / "weights" / "aasist"
    if not (folder / "expected.json").is_file():
        pytest.skip(f"no published AASIST checkpoints at {folder}")
    return folder


@pytest.fixture(scope="module")
def light() -> AasistDetector:
    """A small detector with weights of chance, and norms that have seen something."""
    torch.manual_seed(0)
    detector = AasistDetector("aasist_l")
    for module in detector.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_()
    return detector.eval()


def recording(name: str, corpus: Path) -> Tensor:
    """The first chunk of a recording that expected.json names."""
    if name == "sine_440":
        samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(CHUNK) / SAMPLE_RATE)
    elif name == "noise_seed0":
        samples = 0.1 * np.random.default_rng(0).standard_normal(CHUNK)
    else:
        samples, _ = soundfile.read(corpus / name, dtype="float32", frames=CHUNK)
    return torch.from_numpy(samples.astype(np.float32))


def noise(seconds: float, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(round(seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_published_weights_give_the_published_logits(name: str, published: Path, corpus: Path) -> None:
    expected = json.loads((published / "expected.json").read_text())["models"][NAMES[name]]
    detector = AasistDetector.from_published(published / f"{NAMES[name]}.pth")
    assert detector.name == name
    assert len(expected) == 10
    for recorded, logits in expected.items():
        samples = recording(recorded, corpus)[None]  # shorter ones are repeated by the encoder
        with torch.no_grad():
            out = detector(samples, torch.tensor([samples.shape[1]]))
        assert out.features[0].tolist() == [pytest.approx(logits, abs=1e-4)], recorded


def test_published_detectors_score_fakes_above_real_speech(published: Path, corpus: Path) -> None:
    detector = AasistDetector.from_published(published / "AASIST.pth")
    names = ("audio_fake/espnet-tts-sample_0002.flac", "audio_real/generspeech_0002.flac")
    fake, real = (recording(name, corpus)[None] for name in names)
    with torch.no_grad():
        high, low = (float(detector.scores(x, torch.tensor([x.shape[1]]))[0, 0]) for x in (fake, real))
    assert high == pytest.approx(2.60798 + 4.13214, abs=1e-3)
    assert low == pytest.approx(-7.21584 - 4.59671, abs=1e-3)


def test_published_weights_come_without_subnormal_numbers(published: Path) -> None:
    raw = torch.load(published / "AASIST.pth", map_location="cpu", weights_only=True)
    tiny = torch.finfo(torch.float32).tiny

    def subnormal(values: Tensor) -> int:
        return int(((values.abs() < tiny) & (values != 0)).sum())

    assert sum(subnormal(value) for value in raw.values()) > 1000
    detector = AasistDetector.from_published(published / "AASIST.pth")
    assert sum(subnormal(value) for value in detector.state_dict().values()) == 0


def test_a_checkpoint_goes_through_safetensors_unchanged(light: AasistDetector, tmp_path: Path) -> None:
    light.save(tmp_path / "light.safetensors")
    again = AasistDetector.load(tmp_path / "light.safetensors")
    inputs, lengths = noise(2)[None], torch.tensor([2 * SAMPLE_RATE])
    with torch.no_grad():
        assert torch.equal(again(inputs, lengths).features, light(inputs, lengths).features)
    assert again.name == "aasist_l" and not again.training


class Hostile:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_a_hostile_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "was_here"
    torch.save({"pos_S": Hostile(trace)}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Hostile(trace)))
    for name in ("new.pth", "old.pth"):
        with pytest.raises(
            ModelError, match=rf"{name}: cannot be read as a file of weights alone .*; download"
        ):
            AasistDetector.from_published(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.pth: .*AASIST-L\.pth") as refusal:
        AasistDetector.from_published(path)
    assert "\n" not in str(refusal.value)


def test_weights_of_another_network_are_refused(light: AasistDetector, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(OrderedDict(weight=torch.zeros(3)), path)
    with pytest.raises(ModelError, match=r"other\.pth: these are not the weights of AASIST"):
        AasistDetector.from_published(path)
    torch.save({"pos_S": torch.tensor(1.0)}, path)
    with pytest.raises(ModelError, match=r"other\.pth: these are not the weights of AASIST"):
        AasistDetector.from_published(path)
    for content in (
        [torch.zeros(3)],
        {1: torch.zeros(3)},
        {"pos_S": 3},
        {"pos_S": torch.zeros(3).to_sparse()},
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=r"other\.pth: holds no table of weights"):
            AasistDetector.from_published(path)
    torch.save(OrderedDict(pos_S=torch.zeros(1, 23, 64)), path)
    with pytest.raises(ModelError, match=r"other\.pth: the weights do not fit aasist"):
        AasistDetector.from_published(path)
    with pytest.raises(ModelError, match=r"missing\.safetensors: cannot be read"):
        AasistDetector.load(tmp_path / "missing.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"x\.safetensors: cannot be read"):
        AasistDetector.load(tmp_path / "x.safetensors")


def test_filters_pass_their_own_band() -> None:
    response = torch.fft.rfft(sinc_filters(), 1024).abs()
    assert response.shape == (FILTERS, 513)
    top = response.argmax(1) * SAMPLE_RATE / 1024
    mel = 2595 * torch.log10(1 + torch.tensor(8000.0) / 700) * (torch.arange(FILTERS) + 0.5) / FILTERS
    middle = 700 * (10 ** (mel / 2595) - 1)
    assert (top[20:] - middle[20:]).abs().max() < 130  # lower bands are narrower than 129 taps can tell
    assert torch.all(top.diff() >= 0)


@pytest.mark.parametrize("samples", [131, 200, 1000, 3001])
def test_pooled_bands_are_the_largest_outputs_of_the_filters(samples: int) -> None:
    waveform = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    outputs = torch.nn.functional.conv1d(waveform[:, None], sinc_filters()[:, None])
    expected = torch.nn.functional.max_pool2d(outputs.abs()[:, None], POOL).transpose(2, 3)
    bands = SincBands().eval()(waveform)
    assert bands.shape == (2, 1, (samples - TAPS + 1) // POOL, BANDS)
    torch.testing.assert_close(bands, expected, rtol=1e-5, atol=1e-5)


def test_filters_made_in_inference_mode_can_be_trained_with() -> None:
    raw_res.filter_bank.cache_clear()
    with torch.inference_mode():
        SincBands()(torch.randn(1, 200))
    waveform = torch.randn(1, 200, requires_grad=True)
    SincBands().eval()(waveform).sum().backward()
    assert waveform.grad is not None and waveform.grad.any()


def test_training_silences_neighbouring_filters() -> None:
    torch.manual_seed(3)
    bands = SincBands(masked=69).train()
    waveform = torch.randn(1, 4000)
    silent = torch.stack([(bands(waveform)[0, 0] == 0).all(0) for _ in range(8)])
    assert silent.any() and not silent.all()
    for row in silent.int():
        assert row.diff().abs().sum() <= 2  # one stretch
    assert not (bands.eval()(waveform) == 0).any()


@pytest.mark.parametrize("inputs", [1, 8, 16])
@pytest.mark.parametrize("steps", [3, 11, 12, 13, 14, 100])
def test_the_road_without_gradients_gives_the_same(
    inputs: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_res, "STRETCH", 12)
    torch.manual_seed(0)
    block = ResidualBlock(inputs, 16).eval()
    assert block.norm.running_mean is not None and block.norm.running_var is not None
    block.norm.running_mean.normal_()
    block.norm.running_var.uniform_(0.5, 2)
    block.norm.weight.data.normal_()
    x = torch.randn(2, inputs, steps, 7)
    kept = x.clone()
    plain = block(x)
    with torch.no_grad():
        fast = block(x)
    assert fast.shape == plain.shape == (2, 16, steps // 3, 7)
    torch.testing.assert_close(fast, plain.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(x, kept)


@torch.no_grad()
def test_nodes_attend_by_what_kind_they_are() -> None:
    torch.manual_seed(0)
    layer = MixedGraphAttention(4, 3, temperature=1.0).eval()
    temporal, spectral, master = torch.randn(2, 5, 4), torch.randn(2, 2, 4), torch.randn(2, 1, 4)
    x = torch.cat([layer.temporal(temporal), layer.spectral(spectral)], 1)
    scores = layer._scores(x, 5)
    for first, second, weight in (
        (0, 4, layer.both_temporal),
        (5, 6, layer.both_spectral),
        (6, 1, layer.mixed),
    ):
        worked = torch.tanh(layer.compare(x[0, first] * x[0, second])) @ weight
        assert float(scores[0, first, second]) == pytest.approx(float(worked), abs=1e-6)
        assert float(scores[0, second, first]) == pytest.approx(float(worked), abs=1e-6)
    shapes = [tuple(part.shape) for part in layer(temporal, spectral, master)]
    assert shapes == [(2, 5, 3), (2, 2, 3), (2, 1, 3)]


def test_pooling_keeps_the_nodes_that_score_best() -> None:
    pool = GraphPool(1, 0.5).eval()
    pool.score.weight.data.fill_(1.0)
    pool.score.bias.data.zero_()
    nodes = torch.tensor([[[-2.0], [3.0], [0.5], [1.0], [-1.0]]])
    expected = [3.0 * torch.sigmoid(torch.tensor(3.0)), torch.sigmoid(torch.tensor(1.0))]
    assert pool(nodes)[0, :, 0].tolist() == pytest.approx([float(value) for value in expected])
    assert pool(nodes[:, :1]).shape == (1, 1, 1)


def test_short_rows_are_repeated_and_long_ones_heard_to_their_end(light: AasistDetector) -> None:
    encoder = light.encoder
    short, long = noise(1.5), noise(6, seed=1)
    rows = torch.zeros(2, len(long))
    rows[0, : len(short)], rows[1] = short, long
    with torch.no_grad():
        out = encoder(rows, torch.tensor([len(short), len(long)]))
        repeated = encoder.network(short.repeat(3)[None, :CHUNK])
        parts = encoder.network(torch.stack([long[:CHUNK], long[-CHUNK:]]))
    assert out.lengths.tolist() == [1, 2]
    torch.testing.assert_close(out.features[0, :1], repeated, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.features[1], parts, rtol=1e-4, atol=1e-5)
    assert not out.features[0, 1:].any()


def test_a_smaller_hop_gives_more_steps_each_from_the_chunk_around_it() -> None:
    torch.manual_seed(0)
    encoder = Aasist(LIGHT, hop=1.0).eval()
    waveform = noise(6)
    with torch.no_grad():
        out = encoder(waveform[None], torch.tensor([len(waveform)]))
        middle = encoder.network(waveform[None, 40_000 - CHUNK // 2 : 40_000 + CHUNK // 2])
    assert (out.lengths.tolist(), out.frame_rate) == ([6], 1.0)
    torch.testing.assert_close(out.features[0, 2:3], middle, rtol=1e-4, atol=1e-5)
    assert torch.equal(out.features[0, 0], out.features[0, 1])  # both hear the first chunk
    assert not torch.equal(out.features[0, 1], out.features[0, 2])


@pytest.mark.parametrize("hop", [0.0, -1.0, 5.0])
def test_a_hop_that_leaves_gaps_is_refused(hop: float) -> None:
    with pytest.raises(ConfigError, match=f"hop = {hop}"):
        Aasist(LIGHT, hop=hop)


def test_an_unknown_detector_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="no published detector is called 'aasist_xl'; there are aasist, aasist_l"
    ):
        AasistDetector("aasist_xl")
