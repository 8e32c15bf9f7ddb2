"""Manifests and named sets, alone and together, with the splits that their protocols say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avdetect.datasets.dfd import ACTORS
from avdetect.errors import ConfigError, DatasetError
from avdetect.protocols import dfd_protocol
from avdetect.targets import Target, names, read_items, read_targets
from avdetect.types import Split


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


@pytest.fixture
def ffpp(tmp_path: Path) -> Path:
    """Two real videos and two fakes in two compressions; the pair is in test."""
    for level in ("c23", "c40"):
        for video in ("071", "054"):
            touch(tmp_path / f"original_sequences/youtube/{level}/videos/{video}.mp4")
        for pair in ("071_054", "054_071"):
            touch(tmp_path / f"manipulated_sequences/Deepfakes/{level}/videos/{pair}.mp4")
    touch(tmp_path / "original_sequences/youtube/c23/videos/000.mp4")
    for split, pairs in (("train", [["000", "001"]]), ("val", []), ("test", [["071", "054"]])):
        (tmp_path / f"{split}.json").write_text(json.dumps(pairs))
    return tmp_path


def test_words_are_read_in_any_number_and_order() -> None:
    found = read_targets(["a/m.csv", "dfd-20-8-c40", "/d", "b.parquet", "lav-df", "./l.mp4"])
    assert found == [
        Target(Path("a/m.csv")),
        Target(Path("/d"), "dfd-20-8", "c40"),
        Target(Path("b.parquet")),
        Target(Path("l.mp4"), "lav-df"),
    ]
    assert str(found[1]) == "dfd-20-8-c40 /d" and "asvspoof2019-la" in names()


@pytest.mark.parametrize("words", [["faceforensics"], ["lavdf", "/x"], ["lav-df-c23", "/x"], ["m.txt"]])
def test_words_that_name_nothing_are_told(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=words[0]):
        read_targets(words)


def test_a_named_set_is_its_official_test_split(ffpp: Path) -> None:
    items = read_items(Target(ffpp, "faceforensics"))
    assert len(items) == 8 and {item.split for item in items} == {Split.TEST}
    assert {item.extra["dataset"] for item in items} == {"faceforensics c23", "faceforensics c40"}
    (only,) = {item.extra["compression"] for item in read_items(Target(ffpp, "faceforensics", "c40"))}
    assert only == "c40"
    assert [item.path.name for item in read_items(Target(ffpp, "faceforensics"), "train")] == ["000.mp4"]
    assert len(read_items(Target(ffpp, "faceforensics"), "all")) == 9
    with pytest.raises(DatasetError, match="holds no raw clips of faceforensics"):
        read_items(Target(ffpp, "faceforensics", "raw"))


def test_dfd_is_split_by_both_actors(tmp_path: Path) -> None:
    side = {actor.removeprefix("dfd-") for actor in dfd_protocol("dfd-20-4-4").members[Split.TEST]}
    train = next(actor for actor in ACTORS if actor not in side)
    first, second = sorted(side)[:2]
    for actor in (first, train):
        touch(tmp_path / f"original_sequences/actors/c23/videos/{actor}__exit_phone_room.mp4")
    for pair in (f"{first}_{second}", f"{first}_{train}"):
        touch(
            tmp_path
            / f"manipulated_sequences/DeepFakeDetection/c23/videos/{pair}__exit_phone_room__YVGY8LOK.mp4"
        )
    found = [item.path.name for item in read_items(Target(tmp_path, "dfd", "c23"))]
    assert found == [f"{first}_{second}__exit_phone_room__YVGY8LOK.mp4", f"{first}__exit_phone_room.mp4"]


def test_a_set_without_labels_for_test_is_its_val_split(tmp_path: Path) -> None:
    touch(tmp_path / "val/id00001/abc/00001/real.mp4")
    touch(tmp_path / "train/id00002/abc/00001/real.mp4")
    assert [item.split for item in read_items(Target(tmp_path, "av-deepfake1m"))] == [Split.VAL]


def test_a_manifest_is_taken_whole_and_named_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("file,voice_cloning,split\na.wav,1,train\nb.wav,0,val\n")
    items = read_items(Target(tmp_path / "manifest.csv"))
    assert len(items) == 2 and {item.extra["dataset"] for item in items} == {tmp_path.name}
    assert [item.path.name for item in read_items(Target(tmp_path / "manifest.csv"), "val")] == ["b.wav"]
