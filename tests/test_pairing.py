"""`data pair`: all four cells, nobody in two splits, the same bytes again, and one treatment for every clip."""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import make_audio, make_video, noise, tone

from avdetect.data_cli import add_arguments, run
from avdetect.errors import DatasetError, InputError
from avdetect.manifest import read_manifest, write_manifest
from avdetect.media import open_clip
from avdetect.pairing import CELLS, pair, sex_of
from avdetect.shortcuts import Measurement, measure_items, separability, told_apart
from avdetect.treatment import RECORD, Treatment, render, treat
from avdetect.types import SAMPLE_RATE, Claim, Item, Label, Split

ACTORS = {Split.TRAIN: ("01", "02", "03"), Split.VAL: ("04", "05"), Split.TEST: ("06", "07")}
SPEAKERS = {Split.TRAIN: ("LA_1", "LA_2"), Split.VAL: ("LA_3", "LA_4"), Split.TEST: ("LA_5", "LA_6")}
FACE, VOICE = Claim.FACE_MANIPULATION, Claim.VOICE_CLONING


def _command(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser.add_subparsers())
    return run(parser.parse_args(["data", *map(str, words)]))


def face(name: str, split: Split | None, fake: bool, *people: str, sex: str = "") -> Item:
    return Item(
        Path("/faces") / name,
        Label(face_manipulation=fake),
        split,
        method="DeepFakeDetection" if fake else None,
        identities=tuple(f"dfd-{one}" for one in people),
        pair_id=f"dfd-{name.split('__')[0][:2]}__scene",
        extra={"scene": "scene", **({"sex": sex} if sex else {})},
    )


def voice(name: str, split: Split | None, attack: str | None, speaker: str, sex: str = "") -> Item:
    extra = {"attack": attack, "vocoder": "neural waveform"} if attack else {}
    return Item(
        Path("/voices") / name,
        Label(voice_cloning=attack is not None),
        split,
        method=attack,
        identities=(speaker,),
        language="en",
        extra=extra | ({"sex": sex} if sex else {}),
    )


def all_faces() -> list[Item]:
    made = []
    for split, actors in ACTORS.items():
        for one in actors:
            made.append(face(f"{one}__scene.mp4", split, False, one))
            made += [face(f"{one}_{o}__scene__AAAAAAAA.mp4", split, True, one, o) for o in actors if o != one]
    return made


def all_voices(sexes: Iterable[str] = ("", "")) -> list[Item]:
    made = []
    for split, speakers in SPEAKERS.items():
        for speaker, sex in zip(speakers, sexes, strict=True):
            for number in range(6):
                made.append(voice(f"{speaker}_b{number}.flac", split, None, speaker, sex))
                made.append(voice(f"{speaker}_s{number}.flac", split, f"A{number + 7:02}", speaker, sex))
    return made


def pairs_of(*arguments: object, **more: object) -> list[Item]:
    made = pair(*arguments, **more)  # type: ignore[arg-type]  # handed on
    return [item for quad in made.quads for item in quad.pairs()]


def test_all_four_cells_are_equally_large_in_every_split() -> None:
    counts = Counter(
        (item.split, item.label[FACE], item.label[VOICE]) for item in pairs_of(all_faces(), all_voices())
    )
    assert len(counts) == 3 * 4
    # as many as the larger class of faces: 6 fakes of 3 actors in train, 2 fakes and 2 reals elsewhere
    assert {
        split: {counts[split, f, v] for f in (False, True) for v in (False, True)} for split in Split
    } == {
        Split.TRAIN: {6},
        Split.VAL: {2},
        Split.TEST: {2},
    }
    more = pair(all_faces(), all_voices(), per_cell=5)
    assert more.report()["cells"]["test"] == dict.fromkeys(CELLS, 5)


def test_neither_half_tells_the_others_label_and_files_are_used_evenly() -> None:
    items = pairs_of(all_faces(), all_voices())
    heard, seen = defaultdict(list), defaultdict(list)
    for item in items:
        heard[item.path].append(item.label[VOICE])
        seen[item.audio_path].append(item.label[FACE])
    for labels in (*heard.values(), *seen.values()):
        assert labels.count(True) == labels.count(False)
    reals = Counter(item.path for item in items if item.split is Split.TRAIN and not item.label[FACE])
    assert len(reals) == 3 and set(reals.values()) == {4}  # 6 of each voice over 3 clips
    assert all(len(labels) == 2 for labels in seen.values())  # voices enough: none is dealt twice


