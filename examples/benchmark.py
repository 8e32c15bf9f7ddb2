"""How long avdetect takes for a clip, stage by stage, beside plain decoding of the same file.

    python examples/benchmark.py [CLIP] [--runs N]

Without a clip, the sample is brought to 10 s of 1280x720 at 25 fps first. Above stands the command line as people use
it: one clip, start-up included, and how much longer a call takes for each further clip. Below, its stages in one
process, one after the other, where the command line does several at once: start-up (imports, torch's among them while
the model loads) is paid once per process, the first run is a cold one. Medians over the runs.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from avdetect.errors import AvdetectError, InputError

if TYPE_CHECKING:
    from avdetect import Detector
    from avdetect.types import Bytes, Timing

SAMPLE = Path(__file__).parents[1] / "data" / "samples" / "sample.mp4"
WIDTH, HEIGHT, SECONDS = 1280, 720, 10
FURTHER = 3
"""Clips of a call after the first."""


def enlarged(source: Path, target: Path) -> Path:
    """`source`, repeated and brought to 10 s of 720p at 25 fps, written to `target`."""
    import cv2
    import numpy as np

    from avdetect.media import frames, open_clip, write_clip
    from avdetect.types import FRAME_RATE, SAMPLE_RATE

    clip = open_clip(source)

    def images() -> Iterator[Bytes]:
        for frame in islice(cycle(list(frames(clip))), SECONDS * FRAME_RATE):
            square = cv2.resize(frame.image, (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
            side = (WIDTH - HEIGHT) // 2
            yield np.pad(square, ((0, 0), (side, side), (0, 0)), mode="edge")

    waveform = None if clip.waveform is None else np.resize(clip.waveform, SECONDS * SAMPLE_RATE)
    return write_clip(target, images(), waveform)


def made_apart(target: Path) -> Path:
    """The enlarged sample, made in another process, so that its memory and imports are not counted."""
    if not SAMPLE.is_file():
        raise InputError(f"{SAMPLE}: no such file; name a clip, or make it with examples/make_sample.py")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(enlarged, SAMPLE, target).result()


def decode_only(path: Path) -> float:
    """Seconds that PyAV needs to decode picture and sound of the file, converting nothing."""
    import av

    began = time.perf_counter()
    with av.open(str(path)) as container:
        for packet in container.demux():
            packet.decode()
    return time.perf_counter() - began


def start(model: str) -> tuple[Detector, float, float]:
    """A detector with its model loaded, and the seconds for the import and for loading."""
    began = time.perf_counter()
    from avdetect.detect import Detector

    imported = time.perf_counter()
    detector = Detector.from_pretrained(model)
    _ = detector.model  # it is loaded in the background otherwise
    return detector, imported - began, time.perf_counter() - imported


def command(path: Path, clips: int, model: str) -> float:
    """Seconds of a call of the command line with the same clip so many times. InputError where it can't be scored."""
    call = [sys.executable, "-m", "avdetect", *[str(path.absolute())] * clips, "--model", model, "--quiet"]
    began = time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            done.stderr.strip().removeprefix("avdetect: ") or f"{path}: the clip cannot be assessed"
        )
    return time.perf_counter() - began


def timed(detector: Detector, path: Path) -> tuple[Timing, float]:
    """The stages of one run, and the clip's seconds. InputError where the clip cannot be scored."""
    verdict = detector.detect(path)
    if verdict.error is not None or not verdict.duration:
        raise InputError(verdict.error or f"{path}: the clip is empty; give one with picture or sound")
    return verdict.timing, verdict.duration


def table(rows: list[tuple[str, float]], duration: float) -> str:
    """The stages in seconds and as real-time factor (seconds per second of the clip: below 1 is faster)."""
    lines = [f"{'stage':<22}{'seconds':>9}{'x real time':>13}"]
    lines += [f"{name:<22}{seconds:>9.3f}{seconds / duration:>13.3f}" for name, seconds in rows]
    return "\n".join(lines)


def benchmark(path: Path, runs: int, model: str) -> str:
    """The report on one clip."""
    one = median(command(path, 1, model) for _ in range(runs))
    several = median(command(path, 1 + FURTHER, model) for _ in range(runs))
    detector, import_s, load_s = start(model)
    cold, duration = timed(detector, path)
    warm = [timed(detector, path)[0] for _ in range(runs)]
    plain = median(decode_only(path) for _ in range(runs))

    def of(stage: Callable[[Timing], float]) -> float:
        return median(stage(timing) for timing in warm)

    calls = [
        ("plain decoding (PyAV)", plain),
        ("python -m avdetect", one),
        ("... a further clip", (several - one) / FURTHER),
    ]
    stages = [
        ("decode", of(lambda t: t.decode_s)),
        ("faces", of(lambda t: t.faces_s)),
        ("model", of(lambda t: t.model_s)),
        ("other", of(lambda t: t.total_s - t.decode_s - t.faces_s - t.model_s)),
        ("total", of(lambda t: t.total_s)),
        ("total, first run", cold.total_s),
        ("start-up: import", import_s),
        ("start-up: model", load_s),
    ]
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    memory = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024  # kilobytes on Linux
    cores = len(os.sched_getaffinity(0))
    head = f"{path}: {duration:.1f} s; medians of {runs} runs; {cores} CPUs"
    tables = "\n\n".join(table(rows, duration) for rows in (calls, stages))
    return f"{head}\n\n{tables}\n\npeak memory of a process {memory:.0f} MiB"


def main() -> int:
    """Arguments in, exit code out."""
    parser = argparse.ArgumentParser(description="Time avdetect on a clip, stage by stage.")
    parser.add_argument("clip", type=Path, nargs="?", help="default: 10 s of 720p made from the sample")
    parser.add_argument(
        "--runs", type=int, default=3, help="warm runs to take medians of (default: %(default)s)"
    )
    parser.add_argument("--model", default="base", help="name or folder of a model (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    try:
        with tempfile.TemporaryDirectory() as folder:
            clip = arguments.clip or made_apart(Path(folder, "sample-720p.mp4"))
            print(benchmark(clip, arguments.runs, arguments.model))
    except AvdetectError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
