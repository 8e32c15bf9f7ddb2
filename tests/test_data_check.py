"""`data check`, `data index` and `data list`: leaks and shortcuts put there on purpose must be found."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from clips import corrupt, make_video

from avdetect.checks import Finding, Severity, balance, check_items, source_balance
from avdetect.data_cli import add_arguments, run
from avdetect.datasets import DATASETS, load
from avdetect.errors import AvdetectError
from avdetect.manifest import read_manifest, write_manifest
from avdetect.shortcuts import (
    FEATURES,
    Measurement,
    Unreadable,
    describe,
    measure_items,
    sample,
    separability,
)
from avdetect.types import SAMPLE_RATE, Claim, Item, Label, Split

ROOT = Path(__file__).parents[1]
VOICE = Claim.VOICE_CLONING


def _command(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser.add_subparsers())
    return run(parser.parse_args(["data", *map(str, words)]))


def _sound(
    path: Path, silence: float = 0.0, level: float = 0.3, rate: int = SAMPLE_RATE, seed: int = 0
) -> Path:
    """A second of noise after `silence` seconds of nothing."""
    noise = np.random.default_rng(seed).uniform(-level, level, rate)
    samples = np.concatenate([np.zeros(round(silence * rate)), noise])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def _item(path: Path, fake: bool | None = None, split: Split | None = None, **more: object) -> Item:
    if not path.exists():
        path.write_text(path.name)
    return Item(path, Label(voice_cloning=fake), split, **more)  # type: ignore[arg-type]  # fields by name


def _texts(findings: list[Finding], severity: Severity) -> list[str]:
    return [finding.text for finding in findings if finding.severity is severity]


def test_a_sound_manifest_has_no_errors(tmp_path: Path) -> None:
    items = [
        _item(tmp_path / f"{split}{fake}.wav", fake, split, source=f"{split}")
        for split in Split
        for fake in (True, False)
    ]
    assert check_items(items) == []


def test_files_that_are_missing_empty_or_named_twice(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    there = _item(tmp_path / "a.wav")
    items = [there, there, Item(tmp_path / "gone.wav", Label()), Item(tmp_path / "empty.wav", Label())]
    errors = _texts(check_items(items), Severity.ERROR)
    assert errors == ["files that are not there", "empty files", "files in more than one row"]


def test_the_sound_of_a_clip_must_be_there_too(tmp_path: Path) -> None:
    items = [_item(tmp_path / "a.mp4", audio_path=tmp_path / "a.wav")]
    assert "files that are not there" in _texts(check_items(items), Severity.ERROR)


def test_duplicates_are_found_by_content(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_bytes(b"same")
    (tmp_path / "e").write_bytes(b"size")  # as long, but another content
    items = [
        _item(tmp_path / "a", True, Split.TRAIN),
        _item(tmp_path / "b", True, Split.TEST),
        _item(tmp_path / "e", False, Split.TEST),
    ]
    found = check_items(items)
    assert "one content in two splits" in _texts(found, Severity.ERROR)
    assert "one content with contradicting labels" not in _texts(found, Severity.ERROR)
    contradicting = [_item(tmp_path / "c", True), _item(tmp_path / "d", False)]
    assert _texts(check_items(contradicting), Severity.ERROR) == ["one content with contradicting labels"]


def test_leaks_between_splits(tmp_path: Path) -> None:
    items = [
        _item(tmp_path / "a", True, Split.TRAIN, identities=("x", "y"), source="s", pair_id="p"),
        _item(tmp_path / "b", False, Split.TRAIN, identities=("z",)),
        _item(tmp_path / "c", True, Split.TEST, identities=("y",), source="s", pair_id="p"),
        _item(tmp_path / "d", False, Split.TEST, identities=("w",)),
        _item(tmp_path / "e", False, None, identities=("w", "z"), source="s"),
    ]
    found = check_items(items)
    errors = [(finding.text, finding.examples) for finding in found if finding.severity is Severity.ERROR]
    assert errors == [("pairs in two splits", ("p",))]
    assert ("identities in two splits", 1, ("y",)) in [(f.text, f.number, f.examples) for f in found]
    assert "sources in two splits" in _texts(found, Severity.WARNING)


def test_balance_by_claim_split_and_source(tmp_path: Path) -> None:
    items = [
        _item(tmp_path / "a", True, Split.TRAIN, source="fakes"),
        _item(tmp_path / "b", False, Split.TRAIN, source="mixed"),
        _item(tmp_path / "c", True, Split.TRAIN, source="mixed"),
        _item(tmp_path / "d", None, Split.VAL, source="silent"),
    ]
    row = next(row for row in balance(items) if row.claim is VOICE and row.split is Split.TRAIN)
    assert (row.real, row.fake, row.unknown) == (1, 2, 0)
    sources = next(row for row in source_balance(items) if row.claim is VOICE)
    assert (sources.real_only, sources.fake_only, sources.both) == (0, 1, 1)


def test_one_class_in_a_split_is_said(tmp_path: Path) -> None:
    found = check_items([_item(tmp_path / "a", True, Split.TEST)])
    assert str(found[0]) == (
        "warning: claims with one class only: 1 (voice_cloning in test (0 real, 1 fake))"
    )


# Shortcuts


def test_measurements_of_a_sound_file(tmp_path: Path) -> None:
    row = measure_items([_item(_sound(tmp_path / "a.wav", silence=0.5, rate=8000))])[0]
    assert isinstance(row, Measurement)
    assert row.sample_rate == 8000 and row.channels == 1 and not row.has_video
    assert row.leading_silence == pytest.approx(0.5, abs=0.03)
    assert row.trailing_silence == pytest.approx(0, abs=0.03)
    assert row.loudness == pytest.approx(20 * np.log10(0.3 / 3**0.5 * (2 / 3) ** 0.5), abs=0.5)
    assert row.bandwidth == pytest.approx(4000, rel=0.1)
    assert row.duration == pytest.approx(1.5, abs=0.05)


def test_digital_silence_and_damage_are_no_tracebacks(tmp_path: Path) -> None:
    silent = measure_items([_item(_sound(tmp_path / "a.wav", level=0.0))])[0]
    assert isinstance(silent, Measurement) and silent.leading_silence == pytest.approx(1, abs=0.05)
    (tmp_path / "b.wav").write_bytes(b"not sound at all")
    assert isinstance(measure_items([_item(tmp_path / "b.wav")])[0], Unreadable)


@pytest.fixture(scope="module")
def with_shortcut(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Forty clips that differ only in the silence before the fakes; four to a source."""
    folder = tmp_path_factory.mktemp("shortcut")
    return [
        _item(
            _sound(folder / f"{number}.wav", silence=0.2 * (number % 2) + 0.001 * number, seed=number),
            bool(number % 2),
            source=f"source {number // 4}",
        )
        for number in range(40)
    ]


