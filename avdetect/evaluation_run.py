"""One evaluation from its arguments to its files: which clips, which scores, and where everything goes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avdetect import hub
from avdetect.compare import beside, named
from avdetect.errors import ConfigError, DatasetError, InputError
from avdetect.evaluate import distinct, sliced, worst
from avdetect.evaluation_page import to_html
from avdetect.evaluation_report import Evaluation, Throughput, described, shortcut_probes, write_clip_reports
from avdetect.outputs import check_output, open_output
from avdetect.prepared import Cache
from avdetect.progress import track, watched
from avdetect.rows import Journal, Row, holds_rows, journal_of, key_of, read_rows, write_parquet
from avdetect.scoring import FaceByFace, Machine, Scorer, answer, jobs_for, unscored, walk
from avdetect.startup import cores
from avdetect.targets import Target, read_items, read_targets
from avdetect.types import CLAIMS, Claim, Item
from avdetect.wording import printable

CLIPS_PER_JOB = 8
"""Fewer clips than this are not worth a process of their own, which takes seconds to start."""
PROBED = 1000
"""Clips that the shortcut probes open for a report."""


@dataclass(frozen=True)
class Chosen:
    """The clips that the command line names, after all filters, and the claims that are asked."""

    targets: list[Target]
    items: list[Item]
    claims: list[Claim]


def choose(args: argparse.Namespace) -> Chosen:
    """What `add_clip_arguments` names; DatasetError where no clip is left."""
    claims = [Claim(name) for name in args.claim] if args.claim else list(CLAIMS)
    targets = read_targets(args.targets)
    found = [item for target in targets for item in read_items(target, args.split)]
    labelled = [item for item in found if any(item.label[claim] is not None for claim in claims)]
    items, twice = distinct(sliced(labelled, args.slice))
    if not items:
        names = ", ".join(str(target) for target in targets)
        raise DatasetError(f"{names}: no row fits --split, --slice and --claim")
    if twice:
        say(f"{twice} clips stand there twice and are scored once")
    return Chosen(targets, items, claims)


def check_outputs(args: argparse.Namespace, chosen: Chosen) -> None:
    """Before any work: all that is asked for can be written, and overwrites nothing of the input."""
    inputs = [target.root for target in chosen.targets] + [path for _, path in named(args.beside)]
    _check_others(args)
    to_file = Path(args.json) if args.json not in (None, "-") else None
    for path, option in ((args.csv, "--csv"), (to_file, "--json"), (args.html, "--html")):
        if path is not None:
            check_output(path, option, inputs)
    if args.parquet is None:
        return
    if args.parquet.suffix.lower() != ".parquet" or any(args.parquet == path for path in inputs):
        raise ConfigError(f"--parquet {args.parquet}: name a .parquet file of its own")
    if args.parquet.is_file():
        read_rows(args.parquet)
    else:
        check_output(args.parquet, "--parquet", inputs)


def _check_others(args: argparse.Namespace) -> None:
    """Files of --beside can be read, and it is known of which claim their scores are."""
    if args.retry and not (args.csv or args.parquet):
        raise ConfigError("--retry is about rows of an earlier run: name them with --csv or --parquet")
    for _, path in named(args.beside):
        if holds_rows(path):
            read_rows(path)
        elif not path.is_file():
            raise ConfigError(f"--beside {path}: no such file")
        elif len(args.claim or CLAIMS) > 1:
            raise ConfigError(
                f"--beside {path}: holds scores and no claims; say with --claim which one they are of"
            )


def set_beside(
    args: argparse.Namespace, scorer: Scorer, rows: list[Row], table: dict[str, dict[str, Any]]
) -> None:
    """Adds to each claim of `table` what `compare` says of --beside; tells where they cannot be compared."""
    for claim, found in table.items():
        own = scorer.model_info.name, args.csv or args.parquet or Path("these rows")
        try:
            result = beside(own, rows, named(args.beside), Claim(claim), rounds=args.rounds, seed=args.seed)
        except InputError as error:
            say(f"{claim}: not compared, {error}")
            continue
        if result is not None:
            found["beside"] = result


def score(args: argparse.Namespace, chosen: Chosen, scorer: Scorer) -> tuple[list[Row], Throughput]:
    """All rows in the clips' order, kept in the files that were asked for."""
    csv_path = args.csv or (journal_of(args.parquet) if args.parquet else None)
    journal = Journal(csv_path, scorer.model_info, retry=args.retry) if csv_path else None
    tasks = unscored(chosen.items, chosen.claims, journal.rows if journal else ())
    jobs = jobs_for(args.jobs, args.device, len(tasks), len(tasks) // CLIPS_PER_JOB)
    ask = Machine(args.model, args.device, args.cache, jobs).ask(scorer, answer)
    rows: list[Row] = []
    clips, media, began = 0, 0.0, time.perf_counter()
    walked = walk(ask, chosen.items, chosen.claims, journal)
    for scored in track(walked, "scoring", len(chosen.items)):
        rows += scored.rows
        if scored.seconds is not None:
            clips, media = clips + 1, media + (scored.rows[-1].duration or 0.0)
    if args.parquet and csv_path:
        write_parquet(read_rows(csv_path), args.parquet)  # also what an earlier run asked of other claims
        if not args.csv:
            csv_path.unlink()
    return rows, Throughput(clips, media, time.perf_counter() - began, jobs)


def write(
    args: argparse.Namespace,
    chosen: Chosen,
    scorer: Scorer,
    rows: list[Row],
    table: dict[str, dict[str, Any]],
    throughput: Throughput,
    text: str,
) -> None:
    """Everything that was asked for; `text` goes to standard output where JSON does not."""
    met = trained_on(args.model, chosen.items) if isinstance(scorer, FaceByFace) else 0
    most = args.probes if args.probes is not None else (PROBED if args.html else 0)
    result = Evaluation(
        described(
            args.arguments,
            scorer.model_info,
            [str(target) for target in chosen.targets],
            rows,
            throughput,
            met,
        ),
        table,
        _probes(chosen, most, args.jobs),
        rows,
        _clip_reports(args, chosen, scorer, rows),
    )
    as_json = json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n"
    sys.stdout.write(as_json if args.json == "-" else text + "\n")
    if args.json not in (None, "-"):
        with open_output(Path(args.json), "--json") as file:
            file.write(as_json)
    if args.html:
        with open_output(args.html, "--html") as file:
            file.write(to_html(result))


def trained_on(model: str, items: Sequence[Item]) -> int:
    """How many items are of sources that a model was trained on; tells so, for their scores flatter it."""
    sources = hub.trained_sources(hub.find(model))
    met = sum(item.source in sources for item in items)
    if met:
        say(
            f"{met} of {len(items)} clips are of sources that {model} was trained on: what they score flatters it"
        )
    return met


def _probes(chosen: Chosen, most: int, jobs: int | None) -> dict[str, Any]:
    """Shortcuts of at most `most` of the clips, per claim; opening them takes time."""
    if not most:
        return {}
    if watched():
        say("measuring shortcuts")
    return shortcut_probes(chosen.items, chosen.claims, most, jobs or cores())


def _clip_reports(
    args: argparse.Namespace, chosen: Chosen, scorer: Scorer, rows: list[Row]
) -> dict[tuple[str, str], str]:
    """Reports of the worst errors in a folder beside the page: `Row.key` -> link."""
    if not args.clip_reports:
        return {}
    keys = {row.key for claim in chosen.claims for row in worst(rows, claim, args.clip_reports)}
    return write_clip_reports(
        scorer, [item for item in chosen.items if key_of(item) in keys], args.html, Cache(args.cache)
    )


def say(message: str) -> None:
    """One line for the user, on stderr."""
    print(f"avdetect: {printable(message)}", file=sys.stderr)
