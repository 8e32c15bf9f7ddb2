"""The main job: a media file in, a verdict out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from avdetect import hub
from avdetect.encoders import sees_mouths
from avdetect.errors import MediaError
from avdetect.faces import FaceFinder
from avdetect.fusion_settings import STEP_RATE, FusionSettings
from avdetect.hearing import Hearing
from avdetect.loading import load_network
from avdetect.seeing import Seeing
from avdetect.tracks import is_still
from avdetect.types import (
    CLAIMS,
    FRAME_RATE,
    Bools,
    Claim,
    ClaimResult,
    Clip,
    Evidence,
    Floats,
    Outcome,
    Segment,
    Status,
    Timeline,
    Timing,
    TrackSummary,
    Verdict,
    Window,
)
from avdetect.watched import Opened, opened
from avdetect.windows import Prepared, WindowSettings, prepare, segments_of

if TYPE_CHECKING:
    from avdetect.network import FusionNetwork
    from avdetect.pooling import ClipEvidence, Pooled
    from avdetect.watcher import Watcher

BATCH = 4
"""Windows scored at once: more would cost memory and gain no time on a CPU."""
PEAKS = 600
"""Points of the waveform in a report."""
LONGEST_CURVE = 3000
"""Points of a timeline; longer clips are told in coarser steps, each the highest score within it."""

LEAST_OPUS = 40_000.0
"""Bits per second below which real voices score as cloned ones once Opus has coded them. Of 135 real voices that a
model had not heard, 3 % stood above its threshold as they were and at 64 kbit/s, 4 % at 48, 11 % at 32, 24 % at 24 and
63 % at 12; MP3 and AAC lower the scores instead."""

Progress = Callable[[float], None]


class Detector:
    """A model, loaded once, for any number of clips.

    The model is read while the first clip is being decoded; `face_model` may name a `face_landmarker.task`
    bundle, else mediapipe's own models are used. ModelError where the model's or the bundle's files are not
    what they should be, ConfigError for a `device` that is not there. Not for two threads at once.
    """

    def __init__(
        self, model: str | Path = hub.DEFAULT, *, device: str = "cpu", face_model: Path | None = None
    ) -> None:
        hub.check_device(device)
        self._folder, self._device = hub.find(model), device
        self.model_info = hub.info(self._folder)
        self.settings = _windows_of(hub.read_config(self._folder))
        # One thread: two that are in the middle of importing one package trip over it.
        self._background = ThreadPoolExecutor(1, "model")
        self._loading: Future[FusionNetwork] | None = None
        self._finder = None if face_model is None else FaceFinder(face_model)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path = hub.DEFAULT, **options: Any) -> Detector:
        """A detector with the model of that name or folder; ModelError where there is none."""
        return cls(name_or_folder, **options)

    @property
    def model(self) -> FusionNetwork:
        """The model, once it is loaded; ModelError where that fails."""
        return self._load().result()

    def _load(self) -> Future[FusionNetwork]:
        """Starts to read the model in the background: most of that time goes into importing PyTorch."""
        if self._loading is None:
            self._loading = self._background.submit(load_network, self._folder, self._device)
        return self._loading

    def _look_for_faces(self) -> FaceFinder:
        if self._finder is None:
            self._finder = FaceFinder()
        return self._finder

    def opened(self, clips: Sequence[str], watchers: Sequence[Watcher]) -> Iterator[Opened]:
        """What gives `detect` its `prepared` of each of `clips` in turn, the faces followed by `watchers`."""
        return opened(clips, watchers, self.settings, self._background)

    def detect(
        self,
        path: str | Path,
        progress: Progress | None = None,
        *,
        audio_path: Path | None = None,
        prepared: Prepared | None = None,
    ) -> Verdict:
        """The verdict on one media file, with the sound of another where `audio_path` names one.

        A file that cannot be read gives a verdict with `error` set, never MediaError. Raises ModelError where
        the model can't be loaded. `progress` is called with the share of the clip that is done, 0..1. `prepared`:
        what `prepare` gives for this file and `settings`, where that is there already.
        """
        path, began = Path(path), time.perf_counter()
        try:
            if prepared is None:
                prepared = prepare(path, self.settings, audio_path=audio_path, background=self._background)
                prepared.finder = self._look_for_faces() if prepared.clip.has_video else None
            evidence, model_s = self._score(prepared, progress)
        except MediaError as error:
            return self.failure(path, str(error))
        verdict = self._judge(prepared, evidence)
        total = time.perf_counter() - began
        factor = total / prepared.clip.duration if prepared.clip.duration else None
        timing = Timing(prepared.seconds["decode"], prepared.seconds["faces"], model_s, total, factor)
        return replace(verdict, timing=timing)

    def failure(self, path: str | Path, error: str) -> Verdict:
        """The verdict on a file about which nothing can be said, with the one line that says why."""
        return Verdict(Path(path), Outcome.ERROR, self.model_info, error=error)

    def _score(self, prepared: Prepared, progress: Progress | None) -> tuple[ClipEvidence, float]:
        """Runs the model over the windows as they come; gives the evidence, and the model's seconds."""
        spent, duration = 0.0, prepared.clip.duration
        evidence: ClipEvidence | None = None
        hearing = Hearing(prepared, self._load(), self._background)
        seeing = Seeing(prepared, self._load(), self._background)
        for windows in _batched(iter(prepared), BATCH):
            model = self.model
            began = time.perf_counter()
            evidence = evidence or self._no_evidence()
            self._add(evidence, windows, model, hearing, seeing)
            spent += time.perf_counter() - began
            if progress is not None and duration:
                progress(min(1.0, windows[-1].end / duration))
        return evidence or self._no_evidence(), spent

    def _no_evidence(self) -> ClipEvidence:
        """A clip's evidence before any window; the model must be loaded, since this imports what it imports."""
        _ = self.model
        from avdetect.pooling import ClipEvidence

        return ClipEvidence()

    def _add(
        self,
        evidence: ClipEvidence,
        windows: list[Window],
        model: FusionNetwork,
        hearing: Hearing,
        seeing: Seeing,
    ) -> None:
        import torch

        from avdetect.batch import collate

        with torch.inference_mode():
            batch = collate(windows, mouth_crops=model.sees_mouth_crops)
            laid = {name: tensor.to(self._device) for name, tensor in batch.items()}
            evidence.add(windows, model(**laid, known=hearing.of(windows) | seeing.of(windows)))

    def _judge(self, prepared: Prepared, evidence: ClipEvidence) -> Verdict:
        clip = prepared.clip
        config = self.model.config
        usable = {track.id for track in prepared.tracks if track.assessable}
        talking = usable - {track.id for track in prepared.tracks if is_still(track)}
        claims: dict[Claim, ClaimResult] = {}
        pieces: list[Evidence] = []
        for claim in CLAIMS:
            seen = talking if claim is Claim.LIP_SYNC_MISMATCH else usable
            pooled = evidence.pool(self.model, claim, clip.duration, seen)
            if pooled is None or (claim is not Claim.FACE_MANIPULATION and _no_voice(prepared)):
                claims[claim] = _not_assessable(claim, missing_reason(claim, prepared, config))
            else:
                claims[claim] = claim_result(claim, pooled, config, clip.duration)
                pieces += _window_evidence(claim, evidence, pooled, config, clip.duration)
        doubt = voice_doubt(clip)
        if doubt is not None:
            claims[Claim.VOICE_CLONING] = doubted(claims[Claim.VOICE_CLONING])
        outcome, score = overall(claims)
        return Verdict(
            clip.path,
            outcome,
            self.model_info,
            sha256=clip.sha256,
            duration=clip.duration,
            score=score,
            claims=claims,
            tracks=tuple(prepared.tracks),
            evidence=tuple(pieces),
            warnings=tuple(dict.fromkeys([*prepared.warnings, *([doubt] if doubt is not None else [])])),
            media=_facts(clip),
            waveform_peaks=_peaks(clip.waveform),
            thumbnails={
                track: tuple((seconds, picture) for _, seconds, picture in found.worst)
                for track, found in evidence.tracks.items()
                if track in usable and track is not None
            },
        )


