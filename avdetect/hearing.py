"""The sound of a clip, heard by a model's audio encoders while its faces are still being followed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from avdetect.types import FRAME_RATE, EncoderOutput, Window
from avdetect.windows import Prepared

if TYPE_CHECKING:
    from avdetect.network import FusionNetwork

TOGETHER = 4
"""Windows that are heard at once, and so how many are heard ahead."""

Heard = dict[str, EncoderOutput]
"""What each audio encoder made of a batch of windows, by stream."""


@dataclass
class Hearing:
    """What the audio encoders of `model` make of the windows of a clip, worked out in `background`, in their order.

    A window is heard once, however many faces are seen in it. Which windows are heard together hangs on the clip
    alone, so that the last bits of a score do too. What lies before the windows that were asked for is forgotten.
    """

    prepared: Prepared
    model: Future[FusionNetwork]
    background: Executor
    _groups: dict[int, Future[Heard]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._starts = [first for first, _ in self.prepared.spans()]
        self._ask(0)

    def of(self, windows: Sequence[Window]) -> Heard:
        """Of each of the windows, in the clip's order, what was heard; nothing where the clip is silent."""
        if self.prepared.clip.waveform is None:
            return {}
        places = [self._starts.index(round(window.start * FRAME_RATE)) for window in windows]
        needed = sorted({place // TOGETHER for place in places})
        for group in [*needed, needed[-1] + 1]:
            self._ask(group)
        for group in [group for group in self._groups if group < needed[0]]:
            del self._groups[group]
        heard = {group: self._groups[group].result() for group in needed}
        return _rows([(heard[place // TOGETHER], place % TOGETHER) for place in places])

    def _ask(self, group: int) -> None:
        first = group * TOGETHER
        if (
            group not in self._groups
            and self.prepared.clip.waveform is not None
            and first < len(self._starts)
        ):
            self._groups[group] = self.background.submit(self._hear, first)

    def _hear(self, first: int) -> Heard:
        import torch

        from avdetect.batch import collate

        model = self.model.result()
        spans = self.prepared.spans()[first : first + TOGETHER]
        with torch.inference_mode():
            batch = collate([self.prepared.sound(*span) for span in spans])
            return model.hear(*(batch[name].to(model.device) for name in ("waveform", "waveform_lengths")))


def _rows(places: Sequence[tuple[Heard, int]]) -> Heard:
    """One batch of rows of others."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    return {
        name: EncoderOutput(
            pad_sequence([heard[name].features[row] for heard, row in places], batch_first=True),
            torch.stack([heard[name].lengths[row] for heard, row in places]),
            one.frame_rate,
        )
        for name, one in places[0][0].items()
    }
