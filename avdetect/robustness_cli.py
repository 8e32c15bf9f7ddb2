"""`evaluate --variants`, `--robustness` and `--adversarial`: what degraded and attacked clips do to a model."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect import __version__
from avdetect.errors import ConfigError, InputError
from avdetect.types import Claim, Item, Outcome
from avdetect.wording import TITLES, encodable, printable

if TYPE_CHECKING:
    from avdetect.degradations import Variant
    from avdetect.detect import Detector
    from avdetect.scoring import Machine, Scorer

Tables = dict[str, list[dict[str, Any]]]
RECORD = "sweep.json"
"""Stands in a folder of results and says which model and seed they come from."""
SCRATCH = ".scratch"
"""Folder there for media made on the way."""
TRIALS_PER_JOB = 32
"""Fewer answers than this are not worth a process of their own, which takes seconds to start."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of degraded and attacked clips; --seed and --rounds are those of `evaluate`."""
    group = parser.add_argument_group("degraded and attacked clips (docs/robustness.md)")
    group.add_argument(
        "--variants",
        metavar="NAMES",
        help="each clip also degraded in these ways, in a table with the change of AUC; a degradation in all its "
        "severities or one of them, parted by commas: trimmed,mp3,opus-16,alaw,gsm,noise-10,reverb,short-2; untouched: "
        "just as it is. Where no clip has lips and speech that mismatch, sound is moved to make some",
    )
    group.add_argument(
        "--robustness",
        action="store_true",
        help="the same with every degradation (or those of --variants), plotted",
    )
    group.add_argument(
        "--adversarial",
        action="store_true",
        help="clips changed by gradient to fool the model, within small budgets",
    )
    group.add_argument(
        "--out",
        type=Path,
        default=Path("robustness"),
        metavar="DIR",
        help="where csv, json, png and html of these three go; what stands there is not made again (robustness)",
    )
    group.add_argument(
        "--most", type=int, metavar="N", help="at most N real and N fake clips per claim, always the same"
    )


def asked(args: argparse.Namespace) -> bool:
    """Whether any of these options was given."""
    return bool(args.variants is not None or args.robustness or args.adversarial)


def run(args: argparse.Namespace, scorer: Scorer, items: Sequence[Item], claims: Sequence[Claim]) -> int:
    """Degraded and attacked clips, as asked; 1 where a clip could not be read.

    ConfigError for a variant that nobody knows, for an option that means nothing here, and where a system without
    gradients is to be attacked.
    """
    from avdetect.degradations import chosen
    from avdetect.detect import Detector
    from avdetect.folders import claim
    from avdetect.variants import UNTOUCHED

    _refuse_options(args)
    names = _names(args.variants)
    wanted = [name for name in names if name != UNTOUCHED.name]
    variants = [one for one in chosen(wanted) if set(one.claims) & set(claims)] if wanted or not names else []
    detector = scorer if isinstance(scorer, Detector) else None
    if args.adversarial and detector is None:
        raise ConfigError(f"--adversarial needs a fusion model: {scorer.model_info.name} gives no gradients")
    items = fewer(items, claims, args.most)
    model = scorer.model_info
    claim(
        args.out,
        RECORD,
        {"made by": "avdetect evaluate", "model": model.name, "sha256": model.sha256, "seed": args.seed},
        "results",
    )
    swept: Tables = {}
    attacked: Tables = {}
    failed: dict[str, str] = {}
    with _scratch(args.out):
        if args.robustness or args.variants is not None:
            swept, broken = _sweep(args, scorer, items, claims, variants)
            failed |= broken
        if args.adversarial and detector is not None:
            attacked, broken = _attack(args, detector, items, claims)
            failed |= broken
    if args.robustness or args.adversarial:
        _draw(args, scorer, swept, attacked)
    for path, reason in failed.items():
        print(f"avdetect: {printable(reason or path)}", file=sys.stderr)
    return int(bool(failed))


def _refuse_options(args: argparse.Namespace) -> None:
    if args.most is not None and args.most < 1:
        raise ConfigError(f"--most {args.most}: give 1 or more")
    for option in ("csv", "parquet", "json", "html"):
        if getattr(args, option, None):
            raise ConfigError(f"--{option} is of a plain evaluation; here --out names a folder for all files")


@contextmanager
def _scratch(out: Path) -> Iterator[None]:
    """Temporary files lie in a folder of `out`, which begins empty: what a killed run left goes with it."""
    folder, before, told = out / SCRATCH, tempfile.tempdir, os.environ.get("TMPDIR")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
    except OSError as error:
        raise InputError(f"{folder}: cannot be made anew ({error.strerror or error}); remove it") from error
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder.resolve())  # the latter for other processes
    try:
        yield
    finally:
        tempfile.tempdir = before
        if told is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = told
        shutil.rmtree(folder, ignore_errors=True)


