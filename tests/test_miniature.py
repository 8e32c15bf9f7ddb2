"""The combination that avdetect was asked for, from end to end, on miniature trees of the official layouts:

DeepFakeDetection and ASVspoof 2019 indexed, joined, trained on with tiny networks, used on a clip, and scored.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import backbones
import numpy as np
import pytest
import soundfile
from clips import make_video
from commands import VOICE, call
from workshop import SAMPLE, SIDE, prepare_here

from avdetect.manifest import read_manifest
from avdetect.types import Claim

ACTORS = {"train": ("01", "02"), "val": ("05", "15"), "test": ("07", "16")}
"""On these sides of the split dfd-20-4-4."""
SPEECH = {"train": ("train", "trn", "T"), "val": ("dev", "trl", "D"), "test": ("eval", "trl", "E")}
"""Of each side, what ASVspoof calls it in folders, in protocols and in names of clips."""


def make_dfd(root: Path) -> None:
    """A real clip of each actor and a fake of each side's two: all one face, of which nothing can be learnt."""
    with av.open(str(SAMPLE)) as source:
        images = [frame.reformat(SIDE, SIDE, "rgb24").to_ndarray() for frame in source.decode(video=0)]
    clip = make_video(root.parent / "face.mp4", 2.0, size=(SIDE, SIDE), images=images[:50])
    for target, other in ACTORS.values():
        names = [f"original_sequences/actors/c23/videos/{one}__kitchen_pan.mp4" for one in (target, other)]
        name = f"{target}_{other}__kitchen_pan__ABCDEFG{target[1]}.mp4"
        for path in (*names, f"manipulated_sequences/DeepFakeDetection/c23/videos/{name}"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, root / path)


def make_la(root: Path) -> Path:
    """Two bona fide and two spoofed clips on each side, with protocols; gives the one of the eval side."""
    sound, rate = soundfile.read(VOICE, dtype="float32")
    for number, (folder, ending, letter) in enumerate(SPEECH.values()):
        clips = root / f"ASVspoof2019_LA_{folder}" / "flac"
        clips.mkdir(parents=True)
        lines = []
        for clip in range(4):
            name = f"LA_{letter}_100000{clip}"
            spoofed = clip % 2 == 1
            piece = sound[(number + clip) * rate // 3 :][: 2 * rate]
            soundfile.write(clips / f"{name}.flac", piece * (0.5 if spoofed else 1.0), rate)
            lines.append(f"LA_00{number}{clip // 2} {name} - {'A01 spoof' if spoofed else '- bonafide'}\n")
        table = root / "ASVspoof2019_LA_cm_protocols" / f"ASVspoof2019.LA.cm.{folder}.{ending}.txt"
        table.parent.mkdir(exist_ok=True)
        table.write_text("".join(lines))
    return table


def stream(name: str, encoder: str, options: dict[str, Any]) -> str:
    """An override that gives a stream an encoder."""
    return f"model.streams.{name}={inline({'encoder': encoder, 'options': options})}"


def inline(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {inline(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


ENCODERS = {
    "small": (
        stream("voice", "spectral_resnet", {"widths": [4, 8], "dim": 8, "bands": 32}),
        stream("face", "face_cnn", {"widths": [4, 8], "size": 48}),
    ),
    "backbones": (
        stream("voice", "speech_backbone", backbones.options(backbones.SPEECH["wav2vec2"], "lora")),
        stream("face", "image_backbone", backbones.options(backbones.IMAGE["vit"], "layernorm")),
    ),
}
TINY = (
    "model.dim=16",
    *("mix.voice=2", "mix.face=2", "mix.crops=2", "mix.shortest=1.0", "mix.longest=1.5"),
    *("training.steps=3", "training.evaluate_every=3", "training.workers=0", "training.bf16=false"),
)


@pytest.mark.parametrize("kind", ENCODERS)
def test_dfd_and_asvspoof_2019_from_their_folders_to_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if not SAMPLE.is_file():
        pytest.skip(f"no sample clip at {SAMPLE} (examples/make_sample.py makes it)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("avdetect.train.prepare_all", prepare_here)
    make_dfd(tmp_path / "DFD")
    protocol = make_la(tmp_path / "LA")
    assert call("data", "index", "dfd", "DFD", "--out", "dfd.csv").code == 0
    assert call("data", "index", "asvspoof2019-la", "LA", "--out", "la.csv").code == 0
    pairing = ("--per-cell", "1", "--probe", "0", "--render", "joint", "--out", "joint.csv")
    paired = call("data", "pair", "dfd.csv", "la.csv", *pairing)
    assert paired.code == 0, paired.err
    rows = read_manifest(Path("joint.csv"))
    labels = {(row.split, row.label[Claim.FACE_MANIPULATION], row.label[Claim.VOICE_CLONING]) for row in rows}
    assert len(labels) == len(rows) == 12  # all four cells on each of three sides
    assert {row.label[Claim.LIP_SYNC_MISMATCH] for row in rows} == {None}

    trained = call(
        "train", "dfd-asvspoof2019", "data.manifest=joint.csv", "training.out=runs", *TINY, *ENCODERS[kind]
    )
    assert trained.code == 0, trained.err
    model = Path(trained.out.strip())
    assert model == Path("runs/dfd-asvspoof2019/model")
    facts = json.loads((model.parent / "data.json").read_text())
    assert facts["rows"]["train"]["face_manipulation=1"] == facts["rows"]["train"]["voice_cloning=1"] == 2
    log = json.loads((model.parent / "metrics.json").read_text())
    validated = next(row for row in log if "eval_score" in row)
    assert {"eval_face_manipulation_auc", "eval_voice_cloning_auc"} <= validated.keys()

    clips = sorted(Path("LA/ASVspoof2019_LA_eval/flac").iterdir())
    joint = next(row.path for row in rows if row.split == "test")
    told = call(joint, *clips, "--model", model, "--json", "-")
    assert told.verdicts[0]["claims"]["face_manipulation"]["status"] == "assessed"
    scores = {Path(v["path"]).stem: v["claims"]["voice_cloning"]["score"] for v in told.verdicts[1:]}
    assert len(scores) == 4 and np.isfinite(list(scores.values())).all()

    Path("scores.txt").write_text("".join(f"{name} {score}\n" for name, score in scores.items()))
    arguments = ("--protocol", "asvspoof2019-la", "--cm-protocol", protocol, "--higher", "fake")
    measured = call(
        "evaluate", "scores", "--scores", "scores.txt", *arguments, "--rounds", "0", "--json", "-"
    )
    assert measured.code == 0, measured.err
    table = json.loads(measured.out)
    assert {name: table[name] for name in ("trials", "bonafide", "spoof", "missing")} == {
        "trials": 4,
        "bonafide": 2,
        "spoof": 2,
        "missing": 0,
    }