def _windows_of(config: dict[str, Any]) -> WindowSettings:
    """How a model wants clips to be cut."""
    window, streams = config.get("window", {}), config.get("streams", {})
    mouths = any(map(sees_mouths, streams.values()))
    return WindowSettings(float(window.get("length", 4.0)), float(window.get("hop", 2.0)), mouths=mouths)


def detect(path: str | Path, model: str | Path = hub.DEFAULT, **options: Any) -> Verdict:
    """The verdict on one media file; for several, make one `Detector` and call its `detect`."""
    return Detector.from_pretrained(model, **options).detect(path)


def probability(logit: Floats | float, config: FusionSettings, claim: Claim) -> Floats:
    """Calibrated probability in 0..1 of a claim's logits: sigmoid(scale * logit + bias)."""
    platt = config.calibration[claim.value]
    z = np.clip(platt["scale"] * np.asarray(logit, np.float64) + platt["bias"], -30, 30)
    out: Floats = (1 / (1 + np.exp(-z))).astype(np.float32)
    return out


def claim_result(claim: Claim, pooled: Pooled, config: FusionSettings, duration: float) -> ClaimResult:
    """One claim's answer from its pooled evidence, with the thresholds of the model's config.

    Times beyond `duration`, seconds, where the last step reaches over the clip's end, are cut off.
    """
    score = float(probability(pooled.logit, config, claim))
    bounds = config.thresholds[claim.value]
    verdict = read_score(score, bounds["low"], bounds["high"])
    curve = probability(pooled.curve, config, claim)
    segments: tuple[Segment, ...] = ()
    if verdict is not Outcome.NO_MANIPULATION_FOUND:
        found = segments_of(curve, pooled.valid, STEP_RATE, bounds["high"], claim, track=pooled.track)
        segments = tuple(replace(segment, end=min(segment.end, duration)) for segment in found)
    offset = None if pooled.offset_frames is None else round(pooled.offset_frames * 1000 / FRAME_RATE, 1)
    return ClaimResult(
        claim,
        Status.ASSESSED,
        verdict,
        score,
        segments=segments,
        timeline=_timeline(curve, pooled.valid, STEP_RATE, duration),
        track=pooled.track,
        offset_ms=offset,
        sync_confidence=pooled.sync_confidence,
        low=bounds["low"],
        high=bounds["high"],
    )


