"""An evaluation as JSON for programs, with all that is needed to run it again; `evaluation_page` shows it to people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect import __version__, report, wording
from avdetect.errors import MediaError
from avdetect.evaluate import fingerprint, worst
from avdetect.outputs import OutputError
from avdetect.rows import Row, key_of
from avdetect.shortcuts import Measurement, measure_items, sample, separability
from avdetect.types import Claim, Item, ModelInfo

if TYPE_CHECKING:
    from avdetect.prepared import Cache
    from avdetect.scoring import Scorer

SHOWN = 8
"""Worst errors of each kind that are listed."""
PROBES = {"all": "file facts alone", "non-speech": "silence alone"}
"""Groups of `shortcuts` that are measured, and what they are called."""


@dataclass(frozen=True)
class Throughput:
    """What was scored in this run (not read from an earlier one): clips, seconds of media, seconds it took."""

    clips: int
    media_seconds: float
    wall_seconds: float
    jobs: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `times_real_time` above 1 is faster than playing the clips, None where nothing was scored."""
        speed = self.media_seconds / self.wall_seconds if self.clips and self.wall_seconds else None
        return {
            "clips": self.clips,
            "media_seconds": round(self.media_seconds, 2),
            "wall_seconds": round(self.wall_seconds, 2),
            "jobs": self.jobs,
            "times_real_time": None if speed is None else round(speed, 2),
        }


@dataclass(frozen=True)
class Evaluation:
    """All that is told of an evaluation.

    `about` is what `described` gives, `tables` claim -> row of `evaluate.tables`, `probes` what `shortcut_probes`
    gives, `links` `Row.key` -> link to the clip's own report.
    """

    about: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]]
    probes: Mapping[str, Any]
    rows: Sequence[Row]
    links: Mapping[tuple[str, str], str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON: a key per claim that was asked, and `evaluation`: how it came about, and what failed."""
        found: dict[str, Any] = {claim: dict(table) for claim, table in self.tables.items()}
        for claim in found:
            found[claim]["shortcuts"] = self.probes.get(claim)
            found[claim]["worst"] = [
                {
                    "path": wording.encodable(row.path),
                    "fake": row.fake,
                    "score": row.score,
                    "method": row.method,
                }
                for row in worst(self.rows, Claim(claim), SHOWN)
            ]
        failed = {row.key: row.reason for row in self.rows if row.verdict == "error"}
        listed = [
            {"path": wording.encodable(path), "reason": wording.encodable(reason)}
            for (path, _), reason in failed.items()
        ]
        return found | {"evaluation": {**self.about, "failed": listed}}


def described(
    arguments: Sequence[str],
    model: ModelInfo,
    targets: Sequence[str],
    rows: Sequence[Row],
    throughput: Throughput,
    met: int,
) -> dict[str, Any]:
    """Command, date, model, data and speed of an evaluation, as JSON.

    `met`: how many of the clips are of sources that the model was trained on.
    """
    return {
        "command": wording.encodable(shlex.join(["python", "-m", "avdetect", "evaluate", *arguments])),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "avdetect": __version__,
        "model": {"name": model.name, "version": model.version, "sha256": model.sha256},
        "data": {
            "targets": [wording.encodable(target) for target in targets],
            "clips": len({row.key for row in rows}),
            "clips_of_trained_sources": met,
            "fingerprint": fingerprint(rows),
        },
        "throughput": throughput.to_dict(),
    }


def shortcut_probes(
    items: Sequence[Item], claims: Sequence[Claim], most: int, workers: int
) -> dict[str, Any]:
    """Claim -> probe -> AUC of a small classifier that sees neither face nor speech, from at most `most` clips.

    Clips that cannot be opened are left out of it; they are counted as failed elsewhere.
    """
    taken = sample(items, most)
    measured = measure_items(taken, workers if len(taken) > 20 else 1)
    opened = [(item, one) for item, one in zip(taken, measured, strict=True) if isinstance(one, Measurement)]
    found: dict[str, Any] = {}
    for claim in claims:
        known = [(item, one) for item, one in opened if item.label[claim] is not None]
        parts = [separability([i for i, _ in known], [m for _, m in known], claim, name) for name in PROBES]
        found[claim.value] = {
            part.features: {
                "n_real": part.real,
                "n_fake": part.fake,
                "auc_random_folds": part.random_folds,
                "auc_held_out_sources": part.held_out_sources,
            }
            for part in parts
        }
    return found


def write_clip_reports(
    scorer: Scorer, items: Sequence[Item], page: Path, kept: Cache
) -> dict[tuple[str, str], str]:
    """Each clip's own report in a folder beside `page`: `Row.key` -> link from there. OutputError where that fails."""
    folder = page.with_name(f"{page.stem}-clips")
    links = {}
    try:
        folder.mkdir(exist_ok=True)
        for number, item in enumerate(items, 1):
            try:
                prepared = kept.find(item, scorer.settings)
            except (OSError, MediaError):
                continue  # gone since it was scored
            verdict = scorer.detect(item.path, audio_path=item.audio_path, prepared=prepared)
            file = folder / f"{number:03d}.html"
            file.write_text(report.to_html(verdict), encoding="utf-8")
            links[key_of(item)] = f"{folder.name}/{file.name}"
    except OSError as error:
        raise OutputError(f"--clip-reports {folder}: cannot be written ({error.strerror})") from None
    return links
