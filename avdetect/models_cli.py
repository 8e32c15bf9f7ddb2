"""`python -m avdetect models`: which models there are, what one holds, checkpoints converted, claims joined."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from avdetect.errors import AvdetectError, ConfigError, ModelError
from avdetect.types import Claim

DESCRIPTION = """\
  python -m avdetect models list [FOLDER...]             shipped models, and trained ones below FOLDER (runs)
  python -m avdetect models inspect NAME|DIR|FILE        what a model, or a bare file of weights, holds
  python -m avdetect models convert FILE OUT --encoder E   a published checkpoint as safetensors, to start from
  python -m avdetect models join RUN CLAIM OTHER OUT     RUN's model, with one claim as OTHER's tells it
"""
EPILOG = """\
A converted encoder is the start of a training:
  python -m avdetect models convert AASIST.pth aasist --encoder aasist
  python -m avdetect train audio-only 'model.streams.voice={encoder="aasist", weights="aasist"}' data.manifest=m.csv
A claim that was trained apart is joined to the others:
  python -m avdetect models join runs/base lip_sync_mismatch runs/try/parts/lips-speech runs/joined --manifest m.csv
Streams that were trained apart for one claim stand beside each other, if their names differ:
  python -m avdetect models join runs/voices voice_cloning runs/more runs/both --manifest m.csv --beside
Tensors alone are read of a .pth, .pt or .bin; a file that holds code is refused, and none of it is run.
"""


def models_parser() -> argparse.ArgumentParser:
    """The arguments of `models`."""
    parser = argparse.ArgumentParser(
        "avdetect models",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="models_command", required=True, metavar="list|inspect|convert|join"
    )
    listing = commands.add_parser("list", help="shipped and trained models")
    listing.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="where runs lie (runs, if there)"
    )
    listing.add_argument("--json", metavar="FILE", help="write it as json, - for standard output")
    inspect = commands.add_parser("inspect", help="what a model or a file of weights holds")
    inspect.add_argument(
        "model", metavar="NAME|DIR|FILE", help="a shipped or trained model, or a file of weights"
    )
    inspect.add_argument("--json", metavar="FILE", help="write it as json, - for standard output")
    convert = commands.add_parser("convert", help="a published checkpoint as safetensors")
    convert.add_argument(
        "file", type=Path, metavar="FILE", help="a checkpoint (.pth) of the network's authors"
    )
    convert.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    convert.add_argument(
        "--encoder", required=True, metavar="NAME", help="whose weights: aasist, aasist_l, xception"
    )
    join = commands.add_parser("join", help="one claim of a run taken over into another run's model")
    join.add_argument("run", type=Path, metavar="RUN", help="a finished run, whose other claims are kept")
    join.add_argument("claim", metavar="CLAIM", help=f"one of {', '.join(Claim)}")
    join.add_argument(
        "other", type=Path, metavar="OTHER", help="a finished run that was trained on the claim"
    )
    join.add_argument("out", type=Path, metavar="OUT", help="a new folder for the joined run")
    join.add_argument(
        "--manifest", type=Path, required=True, metavar="FILE", help="what both were trained on"
    )
    join.add_argument("--name", default="", metavar="N", help="the joined model's name (default: RUN's)")
    join.add_argument(
        "--version", default="", metavar="V", help="the joined model's version (default: RUN's)"
    )
    join.add_argument(
        "--beside",
        action="store_true",
        help="the claim reads the streams of both runs, and is scored anew by the models of their folds",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the chosen command: 0 done, 1 some model in the list cannot be used. Raises AvdetectError."""
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "inspect": _inspect,
        "convert": _convert,
        "join": _join,
    }
    return commands[args.models_command](args)


def _list(args: argparse.Namespace) -> int:
    from avdetect.inspection import describe

    found, failed = [], False
    for folder in _folders(args.folders):
        try:
            found.append(describe(folder))
        except AvdetectError as error:
            failed = True
            print(f"avdetect: {error}", file=sys.stderr)
    if args.json:
        _write(args.json, found)
    else:
        print("\n".join(line for model in found for line in _row(model)))
    return int(failed)


def _folders(given: list[Path]) -> Iterator[Path]:
    """Shipped models, and all model folders at or below the given ones."""
    from avdetect.hub import WEIGHTS, names

    yield from (WEIGHTS / name for name in names())
    for folder in given or [path for path in (Path("runs"),) if path.is_dir()]:
        if not folder.is_dir():
            raise ModelError(f"{folder}: no such folder; give one in which trained models lie")
        for weights in sorted(folder.rglob("model.safetensors")):
            if weights.parent.parent.name != "checkpoints" and (weights.parent / "config.json").is_file():
                yield weights.parent