def voice_doubt(clip: Clip) -> str | None:
    """Why a voice cannot be called cloned from this file, one sentence; None where it can."""
    rate = clip.audio_bit_rate
    if rate is None or "opus" not in (clip.audio_codec or "") or rate >= LEAST_OPUS:
        return None
    return (
        f"the sound is coded by Opus at {rate / 1000:.0f} kbit/s: below {LEAST_OPUS / 1000:.0f} real voices score like "
        "cloned ones, so that the voice is called inconclusive at most; give a better copy if there is one"
    )


def doubted(result: ClaimResult) -> ClaimResult:
    """The claim as it stands where nothing may be called manipulated."""
    if result.verdict is not Outcome.MANIPULATED:
        return result
    return replace(result, verdict=Outcome.INCONCLUSIVE)


def read_score(score: float, low: float, high: float) -> Outcome:
    """Manipulated at or above `high`, nothing found below `low`, inconclusive between."""
    if score >= high:
        return Outcome.MANIPULATED
    return Outcome.NO_MANIPULATION_FOUND if score < low else Outcome.INCONCLUSIVE


def overall(claims: dict[Claim, ClaimResult]) -> tuple[Outcome, float | None]:
    """The clip's verdict from its claims, and the highest of their scores.

    One claim that holds makes a clip manipulated; one that stays open leaves it inconclusive; a claim that
    could not be assessed is no evidence either way.
    """
    assessed = [result for result in claims.values() if result.status is Status.ASSESSED]
    if not assessed:
        return Outcome.NOT_ASSESSABLE, None
    score = max(result.score for result in assessed if result.score is not None)
    for outcome in (Outcome.MANIPULATED, Outcome.INCONCLUSIVE):
        if any(result.verdict is outcome for result in assessed):
            return outcome, score
    return Outcome.NO_MANIPULATION_FOUND, score


