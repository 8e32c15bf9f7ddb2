"""The command line: arguments in, exit code out (0 done, 1 some input could not be scored, 2 wrong usage)."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import mimetypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from avdetect import __version__
from avdetect.errors import AvdetectError, ConfigError, MediaError
from avdetect.startup import brisk

if TYPE_CHECKING:
    from avdetect.detect import Detector
    from avdetect.types import Verdict
    from avdetect.watched import Opened
    from avdetect.watcher import Watcher

logger = logging.getLogger(__name__)

INTERRUPTED, NO_READER = 130, 141
"""Exit codes as of a process that SIGINT or SIGPIPE ended."""
COMMANDS = ("train", "evaluate", "data", "forge", "gmm", "models")
UNUSED = ("torch._meta_registrations", "torch.export", "torch.distributions", "torch.utils.data")
"""What PyTorch imports and scoring does not need; the first, how it reckons with tensors that hold no data, takes a
quarter of the time, the others a tenth."""

DESCRIPTION = """\
Was a face manipulated, was a voice cloned, do lips and speech belong together?

  python -m avdetect CLIP...            a verdict per clip (this page)
  python -m avdetect train RECIPE       train a fusion model       (train --help)
  python -m avdetect evaluate ...       measure scores or a model  (evaluate --help)
  python -m avdetect data ...           index and check data sets  (data --help)
  python -m avdetect forge CLIP... --out DIR   labelled fakes from real clips  (forge --help)
  python -m avdetect gmm train|score ...       the LFCC-GMM baseline for voices  (gmm --help)
  python -m avdetect models list|inspect|convert   models and checkpoints     (models --help)
"""

EPILOG = """\
examples:
  python -m avdetect clip.mp4
  python -m avdetect *.mp4 interview.wav --json verdicts.jsonl
  python -m avdetect clip.mp4 --html report.html

A claim is "not assessable" where a clip holds no evidence on it (no face, no speech), never "real".
A file named like a command is given as ./train.
exit codes: 0 done; 1 some clip could not be read or assessed at all (the others were), or something could not
be loaded or written; 2 wrong usage
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "avdetect",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="video or sound files that FFmpeg reads")
    parser.add_argument(
        "--json", metavar="FILE", help="JSON Lines, an object per clip; - for standard output"
    )
    parser.add_argument("--html", metavar="FILE", help="one page that opens offline, with curves and faces")
    parser.add_argument(
        "--model", default="base", metavar="NAME|DIR", help="a shipped or trained model (base)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument(
        "--face-model", type=Path, metavar="FILE", help="a face_landmarker.task for mediapipe's Tasks"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bars and no text; exit code and files only"
    )
    parser.add_argument("--version", action="version", version=f"avdetect {__version__}")
    return parser


