"""The main job from Python: a media file in, a verdict out, and each of its parts in its place."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonschema
import numpy as np
import pytest
import torch
from clips import make_audio, make_video
from commands import ROOT, detector, portrait, speaker, voice
from numpy.typing import NDArray

import avdetect
from avdetect import Detector, hub
from avdetect.detect import (
    LONGEST_CURVE,
    claim_result,
    doubted,
    overall,
    probability,
    read_score,
    voice_doubt,
)
from avdetect.errors import ConfigError, ModelError
from avdetect.fusion import FusionConfig, FusionModel
from avdetect.loading import load_network
from avdetect.network import FusionNetwork, FusionOutput
from avdetect.pooling import MAX_PICTURED, MIN_OVERLAP_STEPS, ClipEvidence, Pooled, TrackEvidence
from avdetect.report import json_schema, to_dict, to_html, to_text
from avdetect.types import CLAIMS, Claim, ClaimResult, Clip, Outcome, Status, Verdict, Window
from avdetect.writing import write_clip

FACE, VOICE, SYNC = CLAIMS


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 s of a face with speech, the last 0.2 s without a frame."""
    path = tmp_path_factory.mktemp("clips") / "talking.mp4"
    return make_video(path, size=(480, 360), images=speaker(120), seconds=4.8, audio=voice(5.0))


@pytest.fixture(scope="module")
def verdict(talking: Path) -> Verdict:
    return detector().detect(talking)


# --- the whole --------------------------------------------------------------------------------------------------


def test_every_claim_is_answered(verdict: Verdict, talking: Path) -> None:
    assert verdict.error is None and verdict.path == talking and len(verdict.sha256 or "") == 64
    assert verdict.duration == pytest.approx(5.0, abs=0.1)
    assert [result.status for result in verdict.claims.values()] == [Status.ASSESSED] * 3
    scores = [result.score for result in verdict.claims.values() if result.score is not None]
    assert verdict.score == max(scores) and all(0 <= score <= 1 for score in scores)
    assert verdict.model.name == "base" and verdict.model == hub.info(hub.find("base"))


def test_the_json_obeys_the_schema_and_the_reports_hold_it(verdict: Verdict) -> None:
    answer = to_dict(verdict)
    jsonschema.validate(answer, json_schema())
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert verdict.outcome.value.upper() in to_text(verdict).plain
    assert "data:image/jpeg" in to_html(verdict)


def test_nothing_lies_beyond_the_end(verdict: Verdict) -> None:
    duration = verdict.duration or 0
    for result in verdict.claims.values():
        assert result.timeline.times and max(result.timeline.times) <= duration
        assert all(segment.end <= duration for segment in result.segments)
    assert verdict.evidence and all(0 <= e.start < e.end <= duration + 1e-6 for e in verdict.evidence)


def test_curves_say_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    """A second of silence before and after the speech."""
    quiet = np.zeros((1, 24_000), np.float32)
    path = make_audio(tmp_path / "late.wav", np.concatenate([quiet, voice(2.0), quiet], 1))
    timeline = detector().detect(path).claims[VOICE].timeline
    assert timeline.scores[0] is None and timeline.scores[-1] is None
    assert sum(score is not None for score in timeline.scores) >= 5


def test_a_clip_scores_the_same_after_others(talking: Path, verdict: Verdict, tmp_path: Path) -> None:
    detector().detect(make_audio(tmp_path / "other.wav", voice(2.0)))
    again = detector().detect(str(talking))
    assert again.claims == verdict.claims and again.tracks[0].size == verdict.tracks[0].size


def test_timing_adds_up(verdict: Verdict) -> None:
    timing = verdict.timing
    parts = timing.decode_s + timing.faces_s + timing.model_s
    assert min(timing.decode_s, timing.faces_s, timing.model_s) > 0 and parts <= timing.total_s
    assert timing.realtime_factor == pytest.approx(timing.total_s / (verdict.duration or 1))


