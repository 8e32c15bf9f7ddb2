"""Running the command line: in this process with one model for all tests, or in a process of its own."""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import jsonschema
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avdetect import Detector
from avdetect.__main__ import main
from avdetect.report import json_schema

ROOT = Path(__file__).resolve().parents[1]
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
"""A public-domain photograph that comes with matplotlib: one face, 191 px wide, looking at the camera."""
VOICE = ROOT / "data" / "samples" / "sample_voice.flac"
SPEAKER = ROOT / "data" / "samples" / "sample.mp4"


@functools.cache
def detector() -> Detector:
    """The shipped model, loaded once."""
    return Detector.from_pretrained()


@dataclass(frozen=True)
class Answer:
    """What a call said: exit code, stdout, and stderr in lines."""

    code: int
    out: str
    err: list[str]

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """The JSON Lines on stdout, each checked against the shipped schema."""
        return parsed(self.out)


def parsed(text: str) -> list[dict[str, Any]]:
    """JSON Lines, each checked against the shipped schema; NaN and Infinity are refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in the JSON")

    answers = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    for answer in answers:
        jsonschema.validate(answer, json_schema())
    return answers


def call(*arguments: str | Path) -> Answer:
    """`avdetect ARGUMENTS...` in this process; the default model is loaded only once."""
    make = Detector.from_pretrained

    def shared(name: str | Path = "base", **options: Any) -> Detector:
        usual = name == "base" and options == {"device": "cpu", "face_model": None}
        return detector() if usual else make(name, **options)

    out, err = io.StringIO(), io.StringIO()
    detector()
    with patch.object(Detector, "from_pretrained", shared), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
    return Answer(code, out.getvalue(), err.getvalue().splitlines())


def command(*arguments: str | bytes | Path) -> list[str | bytes | Path]:
    """The command line of `python -m avdetect ARGUMENTS...`."""
    return [sys.executable, "-m", "avdetect", *arguments]


def process(*arguments: str | bytes | Path, cwd: Path, **variables: str) -> Answer:
    """`python -m avdetect ARGUMENTS...` as a process in the folder `cwd`, with these variables of the environment."""
    done = subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, timeout=120, env=environment() | variables
    )
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode().splitlines())


def environment() -> dict[str, str]:
    """This process's, with the checkout importable from anywhere and one thread."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def portrait(width: int, height: int, size: tuple[int, int] = (480, 360)) -> NDArray[np.uint8]:
    """The photograph at `width` x `height` in the middle of a grey picture of `size`."""
    canvas = Image.new("RGB", size, (120, 120, 120))
    picture = Image.open(PORTRAIT).resize((width, height))
    canvas.paste(picture, ((size[0] - width) // 2, (size[1] - height) // 2))
    return np.asarray(canvas)


def speaker(frames: int, size: tuple[int, int] = (480, 360)) -> list[NDArray[np.uint8]]:
    """As many pictures of `size` of a face whose mouth opens and closes: the sample's first ones, grey beside them."""
    pictures = []
    with av.open(str(SPEAKER)) as container:
        for frame in itertools.islice(container.decode(video=0), frames):
            canvas = Image.new("RGB", size, (120, 120, 120))
            side = min(size)
            canvas.paste(
                frame.to_image().resize((side, side)), ((size[0] - side) // 2, (size[1] - side) // 2)
            )
            pictures.append(np.asarray(canvas))
    return pictures


@functools.cache
def voice(seconds: float = 3.0) -> NDArray[np.float32]:
    """Synthetic speech [1, S] at 16 kHz."""
    with av.open(str(VOICE)) as container:
        resampler = av.AudioResampler("flt", "mono", 16_000)
        parts = [
            part.to_ndarray() for frame in container.decode(audio=0) for part in resampler.resample(frame)
        ]
    return np.concatenate(parts, 1)[:, : round(seconds * 16_000)].astype(np.float32)
