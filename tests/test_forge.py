"""`python -m avdetect forge`: what it writes, what its labels say, and that nothing but the forgery tells it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from dataclasses import fields, replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import make_audio, make_video
from commands import ROOT, Answer, call, detector, voice

from avdetect.errors import MediaError
from avdetect.faces import warp
from avdetect.forge import ForgeSettings, _treated, _treatment
from avdetect.forge_donors import find_donor, may_give, wanting
from avdetect.forge_media import Footage, fake, images, look, paste
from avdetect.forgeries import FORGERIES, Donor, Kind, Whose, forge
from avdetect.forgeries.desync import same_sound
from avdetect.forgeries.voicing import pulses
from avdetect.manifest import read_manifest, write_manifest
from avdetect.media import frames, open_clip
from avdetect.shortcuts import measure, separability
from avdetect.types import CLAIMS, Claim, Clip, Floats, Item, Label, Window
from avdetect.windows import prepare
from avdetect.writing import write_clip

SAMPLE = ROOT / "data" / "samples" / "sample.mp4"
KINDS = ("mouth", "neural_vocoder", "dubbed", "looped", "word_edit", "frozen_mouth", "flicker+griffin_lim")
SECONDS = 2.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of the sample, small."""
    source = open_clip(SAMPLE)
    assert source.waveform is not None
    path = tmp_path_factory.mktemp("footage") / "talk.mp4"
    pictures = [frame.image[::2, ::2] for frame in frames(source) if 12 <= frame.index < 62]
    return write_clip(path, pictures, source.waveform[12 * 640 : 62 * 640])


@pytest.fixture(scope="module")
def footage(clip: Path) -> Footage:
    return look(clip, SECONDS)