def test_progress_rises_to_one(talking: Path) -> None:
    shares: list[float] = []
    detector().detect(talking, shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_two_faces_in_one_picture_are_two_tracks(tmp_path: Path) -> None:
    pair = np.concatenate([portrait(256, 300, (360, 360)), portrait(300, 352, (360, 360))], 1)
    path = make_video(tmp_path / "pair.mp4", size=(720, 360), images=[pair] * 50, seconds=2, audio=voice(2.0))
    found = detector().detect(path)
    assert [track.id for track in found.tracks] == [0, 1]
    assert all(track.assessable and track.thumbnail is not None for track in found.tracks)
    sizes = sorted(track.size for track in found.tracks)
    assert sizes[1] / sizes[0] == pytest.approx(300 / 256, rel=0.1)
    assert set(found.thumbnails) == {0, 1} and found.claims[FACE].track in {0, 1}


def test_sound_alone_has_no_picture(tmp_path: Path) -> None:
    found = detector().detect(make_audio(tmp_path / "voice.flac", voice(2.0)))
    assert found.claims[VOICE].status is Status.ASSESSED and found.tracks == ()
    assert found.claims[FACE].reason == found.claims[SYNC].reason == "there is no picture"


def test_a_picture_alone_has_no_sound(tmp_path: Path) -> None:
    image = portrait(300, 352)
    path = make_video(tmp_path / "mute.mp4", size=(480, 360), images=[image] * 25, seconds=1)
    found = detector().detect(path)
    assert found.claims[FACE].status is Status.ASSESSED
    assert found.claims[VOICE].reason == found.claims[SYNC].reason == "there is no sound"


def test_lips_need_speech_beside_them_not_just_sound(tmp_path: Path) -> None:
    """The face is gone when the speech begins."""
    face, empty = speaker(60), np.full((360, 480, 3), 120, np.uint8)
    sound = np.concatenate([np.zeros((1, 40_000), np.float32), voice(2.5)], 1)
    path = make_video(
        tmp_path / "apart.mp4", size=(480, 360), images=face + [empty] * 65, seconds=5, audio=sound
    )
    found = detector().detect(path)
    assert found.claims[FACE].status is found.claims[VOICE].status is Status.ASSESSED
    assert "together for less than" in (found.claims[SYNC].reason or "")


def test_detect_is_the_short_way(tmp_path: Path) -> None:
    """The function and the module that it stands in share a name: both must answer, however they were imported."""
    path = make_audio(tmp_path / "voice.wav", voice(1.5))
    expected = detector().detect(path).claims
    with patch.object(Detector, "from_pretrained", lambda *_, **__: detector()):
        assert avdetect.detect(path).claims == expected
        assert importlib.import_module("avdetect.detect").detect(path).claims == expected
        assert avdetect.detect(path, "base").claims == expected


def test_what_cannot_be_read_is_a_verdict(tmp_path: Path) -> None:
    found = detector().detect(tmp_path / "nothing.mp4")
    assert found.outcome is Outcome.ERROR and found.score is None and found.claims == {}
    assert found.error == f"{tmp_path / 'nothing.mp4'}: no such file; check the path"


# --- the model behind it ------------------------------------------------------------------------------------------


def test_the_model_is_loaded_once_and_only_when_needed(tmp_path: Path) -> None:
    clip = make_audio(tmp_path / "voice.wav", voice(1.5))
    with patch("avdetect.detect.load_network", wraps=load_network) as load:
        fresh = Detector.from_pretrained()
        assert fresh.detect(tmp_path / "nothing.mp4").error and load.call_count == 0
        assert fresh.detect(clip).score == fresh.detect(clip).score
        assert load.call_count == 1 and isinstance(fresh.model, FusionNetwork)


def test_a_load_that_fails_in_the_background_is_told_at_the_clip(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hub.find("base"), tmp_path / "model"))
    (folder / "model.safetensors").write_bytes(b"nothing")
    broken = Detector.from_pretrained(folder)
    for _ in range(2):
        with pytest.raises(ModelError, match="the weights cannot be loaded") as error:
            broken.detect(make_audio(tmp_path / "voice.wav", voice(1.5)))
        assert "\n" not in str(error.value)


def test_faces_are_not_prepared_for_sound(tmp_path: Path) -> None:
    with patch("avdetect.detect.FaceFinder", side_effect=AssertionError("mediapipe was loaded")):
        other = Detector.from_pretrained()
        other._loading = detector()._load()
        assert other.detect(make_audio(tmp_path / "voice.wav", voice(1.5))).score is not None