def test_nobody_is_in_two_splits_and_those_who_would_be_are_counted() -> None:
    faces = [*all_faces(), face("04__other.mp4", Split.TRAIN, False, "04")]
    voices = [*all_voices(), voice("torn.flac", Split.TEST, None, "LA_1")]
    made = pair(faces, voices)
    where: dict[str, set[Split | None]] = defaultdict(set)
    for quad in made.quads:
        for item in quad.pairs():
            for person in item.identities:
                where[person].add(item.split)
    assert all(len(splits) == 1 for splits in where.values())
    assert "dfd-04" not in where and "LA_1" not in where and {"dfd-01", "LA_2"} <= set(where)
    # 04 is in its own clip, that of train, and two fakes with 05; LA_1 in 12 clips of train and one of test
    assert made.left_out["faces whose people are in two splits"] == 4
    assert made.left_out["voices whose people are in two splits"] == 13


def test_clips_that_say_too_little_are_left_out_and_counted() -> None:
    faces = [
        *all_faces(),
        face("01_06__scene__AAAAAAAA.mp4", None, True, "01", "06"),
        face("nobody.mp4", Split.TRAIN, False),
        replace(face("02__x.mp4", Split.TRAIN, False, "02"), label=Label()),
    ]
    left = pair(faces, all_voices()).left_out
    assert {name: left[name] for name in left if name.startswith("faces")} == {
        "faces in no split": 1,
        "faces whose people are not named": 1,
        "faces without a label": 1,
    }
    assert left["bona fide voices in train not needed"] == 12 - 6
    with pytest.raises(DatasetError, match="no split has real and fake faces"):
        pair(faces, [])


def test_sexes_match_where_both_are_known() -> None:
    sexes = {"01": "f", "02": "male", "03": "", "04": "women", "05": "M", "06": "f", "07": "f"}
    faces = [replace(one, extra={"gender": sexes[one.identities[0][4:]]}) for one in all_faces()]
    made = pair(faces, all_voices(("f", "m")))
    for quad in made.quads:
        assert len({sex_of(clip) for clip in quad.clips()} - {None}) == 1
    known = [item for quad in made.quads for item in quad.pairs() if item.extra["sex_match"] == "matched"]
    assert known and made.report()["pairs_by_sex"]["matched"] == len(known)
    assert made.report()["pairs_by_sex"]["unknown"] > 0
    assert {quad.split for quad in made.quads} == set(Split)


def test_a_sex_without_counterparts_is_left_out_and_a_strange_word_refused() -> None:
    faces = [
        replace(one, extra={"sex": "m" if one.identities[0] == "dfd-01" else "f"}) for one in all_faces()
    ]
    made = pair(faces, all_voices(("f", "f")))
    assert all(sex_of(clip) == "female" for quad in made.quads for clip in quad.clips())
    assert made.left_out["real faces in train without a counterpart of their sex"] == 1
    assert made.left_out["fake faces in train without a counterpart of their sex"] == 2
    with pytest.raises(DatasetError, match=r"01__scene.mp4: sex is 'tenor'"):
        pair([replace(one, extra={"sex": "tenor"}) for one in all_faces()], all_voices())


def test_lip_sync_is_masked_unless_asked_for_as_a_mismatch() -> None:
    quads = pair(all_faces(), all_voices()).quads
    assert {item.label.lip_sync_mismatch for quad in quads for item in quad.pairs()} == {None}
    assert {item.label.lip_sync_mismatch for quad in quads for item in quad.pairs(True)} == {True}


def test_what_both_halves_say_is_kept() -> None:
    items = pairs_of(all_faces(), all_voices())
    both = next(item for item in items if item.label[FACE] and item.label[VOICE])
    attack = both.extra["voice_attack"]
    assert both.method == f"DeepFakeDetection + {attack}" and both.extra["voice_vocoder"] == "neural waveform"
    assert both.extra["face_method"] == "DeepFakeDetection" and both.extra["voice_method"] == attack
    assert both.extra["face_scene"] == "scene" and both.language == "en"
    assert both.audio_path is not None and both.extra["voice_file"] == both.audio_path.name


