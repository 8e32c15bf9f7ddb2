"""Training examples: drawn by their index alone, labelled as what was done to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_augment import pictures
from test_batch import make_face

from avdetect.errors import ConfigError
from avdetect.forgeries import Forged
from avdetect.forgeries import forge as really_forge
from avdetect.prepared import PreparedClip
from avdetect.recordings import (
    Example,
    ExampleSet,
    MixSettings,
    Recording,
    by_source,
    collate_examples,
    recordings_of,
)
from avdetect.types import CLAIMS, Claim, Floats, Item, Label, Window

SECONDS = 8.0
REAL = Label(face_manipulation=False, voice_cloning=False, lip_sync_mismatch=False)
FAKE = Label(face_manipulation=True, voice_cloning=True)
MIX = MixSettings(voice=4, face=2, sync=4, degrade=0.0, crops=3, shortest=1.0, longest=2.0)


def loudness(seed: int) -> Floats:
    """How loud the voice, and how open the mouth, is in each frame [T], 0..1: no lag fits it but the true one."""
    return np.random.default_rng(seed).random(round(SECONDS * 25)).astype(np.float32)


def recording(seed: int, label: Label = REAL, sign: float = 1.0, source: str = "a") -> Recording:
    """A face `100 + 300 seed` px from the left that opens its mouth as loud as its voice; samples have one sign."""
    loud, frames = loudness(seed), round(SECONDS * 25)
    noise = np.abs(np.random.default_rng(seed + 99).normal(0, 0.1, (frames, 640)))
    landmarks = np.concatenate([make_face(1, 30 * float(value)) for value in loud])
    landmarks[..., 0] += 300 * seed
    window = Window(
        0.0,
        SECONDS,
        waveform=(sign * noise * loud[:, None]).reshape(-1).astype(np.float32),
        speech=np.ones(frames, bool),
        track=0,
        found=np.ones(frames, bool),
        landmarks=landmarks,
        face_crops=np.repeat(pictures(1, 224), 8, 0),
        crop_frames=np.arange(8) * 5,
        crop_landmarks=np.random.default_rng(seed).uniform(60, 160, (8, 478, 2)).astype(np.float32),
    )
    return Recording(Item(Path(f"{seed}.mp4"), label, source=source, identities=(str(seed),)), window)


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [recording(0), recording(1, sign=-1.0, source="b"), recording(2, FAKE)]


def examples(recordings: list[Recording], steps: int = 4, seed: int = 0, **mix: object) -> ExampleSet:
    return ExampleSet(recordings, replace(MIX, **mix), steps, seed)  # type: ignore[arg-type]


def equal(one: Example, other: Example) -> bool:
    batches = collate_examples([one]), collate_examples([other])
    return batches[0].keys() == batches[1].keys() and all(
        torch.equal(batches[0][k].nan_to_num(7), batches[1][k].nan_to_num(7)) for k in batches[0]
    )


def test_an_index_is_an_example(recordings: list[Recording]) -> None:
    one, again = examples(recordings, degrade=1.0), examples(recordings, degrade=1.0)
    order = np.random.default_rng(0).permutation(len(one))
    drawn = {int(index): one[int(index)] for index in order}
    assert all(equal(drawn[index], again[index]) for index in range(len(again)))


def test_another_seed_or_index_is_another_example(recordings: list[Recording]) -> None:
    one, other = examples(recordings), examples(recordings, seed=1)
    batch = MIX.batch
    assert not equal(one[0], other[0])
    assert not equal(one[0], one[batch])


def test_drawing_leaves_the_recordings_alone(recordings: list[Recording]) -> None:
    def total() -> float:
        parts = [(r.window.waveform, r.window.landmarks, r.window.face_crops) for r in recordings]
        return float(sum(float(a.astype(float).sum()) for row in parts for a in row if a is not None))

    before = total()
    for index in range(MIX.batch * 2):
        examples(recordings, degrade=1.0)[index]
    assert total() == before


def test_a_batch_holds_what_the_mix_says(recordings: list[Recording]) -> None:
    made = examples(recordings, steps=3)
    assert len(made) == 3 * 10
    for start in (0, 10, 20):
        row = [made[start + n] for n in range(10)]
        assert all(e.window.face_crops is None and e.window.landmarks is None for e in row[:4])
        assert all(e.window.waveform is None and len(e.window.face_crops) == 3 for e in row[4:6])
        assert all(e.window.landmarks is not None and e.window.face_crops is None for e in row[6:])
        known = [[c for c in CLAIMS if e.label[c] is not None] for e in row]
        assert (
            known
            == [[Claim.VOICE_CLONING]] * 4 + [[Claim.FACE_MANIPULATION]] * 2 + [[Claim.LIP_SYNC_MISMATCH]] * 4
        )


def test_every_other_voice_and_face_is_fake(recordings: list[Recording]) -> None:
    made = examples(recordings)
    for index in range(len(made)):
        if index % MIX.batch < 6:
            assert made[index].label.is_fake is bool(index % 2)


def test_a_forgery_stands_beside_the_real_clip_that_it_was_made_from(recordings: list[Recording]) -> None:
    made = examples(recordings, steps=8, forged_voices=1.0, forged_faces=1.0)
    for start in range(0, len(made), MIX.batch):
        for index in (0, 2):
            real, fake = made[start + index].window, made[start + index + 1].window
            levels = [np.sqrt(np.mean(w.waveform.reshape(-1, 640) ** 2, 1)) for w in (real, fake)]
            assert np.corrcoef(*levels)[0, 1] > 0.5
            assert not np.array_equal(real.waveform, fake.waveform)
        real, fake = made[start + 4].window, made[start + 5].window
        np.testing.assert_array_equal(real.crop_frames, fake.crop_frames)
        assert real.face_crops.shape == fake.face_crops.shape
        assert not np.array_equal(real.face_crops, fake.face_crops)


def test_without_forging_fakes_are_the_labelled_ones(recordings: list[Recording]) -> None:
    made = examples(recordings, steps=6, forged_voices=0.0, same_source=0.0)
    fake = recordings[2].window.waveform
    for start in range(0, len(made), MIX.batch):
        piece = made[start + 1].window.waveform
        piece = piece - piece[:640].mean() + fake[: len(fake)].mean()
        best = max(
            np.corrcoef(piece[:6400], fake[first : first + 6400])[0, 1]
            for first in range(0, len(fake) - 6400, 640)
        )
        assert best > 0.999


def lag_of(window: Window) -> int:
    """Frames by which the sound is late, found by content alone: mouth opening against loudness."""
    opening = window.landmarks[:, 17, 1] - window.landmarks[:, 0, 1]
    loud = np.abs(window.waveform).reshape(len(opening), -1).mean(1)
    span = range(-24, 25)
    scores = []
    for lag in span:
        a, b = opening[max(0, -lag) : len(opening) - max(0, lag)], loud[max(0, lag) : len(loud) + min(0, lag)]
        scores.append(np.corrcoef(a, b)[0, 1])
    return span[int(np.argmax(scores))]


def test_a_positive_lag_is_sound_that_is_late(recordings: list[Recording]) -> None:
    made = examples(recordings, steps=12, negatives=0.8)
    seen: dict[bool, list[int]] = {False: [], True: []}
    for index in range(len(made)):
        example = made[index]
        if index % MIX.batch < 6 or example.lag is None:
            continue
        assert lag_of(example.window) == pytest.approx(example.lag, abs=1)
        assert example.label.lip_sync_mismatch is (abs(example.lag) >= 4)
        seen[bool(example.label.lip_sync_mismatch)].append(example.lag)
    assert min(seen[True]) < -8 and max(seen[True]) > 8
    assert set(seen[False]) <= {-1, 0, 1}


def test_a_swapped_voice_is_another_clips_and_has_no_lag(recordings: list[Recording]) -> None:
    made = examples(recordings, steps=12, negatives=1.0)
    swaps = [made[i] for i in range(len(made)) if i % MIX.batch >= 6 and made[i].lag is None]
    assert len(swaps) > 10
    for example in swaps:
        first = np.abs(example.window.landmarks[0, :, 0]).max() < 400  # the face of recording 0 stands left
        assert example.label.lip_sync_mismatch is True
        assert (example.window.waveform <= 0).all() if first else (example.window.waveform >= 0).all()


def test_the_shares_of_sync_negatives_are_kept(recordings: list[Recording]) -> None:
    made = examples(recordings, steps=60)
    labels = [made[i].label.lip_sync_mismatch for i in range(len(made)) if i % MIX.batch >= 6]
    assert np.mean(labels) == pytest.approx(0.5, abs=0.1)


def test_a_source_counts_by_the_root_of_its_share() -> None:
    rows = [recording(0, source="big")] * 9 + [recording(1, source="small")]
    chances = by_source(rows)
    assert chances.sum() == pytest.approx(1)
    assert chances[:9].sum() / chances[9] == pytest.approx(3)


def test_of_several_faces_the_longest_in_view_is_kept_and_sound_without_one() -> None:
    item = Item(Path("x.mp4"), REAL)
    seen = ((0, 0), (0, 1), (1, 1), (2, None), (3, None), (4, None))
    windows = tuple(
        Window(s, s + 1, track=t, found=None if t is None else np.ones(25, bool)) for s, t in seen
    )
    kept = recordings_of(
        [PreparedClip(item, windows), PreparedClip(item, windows[3:]), PreparedClip(item, ())]
    )
    assert [r.window.track for r in kept] == [1, 1, *[None] * 6]


def test_a_batch_carries_labels_and_lags(recordings: list[Recording]) -> None:
    made = examples(recordings)
    batch = collate_examples([made[n] for n in range(MIX.batch)])
    assert batch["labels"].shape == (10, 3) and batch["true_lag"].shape == (10,)
    assert batch["true_lag"][:6].isnan().all()
    voice = CLAIMS.index(Claim.VOICE_CLONING)
    assert batch["labels"][:4, voice].tolist() == [0, 1, 0, 1] and batch["labels"][4:, voice].isnan().all()
    assert batch["waveform_lengths"][4:6].tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["voice", "face", "sync"])
def test_a_kind_that_no_clip_can_give_is_refused_in_one_line(recordings: list[Recording], kind: str) -> None:
    unfit = [Recording(replace(r.item, label=Label()), r.window) for r in recordings]
    with pytest.raises(ConfigError, match=rf"no real training clip is fit for '{kind}'.*mix\.{kind}=0"):
        examples(unfit, **{**dict.fromkeys(("voice", "face", "sync"), 0), kind: 2})


def test_only_the_named_forgeries_are_drawn(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def forge(name: str, window: Window, *rest: object) -> Forged:
        seen.add(name)
        return really_forge(name, window, *rest)  # type: ignore[arg-type]

    def resynthesise(waveform: Floats, rng: np.random.Generator, kind: str | None) -> tuple[Floats, str]:
        seen.add(str(kind))
        return waveform, str(kind)

    monkeypatch.setattr("avdetect.recordings.forge", forge)
    monkeypatch.setattr("avdetect.recordings.resynthesise", resynthesise)
    kinds = ("flicker", "generator", "griffin_lim")
    made = examples(recordings, steps=8, forged_voices=1.0, forged_faces=1.0, kinds=kinds)
    assert all(made[index] for index in range(len(made)))
    assert seen == set(kinds)


def test_a_forgery_that_training_does_not_draw_is_refused(recordings: list[Recording]) -> None:
    with pytest.raises(ConfigError, match=r"mix\.kinds: 'word_edit' forges a part of a recording"):
        examples(recordings, kinds=("word_edit",))