@pytest.mark.parametrize("device", ["cuda:99", "meta", "gpu", "cuda:", ""])
def test_a_device_that_is_not_there_is_told(device: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        Detector.from_pretrained(device=device)


def test_a_model_without_a_claim_says_so(talking: Path) -> None:
    """A model for voices alone: the other claims are not its business."""
    torch.manual_seed(0)
    streams = {"voice": {"encoder": "lcnn", "options": {"width": 8, "dim": 16, "bands": 32}}}
    model = FusionModel(FusionConfig(streams=streams, claims={"voice_cloning": ["voice"]}, dim=16))
    other = Detector.from_pretrained()
    with patch("avdetect.detect.load_network", lambda *_: model.eval()):
        found = other.detect(talking)
    assert found.claims[VOICE].status is Status.ASSESSED
    assert found.claims[FACE].reason == found.claims[SYNC].reason == "this model does not answer it"


# --- reading scores -----------------------------------------------------------------------------------------------


def config(**changes: Any) -> FusionConfig:
    return FusionConfig(**changes)


def pooled(steps: int, logit: float = 2.0, peak: int | None = None) -> Pooled:
    curve = np.full(steps, -3.0, np.float32)
    if peak is not None:
        curve[peak : peak + 5] = 4.0
    return Pooled(logit, curve, np.ones(steps, bool), 0, 1.5)


@pytest.mark.parametrize(
    ("score", "low", "high", "expected"),
    [
        (0.5, 0.5, 0.5, Outcome.MANIPULATED),
        (0.4999, 0.5, 0.5, Outcome.NO_MANIPULATION_FOUND),
        (0.3, 0.3, 0.7, Outcome.INCONCLUSIVE),
        (0.7, 0.3, 0.7, Outcome.MANIPULATED),
        (0.2999, 0.3, 0.7, Outcome.NO_MANIPULATION_FOUND),
        (0.0, 0.0, 0.0, Outcome.MANIPULATED),
        (1.0, 0.3, 1.0, Outcome.MANIPULATED),
    ],
)
def test_thresholds(score: float, low: float, high: float, expected: Outcome) -> None:
    assert read_score(score, low, high) is expected


def test_probability_is_calibrated_and_never_overflows() -> None:
    tuned = config(calibration={FACE.value: {"scale": 2.0, "bias": -1.0}})
    assert float(probability(1.0, tuned, FACE)) == pytest.approx(1 / (1 + math.exp(-1)))
    extreme = probability(np.array([-1e30, 1e30], np.float32), tuned, FACE)
    assert 0 <= extreme[0] < 1e-9 and extreme[1] == 1 and np.isfinite(extreme).all()


def test_a_claim_keeps_its_offset_in_milliseconds_and_its_worst_stretch() -> None:
    result = claim_result(SYNC, pooled(100, peak=40), config(), 20.0)
    assert result.offset_ms == 60.0 and result.verdict is Outcome.MANIPULATED
    (segment,) = result.segments
    assert (segment.start, segment.end, segment.track) == (8.0, 9.0, 0)


def test_no_stretch_is_marked_where_nothing_was_found() -> None:
    assert claim_result(FACE, pooled(100, logit=-2.0, peak=40), config(), 20.0).segments == ()


def test_the_curve_of_an_hour_is_folded_and_keeps_its_peaks() -> None:
    duration = 3600.0
    result = claim_result(FACE, pooled(18_000, peak=17_990), config(), duration)
    times, scores = result.timeline.times, result.timeline.scores
    assert len(times) <= LONGEST_CURVE and times == tuple(sorted(times)) and 3590 < times[-1] < duration
    assert max(score for score in scores if score is not None) > 0.98
    assert result.segments[0].end <= duration


def assessed(claim: Claim, score: float, verdict: Outcome) -> ClaimResult:
    return ClaimResult(claim, Status.ASSESSED, verdict, score)


def unseen(claim: Claim) -> ClaimResult:
    return ClaimResult(claim, Status.NOT_ASSESSABLE, Outcome.NOT_ASSESSABLE, reason="no face")


def test_one_claim_makes_a_clip_manipulated_and_absence_proves_nothing() -> None:
    found = assessed(VOICE, 0.7, Outcome.MANIPULATED)
    doubt = assessed(FACE, 0.8, Outcome.INCONCLUSIVE)
    clean = assessed(SYNC, 0.1, Outcome.NO_MANIPULATION_FOUND)

    def of(*results: ClaimResult) -> tuple[Outcome, float | None]:
        given = {result.claim: result for result in results}
        return overall({claim: given.get(claim, unseen(claim)) for claim in CLAIMS})

    assert of(found, doubt, clean) == (Outcome.MANIPULATED, 0.8)
    assert of(doubt, clean) == (Outcome.INCONCLUSIVE, 0.8)
    assert of(clean) == (Outcome.NO_MANIPULATION_FOUND, 0.1)
    assert of() == (Outcome.NOT_ASSESSABLE, None)


# --- pooling ------------------------------------------------------------------------------------------------------


def seen(start: float, track: int | None, spoken: bool = True, steps: int = 100) -> Window:
    crops = None if track is None else np.zeros((20, 224, 224, 3), np.uint8)
    return Window(
        start,
        start + steps / 25,
        waveform=np.zeros(steps * 640, np.float32),
        speech=np.full(steps, spoken),
        track=track,
        found=None if track is None else np.ones(steps, bool),
        landmarks=None if track is None else np.zeros((steps, 478, 3), np.float32),
        face_crops=crops,
        crop_frames=None if crops is None else np.arange(0, 100, 5),
        crop_landmarks=None if crops is None else np.zeros((20, 478, 2), np.float32),
    )


def said(windows: list[Window], face: list[float], voice_: float = 0.0) -> FusionOutput:
    """What a model would say: each window's own face logit, the same everywhere in it."""
    logits = torch.zeros(len(windows), 20, 3)
    logits[..., 0], logits[..., 1] = torch.tensor(face)[:, None], voice_
    mask = torch.ones(len(windows), 20, 3, dtype=torch.bool)
    curve = torch.zeros(len(windows), 51)
    curve[:, 25] = torch.tensor(face)
    return FusionOutput(
        step_logits=logits,
        step_mask=mask,
        clip_logits=logits[:, 0],
        curve=curve,
        curve_weight=curve * 0 + 100,
    )


def gathered(windows: list[Window], face: list[float]) -> ClipEvidence:
    evidence = ClipEvidence()
    for first in range(0, len(windows), 4):
        evidence.add(windows[first : first + 4], said(windows[first : first + 4], face[first : first + 4]))
    return evidence


@pytest.fixture(scope="module")
def model() -> FusionModel:
    return detector().model


def test_the_most_suspicious_usable_face_speaks(model: FusionModel) -> None:
    evidence = gathered([seen(0, 0), seen(0, 1), seen(0, 2)], [-1.0, 1.0, 3.0])
    found = evidence.pool(model, FACE, 4.0, {0, 1})
    assert found is not None and found.track == 1 and found.logit == pytest.approx(1.0, abs=1e-4)
    assert evidence.pool(model, FACE, 4.0, set()) is None


def test_the_best_fitting_face_speaks_for_lip_sync(model: FusionModel) -> None:
    evidence = gathered([seen(0, 0), seen(0, 1)], [5.0, 90.0])
    alone = {track: evidence.pool(model, SYNC, 4.0, {track}) for track in (0, 1)}
    found = evidence.pool(model, SYNC, 4.0, {0, 1})
    assert found is not None and all(alone.values())
    assert found.logit == min(one.logit for one in alone.values() if one is not None)


def test_the_sound_in_the_windows_of_many_faces_counts_once(model: FusionModel) -> None:
    evidence = gathered([seen(0, 0), seen(0, 1), seen(0, 2)], [0.0, 0.0, 0.0])
    assert len(evidence.tracks[None].pieces[VOICE]) == 1
    found = evidence.pool(model, VOICE, 4.0, set())
    assert found is not None and found.track is None


@pytest.mark.parametrize(("spoken", "frames"), [(True, 150), (False, 0)])
def test_talk_is_counted_once_where_windows_overlap(spoken: bool, frames: int, model: FusionModel) -> None:
    evidence = gathered([seen(0, 0, spoken), seen(2, 0, spoken)], [0.0, 0.0])
    assert evidence.tracks[0].talked == frames
    assert (evidence.pool(model, SYNC, 6.0, {0}) is None) == (frames < MIN_OVERLAP_STEPS)


def test_worst_pictures_are_the_highest_and_in_order() -> None:
    found = gathered([seen(2 * n, 0) for n in range(6)], [0.0, 5.0, 1.0, 4.0, -1.0, 3.0]).tracks[0].worst
    assert [(logit, time) for logit, time, _ in found] == [(5.0, 2.0), (5.0, 4.0), (4.0, 6.0)]


def test_a_moment_in_two_windows_is_pictured_once_and_at_its_worst() -> None:
    found = gathered([seen(0, 0), seen(2, 0)], [1.0, 5.0]).tracks[0].worst
    assert [(logit, time) for logit, time, _ in found] == [(5.0, 2.0), (5.0, 4.0), (1.0, 0.0)]


def film(faces: int) -> Iterator[tuple[Window, float]]:
    return ((seen(2 * n, n), float(n % 7)) for n in range(faces))


def test_a_film_of_many_faces_keeps_few_pictures() -> None:
    """Pictures are small copies: a view would hold the crops of its whole window, 3 MB."""
    evidence = ClipEvidence()
    tracemalloc.start()
    for window, logit in film(300):
        evidence.add([window], said([window], [logit]))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    pictured = [one for one in evidence.tracks.values() if one.worst]
    assert len(pictured) == MAX_PICTURED and len(evidence.tracks) == 301
    assert {one.worst[0][0] for one in pictured} <= {5.0, 6.0}
    assert used < 20e6, f"{used / 1e6:.0f} MB"


def test_a_picture_is_a_copy_of_the_crop() -> None:
    crop: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    kept = TrackEvidence()
    kept.note_picture(1.0, 0.5, crop)
    picture = kept.worst[0][2]
    assert picture.base is None and picture.shape == (112, 112, 3) and picture.dtype == np.uint8
    assert picture.mean() == pytest.approx(crop.mean(), abs=1)


def test_the_shipped_model_hears_that_the_samples_sound_is_late() -> None:
    samples = ROOT / "data" / "samples"
    true, late = (detector().detect(samples / name) for name in ("sample.mp4", "sample_late.mp4"))
    found = [verdict.claims[Claim.LIP_SYNC_MISMATCH] for verdict in (true, late)]
    assert [claim.verdict for claim in found] == [Outcome.NO_MANIPULATION_FOUND, Outcome.MANIPULATED]
    offsets = [claim.offset_ms for claim in found]
    assert offsets == [pytest.approx(0, abs=60), pytest.approx(800, abs=60)]
    assert late.outcome is Outcome.MANIPULATED and late.claims[Claim.LIP_SYNC_MISMATCH].segments


# --- codecs that make real voices sound made ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "rate", "doubtful"),
    [
        ("opus", 24e3, True),
        ("libopus", 39e3, True),
        ("opus", 64e3, False),
        ("aac", 24e3, False),
        ("opus", None, False),
    ],
)
def test_a_voice_is_doubted_after_little_opus(codec: str, rate: float | None, doubtful: bool) -> None:
    clip = Clip(Path("x"), 1.0, "", np.zeros(16_000, np.float32), audio_codec=codec, audio_bit_rate=rate)
    doubt = voice_doubt(clip)
    assert (doubt is not None) == doubtful
    assert doubt is None or f"Opus at {round((rate or 0) / 1000)} kbit/s" in doubt