def _manifests(folder: Path, root: Path, dice: random.Random | None = None) -> tuple[Path, Path]:
    """Both manifests below `folder`, of clips below `root`; DFD as it is indexed without a protocol."""
    faces = [replace(one, path=root / "faces" / one.path.name, split=None) for one in all_faces()]
    voices = [replace(one, path=root / "voices" / one.path.name) for one in all_voices()]
    for items in (faces, voices):
        if dice is not None:
            dice.shuffle(items)
    folder.mkdir(exist_ok=True)
    write_manifest(faces, folder / "faces.csv")
    write_manifest(voices, folder / "voices.csv")
    return folder / "faces.csv", folder / "voices.csv"


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    path = tmp_path / "protocol.json"
    sides = {split.value: [f"dfd-{one}" for one in actors] for split, actors in ACTORS.items()}
    path.write_text(json.dumps({"name": "mine", "dataset": "dfd", "rule": "by hand", **sides}))
    return path


def test_the_same_seed_gives_the_same_bytes_and_another_another_set(tmp_path: Path, protocol: Path) -> None:
    made = []
    for name, seed, dice in (("a", 1, None), ("b", 1, random.Random(3)), ("c", 2, None)):
        folder = tmp_path / name  # another root each time: paths are written relative to the manifest
        faces, voices = _manifests(folder, folder, dice)
        out = ("--out", folder / "joint.csv", "--protocol", protocol, "--probe", "0")
        assert _command("pair", faces, voices, "--seed", str(seed), *out) == 0
        made.append((folder / "joint.csv").read_bytes())
    assert made[0] == made[1] != made[2]


def test_a_manifest_of_dfd_without_splits_is_split_by_actors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from avdetect.protocols import dfd_protocol

    members = dfd_protocol("dfd-20-4-4").members
    faces = []
    for actors in members.values():
        a, b = (one.removeprefix("dfd-") for one in actors[:2])
        faces += [face(f"{a}__x.mp4", None, False, a), face(f"{a}_{b}__x__AAAAAAAA.mp4", None, True, a, b)]
    write_manifest(faces, tmp_path / "faces.csv")
    write_manifest(all_voices(), tmp_path / "voices.csv")
    out, report = tmp_path / "joint.parquet", tmp_path / "report.json"
    assert (
        _command("pair", tmp_path / "faces.csv", tmp_path / "voices.csv", "--out", out, "--json", report) == 0
    )
    side = {person: split for split, people in members.items() for person in people}
    items = read_manifest(out)
    assert len(items) == 12 and all(side[item.identities[0]] is item.split for item in items)
    said = json.loads(report.read_text())
    assert said["cells"]["val"] == dict.fromkeys(CELLS, 1) and said["probes"] is None
    assert "left out: 11 spoofed voices in test not needed" in capsys.readouterr().out


def test_unpaired_each_half_teaches_its_own_claim(tmp_path: Path, protocol: Path) -> None:
    faces, voices = _manifests(tmp_path, tmp_path)
    out = tmp_path / "halves.csv"
    assert _command("pair", faces, voices, "--out", out, "--protocol", protocol, "--unpaired") == 0
    items = read_manifest(out)
    assert len({item.path for item in items}) == len(items)
    assert all((item.label[FACE] is None) != (item.label[VOICE] is None) for item in items)
    assert all(item.audio_path is None and item.split is not None for item in items)


def test_impossible_numbers_are_refused(tmp_path: Path, protocol: Path) -> None:
    faces, voices = _manifests(tmp_path, tmp_path)
    with pytest.raises(InputError, match="--per-cell is 0"):
        _command("pair", faces, voices, "--out", tmp_path / "x.csv", "--per-cell", "0")


# The treatment


def _rms(waveform: np.ndarray) -> float:
    return 20 * float(np.log10(np.sqrt(np.mean(waveform.astype(np.float64) ** 2))))


@pytest.mark.parametrize("seconds", [1.0, 2.9, 3.05, 3.3, 3.6, 7.0])
def test_a_voice_fills_the_picture_between_equal_silences(seconds: float) -> None:
    speech = np.concatenate([np.zeros(8000), noise(2.6, level=0.01)[0], np.zeros(3000)]).astype(np.float32)
    treated = treat(speech, seconds, Treatment())
    loud = np.flatnonzero(np.abs(treated) > 5e-4)  # 40 dB below the level
    assert treated.size == round(seconds * SAMPLE_RATE)
    assert loud[0] / SAMPLE_RATE == pytest.approx(0.2, abs=0.021)
    assert (treated.size - 1 - loud[-1]) / SAMPLE_RATE == pytest.approx(0.2, abs=0.03)
    assert _rms(treated) == pytest.approx(-26.0, abs=0.05)
    assert not np.any(treated[: round(0.19 * SAMPLE_RATE)])


