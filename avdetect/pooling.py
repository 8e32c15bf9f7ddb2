"""From window outputs to one clip: evidence gathered per claim and face, and pooled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from avdetect.fusion_settings import STEP_RATE
from avdetect.network import FusionNetwork, FusionOutput
from avdetect.types import CLAIMS, FRAME_RATE, Bytes, Claim, Floats, Window
from avdetect.windows import overlap_add

MIN_OVERLAP_STEPS = 20
"""Frames (0.8 s) in which a mouth was seen while someone spoke, below which lip-sync isn't assessed."""
PICTURE_SIDE = 112
"""Pixels of the pictures that are kept of a face's worst moments."""
MAX_PICTURED = 64
"""Faces of which pictures are kept, the most suspicious: a film has thousands of shots."""

PICTURE_STEPS = 10
"""Steps (2 s) of which the worst one's picture is a candidate."""

Piece = tuple[float, Floats, NDArray[np.bool_]]


@dataclass
class TrackEvidence:
    """What the windows said of one face (or, for `None`, of the sound without a face)."""

    pieces: dict[Claim, list[Piece]] = field(default_factory=lambda: {claim: [] for claim in CLAIMS})
    curve: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    worst: list[tuple[float, float, Bytes]] = field(default_factory=list)
    talked: int = 0
    counted: int = 0

    def count_talk(self, window: Window) -> None:
        """Counts the frames in which the mouth was seen while someone spoke, each once although windows overlap."""
        if window.found is None or window.waveform is None:
            return
        both = window.found if window.speech is None else window.found & window.speech
        first = round(window.start * FRAME_RATE)
        self.talked += int(both[max(0, self.counted - first) :].sum())
        self.counted = max(self.counted, first + len(both))

    def add_curve(self, curve: torch.Tensor, weight: torch.Tensor) -> None:
        """Sums lip/speech similarity over windows."""
        self.curve = curve if self.curve is None else self.curve + curve
        self.weight = weight if self.weight is None else self.weight + weight

    def note_picture(self, logit: float, time: float, crop: Bytes, keep: int = 3) -> None:
        """Keeps the crops with the highest logits, one of each second."""
        near = [one for one in self.worst if abs(one[1] - time) < 1]
        if any(one[0] >= logit for one in near):
            return
        self.worst = [one for one in self.worst if abs(one[1] - time) >= 1]
        if len(self.worst) < keep or logit > self.worst[-1][0]:
            # a small copy: a view would keep all crops of its window in memory
            small = cv2.resize(crop, (PICTURE_SIDE, PICTURE_SIDE), interpolation=cv2.INTER_AREA)
            picture: Bytes = np.asarray(small, np.uint8)
            self.worst = sorted([*self.worst, (logit, time, picture)], key=lambda item: -item[0])[:keep]


def note_worst(evidence: TrackEvidence, window: Window, logits: Floats) -> None:
    """Pictures of the worst step of each stretch of a window; `logits` [K] of its steps, -inf where nothing is said."""
    assert window.face_crops is not None and window.crop_frames is not None
    for first in range(0, len(logits), PICTURE_STEPS):
        step = first + int(logits[first : first + PICTURE_STEPS].argmax())
        if np.isfinite(logits[step]):
            crop = int(np.abs(window.crop_frames - (step + 0.5) * FRAME_RATE / STEP_RATE).argmin())
            time = window.start + float(window.crop_frames[crop]) / FRAME_RATE
            evidence.note_picture(float(logits[step]), time, window.face_crops[crop])


@dataclass(frozen=True)
class Pooled:
    """A claim's logit over the clip for one face or for the voice, and its curve: STEP_RATE steps a second."""

    logit: float
    curve: Floats
    valid: NDArray[np.bool_]
    track: int | None = None
    offset_frames: float | None = None
    sync_confidence: float | None = None


