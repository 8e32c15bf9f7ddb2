"""Sound is heard once, ahead of faces, and says the same as when it comes with them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
import torch
from test_fusion import STREAMS, make_batch, make_model

from avdetect.hearing import TOGETHER, Hearing
from avdetect.network import FusionNetwork
from avdetect.types import Clip, Window
from avdetect.windows import Prepared, WindowSettings

SETTINGS = WindowSettings(2.0, 1.0)


def sizes(hear: MagicMock) -> list[int]:
    """How many windows a model was given to hear, each time."""
    return [len(call.args[0]) for call in hear.call_args_list]


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def ready(model: FusionNetwork) -> Future[FusionNetwork]:
    done: Future[FusionNetwork] = Future()
    done.set_result(model)
    return done


def prepared(seconds: float, silent: bool = False) -> Prepared:
    waveform = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 16_000)).astype(np.float32)
    clip = Clip(Path("a.mp4"), seconds, "0" * 64, waveform=waveform, fps=25.0, width=64, height=64)
    return Prepared(replace(clip, waveform=None) if silent else clip, None, SETTINGS, None)


def test_what_is_heard_apart_says_the_same() -> None:
    model, batch = make_model(), make_batch(3)
    with torch.inference_mode():
        whole = model(**batch)
        heard = model.hear(batch["waveform"], batch["waveform_lengths"])
        assert set(heard) == {"voice", "speech"}
        apart = model(**batch, known=heard)
    for name in ("clip_logits", "step_logits", "step_mask", "curve"):
        assert torch.equal(getattr(whole, name), getattr(apart, name)), name


def test_several_faces_in_a_window_cost_its_sound_once(background: ThreadPoolExecutor) -> None:
    model, clip = make_model(), prepared(3.0)
    first, last = (clip.sound(*span) for span in clip.spans())
    with patch.object(model, "hear", wraps=model.hear) as hear:
        heard = Hearing(clip, ready(model), background).of([first, first, first, last])
    assert sizes(hear) == [2]
    for output in heard.values():
        assert torch.equal(output.features[0], output.features[2])
        assert not torch.equal(output.features[0], output.features[3])
        assert len(output.lengths) == 4


def test_windows_are_heard_ahead_in_the_same_groups_whoever_asks(background: ThreadPoolExecutor) -> None:
    model, clip = make_model(), prepared(12.0)
    spans = clip.spans()
    assert len(spans) == 11
    sounds = [clip.sound(*span) for span in spans]
    with patch.object(model, "hear", wraps=model.hear) as hear:
        hearing = Hearing(clip, ready(model), background)
        single = [hearing.of([sound]) for sound in sounds]
    assert sizes(hear) == [TOGETHER, TOGETHER, 11 - 2 * TOGETHER]
    assert len(hearing._groups) == 1, "what is behind is forgotten"
    again = Hearing(clip, ready(make_model()), background)
    for first in range(0, 11, 3):
        heard = again.of(sounds[first : first + 3])
        for row, one in enumerate(single[first : first + 3]):
            assert set(heard) == set(one)
            for name in heard:
                assert torch.equal(heard[name].features[row], one[name].features[0])


def test_rows_are_those_of_the_windows(background: ThreadPoolExecutor) -> None:
    model, clip = make_model(), prepared(6.0)
    hearing = Hearing(clip, ready(model), background)
    sounds = [clip.sound(*span) for span in clip.spans()]
    heard = hearing.of(sounds[2:])
    for row, sound in enumerate(sounds[2:]):
        assert sound.waveform is not None
        waveform = torch.from_numpy(sound.waveform)[None]
        with torch.inference_mode():
            alone = model.hear(waveform, torch.tensor([waveform.shape[1]]))
        for name, output in heard.items():
            assert torch.allclose(output.features[row], alone[name].features[0], atol=1e-5)
            assert output.frame_rate == alone[name].frame_rate


def test_a_silent_clip_and_a_deaf_model_hear_nothing(background: ThreadPoolExecutor) -> None:
    silent = prepared(3.0, silent=True)
    assert Hearing(silent, ready(make_model()), background).of([Window(0.0, 2.0)]) == {}
    streams = {"face": STREAMS["face"]}
    deaf = make_model(streams, claims={"face_manipulation": ["face"]})
    clip = prepared(3.0)
    assert Hearing(clip, ready(deaf), background).of([clip.sound(0, 50)]) == {}


def test_a_model_that_cannot_be_read_is_told_where_it_is_asked(background: ThreadPoolExecutor) -> None:
    broken: Future[FusionNetwork] = Future()
    broken.set_exception(RuntimeError("no weights"))
    clip = prepared(3.0)
    hearing = Hearing(clip, broken, background)
    with pytest.raises(RuntimeError, match="no weights"):
        hearing.of([clip.sound(0, 50)])