def test_what_lies_outside_the_band_is_taken_out() -> None:
    mixed = tone(2.0, hz=1000.0)[0] + tone(2.0, hz=7800.0)[0] + tone(2.0, hz=30.0)[0]
    spectrum = np.abs(np.fft.rfft(treat(mixed, 2.0, Treatment())))
    hertz = np.fft.rfftfreq(2 * SAMPLE_RATE, 1 / SAMPLE_RATE)
    inside = spectrum[(hertz > 900) & (hertz < 1100)].max()
    for outside in (spectrum[hertz > 7400], spectrum[hertz < 45]):
        assert outside.max() < inside / 100


def test_silence_and_pictures_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing but silence"):
        treat(np.zeros(16_000, np.float32), 3.0, Treatment())
    with pytest.raises(ValueError, match="too short"):
        treat(tone(1.0)[0], 0.5, Treatment())


def _row(folder: Path) -> list[Item]:
    """Two pairs whose halves differ in all that the treatment makes alike."""
    folder.mkdir()
    one = make_video(folder / "a.mp4", 2.0, size=(64, 48), options={"crf": "40"})
    other = make_video(folder / "b.avi", 2.0, size=(64, 48))
    quiet = make_audio(
        folder / "a.flac", np.concatenate([np.zeros((1, 9600)), noise(1, level=0.003)], 1).astype("f4")
    )
    loud = make_audio(folder / "b.mp3", noise(3.0, rate=44_100, level=0.2, seed=1), rate=44_100)
    return [
        Item(path, Label(fake, fake), Split.TRAIN, audio_path=sound)
        for path, sound, fake in ((one, quiet, False), (other, loud, True))
    ]


def test_rendered_clips_are_alike_from_outside(tmp_path: Path) -> None:
    row = _row(tmp_path / "in")
    (made,) = render([row], tmp_path / "out", Treatment())
    assert isinstance(made, list) and all(item.audio_path is None for item in made)
    assert [item.label for item in made] == [item.label for item in row]
    rows = measure_items(made)
    assert all(isinstance(one, Measurement) for one in rows)
    a, b = (one for one in rows if isinstance(one, Measurement))
    for name in (
        "container",
        "video_codec",
        "audio_codec",
        "sample_rate",
        "channels",
        "duration",
        "fps",
        "width",
    ):
        assert getattr(a, name) == getattr(b, name), name
    assert a.audio_codec == "aac" and a.video_codec == "h264"
    assert a.loudness == pytest.approx(b.loudness, abs=0.3) and a.loudness == pytest.approx(-26, abs=0.5)
    assert a.leading_silence == pytest.approx(b.leading_silence, abs=0.021)
    assert a.trailing_silence == pytest.approx(b.trailing_silence, abs=0.05)
    assert a.bandwidth == pytest.approx(b.bandwidth, abs=200)
    clip = open_clip(made[0].path)
    assert clip.duration == pytest.approx(2.0, abs=0.07) and clip.has_video


def test_rendering_goes_on_where_it_stopped_and_leaves_others_files_alone(tmp_path: Path) -> None:
    row, out = _row(tmp_path / "in"), tmp_path / "out"
    (first,) = render([row], out, Treatment())
    assert isinstance(first, list)
    times = {item.path: item.path.stat().st_mtime_ns for item in first}
    first[1].path.unlink()
    (second,) = render([row], out, Treatment())
    assert second == first and open_clip(first[1].path).duration == pytest.approx(2.0, abs=0.07)
    assert first[0].path.stat().st_mtime_ns == times[first[0].path]
    with pytest.raises(InputError, match="clips of other settings"):
        list(render([row], out, Treatment(bit_rate=32_000)))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not made here"):
        list(render([row], mine, Treatment()))
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


