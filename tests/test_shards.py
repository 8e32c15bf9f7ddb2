"""Tar shards: what was added is there, whoever added it and however they ended; nothing half written ever is."""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from commands import ROOT, environment

from avdetect import shards as module
from avdetect.shards import Shards, read_place


def opened(folder: Path) -> Shards:
    return Shards(folder, ".bin")


def contents(shards: Shards, key: str) -> list[bytes]:
    return [read_place(place) for place in shards.places(key)]


def members(folder: Path) -> dict[str, bytes]:
    """What tarfile, which knows nothing of this project, finds in all shards."""
    found = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


SIZES = {"none": 0, "one": 1, "block": 512, "more": 513, "many": 5000}


def test_samples_come_back_and_any_tar_reader_finds_them(tmp_path: Path) -> None:
    mine = opened(tmp_path / "cache")
    for name, size in SIZES.items():
        mine.add(name, name[:1].encode() * size)
    for shards in (mine, opened(tmp_path / "cache")):
        assert {name: contents(shards, name) for name in SIZES} == {
            name: [name[:1].encode() * size] for name, size in SIZES.items()
        }
        assert shards.places("other") == []
    assert members(tmp_path / "cache") == {
        f"{name}.bin": name[:1].encode() * size for name, size in SIZES.items()
    }


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert opened(tmp_path / "none").places("a") == []
    assert not (tmp_path / "none").exists()


def test_what_others_add_meanwhile_is_found_and_everybody_has_a_shard(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    one.add("a", b"1")
    assert contents(other, "a") == [b"1"]
    other.add("b", b"2")
    one.add("c", b"3")
    assert contents(one, "b") == [b"2"] and contents(other, "c") == [b"3"]
    assert len(list(tmp_path.glob("*.tar"))) == 2


def test_a_shard_that_was_left_is_gone_on_with_and_a_full_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a", "b"):
        opened(tmp_path).add(key, bytes(3000))
    assert len(list(tmp_path.glob("*.tar"))) == 1
    monkeypatch.setattr(module, "SHARD_BYTES", 4000)
    last = opened(tmp_path)
    for key in ("c", "d", "e"):
        last.add(key, bytes(3000))
    assert len(list(tmp_path.glob("*.tar"))) == 3
    assert set(members(tmp_path)) == {f"{key}.bin" for key in "abcde"}


def test_the_last_sample_of_a_key_stands_first(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        opened(tmp_path).add("a", content)
    assert contents(opened(tmp_path), "a") == [b"new", b"old"]


@pytest.mark.parametrize("kept", [0, 100, 512, 600, 3000, 4100])
def test_a_shard_that_was_cut_off_keeps_its_whole_samples(tmp_path: Path, kept: int) -> None:
    first = opened(tmp_path)
    for key in ("a", "b"):
        place = first.add(key, key.encode() * 2000)  # header and four blocks each: 2560 bytes
    del first
    place.shard.write_bytes(place.shard.read_bytes()[:kept])
    again = opened(tmp_path)
    assert contents(again, "a") == ([b"a" * 2000] if kept >= 2512 else [])
    assert again.places("b") == []
    again.add("c", b"c")
    assert set(members(tmp_path)) == ({"a.bin", "c.bin"} if kept >= 2560 else {"c.bin"})


def test_a_sample_is_there_only_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = opened(tmp_path)
    mine.add("a", b"whole")

    def killed(*arguments: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarInfo, "tobuf", killed)
        with pytest.raises(KeyboardInterrupt):
            mine.add("b", b"half" * 500)
    assert opened(tmp_path).places("b") == [] and set(members(tmp_path)) == {"a.bin"}
    del mine
    opened(tmp_path).add("c", b"next")
    assert members(tmp_path) == {"a.bin": b"whole", "c.bin": b"next"}


WRITER = """
import sys, pathlib
from avdetect.shards import Shards
shards = Shards(pathlib.Path(sys.argv[1]), ".bin")
for number in range(10**9):
    shards.add(str(number), str(number).encode() * 20_000)
    print(number, flush=True)
"""


def test_a_process_killed_at_any_moment_loses_nothing_that_it_had_added(tmp_path: Path) -> None:
    for least in (1, 20, 50):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(least)]
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        found = opened(tmp_path)
        for number in said:
            assert contents(found, str(number))[0] == str(number).encode() * 20_000
    assert len(list(tmp_path.glob("*.tar"))) == 1  # each went on with the shard of the one before
    for name, content in members(tmp_path).items():
        assert content == name.removesuffix(".bin").encode() * 20_000