def _row(model: dict[str, Any]) -> Iterator[str]:
    if "encoder" in model:
        yield f"{model['encoder']}, an encoder  {_size(model['numbers'])}  {model['folder']}"
        return
    yield f"{model['name']} {model['version']}  {_size(model['numbers'])}  {model['folder']}"
    for claim, facts in model["claims"].items():
        yield f"  {claim:<18} {_reached(facts)}"


def _inspect(args: argparse.Namespace) -> int:
    from avdetect import hub
    from avdetect.inspection import describe, describe_file

    path = Path(args.model)
    shipped = args.model in hub.names()
    if not shipped and not path.exists():
        hub.find(args.model)  # says which names there are
    told = describe_file(path) if path.is_file() else describe(hub.WEIGHTS / args.model if shipped else path)
    if args.json:
        _write(args.json, told)
    else:
        print("\n".join(_of_file(told) if path.is_file() and not shipped else _of_model(told)))
    return 0


def _of_model(model: dict[str, Any]) -> Iterator[str]:
    if "encoder" in model:
        yield f"an encoder's weights: {model['encoder']}, {_size(model['numbers'])}"
        yield f"from      {model['origin']['file']} (sha256 {model['origin']['sha256']})"
        yield f"sha256    {model['sha256']}"
        return
    yield f"{model['name']} {model['version']}, {_size(model['numbers'])}"
    yield f"folder    {model['folder']}"
    yield f"sha256    {model['sha256']}"
    recipes = " then ".join(model["recipes"]) or "not stated"
    yield f"recipe    {recipes}" + (f", {model['folds']} folds by source" if model["folds"] else "")
    yield f"window    {model['window']['length']:g} s every {model['window']['hop']:g} s"
    for name, numbers in model["parts"].items():
        start = model["starts"].get(name, {}).get("file")
        stream = model["streams"].get(name)
        kind = "shared by streams" if stream is None else stream
        yield f"part      {name:<10} {_size(numbers):>18}  {kind}" + (
            f", begun from {start}" if start else ""
        )
    for claim, facts in model["claims"].items():
        yield f"{claim}: reads {', '.join(facts['streams'])}"
        yield f"  reached    {_reached(facts)}"
        fit, limits = facts["calibration"], facts["thresholds"]
        if fit and limits:
            yield f"  score      1 / (1 + exp(-({fit['scale']:g} x logit {fit['bias']:+g})))"
            yield f"  verdict    manipulated from {limits['high']:g}, nothing found below {limits['low']:g}"
        if facts["sources"]:
            yield f"  sources    {', '.join(facts['sources'])}"


def _of_file(told: dict[str, Any]) -> Iterator[str]:
    yield f"{told['file']}: {len(told['tensors'])} tensors, {_size(told['numbers'])}"
    yield f"sha256    {told['sha256']}"
    yield f"fits      {', '.join(told['fits']) or 'no encoder of avdetect in its usual sizes'}"
    for name, (kind, *shape) in told["tensors"].items():
        yield f"  {name}  {kind} {'x'.join(map(str, shape)) or 'scalar'}"


def _reached(facts: dict[str, Any]) -> str:
    if facts["auc"] is None:
        return "not stated"
    low, high = facts["auc_ci"] or (float("nan"), float("nan"))
    return (
        f"AUC {facts['auc']:.3f} ({low:.3f} to {high:.3f}) on {facts['n_real']} real, {facts['n_fake']} fake"
    )


def _size(numbers: int) -> str:
    return f"{numbers:,} numbers"


def _write(target: str, told: Any) -> None:
    text = json.dumps(told, indent=1) + "\n"
    if target == "-":
        print(text, end="")
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error.strerror})") from None


def _convert(args: argparse.Namespace) -> int:
    from safetensors.torch import save_file

    from avdetect.starts import ENCODER, origin, read_published

    if args.out.exists():
        raise ModelError(f"{args.out}: is there already; give a new folder")
    values = {name: value.contiguous() for name, value in read_published(args.file, args.encoder).items()}
    config = {"model_type": ENCODER, "encoder": args.encoder, "origin": origin(args.file)}
    try:
        args.out.mkdir(parents=True)
        save_file(values, args.out / "model.safetensors", {"format": "pt"})
        (args.out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{args.out}: cannot be written ({error.strerror})") from None
    print(args.out)
    return 0


def _join(args: argparse.Namespace) -> int:
    if args.claim not in list(Claim):
        raise ConfigError(f"no claim is called '{args.claim}'; there are {', '.join(Claim)}")
    from avdetect.joining import join_runs

    join_runs(
        run=args.run,
        claim=Claim(args.claim),
        other=args.other,
        manifest=args.manifest,
        out=args.out,
        name=args.name,
        version=args.version,
        beside=args.beside,
    )
    print(args.out)
    return 0