@pytest.fixture(scope="module")
def forged(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """The folder of a run over the clip, and what the run said."""
    folder = tmp_path_factory.mktemp("forged") / "out"
    return folder, call(*command(clip, folder))


def command(clip: Path, folder: Path, *more: str) -> tuple[str | Path, ...]:
    return ("forge", clip, "--kinds", ",".join(KINDS), "--longest", "2", "--out", folder, *more)


def items_of(folder: Path) -> dict[str, Item]:
    return {item.extra["forgery"]: item for item in read_manifest(folder / "manifest.csv")}


def test_every_kind_becomes_a_clip_with_labels_beside_a_copy_of_the_source(
    forged: tuple[Path, Answer],
) -> None:
    folder, answer = forged
    assert answer.code == 0 and answer.err == [] and "7 forgeries of 1 clips" in answer.out
    items = items_of(folder)
    assert list(items) == ["source", *KINDS]
    assert items["source"].label == Label(False, False, False) and items["source"].method is None
    assert items["mouth"].label.face_manipulation is True and items["mouth"].label.voice_cloning is False
    assert items["mouth"].label.lip_sync_mismatch is None  # a mouth that was redrawn may still fit
    assert (
        items["neural_vocoder"].label.voice_cloning is True
        and items["neural_vocoder"].label.lip_sync_mismatch is False
    )
    assert items["dubbed"].label.lip_sync_mismatch is True and items["dubbed"].label.voice_cloning is False
    assert items["word_edit"].label[Claim.VOICE_CLONING] and items["word_edit"].label[Claim.LIP_SYNC_MISMATCH]
    both, held = items["flicker+griffin_lim"], items["frozen_mouth"]
    assert both.label[Claim.FACE_MANIPULATION] and both.label[Claim.VOICE_CLONING]
    assert both.label.lip_sync_mismatch is None and both.method == "Griffin-Lim + temporal flicker"
    assert held.label[Claim.FACE_MANIPULATION] and held.label[Claim.LIP_SYNC_MISMATCH]
    assert len({item.pair_id for item in items.values()}) == 1
    assert (folder / "contact_sheet.png").stat().st_size > 10_000


def test_files_play_and_their_outsides_are_alike(forged: tuple[Path, Answer]) -> None:
    measured = [measure(open_clip(item.path)) for item in items_of(forged[0]).values()]
    outside = ("container", "video_codec", "audio_codec", "sample_rate", "channels", "bit_rate", "duration")
    for name in (*outside, "has_audio", "has_video", "width", "height", "fps"):
        assert len({getattr(row, name) for row in measured}) == 1, name
    assert measured[0].duration == pytest.approx(2.0, abs=0.05)
    levels = [row.loudness for row in measured]
    assert None not in levels and max(levels) - min(levels) < 1.5  # type: ignore[type-var, operator]


def test_segments_tell_where_the_sound_differs(forged: tuple[Path, Answer]) -> None:
    items = items_of(forged[0])
    source = open_clip(items["source"].path).waveform
    for name in ("dubbed", "word_edit"):
        waveform = open_clip(items[name].path).waveform
        assert source is not None and waveform is not None
        inside = np.zeros(50, bool)
        for segment in items[name].label.segments:
            inside[int(segment.start * 25) : int(np.ceil(segment.end * 25))] = True
        apart = np.abs(waveform[:32_000] - source[:32_000]).reshape(50, 640).mean(1)
        near = np.convolve(inside, np.ones(5), "same") > 0  # AAC smears by a frame or two
        assert apart[inside].mean() > 20 * apart[~near].mean(), name


def test_the_files_say_that_they_are_forged(forged: tuple[Path, Answer]) -> None:
    for name, item in items_of(forged[0]).items():
        with av.open(str(item.path)) as container:
            comment = container.metadata["comment"]
        assert (
            "nothing forged" if name == "source" else "FORGED by avdetect"
        ) in comment and "talk.mp4" in comment


def test_detection_cannot_read_the_mark(forged: tuple[Path, Answer], tmp_path: Path) -> None:
    """The same packets with the mark, without it and with the opposite one: `prepare`, the only way from a file to a
    model, gives the same windows.
    """
    marked = items_of(forged[0])["neural_vocoder"].path
    kept, *others = [marked, tmp_path / "bare.mp4", tmp_path / "turned.mp4"]
    clip, windows = _seen(kept)
    for copy, comment in zip(others, ("", "a real recording, nothing forged"), strict=True):
        _remux(marked, copy, comment)
        with av.open(str(copy)) as container:
            assert container.metadata.get("comment", "") == comment
        other, theirs = _seen(copy)
        assert len(theirs) == len(windows) > 0
        for one, same in zip(windows, theirs, strict=True):
            for field in fields(Window):
                np.testing.assert_array_equal(getattr(one, field.name), getattr(same, field.name))
        for field in fields(Clip):
            if field.name not in ("path", "sha256"):
                np.testing.assert_array_equal(getattr(clip, field.name), getattr(other, field.name))


def test_the_mark_changes_no_verdict(forged: tuple[Path, Answer], tmp_path: Path) -> None:
    marked = items_of(forged[0])["flicker+griffin_lim"].path
    _remux(marked, tmp_path / "bare.mp4", "")
    with av.open(str(marked)) as container:
        assert "FORGED" in container.metadata["comment"]
    said, again = (detector().detect(path) for path in (marked, tmp_path / "bare.mp4"))
    assert said.outcome is again.outcome and said.score == again.score and said.evidence == again.evidence
    for claim in CLAIMS:
        assert said.claims[claim] == again.claims[claim]
    assert said.claims[Claim.VOICE_CLONING].score is not None


def _seen(path: Path) -> tuple[Clip, list[Window]]:
    prepared = prepare(path)
    return prepared.clip, list(prepared)


def _remux(source: Path, target: Path, comment: str) -> None:
    """The same packets in a new file with other metadata."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        if comment:
            new.metadata["comment"] = comment
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)


def test_a_second_run_makes_nothing_again_and_a_lost_group_anew(
    clip: Path, forged: tuple[Path, Answer]
) -> None:
    folder, _ = forged
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*.mp4")}
    assert call(*command(clip, folder)).code == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")} == {
        name: time for name, (time, _) in before.items()
    }
    lost = items_of(folder)["dubbed"].path
    lost.unlink()
    assert call(*command(clip, folder)).code == 0
    assert lost.read_bytes() == before[lost.name][1]  # from the seed alone
    assert [item.extra["forgery"] for item in read_manifest(folder / "manifest.csv")] == ["source", *KINDS]


def test_it_refuses_a_folder_of_other_settings_or_other_files(
    clip: Path, forged: tuple[Path, Answer], tmp_path: Path
) -> None:
    other = call(*command(clip, forged[0], "--seed", "5"))
    assert other.code == 1 and "other settings" in other.err[0]
    (tmp_path / "holiday.txt").write_text("mine")
    foreign = call(*command(clip, tmp_path))
    assert (
        foreign.code == 1
        and "not made here" in foreign.err[0]
        and (tmp_path / "holiday.txt").read_text() == "mine"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--kinds", "deepfake"), "'deepfake' is unknown; known are face, voice, sync, self_blended"),
        (("--kinds", ","), "--kinds is empty"),
        (("--kinds", "mouth+"), "'' is unknown"),
        (("--kinds", "shift + drift"), "'shift+drift' moves the sound twice"),
        (("--strength", "0"), "--strength is 0, must be above 0"),
        (("--strength", "1.5"), "--strength is 1.5"),
        (("--stretch", "60"), "--stretch is 60 s"),
        (("--longest", "0.1"), "--longest is 0.1 s"),
        (("--seed", "-1"), "--seed is -1"),
    ],
)
def test_impossible_settings_are_told_before_any_work(
    tmp_path: Path, options: tuple[str, str], words: str
) -> None:
    answer = call("forge", SAMPLE, "--out", tmp_path / "out", *options)
    assert answer.code == 2 and len(answer.err) == 1 and words in answer.err[0]
    assert not (tmp_path / "out").exists()


def test_sound_alone_is_forged_to_wav_and_what_it_lacks_is_told(tmp_path: Path) -> None:
    make_audio(tmp_path / "speech.flac", voice(2.0))
    answer = call("forge", tmp_path / "speech.flac", "--kinds", "face,world_like", "--out", tmp_path / "out")
    assert answer.code == 1 and "no 'face' forgery (no face to forge is seen)" in answer.err[0]
    items = items_of(tmp_path / "out")
    assert items["source"].path.suffix == ".wav" and items["world_like"].label == replace(
        Label(None, True, None), segments=items["world_like"].label.segments
    )
    rows = [measure(open_clip(items[name].path)) for name in ("source", "world_like")]
    for name in ("container", "audio_codec", "sample_rate", "channels", "bit_rate", "duration"):
        assert getattr(rows[0], name) == getattr(rows[1], name), name
    with wave.open(str(items["world_like"].path)) as file:
        assert (
            file.getnframes() == 32_000
        )  # a strict reader finds the sound, and passes over what evens out the size


def test_what_cannot_be_forged_is_told_and_the_rest_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "footage"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"not a clip")
    make_video(folder / "silent.mp4", 1.0)
    make_audio(folder / "speech.flac", voice(2.0))
    (folder / "notes.txt").write_text("no clip, and not taken for one")
    answer = call("forge", folder, "--kinds", "griffin_lim", "--out", tmp_path / "out")
    assert answer.code == 1 and len(answer.err) == 2
    assert any("broken.mp4" in line for line in answer.err) and any(
        "nobody is heard" in line for line in answer.err
    )
    assert list(items_of(tmp_path / "out")) == ["source", "griffin_lim"]


def test_of_a_manifest_only_what_is_not_fake_is_forged(tmp_path: Path) -> None:
    for name in ("real", "made"):
        make_audio(tmp_path / f"{name}.flac", voice(2.0) * (1.0 if name == "real" else 0.5))
    rows = [
        Item(
            tmp_path / "real.flac",
            Label(voice_cloning=False),
            source="studio",
            identities=("ann",),
            language="en",
        ),
        Item(tmp_path / "made.flac", Label(voice_cloning=True)),
    ]
    write_manifest(rows, tmp_path / "clips.csv")
    assert (
        call("forge", tmp_path / "clips.csv", "--kinds", "neural_codec", "--out", tmp_path / "out").code == 0
    )
    items = items_of(tmp_path / "out")
    assert len(items) == 2 and all(
        item.source == "studio" and item.language == "en" for item in items.values()
    )
    assert items["source"].label.voice_cloning is False and items["neural_codec"].label.voice_cloning is True


def test_inputs_that_hold_nothing_are_told(tmp_path: Path) -> None:
    for given, words in ((tmp_path / "none.mp4", "no such file"), (tmp_path, "no clips of real footage")):
        answer = call("forge", given, "--out", tmp_path / "out")
        assert answer.code == 1 and words in answer.err[0]


def test_settings_name_what_they_know() -> None:
    assert set(ForgeSettings().kinds) == set(Kind)
    assert all(ForgeSettings(kinds=(name,)) for name in FORGERIES)


@pytest.mark.parametrize("name", ["mouth", "face_swap", "generator"])
def test_a_face_is_pasted_into_its_stretch_and_its_place_alone(footage: Footage, name: str) -> None:
    made = fake(footage, (name,), np.random.default_rng(3), footage.window, 1.0, 0.8)
    (segment,) = made.label.segments
    assert segment.length == pytest.approx(0.8, abs=0.05)
    landmarks = footage.window.landmarks
    assert landmarks is not None
    for index, (real, shown) in enumerate(zip(images(footage), images(footage, made), strict=True)):
        apart = np.abs(real.astype(int) - shown).max(-1)
        if not round(segment.start * 25) <= index < round(segment.end * 25):
            assert not apart.any()
            continue
        low, high = landmarks[index, :, :2].min(0), landmarks[index, :, :2].max(0)
        room = 0.35 * float((high - low).max())
        left, top = np.maximum(low - room, 0).astype(int)
        right, bottom = (high + room).astype(int)
        assert apart[top:bottom, left:right].max() > 4
        apart[top:bottom, left:right] = 0
        assert not apart.any()


def test_a_picture_in_another_order_shows_frames_of_the_clip(footage: Footage) -> None:
    made = fake(footage, ("looped",), np.random.default_rng(1), None, 1.0, None)
    plain = list(images(footage))
    assert made.frames is not None and (made.frames != np.arange(50)).any()
    for at, shown in zip(made.frames, images(footage, made), strict=True):
        np.testing.assert_array_equal(shown, plain[at])


def test_a_crop_that_was_not_changed_comes_back_where_it_was() -> None:
    rng = np.random.default_rng(0)
    frame = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 3)
    matrix = np.array([[0.96, 0.28, -30.0], [-0.28, 0.96, 10.0]])
    crop = warp(frame, matrix, 80)
    back = paste(frame, crop, np.ones((80, 80), np.float32), matrix)
    assert np.abs(back.astype(int) - frame).max() <= 6 and np.array_equal(back[:, -20:], frame[:, -20:])


def test_help_names_every_forgery_and_answers_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "avdetect", "forge", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(name in done.stdout for name in FORGERIES)
    assert not any(f"| {name}\n" in done.stderr for name in ("torch", "cv2", "numpy", "mediapipe"))


def test_the_record_holds_the_settings(forged: tuple[Path, Answer]) -> None:
    record = json.loads((forged[0] / "forge.json").read_text())
    assert record["made by"] == "avdetect forge" and record["kinds"] == list(KINDS) and record["seed"] == 0


def test_a_painted_frame_of_a_reordered_picture_is_painted_on_the_frame_that_is_shown(
    footage: Footage,
) -> None:
    made = fake(footage, ("looped", "frozen_mouth"), np.random.default_rng(2), None, 1.0, None)
    assert made.frames is not None and made.pasted and made.label.face_manipulation
    plain, landmarks = list(images(footage)), footage.window.landmarks
    assert landmarks is not None
    painted = 0
    for index, shown in enumerate(images(footage, made)):
        source = int(made.frames[index])
        apart = np.abs(shown.astype(int) - plain[source]).max(-1)
        painted += bool(apart.any())
        low, high = landmarks[source, :, :2].min(0), landmarks[source, :, :2].max(0)
        inside = np.zeros(apart.shape, bool)
        inside[int(low[1] + 0.35 * (high - low)[1]) : int(high[1] + 0.15 * (high - low)[1])] = True
        assert not apart[~inside].any()  # eyes, brow and all above are the shown frame's own
    assert painted > 5
    faces = [s for s in made.label.segments if s.claim is Claim.FACE_MANIPULATION]
    assert sum(round(25 * s.length) for s in faces) == len(made.pasted)


def test_a_forgery_of_which_nothing_came_is_no_forgery(footage: Footage) -> None:
    with pytest.raises(ValueError, match="too little came of it"):
        fake(footage, ("shift",), np.random.default_rng(0), None, 0.01, None)


def person(name: str, *people: str, pair: str | None = None) -> Item:
    return Item(Path(name), Label(), identities=people, pair_id=pair)


def test_a_donor_is_of_whom_the_forgery_wants() -> None:
    source = person("a", "ann", pair="sentence 1")
    given = [
        source,
        person("b", "ann", pair="sentence 1"),
        person("c", "ann"),
        person("d", "bob"),
        person("e"),
    ]
    names = {whose: [str(i.path) for i in given if may_give(i, source, whose)] for whose in Whose}
    assert names == {
        Whose.ANYONE: ["c", "d", "e"],
        Whose.OTHER: ["d", "e"],
        Whose.SAME_SEX: ["d", "e"],
        Whose.SAME_PERSON: ["c"],
    }
    assert "column 'identity'" in wanting("swap_same_person") and "another person's clip" in wanting("swap")


@pytest.fixture
def voices(monkeypatch: pytest.MonkeyPatch) -> dict[str, Footage]:
    """Inputs by name: people who hum at a pitch of their own, and one that cannot be read."""
    pitches = {"ann": 210.0, "ann2": 215.0, "eve": 240.0, "bob": 115.0, "tom": 120.0}
    kept, rng = {}, np.random.default_rng(0)
    for name, hertz in pitches.items():
        turn = 1 + 0.05 * np.sin(np.arange(32_000) / rng.uniform(700, 1300))
        clip = Clip(Path(name), 2.0, "", np.zeros(32_000, np.float32))
        breath = rng.normal(0, 0.04, 32_000).astype(np.float32)
        sound = 0.1 * pulses((hertz * turn).astype(np.float32)) + breath
        kept[name] = Footage(clip, Window(0.0, 2.0, sound, np.ones(50, bool)))

    def look_at(path: Path, longest: float, audio_path: Path | None) -> Footage:
        if path.name == "broken":
            raise MediaError(path, "cannot be read")
        return kept[path.name]

    monkeypatch.setattr("avdetect.forge_donors.look_at", look_at)
    return kept


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("ann", "swap_same_sex", {"eve"}),
        ("bob", "swap_same_sex", {"tom"}),
        ("ann", "swap_same_person", {"ann2"}),
        ("ann", "swap", {"eve", "bob", "tom"}),
        ("bob", "swap_same_person", set()),
        ("bob", "shift", set()),
        ("bob", "face_swap", set()),
    ],
)
def test_the_donor_is_found_among_the_inputs(
    voices: dict[str, Footage], source: str, name: str, expected: set[str]
) -> None:
    people = {each: person(each, each.rstrip("2")) for each in [*voices, "broken"]}
    found = [
        find_donor(
            people[source], voices[source], [name], list(people.values()), np.random.default_rng(seed), 30.0
        )
        for seed in range(16)
    ]
    taken = {each for each, footage in voices.items() for one in found if one is footage.window}
    assert taken == expected and (None in found) == (not expected)


def test_forgeries_together_share_a_donor_that_fits_all_or_those_that_need_one(
    voices: dict[str, Footage],
) -> None:
    people = {each: person(each, each.rstrip("2")) for each in voices}
    rng, inputs = np.random.default_rng(0), list(people.values())
    both = find_donor(people["ann"], voices["ann"], ["swap_same_sex", "voice_conversion"], inputs, rng, 30.0)
    assert both is voices["eve"].window
    own = find_donor(people["ann"], voices["ann"], ["swap_same_person", "mouth"], inputs, rng, 30.0)
    assert own is voices["ann2"].window  # no clip has a face, and a mouth needs no donor


def heard(path: Path, number: int) -> Window | None:
    """The clip's sound with where someone speaks, between two stretches of quiet of their own lengths."""
    clip = open_clip(path)
    assert clip.waveform is not None
    rng = np.random.default_rng(number)
    noise = [rng.normal(0, 1e-4, int(rng.uniform(0, 0.5) * 16_000)) for _ in range(2)]
    sound = np.concatenate([noise[0], clip.waveform, noise[1]]).astype(np.float32)
    sound = sound[: len(sound) // 640 * 640]
    loud = sound.reshape(-1, 640).std(1)
    speech = loud > 0.03 * loud.max()
    return Window(0.0, len(speech) / 25, sound, speech) if speech.sum() >= 25 else None


SOUNDS = [
    name
    for name, member in FORGERIES.items()
    if member.kind is Kind.SYNC and name not in ("frozen", "looped", "frozen_mouth")
]


@pytest.mark.corpus
def test_level_silence_and_band_do_not_tell_what_was_put_out_of_step(corpus: Path) -> None:
    """A classifier on what surrounds the content, pairs held out; .5 is chance, and .05 its standard error here."""
    talking = [Path(row.path) for row in read_manifest(corpus / "manifest.csv") if _talks(row)]
    windows = [one for at, path in enumerate(talking[:80]) if (one := heard(path, at)) is not None]
    assert len(windows) >= 60
    items, measured = [], []
    for at, window in enumerate(windows):
        rng = np.random.default_rng(at)
        name = [one for one in SOUNDS if one != "swap_same_sex"][at % (len(SOUNDS) - 1)]
        assert window.waveform is not None
        others = [windows[(at + step) % len(windows)] for step in range(len(windows) // 2, len(windows))]
        donor = next(one for one in others if not same_sound(window.waveform, one.waveform))  # type: ignore[arg-type]
        made = forge(name, window, rng, donor if FORGERIES[name].donor is not Donor.NONE else None)
        assert made.window.waveform is not None
        treatment = _treatment(window.waveform, rng)
        for fake_, waveform in ((False, window.waveform), (True, made.window.waveform)):
            items.append(Item(talking[0], Label(lip_sync_mismatch=fake_), pair_id=str(at)))
            measured.append(measure(_clip(talking[0], _treated(waveform, treatment))))
    for features, most in (("level", 0.62), ("silence", 0.65), ("bandwidth", 0.65), ("all", 0.66)):
        told = separability(items, measured, Claim.LIP_SYNC_MISMATCH, features).held_out_sources
        assert told is not None and told < most, features


def _talks(row: Item) -> bool:
    return row.path.parent.name == "audio_real" and not any("fsdd" in one for one in row.identities)


def _clip(path: Path, waveform: Floats) -> Clip:
    return Clip(path, len(waveform) / 16_000, "", waveform)
