"""Splits: the same bytes from the same rule, and nobody on two sides, proven from file names alone."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from avdetect.datasets import index
from avdetect.errors import DatasetError
from avdetect.protocols import DFD_SPLITS, Protocol, dfd_protocol, ranked, read_protocol, write_protocols
from avdetect.survey import Survey
from avdetect.types import Item, Label, Split

FOLDER = Path(__file__).parents[1] / "data" / "protocols"
SCENE = "exit_phone_room"


@pytest.fixture(scope="module")
def every_dfd_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DFD tree in which every actor is put onto every other once."""
    root = tmp_path_factory.mktemp("dfd")
    real = root / "original_sequences/actors/c23/videos"
    fake = root / "manipulated_sequences/DeepFakeDetection/c23/videos"
    real.mkdir(parents=True)
    fake.mkdir(parents=True)
    actors = [f"{number:02}" for number in range(1, 29)]
    for actor in actors:
        (real / f"{actor}__{SCENE}.mp4").write_bytes(b"x")
    for target, source in itertools.permutations(actors, 2):
        (fake / f"{target}_{source}__{SCENE}__YVGY8LOK.mp4").write_bytes(b"x")
    return root


def _people(path: Path) -> set[str]:
    """Actors that a file's name states, read without the reader."""
    return set(re.findall(r"\d\d", path.name.split("__")[0]))


@pytest.mark.parametrize("name", sorted(DFD_SPLITS))
def test_dfd_actors_are_on_one_side_by_file_names_alone(name: str, every_dfd_pair: Path) -> None:
    items = read_protocol(FOLDER / f"{name}.json").apply(index("dfd", every_dfd_pair)[0])
    sides = {
        split: set().union(*(_people(item.path) for item in items if item.split is split)) for split in Split
    }
    for one, other in itertools.combinations(sides.values(), 2):
        assert not one & other
    assert tuple(len(side) for side in sides.values()) == DFD_SPLITS[name]
    for split, size in zip(Split, DFD_SPLITS[name], strict=True):
        fakes = sum(item.split is split and bool(item.label.face_manipulation) for item in items)
        assert fakes == size * (size - 1)


def test_counts_that_remain_are_reported() -> None:
    counts = dfd_protocol("dfd-20-4-4").counts
    assert [counts[side]["fake, about"] for side in ("train", "val", "test")] == [1542, 49, 49]
    assert dfd_protocol("dfd-20-8").counts["test"]["fake, about"] == 227


def test_both_dfd_splits_train_on_the_same_actors() -> None:
    first, second = (dfd_protocol(name).members for name in ("dfd-20-4-4", "dfd-20-8"))
    assert first[Split.TRAIN] == second[Split.TRAIN]
    assert set(first[Split.VAL]) | set(first[Split.TEST]) == set(second[Split.TEST])


def test_dfd_files_are_made_again_to_the_same_bytes(tmp_path: Path) -> None:
    for path in write_protocols(tmp_path):
        assert path.read_bytes() == (FOLDER / path.name).read_bytes()


def test_every_file_is_made_again_to_the_same_bytes(tmp_path: Path, shared_dir: Path) -> None:
    made = write_protocols(tmp_path, shared_dir / "fixtures")
    assert sorted(path.name for path in made) == sorted(path.name for path in FOLDER.glob("*.json"))
    for path in made:
        assert path.read_bytes() == (FOLDER / path.name).read_bytes()


def test_the_order_of_people_is_that_of_a_stated_hash() -> None:
    # printf avdetect/dfd/01 | sha256sum, and so on
    assert ranked(["01", "02", "03"], "dfd") == ["01", "03", "02"] == ranked(["03", "02", "01"], "dfd")


def test_faceforensics_is_the_official_split() -> None:
    protocol = read_protocol(FOLDER / "faceforensics.json")
    assert [len(protocol.members[split]) for split in Split] == [720, 140, 140]
    assert [len(protocol.pairs[split]) for split in Split] == [360, 70, 70]
    assert protocol.pairs[Split.TRAIN][0] == ("071", "054")
    assert sorted(set().union(*protocol.members.values())) == [f"ffpp-{number:03}" for number in range(1000)]


def test_asvspoof_is_the_official_split_and_its_counts() -> None:
    protocol = read_protocol(FOLDER / "asvspoof2019-la.json")
    counts = protocol.counts
    assert [counts[side]["trials"] for side in ("train", "val", "test")] == [25_380, 24_844, 71_237]
    assert [counts[side]["bona fide"] for side in ("train", "val", "test")] == [2_580, 2_548, 7_355]
    assert {counts["test"][f"A{number:02}"] for number in range(7, 20)} == {4_914}


def test_fakeavceleb_people_are_on_one_side_by_file_names_alone(shared_dir: Path, tmp_path: Path) -> None:
    protocol = read_protocol(FOLDER / "fakeavceleb-350-50-100.json")
    side_of = {person[-7:]: side for side, people in protocol.members.items() for person in people}
    assert len(side_of) == 500
    lines = (shared_dir / "fixtures/fakeavceleb/favc_test_split.csv").read_text().splitlines()[1::7]
    paths = [tmp_path / line.split(",")[2] for line in lines]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    kept = [item for item in protocol.apply(index("fakeavceleb", tmp_path)[0]) if item.split is not None]
    assert len(kept) > 100
    for item in kept:
        named = set(re.findall(r"id\d{5}", str(item.path.relative_to(tmp_path))))
        assert {side_of[person] for person in named} == {item.split}


def test_an_item_with_people_on_two_sides_is_in_no_split() -> None:
    protocol = Protocol("p", "d", "r", {Split.TRAIN: ("a", "b"), Split.TEST: ("c",)})
    items = [Item(Path("x"), Label(), identities=people) for people in (("a", "b"), ("a", "c"), ("z",), ())]
    assert [item.split for item in protocol.apply(items)] == [Split.TRAIN, None, None, None]


def test_a_person_on_two_sides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two places"):
        Protocol("p", "d", "r", {Split.TRAIN: ("a",), Split.TEST: ("a",)})
    (tmp_path / "p.json").write_text(
        json.dumps({"name": "p", "dataset": "d", "rule": "r", "train": ["a", "a"]})
    )
    with pytest.raises(DatasetError, match="not a protocol"):
        read_protocol(tmp_path / "p.json")


def test_official_lists_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"the official list train\.json is not there"):
        write_protocols(tmp_path / "out", tmp_path)
    assert Survey(tmp_path).files == ()
