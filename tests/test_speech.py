"""Speech is found, and what is not speech is told apart in words."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from clips import noise, spoken, tone
from numpy.typing import NDArray

from avdetect.media import open_clip
from avdetect.speech import MIN_SPEECH_SECONDS, speech_mask, speech_segments
from avdetect.types import Segment


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    """About 3.5 s of synthetic speech."""
    return spoken(tmp_path_factory.mktemp("voice"))


def melody() -> NDArray[np.float32]:
    """Ten seconds of plucked notes."""
    notes = np.random.default_rng(0).choice([262, 294, 330, 349, 392, 440], 40)
    time = np.arange(4000) / 16_000
    pluck = np.exp(-time * 5)
    parts = [
        sum(a * np.sin(2 * np.pi * hz * k * time) for k, a in ((1, 0.2), (2, 0.1), (3, 0.05))) for hz in notes
    ]
    samples: NDArray[np.float32] = np.concatenate([part * pluck for part in parts]).astype(np.float32)
    return samples


def test_speech_is_found_where_it_is(voice: NDArray[np.float32]) -> None:
    """Two seconds of silence before a sentence are not speech, the sentence is."""
    report = speech_segments(np.concatenate([np.zeros(32_000, np.float32), voice]))
    assert report.reason is None
    assert report.segments[0].start == pytest.approx(2.0, abs=0.2)
    assert report.speech_seconds == pytest.approx(len(voice) / 16_000, abs=0.5)
    assert report.speech_seconds == pytest.approx(sum(segment.length for segment in report.segments))


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.003, 0.0), (0.1, 0.5), (3.0, 0.0)])
def test_level_and_offset_do_not_matter(voice: NDArray[np.float32], gain: float, offset: float) -> None:
    """Quiet, loud, and with DC: the same seconds of speech."""
    report = speech_segments(voice * np.float32(gain) + np.float32(offset))
    assert report.speech_seconds == pytest.approx(speech_segments(voice).speech_seconds, abs=0.3)


def test_one_sentence_in_a_long_silence(voice: NDArray[np.float32]) -> None:
    """A little speech in two minutes of silence sets the level that is looked at."""
    waveform = np.zeros(120 * 16_000, np.float32)
    waveform[960_000 : 960_000 + voice.size] = voice * 0.01
    report = speech_segments(waveform)
    assert report.reason is None and report.segments[0].start == pytest.approx(60.0, abs=0.3)


def test_what_is_no_number_counts_as_nothing(voice: NDArray[np.float32]) -> None:
    """NaN and infinity neither crash nor drown the speech around them."""
    broken = voice.copy()
    broken[100:200], broken[300] = np.nan, np.inf
    assert speech_segments(broken).reason is None
    assert speech_segments(np.full(32_000, np.nan, np.float32)).reason == "the sound is digital silence"


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros(0, np.float32), "digital silence"),
        (np.zeros(48_000, np.float32), "digital silence"),
        (np.full(48_000, 0.25, np.float32), "digital silence"),
        (noise(3.0, level=3e-5)[0], "digital silence"),
        (noise(3.0, level=2e-4)[0], "too quiet"),
        (tone(3.0)[0], "music, noise"),
        (noise(3.0)[0], "music, noise"),
        (melody(), "music, noise"),
        (noise(0.1)[0], "0.1 s of sound"),
    ],
    ids=["nothing", "zeros", "dc", "dither", "quiet", "sine", "noise", "melody", "short"],
)
def test_reasons_are_told_apart(waveform: NDArray[np.float32], reason: str) -> None:
    """Each kind of sound without speech has its own words, and no segments."""
    report = speech_segments(waveform)
    assert report.reason is not None and reason in report.reason
    assert (report.segments, report.speech_seconds) == ((), 0)


def test_too_little_speech(voice: NDArray[np.float32]) -> None:
    """Half a second of speech is found, and called too little."""
    report = speech_segments(np.concatenate([voice[:9600], np.zeros(48_000, np.float32)]))
    assert 0.2 < report.speech_seconds < MIN_SPEECH_SECONDS
    assert report.reason is not None and "of speech; at least 1.0 s is needed" in report.reason


def test_calls_do_not_remember_each_other(voice: NDArray[np.float32]) -> None:
    """The network's state starts afresh: the same sound gives the same report."""
    first = speech_segments(voice)
    speech_segments(melody())
    assert speech_segments(voice) == first


def test_long_sound_needs_little_more_memory(voice: NDArray[np.float32]) -> None:
    """A minute of sound is looked at piece by piece."""
    long = np.tile(voice, 60 * 16_000 // voice.size + 1)
    speech_segments(voice)
    tracemalloc.start()
    speech_segments(long)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < long.nbytes * 1.5 and peak < 8e6


def test_wrong_shape_is_refused() -> None:
    """A waveform of two channels is a mistake of the caller."""
    with pytest.raises(ValueError, match="waveform is"):
        speech_segments(np.zeros((2, 16_000), np.float32))


def test_mask_on_the_video_grid() -> None:
    """Steps whose middle lies in a segment are speech, from the window's own start."""
    segments = (Segment(1.0, 1.2), Segment(1.4, 1.44))
    mask = speech_mask(segments, 0.96, 14)
    assert mask.tolist() == [False] + [True] * 5 + [False] * 5 + [True] + [False] * 2
    assert speech_mask(segments, 1.0, 4, rate=10).tolist() == [True, True, False, False]
    assert speech_mask((), 0.0, 3).tolist() == [False] * 3


def test_threads_of_torch_are_left_alone() -> None:
    """The network runs on one thread (and its import asks for one); afterwards it is as before."""
    code = (
        "import torch, numpy as np; torch.set_num_threads(2); from avdetect.speech import speech_segments; "
        "speech_segments(np.sin(np.arange(32000)).astype('f')); print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"


def test_real_speech(talking_clip: Path) -> None:
    """A real clip of a person reading a sentence has speech."""
    waveform = open_clip(talking_clip).waveform
    assert waveform is not None
    assert speech_segments(waveform).speech_seconds > 1.0