def missing_reason(claim: Claim, prepared: Prepared, config: FusionSettings) -> str:
    """In words, why a claim could not be assessed in this clip."""
    if not config.claims.get(claim.value):
        return "this model does not answer it"
    voice = _no_voice(prepared)
    face = _no_face(prepared.clip, prepared.tracks)
    if claim is Claim.VOICE_CLONING:
        return voice or "no stretch of speech is long enough"
    if claim is Claim.FACE_MANIPULATION:
        return face or "no face stays in view for long enough"
    from avdetect.pooling import MIN_OVERLAP_STEPS

    reasons = [reason for reason in (face, voice or _no_talker(prepared.tracks)) if reason]
    return (
        "; ".join(reasons)
        or f"mouth and speech are together for less than {MIN_OVERLAP_STEPS / FRAME_RATE} s in all"
    )


def _no_voice(prepared: Prepared) -> str | None:
    if prepared.clip.waveform is None:
        return "there is no sound"
    return prepared.speech.reason if prepared.speech else None


def _no_face(clip: Clip, tracks: list[TrackSummary]) -> str | None:
    if not clip.has_video:
        return "there is no picture"
    if not tracks:
        return "no face was found"
    if any(track.assessable for track in tracks):
        return None
    longest = max(tracks, key=lambda track: track.end - track.start)
    return (
        longest.reason
        if len(tracks) == 1
        else f"none of {len(tracks)} faces can be assessed: {longest.reason}"
    )


def _no_talker(tracks: Sequence[TrackSummary]) -> str | None:
    """Why lips can't be compared, where no face that can be assessed moves them."""
    seen = [track for track in tracks if track.assessable]
    if not seen or not all(map(is_still, seen)):
        return None
    return "nobody in view moves the mouth: a photograph, a voice-over, or somebody who listens"


def _not_assessable(claim: Claim, reason: str) -> ClaimResult:
    return ClaimResult(claim, Status.NOT_ASSESSABLE, Outcome.NOT_ASSESSABLE, reason=reason)


def _window_evidence(
    claim: Claim, evidence: ClipEvidence, pooled: Pooled, config: FusionSettings, duration: float
) -> Iterator[Evidence]:
    """Per window, the highest step of the claim that decided."""
    for start, logits, valid in evidence.tracks[pooled.track].pieces[claim]:
        if valid.any():
            score = float(probability(logits[valid].max(), config, claim))
            end = max(start, min(start + len(logits) / STEP_RATE, duration))
            yield Evidence(claim, start, end, score, pooled.track, "model")


def _timeline(curve: Floats, valid: Bools, rate: float, duration: float) -> Timeline:
    fold = -(-len(curve) // LONGEST_CURVE)
    times: list[float] = []
    scores: list[float | None] = []
    for first in range(0, len(curve), fold):
        here = curve[first : first + fold][valid[first : first + fold]]
        end = min((first + fold) / rate, duration)
        times.append(round((first / rate + end) / 2, 3))
        scores.append(float(here.max()) if len(here) else None)
    return Timeline(tuple(times), tuple(scores))


def _peaks(waveform: Floats | None) -> tuple[float, ...]:
    if waveform is None or not len(waveform):
        return ()
    parts = np.array_split(waveform, min(PEAKS, len(waveform)))
    return tuple(round(min(1.0, float(np.abs(part).max())), 4) for part in parts)


def _facts(clip: Clip) -> dict[str, Any]:
    facts = {
        "container": clip.container,
        "video_codec": clip.video_codec,
        "width": clip.width,
        "height": clip.height,
        "fps": clip.fps,
        "audio_codec": clip.audio_codec,
        "sample_rate": clip.source_sample_rate,
        "channels": clip.source_channels,
        "audio_bit_rate": clip.audio_bit_rate and round(clip.audio_bit_rate),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _batched(windows: Iterator[Window], size: int) -> Iterator[list[Window]]:
    while batch := list(islice(windows, size)):
        yield batch


class _CallableModule(ModuleType):
    """Once this module is imported, `avdetect.detect` is the module, no longer the function: so it answers calls."""

    def __call__(self, path: str | Path, model: str | Path = hub.DEFAULT, **options: Any) -> Verdict:
        return detect(path, model, **options)


sys.modules[__name__].__class__ = _CallableModule