def main(argv: Sequence[str] | None = None, *, apart: bool = False) -> int:
    """Runs a command; gives the exit code. What a user did wrong is one line on stderr, never a traceback.

    `apart`: the faces of clips may be followed in a process of their own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a test or a notebook put in place
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _command(list(sys.argv[1:] if argv is None else argv), apart)()
        if sys.stdout is not None:
            sys.stdout.flush()
    except AvdetectError as error:
        _say(str(error))
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        from avdetect.outputs import let_go_of

        let_go_of(sys.stdout)
        return NO_READER
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    return code


def _command(arguments: list[str], apart: bool) -> Callable[[], int]:
    if arguments and arguments[0] in COMMANDS:
        name, rest = arguments[0], arguments[1:]
        commands = {"train": _train, "evaluate": _evaluate, "data": _data}
        commands |= {"forge": _forge, "gmm": _gmm, "models": _models}
        return commands[name](rest)
    args = _parser().parse_args(arguments)
    return lambda: _detect(args, apart)


def _say(message: str) -> None:
    from avdetect.processes import is_main
    from avdetect.wording import printable

    if sys.stderr is not None and is_main():  # print() would take standard output instead
        print(f"avdetect: {printable(message)}", file=sys.stderr)


def _watchers(args: argparse.Namespace) -> list[Watcher]:
    """Processes for faces, where there may be any to follow and a core is free for it."""
    kinds = [mimetypes.guess_type(clip)[0] or "" for clip in args.clips]
    pictures = sum(not kind.startswith("audio/") for kind in kinds)
    if args.face_model is not None or not pictures:
        return []
    from avdetect.watcher import started

    return started(pictures)


def _detect(args: argparse.Namespace, apart: bool) -> int:
    watchers = _watchers(args) if apart else []  # first of all: they import as much as we do
    if apart:
        _defer_unused(args.model)
    try:
        return _detect_with(watchers, args)
    finally:
        for watcher in watchers:
            watcher.close()


def _defer_unused(model: str) -> None:
    """Leaves out of this process, which gives verdicts and ends, what a model of our own does not need of PyTorch."""
    from avdetect.hub import names
    from avdetect.later import defer

    if model in names():
        defer(*UNUSED)


def _detect_with(watchers: Sequence[Watcher], args: argparse.Namespace) -> int:
    from avdetect.detect import Detector
    from avdetect.outputs import Outputs
    from avdetect.types import Outcome

    detector = Detector.from_pretrained(args.model, device=args.device, face_model=args.face_model)
    outputs = Outputs(args.clips, args.json, args.html, text=not args.quiet)
    failed = False
    for given, verdict in _verdicts(detector, args.clips, watchers, quiet=args.quiet):
        outputs.take(given, verdict)
        failed |= verdict.outcome in (Outcome.ERROR, Outcome.NOT_ASSESSABLE)
        for line in _lines(verdict, told=outputs.text, quiet=args.quiet):
            _say(line)
    note = outputs.finish()
    if note is not None and not args.quiet:
        _say(note)
    return int(failed)


def _lines(verdict: Verdict, *, told: bool, quiet: bool) -> Iterator[str]:
    """What stderr says of a clip; `told`: its warnings stand in the text on stdout already."""
    from avdetect.types import Claim, Outcome

    if verdict.error is not None:
        yield verdict.error
        return
    if verdict.outcome is Outcome.NOT_ASSESSABLE:
        claims = (Claim.FACE_MANIPULATION, Claim.VOICE_CLONING)
        reasons = "; ".join(dict.fromkeys(verdict.claims[claim].reason or "" for claim in claims))
        yield f"{verdict.path}: not assessable: {reasons}; give a clip with a face in view or a second of speech"
    if not told and not quiet:
        for warning in verdict.warnings:
            yield f"{verdict.path}: {warning}"


def _verdicts(
    detector: Detector, clips: Sequence[str], watchers: Sequence[Watcher], *, quiet: bool
) -> Iterator[tuple[str, Verdict]]:
    """The clips and their verdicts, with a bar for the clip at work where somebody is looking."""
    from avdetect.progress import share_bar, watched
    from avdetect.wording import printable

    opened: Iterator[Opened | None] = detector.opened(clips, watchers) if watchers else repeat(None)
    for number, (clip, made) in enumerate(zip(clips, opened, strict=False), 1):
        if quiet or not watched():
            yield clip, _verdict(detector, clip, made)
            continue
        count = f"{number}/{len(clips)} " if len(clips) > 1 else ""
        with share_bar(count + printable(Path(clip).name)[:40]) as progress:
            verdict = _verdict(detector, clip, made, progress)
        yield clip, verdict  # the bar is gone: nothing is written into it


def _verdict(
    detector: Detector, clip: str, opened: Opened | None, progress: Callable[[float], None] | None = None
) -> Verdict:
    """The verdict on a clip, an error where avdetect itself fails on it: the other clips are still to be done."""
    try:
        return detector.detect(clip, progress, prepared=None if opened is None else opened())
    except MediaError as error:
        return detector.failure(clip, str(error))
    except AvdetectError:
        raise
    except Exception as error:
        logger.debug("%s", clip, exc_info=True)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return detector.failure(
            clip, f"{clip}: could not be scored, avdetect failed ({reason}); please report it"
        )


def _train(arguments: list[str]) -> Callable[[], int]:
    from avdetect.train_cli import run, train_parser

    args = train_parser().parse_intermixed_args(arguments)
    return lambda: run(args)


def _models(arguments: list[str]) -> Callable[[], int]:
    from avdetect.models_cli import models_parser, run

    args = models_parser().parse_args(arguments)
    return lambda: run(args)


def _evaluate(arguments: list[str]) -> Callable[[], int]:
    from avdetect.evaluate_cli import evaluate_parser

    args = evaluate_parser(arguments).parse_args(arguments)

    def run() -> int:
        return int(args.run(args))

    return run


def _data(arguments: list[str]) -> Callable[[], int]:
    from avdetect.data_cli import add_arguments, run

    parser = argparse.ArgumentParser("avdetect")
    add_arguments(parser.add_subparsers(dest="command", required=True))
    args = parser.parse_args(["data", *arguments])
    return lambda: run(args)


def _forge(arguments: list[str]) -> Callable[[], int]:
    from avdetect.forge_cli import forge_parser, run

    args = forge_parser().parse_args(arguments)
    return lambda: run(args)


def _gmm(arguments: list[str]) -> Callable[[], int]:
    from avdetect.gmm_cli import gmm_parser, run

    args = gmm_parser().parse_args(arguments)
    return lambda: run(args)


def console() -> NoReturn:
    """Entry point of the `avdetect` script."""
    verdicts = not set(sys.argv[1:2]) & set(COMMANDS)
    if verdicts:
        brisk()
    code = main(apart=verdicts)
    if verdicts or (code == INTERRUPTED and _loads_a_model()):
        _leave(code)
    sys.exit(code)


def _loads_a_model() -> bool:
    return any(thread.name.startswith("model") for thread in threading.enumerate())


def _leave(code: int) -> NoReturn:
    """Ends the process at once, what it wrote flushed.

    Python would wait seconds for a thread that still loads the model, and half a second to take PyTorch apart.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.flush()
    os._exit(code)


if __name__ == "__main__":
    console()