@dataclass
class ClipEvidence:
    """Gathers model outputs of a clip's windows, in constant memory per second of clip, and pools them."""

    tracks: dict[int | None, TrackEvidence] = field(default_factory=dict)
    voiced: set[float] = field(default_factory=set)

    def add(self, windows: list[Window], output: FusionOutput) -> None:
        """Takes in a batch of windows and what the model said of them."""
        assert output.step_logits is not None and output.step_mask is not None
        logits, masks = output.step_logits.float().cpu().numpy(), output.step_mask.cpu().numpy()
        for row, window in enumerate(windows):
            evidence = self.tracks.setdefault(window.track, TrackEvidence())
            steps = max(1, round((window.end - window.start) * STEP_RATE))
            for index, claim in enumerate(CLAIMS):
                if claim is Claim.VOICE_CLONING:
                    if window.start in self.voiced:  # the same sound stands in the window of every face
                        continue
                    target = self.tracks.setdefault(None, TrackEvidence())
                else:
                    target = evidence
                target.pieces[claim].append(
                    (window.start, logits[row, :steps, index], masks[row, :steps, index])
                )
            if window.waveform is not None:
                self.voiced.add(window.start)
            self._note_face(window, evidence, output, row)
        self._drop_pictures()

    def _drop_pictures(self) -> None:
        """Keeps the pictures of the most suspicious faces only."""
        pictured = [evidence for evidence in self.tracks.values() if evidence.worst]
        for evidence in sorted(pictured, key=lambda one: -one.worst[0][0])[MAX_PICTURED:]:
            evidence.worst = []

    @staticmethod
    def _note_face(window: Window, evidence: TrackEvidence, output: FusionOutput, row: int) -> None:
        if window.track is None:
            return
        evidence.count_talk(window)
        if output.curve is not None and output.curve_weight is not None:
            evidence.add_curve(output.curve[row].float().cpu(), output.curve_weight[row].float().cpu())
        if window.face_crops is not None and output.step_logits is not None and output.step_mask is not None:
            index = CLAIMS.index(Claim.FACE_MANIPULATION)
            steps, mask = output.step_logits[row, :, index], output.step_mask[row, :, index]
            note_worst(evidence, window, steps.masked_fill(~mask, float("-inf")).float().cpu().numpy())

    def pool(self, model: FusionNetwork, claim: Claim, duration: float, usable: set[int]) -> Pooled | None:
        """The clip's evidence on a claim; None where no window had any.

        Of several faces the most suspicious one speaks for `face_manipulation`; for `lip_sync_mismatch` the
        one that fits the speech best does, since the others may simply not be the speaker.
        """
        if claim is Claim.VOICE_CLONING:
            return self._pool_steps(model, claim, duration, None)
        found = self._pool_faces(model, claim, duration, usable)
        pick = min if claim is Claim.LIP_SYNC_MISMATCH else max
        return pick(found, key=lambda one: one.logit, default=None)

    def _pool_faces(
        self, model: FusionNetwork, claim: Claim, duration: float, usable: set[int]
    ) -> Iterator[Pooled]:
        """One at a time: the curves of a film's thousand faces would fill the memory."""
        for track in sorted(usable):
            if claim is Claim.LIP_SYNC_MISMATCH:
                pooled = self._pool_curve(model, duration, track)
            else:
                pooled = self._pool_steps(model, claim, duration, track)
            if pooled is not None:
                yield pooled

    def _pool_steps(
        self, model: FusionNetwork, claim: Claim, duration: float, track: int | None
    ) -> Pooled | None:
        pieces = self.tracks[track].pieces[claim] if track in self.tracks else []
        curve, valid = overlap_add(pieces, duration, STEP_RATE)
        if not valid.any():
            return None
        steps = torch.from_numpy(curve[valid]).to(model.device)
        return Pooled(model.pool(steps, claim), curve, valid, track)

    def _pool_curve(self, model: FusionNetwork, duration: float, track: int) -> Pooled | None:
        evidence = self.tracks.get(track)
        if evidence is None or evidence.curve is None or evidence.weight is None:
            return None
        if evidence.talked < MIN_OVERLAP_STEPS:
            return None
        curve, valid = overlap_add(evidence.pieces[Claim.LIP_SYNC_MISMATCH], duration, STEP_RATE)
        similarity, weight = evidence.curve.to(model.device), evidence.weight.to(model.device)
        steps = torch.from_numpy(curve[valid]).to(model.device)
        logit = model.pool_sync(steps, similarity, weight)
        offset = model.synchrony.offset(similarity, weight, torch.tensor(logit, device=model.device))
        confidence = model.synchrony.confidence(similarity, weight)
        return Pooled(logit, curve, valid, track, float(offset.detach()), float(confidence.detach()))
