"""Faces are seen crop by crop, ahead of their windows, and say the same as when they come with them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from commands import environment
from test_fusion import STREAMS, make_model

from avdetect.batch import collate
from avdetect.network import FusionNetwork
from avdetect.seeing import Seeing
from avdetect.types import CROP_EVERY, Clip, Window
from avdetect.windows import Prepared, WindowSettings, _Seen

FACE = {"encoder": "efficientnet_lite", "options": {"blocks": 2, "trained": 0, "every": 2}}
FACE_CLAIM = {"face_manipulation": ["face"]}


@dataclass
class Staged(Prepared):
    """A clip in which track 0 is seen throughout and track 1 from its 30th frame on, and where frames are missing."""

    missing: frozenset[int] = frozenset()

    def _look(self, seen: dict[int, dict[int, _Seen]]) -> Iterator[int]:
        for index in range(round(self.clip.duration * 25)):
            for track in (0, 1) if index >= 30 else (0,):
                if index not in self.missing:
                    seen.setdefault(track, {})[index] = face(index, track)
            yield index + 1


def face(index: int, track: int) -> _Seen:
    source = np.random.default_rng([index, track])
    landmarks = source.uniform(0, 64, (478, 3)).astype(np.float32)
    picture = source.integers(0, 256, (48, 48, 3), np.uint8)
    return _Seen(landmarks, None, (picture, landmarks[:, :2]) if index % CROP_EVERY == 0 else None)


def staged(seconds: float = 6.0, hop: float = 2.0, **options: Any) -> Staged:
    clip = Clip(Path("a.mp4"), seconds, "0" * 64, fps=25.0, width=64, height=64)
    return Staged(clip, None, WindowSettings(4.0, hop, mouths=False), None, **options)


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def model() -> FusionNetwork:
    return make_model({"face": FACE}, claims=FACE_CLAIM)


def ready(model: FusionNetwork) -> Future[FusionNetwork]:
    done: Future[FusionNetwork] = Future()
    done.set_result(model)
    return done


def logits(model: FusionNetwork, windows: list[Window], **known: Any) -> torch.Tensor:
    with torch.inference_mode():
        output = model(**collate(windows), **known)
    assert output.step_logits is not None
    return output.step_logits


@pytest.mark.parametrize("missing", [frozenset(), frozenset({0, 1, 2, 3, 4, 5, 6, 70, 71, 72, 73, 74, 75})])
@pytest.mark.parametrize("seconds", [6.0, 7.48])
def test_what_is_seen_apart_says_the_same(
    model: FusionNetwork, background: ThreadPoolExecutor, seconds: float, missing: frozenset[int]
) -> None:
    clip = staged(seconds, missing=missing)
    seeing = Seeing(clip, ready(model), background)
    windows = list(clip)
    assert {window.track for window in windows} == {0, 1} and len(windows) >= 4
    known = seeing.of(windows)
    assert set(known) == {"face"}
    assert torch.equal(logits(model, windows), logits(model, windows, known=known))


def test_crops_are_seen_once_while_the_windows_are_walked_through(
    model: FusionNetwork, background: ThreadPoolExecutor
) -> None:
    clip = staged(6.0)
    with patch.object(model, "see", wraps=model.see) as see:
        seeing = Seeing(clip, ready(model), background)
        windows = list(clip)
        for seen in seeing._seen.values():
            seen.result()
        ahead = see.call_count
        first = seeing.of(windows[:2])
        seeing.of(windows)
        assert see.call_count == ahead == 15 + 12  # every tenth frame of each track
    assert first["face"].lengths.tolist() == [10, 10] and first["face"].frame_rate == 2.5


def test_what_nobody_noticed_is_seen_when_it_is_asked_for(
    model: FusionNetwork, background: ThreadPoolExecutor
) -> None:
    windows = list(staged(6.0))
    known = Seeing(staged(6.0), ready(model), background).of(windows)
    assert torch.equal(logits(model, windows), logits(model, windows, known=known))


def test_ahead_or_asked_for_the_same_thread_sees(
    model: FusionNetwork, background: ThreadPoolExecutor
) -> None:
    threads: set[str] = set()

    def told(stream: str, crops: torch.Tensor) -> torch.Tensor:
        threads.add(threading.current_thread().name)
        return FusionNetwork.see(model, stream, crops)

    with patch.object(model, "see", told):
        windows = list(staged(6.0))
        Seeing(staged(6.0), ready(model), background).of(windows)
        clip = staged(6.0)
        seeing = Seeing(clip, ready(model), background)
        seeing.of(list(clip))
    assert len(threads) == 1 and threading.current_thread().name not in threads


def test_what_is_behind_is_forgotten(model: FusionNetwork, background: ThreadPoolExecutor) -> None:
    clip = staged(10.0)
    seeing = Seeing(clip, ready(model), background)
    windows = list(clip)
    seeing.of([window for window in windows if window.start == 4.0])
    assert min(frame for _, frame in seeing._seen) == 100


def test_rows_without_a_face_see_nothing(model: FusionNetwork, background: ThreadPoolExecutor) -> None:
    clip = staged(6.0)
    seeing = Seeing(clip, ready(model), background)
    windows = list(clip)
    empty = Window(windows[0].start, windows[0].end)
    assert seeing.of([empty]) == {}
    mixed = seeing.of([empty, *windows[:2]])["face"]
    assert mixed.lengths.tolist() == [0, 20 // 2, 20 // 2] and not mixed.features[0].any()


def test_other_encoders_of_faces_are_left_to_the_whole(background: ThreadPoolExecutor) -> None:
    other = make_model({"face": STREAMS["face"]}, claims=FACE_CLAIM)
    clip = staged(6.0)
    seeing = Seeing(clip, ready(other), background)
    assert seeing.of(list(clip)) == {}


def test_what_a_verdict_does_not_need_of_pytorch_is_there_once_it_is_needed() -> None:
    code = """
import sys
from avdetect.__main__ import UNUSED, _defer_unused
_defer_unused("base")
import torch
print({type(sys.modules[name]).__name__ for name in UNUSED})
print(torch._meta_registrations.register_meta.__name__, type(sys.modules["torch._meta_registrations"]).__name__)
from torch.utils.data import DataLoader
print(torch.export.Dim.__name__, torch.distributions.Normal.__name__, DataLoader.__name__)
print({type(sys.modules[name]).__name__ for name in UNUSED})
print(torch.linalg.eigvals(torch.empty(3, 3, device="meta")).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    now, *used, then, sizes = done.stdout.splitlines()
    assert (now, then) == ("{'_Later'}", "{'module'}")
    assert used == ["register_meta module", "Dim Normal DataLoader"] and sizes == "torch.Size([3])"


def test_a_model_of_somebody_elses_is_given_all_of_pytorch() -> None:
    code = """
import sys
from avdetect.__main__ import UNUSED, _defer_unused
_defer_unused("./base")
print(any(name in sys.modules for name in UNUSED))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout == "False\n"
