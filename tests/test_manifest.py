"""The manifest format: what it reads as it is, what it refuses and how, and that it comes back unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avdetect.errors import DatasetError, MissingDependencyError
from avdetect.manifest import COLUMNS, read_manifest, schema, write_manifest
from avdetect.types import CLAIMS, Claim, Item, Label, Segment, Split


def _csv(folder: Path, text: str, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _items(folder: Path) -> list[Item]:
    label = Label(True, False, None, (Segment(0.5, 1.25, Claim.FACE_MANIPULATION), Segment(2, 3)))
    return [
        Item(
            folder / "a b,ü.mp4",
            label,
            Split.TRAIN,
            "swap",
            ("x", "y"),
            "repo/1",
            "p1",
            "en",
            folder / "v.wav",
        ),
        Item(
            Path("/elsewhere/c.flac"),
            Label(voice_cloning=True),
            extra={"attack": "A07", "note": 'say "hi"\nthere'},
        ),
        Item(folder / "d.mp4", Label()),
    ]


def _parquet_or_skip(items: list[Item], path: Path) -> None:
    try:
        write_manifest(items, path)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_the_corpus_reads_as_it_is(corpus: Path) -> None:
    items = read_manifest(corpus / "manifest.csv")
    assert len(items) == 1257
    assert sum(item.label.voice_cloning is True for item in items) == 506
    assert sum(item.label.face_manipulation is True for item in items) == 74
    assert sum(item.label.lip_sync_mismatch is None for item in items) == 1064
    assert all(item.path.is_file() and item.source and item.split for item in items)
    assert items[0].extra["kind"] == "audio_fake" and "source_repo" not in items[0].extra


def test_csv_comes_back_unchanged_and_to_the_same_bytes(tmp_path: Path) -> None:
    items = _items(tmp_path)
    write_manifest(items, tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv") == items
    first = (tmp_path / "m.csv").read_bytes()
    write_manifest(read_manifest(tmp_path / "m.csv"), tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_bytes() == first


def test_parquet_comes_back_unchanged(tmp_path: Path) -> None:
    items = _items(tmp_path)
    _parquet_or_skip(items, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet") == items


def test_parquet_as_pandas_writes_it(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"file": ["a.wav", "b.wav"], "voice_cloning": [1.0, None], "identity": [7, 8]})
    try:
        frame.to_parquet(tmp_path / "m.parquet")
    except ImportError as error:
        pytest.skip(str(error))
    first, second = read_manifest(tmp_path / "m.parquet")
    assert (first.label.voice_cloning, second.label.voice_cloning) == (True, None)
    assert first.identities == ("7",)


def test_files_below_the_manifest_are_relative_and_move_with_it(tmp_path: Path) -> None:
    write_manifest(_items(tmp_path), tmp_path / "m.csv")
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "m.csv").rename(moved / "m.csv")
    paths = [item.path for item in read_manifest(moved / "m.csv")]
    assert paths == [moved / "a b,ü.mp4", Path("/elsewhere/c.flac"), moved / "d.mp4"]


def test_empty_is_unknown_and_zero_is_not(tmp_path: Path) -> None:
    path = _csv(tmp_path, "file,face_manipulation,voice_cloning\na.mp4,0,\n")
    assert read_manifest(path)[0].label == Label(face_manipulation=False)


@pytest.mark.parametrize(
    ("word", "split"), [("dev", Split.VAL), ("eval", Split.TEST), ("train", Split.TRAIN)]
)
def test_words_for_a_split(tmp_path: Path, word: str, split: Split) -> None:
    assert read_manifest(_csv(tmp_path, f"file,split\na.wav,{word}\n"))[0].split is split


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,voice_cloning\na.wav,0\nb.wav,spoof\n", "m.csv, row 3: voice_cloning is 'spoof'"),
        ("file,split\na.wav,training\n", "m.csv, row 2: split is 'training'"),
        ("file,split\n,train\n", "m.csv, row 2: 'file' is empty"),
        ("file,split\na.wav\n", "m.csv, row 2: 1 cells under a header of 2"),
        ("path,split\na.wav,train\n", "needs a column 'file'"),
        ("", "needs a column 'file'"),
        ("file,file\na,b\n", "'file' stands there twice"),
        ("file,segments\na.wav,[[1]]\n", "m.csv, row 2: segments '[[1]]'"),
        ('file,segments\na.wav,"[[3, 1, null]]"\n', "not in order"),
        ('file,segments\na.wav,"[[0, 1, ""lips""]]"\n', "'lips' is not a valid Claim"),
        ('file,voice_cloning,segments\na.wav,0,"[[0, 1, ""voice_cloning""]]"\n', "voice_cloning is 0, yet"),
    ],
)
def test_what_nobody_knows_is_refused_by_file_row_and_value(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read_manifest(_csv(tmp_path, text))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"ends in \.csv or \.parquet"):
        read_manifest(tmp_path / "m.xlsx")
    with pytest.raises(DatasetError, match="no such manifest"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_bytes(b"file\n\xff\xfe.wav\n")
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises((DatasetError, MissingDependencyError), match="parquet"):
        read_manifest(tmp_path / "m.parquet")


def test_what_cannot_be_told_apart_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="separates people"):
        write_manifest([Item(tmp_path / "a.wav", Label(), identities=("a;b",))], tmp_path / "m.csv")
    with pytest.raises(DatasetError, match="'split' has the name"):
        write_manifest([Item(tmp_path / "a.wav", Label(), extra={"split": "x"})], tmp_path / "m.csv")
    with pytest.raises(DatasetError, match="cannot be written"):
        write_manifest([], tmp_path / "nowhere" / "m.csv")
    assert list(tmp_path.iterdir()) == []


def test_the_published_schema_is_the_code_s() -> None:
    published = Path(__file__).parents[1] / "data" / "manifest.schema.json"
    assert json.loads(published.read_text(encoding="utf-8")) == schema()
    assert [field["name"] for field in schema()["fields"]] == list(COLUMNS)
    assert set(CLAIMS) < set(COLUMNS)