def test_leading_silence_is_found_and_level_is_not(with_shortcut: list[Item]) -> None:
    measured = [row for row in measure_items(with_shortcut, workers=2) if isinstance(row, Measurement)]
    assert len(measured) == 40
    silence = separability(with_shortcut, measured, VOICE, "silence")
    assert (silence.real, silence.fake) == (20, 20)
    assert silence.random_folds == pytest.approx(1.0, abs=0.02)
    assert silence.held_out_sources == pytest.approx(1.0, abs=0.02)
    level = separability(with_shortcut, measured, VOICE, "picture")
    assert level.random_folds == pytest.approx(0.5)
    assert separability(with_shortcut, measured, Claim.FACE_MANIPULATION).random_folds is None
    described = {name: (real, fake) for name, real, fake in describe(with_shortcut, measured, VOICE)}
    assert described["sample_rate"] == ("16000 100%", "16000 100%")
    assert set(described) == {name for group in FEATURES.values() for name in group}


def test_a_sample_is_always_the_same(tmp_path: Path) -> None:
    items = [Item(Path(f"{number}.wav"), Label()) for number in range(100)]
    chosen = sample(items, 10)
    assert chosen == sample(items, 10) and len(chosen) == 10
    assert sample(items, 100) == items


# The commands


def test_check_tells_by_its_exit_code(
    with_shortcut: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(with_shortcut, tmp_path / "m.csv")
    assert _command("check", tmp_path / "m.csv", "--workers", "1", "--json", tmp_path / "r.json") == 0
    assert "voice_cloning: AUC of metadata alone (20 real, 20 fake clips)" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert {row["features"] for row in report["shortcuts"]} == {"all", *FEATURES}
    assert report["findings"] == []
    write_manifest([*with_shortcut, Item(tmp_path / "gone.wav", Label())], tmp_path / "m.csv")
    assert _command("check", tmp_path / "m.csv", "--no-media", "--json", "-") == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["findings"][0]["severity"] == "error" and "gone.wav" in told.err


def test_outputs_that_cannot_be_written_are_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worked(*arguments: object) -> None:
        raise AssertionError("it began to work")

    for name in ("avdetect.checks.check_items", "avdetect.datasets.index", "avdetect.pairing.pair"):
        monkeypatch.setattr(name, worked)
    write_manifest([_item(tmp_path / "a.wav", True)], tmp_path / "m.csv")
    manifest, away = tmp_path / "m.csv", tmp_path / "no"
    for words in (
        ("check", manifest, "--json", away / "r.json"),
        ("check", manifest, "--json", tmp_path),
        ("index", "manifest", manifest, "--out", away / "o.csv"),
        ("index", "manifest", manifest, "--out", tmp_path / "o.txt"),
        ("pair", manifest, manifest, "--out", away / "o.csv"),
        ("pair", manifest, manifest, "--out", tmp_path / "o.csv", "--json", away / "r.json"),
    ):
        with pytest.raises(AvdetectError) as caught:
            _command(*words)
        assert str(words[-1]) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(AvdetectError, match="is one of the clips"):
        _command("check", manifest, "--json", manifest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "m.csv"]


def test_strict_makes_warnings_count(tmp_path: Path) -> None:
    write_manifest([_item(tmp_path / "a.wav", True, Split.TRAIN)], tmp_path / "m.csv")
    assert _command("check", tmp_path / "m.csv", "--no-media") == 0
    assert _command("check", tmp_path / "m.csv", "--no-media", "--strict") == 1


def test_unreadable_clips_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest([_item(tmp_path / "a.wav", True)], tmp_path / "m.csv")
    assert _command("check", tmp_path / "m.csv", "--workers", "1") == 1
    assert "clips that cannot be read: 1" in capsys.readouterr().out


def test_damage_inside_a_clip_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = list(np.random.default_rng(0).integers(0, 255, (50, 96, 128, 3), dtype=np.uint8))
    whole = make_video(tmp_path / "whole.mp4", 2.0, size=(128, 96), images=images)
    broken = corrupt(whole, tmp_path / "broken.mp4", 0.3, 0.6, share=0.2)
    write_manifest([_item(whole, True), _item(broken, False)], tmp_path / "m.csv")
    _command("check", tmp_path / "m.csv", "--workers", "1")
    told = capsys.readouterr().out
    assert "read with a warning: 1" in told or "cannot be read: 1" in told
    assert "broken.mp4" in told and "whole.mp4" not in told


def test_the_corpus_passes(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _command("check", corpus / "manifest.csv", "--no-media") == 0
    told = capsys.readouterr().out
    assert "error:" not in told and "warning: identities in two splits: 3" in told


def test_index_with_a_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, name in (
        ("original_sequences/actors", "05__kitchen_pan.mp4"),
        ("manipulated_sequences/DeepFakeDetection", "01_05__kitchen_pan__YVGY8LOK.mp4"),
    ):
        (tmp_path / folder / "c23/videos").mkdir(parents=True)
        (tmp_path / folder / "c23/videos" / name).write_bytes(b"x")
    protocol = ROOT / "data/protocols/dfd-20-4-4.json"
    assert _command("index", "dfd", tmp_path, "--out", tmp_path / "m.csv", "--protocol", protocol) == 0
    told = capsys.readouterr().out
    assert "c23 fake: 1 of 3,068 files" in told and "in no split of dfd-20-4-4: 1 clips" in told
    assert {item.path.name[:5]: item.split for item in read_manifest(tmp_path / "m.csv")} == {
        "05__k": Split.VAL,
        "01_05": None,
    }


def test_list_names_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert _command("list") == 0
    told = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{told}" for name in DATASETS)
    assert _command("list", "lav-df") == 0
    assert "citation  Cai et al." in capsys.readouterr().out


def test_every_set_has_its_page() -> None:
    readme = (ROOT / "data/README.md").read_text(encoding="utf-8")
    for name in DATASETS:
        page = ROOT / "data" / f"{name}.md"
        assert page.is_file() and f"({name}.md)" in readme
        text = " ".join(page.read_text(encoding="utf-8").split())
        dataset = load(name)
        said = () if name == "manifest" else (dataset.size, dataset.licence, dataset.access, dataset.citation)
        assert all(fact in text for fact in said), f"{page.name} and the code say different things"
        for heading in ("Labels", "Size", "Licence", "Get it", "Layout", "Good for", "Bad for", "Citation"):
            assert name == "manifest" or f"**{heading}**" in text, f"{page.name} lacks {heading}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import argparse, sys; from avdetect.data_cli import add_arguments; "
        "add_arguments(argparse.ArgumentParser().add_subparsers()); "
        "print([name for name in ('numpy', 'pandas', 'torch', 'rich', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