def test_only_a_manipulated_claim_is_taken_back() -> None:
    for verdict, then in (
        (Outcome.MANIPULATED, Outcome.INCONCLUSIVE),
        (Outcome.NO_MANIPULATION_FOUND, Outcome.NO_MANIPULATION_FOUND),
    ):
        result = doubted(ClaimResult(VOICE, Status.ASSESSED, verdict, 0.9))
        assert (result.verdict, result.score) == (then, 0.9)


def test_a_voice_note_is_not_called_cloned(tmp_path: Path) -> None:
    sound = voice(4.0)
    wave = make_audio(tmp_path / "note.wav", sound)
    note = write_clip(tmp_path / "note.ogg", None, sound[0], audio_codec="libopus", audio_bit_rate=24_000)
    sharp = Detector.from_pretrained()
    sharp.model.config.thresholds[VOICE.value] = {"low": 0.0, "high": 0.0}  # whatever is heard is too much
    first, second = sharp.detect(note), sharp.detect(wave)
    assert first.media["audio_codec"] == "opus" and 5_000 < first.media["audio_bit_rate"] < 40_000
    assert (first.claims[VOICE].verdict, second.claims[VOICE].verdict) == (
        Outcome.INCONCLUSIVE,
        Outcome.MANIPULATED,
    )
    assert first.outcome is Outcome.INCONCLUSIVE and any("Opus at" in warning for warning in first.warnings)
    assert not any("Opus" in warning for warning in second.warnings)
    assert second.media["audio_bit_rate"] == pytest.approx(16 * 16_000, rel=0.01)
