"""`avdetect models`: what is there, what a file holds, and published weights as the start of a training."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call
from safetensors.torch import load_file, save_file

from avdetect import hub
from avdetect.config import build
from avdetect.encoders.aasist import AasistDetector
from avdetect.errors import ConfigError, ModelError
from avdetect.hub import WEIGHTS, read_config
from avdetect.inspection import describe, fits, parts_of, shapes_of
from avdetect.recipe import TrainConfig
from avdetect.starts import read_start, start
from avdetect.train import build_model


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AASIST-L with weights of chance, as `AasistDetector.save` writes it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("light") / "light.safetensors"
    AasistDetector("aasist_l").save(path)
    return path


def model_of(stream: dict[str, Any]) -> Any:
    """The model of a recipe with one stream for voices."""
    model = {"streams": {"voice": stream}, "claims": {"voice_cloning": ["voice"]}, "dim": 16}
    return build_model(
        build(TrainConfig, {"name": "x", "data": {"manifest": "m.csv"}, "model": model}, "test")
    )


def test_shipped_and_trained_models_are_listed(tmp_path: Path) -> None:
    model_of({"encoder": "tdnn"}).save_pretrained(tmp_path / "x" / "model")
    (tmp_path / "x" / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, tmp_path / "x" / "checkpoints" / "checkpoint-1" / "model.safetensors")
    told = call("models", "list", tmp_path)
    assert told.code == 0
    assert (
        f"base {read_config(WEIGHTS / 'base')['version']}" in told.out
        and str(tmp_path / "x" / "model") in told.out
    )
    assert "checkpoint-1" not in told.out
    listed = json.loads(call("models", "list", tmp_path, "--json", "-").out)
    assert [model["name"] for model in listed] == [*hub.names(), "x"]
    assert call("models", "list", tmp_path / "nowhere").err == [
        f"avdetect: {tmp_path / 'nowhere'}: no such folder; give one in which trained models lie"
    ]


def test_a_model_tells_its_parts_claims_and_readings() -> None:
    told = describe(hub.find("base"))
    model = hub.load("base")
    assert told["numbers"] == sum(value.numel() for value in model.state_dict().values())
    assert told["parts"]["lcnn"] == sum(
        value.numel()
        for name, value in model.state_dict().items()
        if name.startswith(("encoders.lcnn.", "heads.lcnn."))
    )
    claim = told["claims"]["voice_cloning"]
    assert (
        claim["streams"] == model.config.claims["voice_cloning"]
        and claim["calibration"] == model.config.calibration["voice_cloning"]
    )
    assert 0 < claim["thresholds"]["low"] < claim["thresholds"]["high"] < 1 and claim["n_real"] > 100
    text = call("models", "inspect", "base").out
    assert told["sha256"] in text and "manipulated from" in text and "spectral_efficientnet" in text


def test_a_bare_file_tells_its_tensors_and_whose_they_are(light: Path, tmp_path: Path) -> None:
    told = call("models", "inspect", light)
    assert told.code == 0
    assert "encoder.network.position  float32 1x23x24" in told.out
    tensors = load_file(light)
    assert "fits      aasist_l" in told.out and fits(light, tensors) == ["aasist_l"]
    other = {"weight": torch.zeros(2, 3)}
    save_file(other, tmp_path / "other.safetensors")
    assert fits(tmp_path / "other.safetensors", other) == []
    assert shapes_of(light) == {name: tuple(value.shape) for name, value in tensors.items()}


def test_parts_are_streams_with_their_heads_and_what_is_shared() -> None:
    shapes = {
        "encoders.voice.a": (2, 3),
        "heads.voice.b": (4,),
        "sharpness": (3,),
        "synchrony.head.weight": (5, 1),
    }
    assert parts_of(shapes) == {"voice": 10, "sharpness": 3, "synchrony": 5}


def test_published_weights_are_converted_and_begin_a_training(shared_dir: Path, tmp_path: Path) -> None:
    published = shared_dir / "weights" / "aasist" / "AASIST-L.pth"
    if not published.is_file():
        pytest.skip(f"no published checkpoint at {published}")
    out = tmp_path / "light"
    assert call("models", "convert", published, out, "--encoder", "aasist_l").out == f"{out}\n"
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((out / "config.json").read_text())["origin"]["file"] == "AASIST-L.pth"
    assert "an encoder's weights: aasist_l" in call("models", "inspect", out).out
    assert "aasist_l (published)" in call("models", "inspect", published).out
    own = AasistDetector.from_published(published).encoder.state_dict()
    for weights in (out, published):
        model = model_of({"encoder": "aasist_l", "options": {"hop": 1.0}, "weights": str(weights)})
        learnt = model.encoders["voice"].state_dict()
        assert all(torch.equal(learnt[name], own[name]) for name in own)
        assert model.config.starts["voice"]["file"] == weights.name
        assert "weights" not in model.config.streams["voice"]
    model.save_pretrained(tmp_path / "model")
    (published_no_more := tmp_path / "light").rename(tmp_path / "moved")
    assert not published_no_more.exists()
    assert "starts" in json.loads((tmp_path / "model" / "config.json").read_text())
    hub.load(tmp_path / "model")  # needs nothing of where it began

    again = call("models", "convert", published, tmp_path / "moved", "--encoder", "aasist_l")
    assert again.code == 1 and again.err == [
        f"avdetect: {tmp_path / 'moved'}: is there already; give a new folder"
    ]
    wrong = call("models", "convert", published, tmp_path / "full", "--encoder", "aasist")
    assert wrong.code == 1 and "holds the weights of aasist_l, not of aasist" in wrong.err[0]
    assert not (tmp_path / "full").exists()


def test_a_stream_of_a_trained_model_begins_another(tmp_path: Path) -> None:
    first = model_of({"encoder": "tdnn"})
    first.save_pretrained(tmp_path / "first")
    second = model_of({"encoder": "tdnn", "weights": str(tmp_path / "first")})
    state = first.encoders["voice"].state_dict()
    assert all(
        torch.equal(value, state[name]) for name, value in second.encoders["voice"].state_dict().items()
    )


def test_weights_that_do_not_fit_are_refused(light: Path, tmp_path: Path) -> None:
    module = AasistDetector("aasist").encoder
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ModelError, match=r"light\.safetensors: \d+ of the weights do not fit .* 'aasist'"):
        start(module, "aasist", light)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    (tmp_path / "x.pth").write_bytes(b"weights of something")
    with pytest.raises(ModelError, match="no published checkpoints are known for the encoder 'tdnn'"):
        read_start(tmp_path / "x.pth", "tdnn")
    with pytest.raises(
        ConfigError, match=r"\[model\.streams\.voice\]: unknown setting 'wieghts'; .*'weights'"
    ):
        model_of({"encoder": "tdnn", "wieghts": "x"})
    model_of({"encoder": "tdnn"}).save_pretrained(tmp_path / "tdnn")
    with pytest.raises(ModelError, match="has 0 streams of the encoder 'aasist', one is needed"):
        read_start(tmp_path / "tdnn", "aasist")


class Hostile:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("command", ["inspect", "convert", "train"])
def test_a_hostile_pickle_is_refused_and_never_run(command: str, tmp_path: Path) -> None:
    trace = tmp_path / "was_here"
    torch.save({"pos_S": Hostile(trace)}, tmp_path / "new.pth")
    (tmp_path / "old.bin").write_bytes(pickle.dumps(Hostile(trace)))
    torch.save(Hostile(trace), tmp_path / "object.pt")
    for name in ("new.pth", "old.bin", "object.pt"):
        path = tmp_path / name
        if command == "train":
            with pytest.raises(ModelError) as error:
                model_of({"encoder": "aasist", "weights": str(path)})
            said = [str(error.value)]
        else:
            rest = [tmp_path / "out", "--encoder", "xception"] if command == "convert" else []
            told = call("models", command, path, *rest)
            assert told.code == 1 and not told.out
            said = told.err
        assert len(said) == 1 and name in said[0] and "cannot be read as a file of weights alone" in said[0]
    assert not trace.exists() and not (tmp_path / "out").exists()
    pickle.loads(pickle.dumps(Hostile(tmp_path / "proof")))
    assert (tmp_path / "proof").exists(), "the trap works"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"PK\x03\x04 cut off", "cannot be read"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "cannot be read"),
    ],
)
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_a_file_that_holds_no_weights_is_refused_in_one_line(
    name: str, content: bytes, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for arguments in (("inspect", path), ("convert", path, tmp_path / "out", "--encoder", "aasist")):
        told = call("models", *arguments)
        assert told.code == 1 and len(told.err) == 1 and told.err[0].startswith(f"avdetect: {path}: ")
        assert problem in told.err[0]


def test_a_truncated_checkpoint_and_a_folder_are_refused(light: Path, tmp_path: Path) -> None:
    data = light.read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    torch.save(load_file(light), tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    for name in ("half.safetensors", "half.pth"):
        told = call("models", "inspect", tmp_path / name)
        assert told.code == 1 and name in told.err[0] and "cannot be read" in told.err[0]
    told = call("models", "convert", tmp_path, tmp_path / "out", "--encoder", "aasist")
    assert told.err == [f"avdetect: {tmp_path}: is a folder; give the file of weights in it"]
    assert "config.json is missing" in call("models", "inspect", tmp_path).err[0]
    assert "no model 'nothing'" in call("models", "inspect", "nothing").err[0]
