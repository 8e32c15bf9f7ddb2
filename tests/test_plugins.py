"""An encoder and a data set from outside the package: found by name in every process once they are installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from commands import ROOT, VOICE, environment

from avdetect.datasets import load
from avdetect.encoders import build_encoder
from avdetect.errors import ConfigError, DatasetError
from avdetect.plugins import DATASETS, ENCODERS, announced


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example's package."""
    folder = tmp_path_factory.mktemp("own")
    source = shutil.copytree(ROOT / "examples" / "own", folder / "source")  # builds leave files behind
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", folder / "site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, source], check=True, capture_output=True
    )
    return folder / "site"


def avdetect(site: Path, *arguments: str | Path, cwd: Path) -> str:
    """What `python -m avdetect` says where the package is installed."""
    paths = os.pathsep.join([str(ROOT), str(site)])
    done = subprocess.run(
        [sys.executable, "-m", "avdetect", *arguments],
        env=environment() | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=280,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_encoder_and_data_set_train_and_detect(site: Path, tmp_path: Path) -> None:
    sound, rate = soundfile.read(VOICE, dtype="float32")
    for number in range(8):
        split, kind = ("train", "val")[number % 2], ("real", "cloned")[number // 2 % 2]
        path = tmp_path / "lab" / split / kind / f"anna{split}_{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        piece = sound[number * rate // 2 :][: 2 * rate]
        soundfile.write(path, piece, rate)
    told = avdetect(site, "data", "index", "own-lab", "lab", "--out", "lab.csv", cwd=tmp_path)
    assert "8 clips of own-lab" in told
    settings = (
        *(
            "data.manifest=lab.csv",
            "name=own",
            'model.streams.voice={encoder="own_bands", options={bands=8}}',
        ),
        *(
            "mix.voice=4",
            "mix.shortest=1.0",
            "mix.longest=1.5",
            "training.steps=2",
            "training.evaluate_every=2",
        ),
    )
    model = avdetect(site, "train", "audio-only", *settings, "training.workers=1", cwd=tmp_path).strip()
    assert (
        json.loads((tmp_path / model / "config.json").read_text())["streams"]["voice"]["encoder"]
        == "own_bands"
    )
    verdict = json.loads(avdetect(site, VOICE, "--model", model, "--json", "-", cwd=tmp_path))
    assert 0 <= verdict["claims"]["voice_cloning"]["score"] <= 1


def announce(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed in `folder` and announces `text`."""
    facts = folder / "others-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(folder)


def test_names_of_others_are_offered_and_what_cannot_be_imported_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "others_broken.py").write_text("raise RuntimeError('no\\nlicence')\n")
    announce(
        tmp_path,
        f"[{ENCODERS}]\nbroken = others_broken:X\ngone = others_gone:X\n[{DATASETS}]\nlist = builtins:list\n",
        monkeypatch,
    )
    assert set(announced(ENCODERS)) >= {"broken", "gone"}
    with pytest.raises(ConfigError, match="no encoder is called 'brokn'; did you mean 'broken'"):
        build_encoder("brokn")
    reason = r"'broken' of the installed package others .* others_broken:X \(RuntimeError: no licence\); mend"
    with pytest.raises(ConfigError, match=reason):
        build_encoder("broken")
    with pytest.raises(ConfigError, match=r"'gone' of the installed package others .*No module named"):
        build_encoder("gone")
    with pytest.raises(DatasetError, match=r"'list' is no avdetect\.survey\.Dataset but a type"):
        load("list")


def test_a_name_that_is_an_import_path_is_none() -> None:
    """A model's config cannot have code imported that its user did not install as a part of avdetect."""
    with pytest.raises(ConfigError, match="no encoder is called 'subprocess:Popen'"):
        build_encoder("subprocess:Popen")