def fewer(items: Sequence[Item], claims: Sequence[Claim], most: int | None) -> list[Item]:
    """At most `most` real and fake items for each claim, those whose file names' SHA-256 come first, in their order."""
    if most is None:
        return list(items)
    order = sorted(range(len(items)), key=lambda at: sha256(items[at].path.name.encode()).digest())
    kept: set[int] = set()
    for claim in claims:
        for fake in (False, True):
            kept |= set([at for at in order if items[at].label[claim] is fake][:most])
    return [items[at] for at in sorted(kept)]


def _names(listed: str | None) -> list[str]:
    return [name for part in (listed or "").split(",") if (name := part.strip())]


def _sweep(
    args: argparse.Namespace,
    scorer: Scorer,
    items: Sequence[Item],
    claims: Sequence[Claim],
    variants: Sequence[Variant],
) -> tuple[Tables, dict[str, str]]:
    """Tables by claim, also as json and on stdout; and the files that could not be read, with the reasons."""
    from avdetect.progress import track
    from avdetect.robustness import table, to_text
    from avdetect.variants import judged, trials

    ask = _machine(args, len(items), 1 + len(variants)).ask(scorer, trials)
    found = judged(ask, items, claims, variants, args.out / "variants.csv", args.seed)
    every = [trial for rows in track(found, "degrading", len(items)) for trial in rows]
    tables = {one.value: rows for one in claims if (rows := table(every, one, variants, args.rounds))}
    _put_tables(args.out / "variants.json", args, scorer, tables)
    sys.stdout.write(to_text(tables) + "\n")
    return tables, {trial.path: trial.reason for trial in every if trial.verdict == Outcome.ERROR.value}


def _machine(args: argparse.Namespace, clips: int, trials: int) -> Machine:
    """Who does the work on so many clips with so many trials each."""
    from avdetect.scoring import Machine, jobs_for

    jobs = jobs_for(args.jobs, args.device, clips, clips * trials // TRIALS_PER_JOB)
    return Machine(args.model, args.device, args.cache, jobs)


def _attack(
    args: argparse.Namespace, detector: Detector, items: Sequence[Item], claims: Sequence[Claim]
) -> tuple[Tables, dict[str, str]]:
    """As `_sweep`."""
    from avdetect.attempts import DECIBELS, STEPS, attacked, attempts, table, to_text
    from avdetect.progress import track

    ask = _machine(args, len(items), len(DECIBELS) * sum(STEPS)).ask(detector, attempts)
    found = attacked(ask, items, claims, args.out / "adversarial.csv", args.seed)
    every = [one for rows in track(found, "attacking", len(items)) for one in rows]
    tables = {one.value: rows for one in claims if (rows := table(every, one, args.rounds))}
    _put_tables(args.out / "adversarial.json", args, detector, tables)
    sys.stdout.write(to_text(tables) + "\n")
    return tables, {one.path: one.reason for one in every if one.verdict == Outcome.ERROR.value}


def _draw(args: argparse.Namespace, scorer: Scorer, swept: Tables, attacked: Tables) -> None:
    """A png per claim, and the page."""
    from avdetect.robustness_page import Section, page
    from avdetect.robustness_plots import as_png, as_svg, attacks_drawn, drawn

    drawing = {"degraded": (swept, drawn), "attacked": (attacked, attacks_drawn)}
    parts: dict[str, dict[str, Section]] = {name: {} for name in drawing}
    for what, (tables, draw) in drawing.items():
        for name, rows in tables.items():
            clips = f"{rows[0]['n_real']} real and {rows[0]['n_fake']} fake clips, {what}"
            figure = draw(rows, f"{TITLES[Claim(name)]}: {clips}")
            (args.out / f"{name}-{what}.png").write_bytes(as_png(figure))
            parts[what][name] = Section(rows, as_svg(figure))
    _put(args.out / "robustness.html", page(_facts(args, scorer), parts["degraded"], parts["attacked"]))


def _facts(args: argparse.Namespace, scorer: Scorer) -> dict[str, Any]:
    """Which model, seed and command, and when."""
    command = shlex.join(["python", "-m", "avdetect", "evaluate", *args.arguments])
    return {
        "model": asdict(scorer.model_info),
        "seed": args.seed,
        "command": encodable(command),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "avdetect": __version__,
    }


def _put_tables(path: Path, args: argparse.Namespace, scorer: Scorer, tables: Tables) -> None:
    _put(path, json.dumps(_facts(args, scorer) | {"claims": tables}, indent=1, allow_nan=False) + "\n")


def _put(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
