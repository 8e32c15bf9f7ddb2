"""Model folders that users hand in: loaded bit-equal, or refused in one line, and never unpickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from avdetect import hub
from avdetect.errors import ModelError
from avdetect.fusion import FusionConfig, FusionModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model's folder."""
    torch.manual_seed(0)
    streams = {"voice": {"encoder": "lcnn", "options": {"width": 8, "dim": 16, "bands": 32}}}
    config = FusionConfig(
        streams=streams, claims={"voice_cloning": ["voice"]}, dim=16, name="tiny", version="7"
    )
    target = tmp_path / "tiny"
    FusionModel(config).save_pretrained(target)
    return target


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def refused(folder: Path | str) -> str:
    with pytest.raises(ModelError) as error:
        hub.load(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    return str(error.value)


def test_a_folder_gives_the_model_that_was_saved(folder: Path) -> None:
    model = hub.load(folder)
    saved = load_file(folder / "model.safetensors")
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in saved.items())
    assert not model.training
    assert all(
        value.isfinite().all()
        for value in model(waveform=torch.randn(1, 32000), waveform_lengths=torch.tensor([32000])).clip_logits
    )


def test_the_model_tells_its_name_version_and_hash(folder: Path) -> None:
    import hashlib

    info = hub.info(folder)
    assert (info.name, info.version) == ("tiny", "7")
    assert info.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_an_unknown_name_is_told_with_the_names_there_are() -> None:
    assert "no model 'no-such-model'" in refused("no-such-model")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK")
    assert "no model" in refused(path)


def test_a_folder_without_settings_is_no_model(tmp_path: Path) -> None:
    assert "config.json is missing" in refused(tmp_path)


@pytest.mark.parametrize("text", ["{", "", "[1, 2]", "\x00\x01"])
def test_broken_settings_are_told(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json" in refused(folder)


def test_a_model_of_another_kind_is_told(folder: Path) -> None:
    edit(folder, model_type="bert")
    assert "a model of type 'bert', not 'avdetect'" in refused(folder)


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path, name: str) -> None:
    trap = tmp_path / "trapped"
    (folder / "model.safetensors").unlink()
    torch.save({"weights": _Hostile(trap)}, folder / name)
    pickle.loads(pickle.dumps(_Hostile(tmp_path / "proof"))).close()
    assert (tmp_path / "proof").exists(), "the trap works"
    message = refused(folder)
    assert not trap.exists()
    assert "model.safetensors" in message or "the weights cannot be loaded" in message


def test_damaged_weights_are_told(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"\xff" * 4096, data[8:]):
        weights.write_bytes(broken)
        assert str(folder) in refused(folder)


def test_weights_that_lack_a_tensor_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    lost = next(iter(sorted(weights)))
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert lost in refused(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["sharpness"] = torch.zeros(5)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "cannot be loaded" in refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"streams": {"voice": {"encoder": "no_such"}}},
        {"streams": {"voice": {}}},
        {"streams": ["voice"]},
        {"streams": {"voice": "lcnn"}},
        {"claims": ["voice_cloning"]},
        {"claims": {"nonsense": ["voice"]}},
        {"dim": "wide"},
        {"dim": -3},
        {"heads": 7},
    ],
    ids=str,
)
def test_settings_that_describe_no_model_are_told(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, **changes)
    assert str(folder) in refused(folder)


def test_every_shipped_model_loads() -> None:
    for name in hub.names():
        model = hub.load(name)
        assert hub.info(hub.find(name)).name == name
        assert all(p.isfinite().all() for p in model.parameters())