def test_a_row_with_a_damaged_or_silent_half_is_left_out_whole(tmp_path: Path) -> None:
    row = _row(tmp_path / "in")
    silent = make_audio(tmp_path / "silent.wav", np.zeros((1, 32_000), np.float32))
    absent = replace(row[0], path=tmp_path / "absent.mp4")
    made = list(
        render([[row[0], replace(row[1], audio_path=silent)], [absent]], tmp_path / "out", Treatment())
    )
    assert "silent.wav" in made[0] and "nothing but silence" in made[0]
    assert isinstance(made[1], str) and "absent.mp4" in made[1]
    assert (tmp_path / "out" / RECORD).is_file()


def test_the_command_renders_and_reports_what_it_could_not(
    tmp_path: Path, protocol: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = [one for one in all_faces() if one.split is Split.VAL]
    voices = [one for one in all_voices() if one.split is Split.VAL][:4]
    here = {"faces": tmp_path / "f", "voices": tmp_path / "v"}
    for folder in here.values():
        folder.mkdir()
    faces = [replace(one, path=here["faces"] / one.path.name) for one in faces]
    voices = [replace(one, path=here["voices"] / one.path.name) for one in voices]
    for number, one in enumerate(faces):
        make_video(one.path, 1.2 + number / 10, size=(32, 32))
    for number, one in enumerate(voices):
        make_audio(one.path, noise(1.0, seed=number))
    write_manifest(faces, tmp_path / "faces.csv")
    write_manifest(voices, tmp_path / "voices.csv")
    out, report = tmp_path / "joint.csv", tmp_path / "report.json"
    words = ("pair", tmp_path / "faces.csv", tmp_path / "voices.csv", "--out", out, "--json", report)
    assert _command(*words, "--render", tmp_path / "clips", "--lip-sync-negative") == 0
    items = read_manifest(out)
    assert len(items) == 8 and all(item.path.is_file() and item.audio_path is None for item in items)
    assert {item.label.lip_sync_mismatch for item in items} == {True}
    said = json.loads(report.read_text())
    assert said["rendered"] == 8 and said["probes"]["pairs"] == 4
    assert "real from real" in capsys.readouterr().out
    faces[0].path.write_bytes(b"no media")
    assert _command(*words, "--render", tmp_path / "again", "--probe", "0") == 1
    assert len(read_manifest(out)) == 4 and len(json.loads(report.read_text())["not_rendered"]) == 1


# The probes


def _measured(silence: float, share: float, container: str = "mov") -> Measurement:
    return Measurement(
        container, "h264", "aac", 16_000, 1, 1e5, True, True, 3.0, 64, 48, 25.0, -26.0, -3.0, 0.2, 0.2, 7000.0,
        silent_share=share, silence_level=silence, silence_centre=1000.0,
    )  # fmt: skip


def test_the_silence_probe_sees_what_metadata_does_not() -> None:
    dice = np.random.default_rng(0)
    items = [Item(Path(f"{n}.mp4"), Label(voice_cloning=bool(n % 2)), source=str(n)) for n in range(60)]
    rows = [_measured(-70.0 - 15 * (n % 2) + dice.normal(), dice.random()) for n in range(60)]
    assert separability(items, rows, VOICE, "non-speech").random_folds == pytest.approx(1.0, abs=0.02)
    assert separability(items, rows, VOICE).random_folds == pytest.approx(0.5)


def test_sources_are_told_apart_by_their_files_or_not_at_all() -> None:
    one = [_measured(-70.0, 0.1) for _ in range(20)]
    assert told_apart(one, [_measured(-70.0, 0.1, "flac") for _ in range(20)]) == pytest.approx(1.0)
    assert told_apart(one, [_measured(-70.0, 0.1) for _ in range(20)]) == pytest.approx(0.5)
    assert told_apart(one, one[:5]) is None


def test_the_noise_between_words_is_measured(tmp_path: Path) -> None:
    rows = []
    for number, level in enumerate((1e-4, 1e-3)):
        pause = noise(1.0, level=level)
        sound = make_audio(tmp_path / f"{number}.wav", np.concatenate([noise(1.0, level=0.2), pause], 1))
        rows += measure_items([Item(sound, Label())])
    quiet, noisy = (row for row in rows if isinstance(row, Measurement))
    assert quiet.silent_share == pytest.approx(0.5, abs=0.05) == noisy.silent_share
    assert noisy.silence_level is not None and quiet.silence_level is not None
    assert noisy.silence_level - quiet.silence_level == pytest.approx(20, abs=2)
