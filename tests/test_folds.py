"""Leave-one-source-group-out: how clips are dealt, and scores written and read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from avdetect.errors import ConfigError
from avdetect.folds import deal, names_of, read_scores, write_scores
from avdetect.types import Claim, Item, Label
from avdetect.validation import Score


def item(name: str, source: str | None, fake: bool | None = False, **known: object) -> Item:
    return Item(Path("/data") / name, Label(voice_cloning=fake), source=source, **known)  # type: ignore[arg-type]


def test_no_source_is_in_two_folds_and_both_classes_are_spread() -> None:
    items = [item(f"{source}/{n}.wav", source, fake=n % 2 == 0) for source in "abcdefgh" for n in range(4)]
    places = deal(items, 4)
    of = {
        source: {p for i, p in zip(items, places, strict=True) if i.source == source} for source in "abcdefgh"
    }
    assert all(len(folds) == 1 for folds in of.values())
    for fold in range(4):
        inside = [i for i, p in zip(items, places, strict=True) if p == fold]
        assert len(inside) == 8
        assert sum(i.label.voice_cloning is True for i in inside) == 4


def test_a_large_source_does_not_draw_others_to_it() -> None:
    items = [item(f"big/{n}.wav", "big") for n in range(100)]
    items += [item(f"{s}/{n}.wav", s) for s in "abcd" for n in range(5)]
    places = dict(zip((i.source for i in items), deal(items, 3), strict=True))
    assert places["big"] not in {places[s] for s in "abcd"}


def test_clips_without_a_source_stand_alone_and_the_order_does_not_matter() -> None:
    items = [item(f"{n}.wav", None, fake=n % 2 == 0) for n in range(12)]
    places = deal(items, 3)
    assert sorted(places.count(fold) for fold in range(3)) == [4, 4, 4]
    turned = deal(items[::-1], 3)
    assert turned[::-1] == places


def test_more_folds_than_sources_is_told() -> None:
    with pytest.raises(ConfigError, match=r"folds = 3.* 2 source"):
        deal([item("a.wav", "a"), item("b.wav", "b")], 3)


def test_scores_come_back_as_they_went(tmp_path: Path) -> None:
    items = [
        item("x/1.mp4", "one", method="m"),
        item("y/1.mp4", "two", True, audio_path=Path("/data/z/2.wav")),
        item("y/1.mp4", "two", True, audio_path=Path("/elsewhere/2.wav")),
    ]
    assert names_of(items) == ["x/1.mp4", "y/1.mp4 + z/2.wav", "y/1.mp4 + /elsewhere/2.wav"]
    scores = [
        Score(items[0], Claim.LIP_SYNC_MISMATCH, -1.25, False, "", -0.5),
        Score(items[0], Claim.LIP_SYNC_MISMATCH, 2.5, True, "shift +0.2 s", 5.0),
        Score(items[2], Claim.VOICE_CLONING, 0.125, True),
    ]
    write_scores(scores, items, tmp_path / "scores.csv")
    assert read_scores(tmp_path / "scores.csv", items) == scores
    assert not list(tmp_path.glob("*.partial"))


def test_scores_of_a_clip_that_is_gone_are_refused(tmp_path: Path) -> None:
    items = [item("x/1.mp4", "one"), item("y/2.mp4", "two")]
    write_scores([Score(items[1], Claim.VOICE_CLONING, 1.0, True)], items, tmp_path / "s.csv")
    others = [items[0], item("y/3.mp4", "two")]
    with pytest.raises(ConfigError, match=r"2\.mp4.*not list"):
        read_scores(tmp_path / "s.csv", others)
