"""The command line: arguments in, exit code out (0 done, 1 some input could not be scored, 2 wrong usage)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from avdetect import __version__
from avdetect.errors import AvdetectError

if TYPE_CHECKING:
    from avdetect.detect import Detector
    from avdetect.types import Verdict

COMMANDS = ("train", "evaluate", "data")

DESCRIPTION = """\
Was a face manipulated, was a voice cloned, do lips and speech belong together?

  python -m avdetect CLIP...            a verdict per clip (this page)
  python -m avdetect train RECIPE       train a fusion model       (train --help)
  python -m avdetect evaluate ...       measure scores or a model  (evaluate --help)
  python -m avdetect data ...           index and check data sets  (data --help)
"""

EPILOG = """\
examples:
  python -m avdetect clip.mp4
  python -m avdetect *.mp4 interview.wav --json verdicts.jsonl
  python -m avdetect clip.mp4 --html report.html

A claim is "not assessable" where a clip holds no evidence on it (no face, no speech), never "real".
A file named like a command is given as ./train.
exit codes: 0 done; 1 some clip could not be read or scored (the others were); 2 wrong usage
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "avdetect",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "clips", nargs="+", type=Path, metavar="CLIP", help="video or sound files that FFmpeg reads"
    )
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; gives the exit code. What a user did wrong is one line on stderr, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with suppress(AttributeError):  # a stream that a test or a notebook put in place
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # as above
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    run = _command(arguments)
    try:
        return run()
    except AvdetectError as error:
        _say(str(error))
        return 2 if not isinstance(error, UnscoredError) else 1
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


class UnscoredError(AvdetectError):
    """An output could not be written: exit code 1, since the input was right."""


def _command(arguments: list[str]) -> Callable[[], int]:
    if arguments and arguments[0] in COMMANDS:
        name, rest = arguments[0], arguments[1:]
        return {"train": _train, "evaluate": _evaluate, "data": _data}[name](rest)
    args = _parser().parse_args(arguments)
    return lambda: _detect(args)


def _say(message: str) -> None:
    from avdetect.wording import printable

    print(f"avdetect: {printable(message)}", file=sys.stderr)


def _detect(args: argparse.Namespace) -> int:
    from avdetect.detect import Detector

    _check_device(args.device)
    outputs = _Outputs(args)
    detector = Detector.from_pretrained(args.model, device=args.device, face_model=args.face_model)
    failed = 0
    for verdict in _verdicts(detector, args.clips, quiet=args.quiet):
        outputs.take(verdict)
        if verdict.error is not None:
            failed += 1
            _say(verdict.error)
        elif not args.quiet:
            for warning in verdict.warnings:
                _say(f"{verdict.path}: {warning}")
    outputs.finish()
    return 1 if failed else 0


def _check_device(device: str) -> None:
    if device != "cpu":
        import torch

        from avdetect.errors import ConfigError

        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"--device {device}: {str(error).splitlines()[0]}; leave it out for cpu"
            ) from None


class _Outputs:
    """Where verdicts go: text and JSON at once, HTML at the end. What can't be written is told before any work."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.html = Path(args.html) if args.html else None
        self.json: TextIO | None = None
        self.text = not args.quiet and args.json != "-"
        self.verdicts: list[Verdict] = []
        if args.json:
            self.json = sys.stdout if args.json == "-" else _open(Path(args.json), "--json")
        if self.html is not None:
            _open(self.html, "--html").close()

    def take(self, verdict: Verdict) -> None:
        from avdetect import report

        if self.json is not None:
            self.json.write(report.to_json_line(verdict) + "\n")
            self.json.flush()
        if self.html is not None:
            self.verdicts.append(verdict)
        if self.text and verdict.error is None:
            from rich.console import Console

            console = Console()
            width = console.width if console.is_terminal else None
            console.print(report.to_text(verdict, width), soft_wrap=True)

    def finish(self) -> None:
        from avdetect import report

        if self.html is not None:
            self.html.write_text(report.to_html(self.verdicts), encoding="utf-8")
        if self.json is not None and self.json is not sys.stdout:
            self.json.close()


def _open(path: Path, option: str) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UnscoredError(
            f"{option} {path}: cannot be written ({error.strerror}); nothing was scored"
        ) from None


def _verdicts(detector: Detector, clips: Sequence[Path], *, quiet: bool) -> Sequence[Verdict] | object:
    if quiet or not sys.stderr.isatty():
        return map(detector.detect, clips)
    return _with_progress(detector, clips)


def _with_progress(detector: Detector, clips: Sequence[Path]) -> object:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from avdetect.wording import printable

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        overall = progress.add_task(f"{len(clips)} clips", total=len(clips), visible=len(clips) > 1)
        for clip in clips:
            task = progress.add_task(printable(clip.name)[:40], total=1.0)
            yield detector.detect(clip, lambda share, task=task: progress.update(task, completed=share))
            progress.remove_task(task)
            progress.advance(overall)


def _train(arguments: list[str]) -> Callable[[], int]:
    parser = argparse.ArgumentParser(
        "avdetect train",
        description="Trains a fusion model from a recipe (TOML) on a manifest; the run folder holds model, card, curves.",
        epilog="example: python -m avdetect train base data.manifest=corpus/manifest.csv training.steps=500",
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a .toml file, or the name of a shipped recipe (base)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings to change, as section.key=value"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut off")
    args = parser.parse_args(arguments)

    def run() -> int:
        from avdetect.config import find_recipe

        recipe = find_recipe(args.recipe)
        from avdetect.train import train

        print(train(recipe, args.overrides, resume=args.resume) / "model")
        return 0

    return run


def _evaluate(arguments: list[str]) -> Callable[[], int]:
    from avdetect.evaluate_cli import evaluate_parser

    args = evaluate_parser(arguments).parse_args(arguments)
    return lambda: int(args.run(args))


def _data(arguments: list[str]) -> Callable[[], int]:
    from avdetect.data_cli import add_arguments, run

    parser = argparse.ArgumentParser("avdetect data", description="Index, check and list data sets.")
    add_arguments(parser.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    args = parser.parse_args(arguments)
    return lambda: run(args)


def console() -> NoReturn:
    """Entry point of the `avdetect` script."""
    sys.exit(main())


if __name__ == "__main__":
    console()
