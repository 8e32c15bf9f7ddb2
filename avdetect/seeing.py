"""The faces of a clip, seen by a model's face encoders crop by crop, before the window that holds them is whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from avdetect.types import CROP_EVERY, FRAME_RATE, Bytes, EncoderOutput, Window
from avdetect.windows import Prepared

if TYPE_CHECKING:
    from torch import Tensor

    from avdetect.network import FusionNetwork

Seen = dict[str, "Tensor"]
"""What streams made of one crop [dim], by their names."""


@dataclass
class Seeing:
    """What the encoders of `model` that see crop by crop make of the faces of a clip.

    Crops are seen in `background`, as they are noticed while the clip's windows are walked through; what was not, when
    it is asked for. What lies before the windows that were asked for is forgotten.
    """

    prepared: Prepared
    model: Future[FusionNetwork]
    background: Executor
    _seen: dict[tuple[int, int], Future[Seen]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._spans = self.prepared.spans()
        self.prepared.noticed = self._notice

    def of(self, windows: Sequence[Window]) -> dict[str, EncoderOutput]:
        """What was seen of the face of each of the windows, by stream; nothing where none has a face."""
        from avdetect.batch import crops_in_time

        self._forget(round(windows[0].start * FRAME_RATE))
        at = [crops_in_time(window).tolist() for window in windows]
        streams = self.model.result().seeing if any(at) else {}
        return {
            name: self._output(name, [places[:: encoder.every] for places in at], windows)
            for name, encoder in streams.items()
        }

    def _output(self, stream: str, at: Sequence[list[int]], windows: Sequence[Window]) -> EncoderOutput:
        """Of a stream, the crops `at` these places of each window."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        model = self.model.result()
        nothing = torch.zeros(0, model.seeing[stream].dim, device=model.device)
        rows = [
            torch.stack([self._of(window, place, stream) for place in places]) if places else nothing
            for window, places in zip(windows, at, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows], device=model.device)
        rate = FRAME_RATE / CROP_EVERY / model.seeing[stream].every
        return EncoderOutput(pad_sequence(rows, batch_first=True), lengths, rate)

    def _of(self, window: Window, place: int, stream: str) -> Tensor:
        """Of the crop at that place among the window's."""
        assert window.track is not None and window.face_crops is not None and window.crop_frames is not None
        key = window.track, round(window.start * FRAME_RATE) + int(window.crop_frames[place])
        seen = self._seen[key].result() if key in self._seen else {}
        if stream not in seen:
            # In the same thread as ahead: how many compute beside it, and so the last bits, hang on the thread.
            job = self.background.submit(self._see, window.face_crops[place], [*seen, stream])
            self._seen[key], seen = job, job.result()
        return seen[stream]

    def _notice(self, track: int, frame: int, crop: Bytes) -> None:
        self._seen[track, frame] = self.background.submit(self._ahead, frame, crop)

    def _ahead(self, frame: int, crop: Bytes) -> Seen:
        """By the streams to which a window shows this frame's crop."""
        steps = self._steps(frame)
        streams = self.model.result().seeing.items()
        return self._see(
            crop, [name for name, one in streams if any(step % one.every == 0 for step in steps)]
        )

    def _steps(self, frame: int) -> list[int]:
        """At which step each of the windows around this frame shows its crop, if no crop is missing."""
        around = [first for first, length in self._spans if first <= frame < first + length]
        return [(frame - first) // CROP_EVERY for first in around]

    def _see(self, crop: Bytes, streams: Iterable[str]) -> Seen:
        import torch

        model = self.model.result()
        with torch.inference_mode():
            picture = torch.from_numpy(crop[None]).permute(0, 3, 1, 2).to(model.device)
            return {stream: model.see(stream, picture)[0] for stream in streams}

    def _forget(self, before: int) -> None:
        for key in [key for key in self._seen if key[1] < before]:
            del self._seen[key]
