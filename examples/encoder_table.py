"""The table of encoders in docs/encoders.md: how large they are, what they cost, how well they did.

    python examples/encoder_table.py cost [NAME ...]
    python examples/encoder_table.py results MANIFEST NAME=SCORES ...

`cost` measures the encoders (all, or those named) with random weights on one thread: CPU seconds per second of media,
the least of several runs. `results` reads score files: the scores.csv of a run folder, or ASVspoof's layout; MANIFEST
tells the sources of the clips, by which intervals are drawn. Both keep the other's columns in the csv, and write the
table anew.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avdetect.errors import AvdetectError, InputError

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = ("name", "input", "weights", "mmacs", "cpu", "clips", "auc", "low", "high", "eer")
BEGIN, END = "<!-- table: examples/encoder_table.py -->", "<!-- end of table -->"
SECONDS = {"audio": 8, "mouth": 8, "mouth_crops": 8, "face": 2}
"""Of media that an encoder is given to be measured."""
CROP, MOUTH_CROP = 160, 64
"""Pixels of a face crop and of a mouth crop as models get them."""
PAPER = {"narrow": 128, "wide": 512, "hidden": 1024, "layers": 3, "dim": 1024}


class Entry(NamedTuple):
    """A row of the table: an encoder and its options."""

    encoder: str
    options: Mapping[str, Any] = {}


ENTRIES = {
    "spectral_resnet": Entry("spectral_resnet"),
    "lcnn": Entry("lcnn"),
    "tdnn": Entry("tdnn"),
    "rawnet2": Entry("rawnet2"),
    "rawnet2, sizes of the paper": Entry("rawnet2", PAPER),
    "aasist_l": Entry("aasist_l"),
    "aasist": Entry("aasist"),
    "sync_speech": Entry("sync_speech"),
    "speech_backbone, wav2vec 2.0 base": Entry("speech_backbone", {"config": {"model_type": "wav2vec2"}}),
    "lip_motion": Entry("lip_motion"),
    "lip_crops": Entry("lip_crops"),
    "efficientnet_lite": Entry("efficientnet_lite"),
    "spectral_efficientnet": Entry("spectral_efficientnet", {"window": 1024, "high": 3400.0}),
    "face_cnn": Entry("face_cnn"),
    "frequency": Entry("frequency"),
    "xception, 299 pixels": Entry("xception"),
    "xception, 96 pixels": Entry("xception", {"size": 96}),
    "image_backbone, ViT-B/16": Entry("image_backbone", {"config": {"model_type": "vit"}}),
}
COMPARED = ("lip_crops", "lip_motion", "sync_speech")
"""Encoders that are nothing alone: their rows tell of a pair."""
GMM = "lfcc-gmm"
PUBLISHED = ("aasist, published", "aasist_l, published")


class Cost(NamedTuple):
    """Learned numbers, millions of multiply-adds and CPU seconds, these two per second of media."""

    modality: str
    weights: int
    mmacs: float | None
    cpu: float


def least(work: Callable[[], object], runs: int) -> float:
    """CPU seconds of the quickest of `runs` runs, after one that does not count."""
    work()
    spent = []
    for _ in range(runs):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def cost_of(entry: Entry, runs: int) -> Cost:
    """What an encoder costs with random weights."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from avdetect.batch import LIPS
    from avdetect.encoders import build_encoder
    from avdetect.types import CROP_EVERY, FRAME_RATE, SAMPLE_RATE

    encoder = build_encoder(entry.encoder, **entry.options)
    assert isinstance(encoder, torch.nn.Module)
    encoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as training builds them
    kind = str(encoder.modality)
    shape = {
        "audio": (SAMPLE_RATE,),
        "mouth": (FRAME_RATE, 2 * len(LIPS)),
        "mouth_crops": (FRAME_RATE, MOUTH_CROP, MOUTH_CROP),
        "face": (FRAME_RATE // CROP_EVERY, 3, CROP, CROP),
    }[kind]
    inputs = torch.rand(1, SECONDS[kind] * shape[0], *shape[1:])
    lengths = torch.tensor([inputs.shape[1]])
    with torch.inference_mode():
        spent = least(lambda: encoder(inputs, lengths), runs)
    encoder.requires_grad_(False)  # the counter asks weights for gradients that there are none of
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(inputs, lengths)
    weights = sum(p.numel() for p in encoder.parameters())
    return Cost(kind, weights, counter.get_total_flops() / 2e6 / SECONDS[kind], spent / SECONDS[kind])


def cost_of_gmm(runs: int) -> Cost:
    """What the LFCC-GMM baseline costs; its numbers do not matter."""
    import numpy as np

    from avdetect.gmm import GmmSettings, LfccGmm
    from avdetect.types import SAMPLE_RATE

    dice = np.random.default_rng(0)
    sound = dice.normal(0, 0.1, SECONDS["audio"] * SAMPLE_RATE).astype(np.float32)
    model = LfccGmm.fit([(sound, False), (sound[::-1].copy(), True)], GmmSettings(frames=600, iterations=1))
    return Cost("audio", model.parameters, None, least(lambda: model.score(sound), runs) / SECONDS["audio"])


def scores_of(path: Path, *, pairs: bool) -> list[tuple[str, float, bool]]:
    """Clip, score (higher = more fake) and label of each row of a score file. Raises InputError.

    `pairs`: those of lip-sync, of clips as they are and moved; otherwise those of faces and voices.
    """
    from avdetect.score_columns import trial_name
    from avdetect.scores import Higher, read_scores

    if path.suffix != ".csv":
        scored = read_scores(path, higher=Higher.BONA_FIDE)
        return list(zip(scored.names, scored.scores.tolist(), scored.labels.tolist(), strict=True))
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [
            (trial_name(row["file"]), float(row["logit"]), row["fake"] == "1")
            for row in rows
            if (row["claim"] == "lip_sync_mismatch") == pairs
        ]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: is no scores.csv of a run ({error})") from None


def result_of(path: Path, sources: Mapping[str, str], *, pairs: bool) -> dict[str, str]:
    """The result columns of one score file; `pairs` as in `scores_of`."""
    from avdetect.summary import summary

    rows = scores_of(path, pairs=pairs)
    found = summary(
        [score for _, score, _ in rows],
        [fake for _, _, fake in rows],
        clusters=[sources.get(name, name) for name, _, _ in rows],
    )
    if found["auc"] is None:
        raise InputError(f"{path}: scores of one class only; give real and fake clips")
    low, high = found["auc_ci"] or ("", "")
    numbers = {"auc": found["auc"], "low": low, "high": high, "eer": found["eer"]}
    written = {key: f"{value:.3f}" if value != "" else "" for key, value in numbers.items()}
    return {"clips": f"{found['n_real']} / {found['n_fake']}", **written}


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    """The table as it stands, by name."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def write(rows: Mapping[str, dict[str, str]], docs: Path) -> None:
    """Write encoders.csv, and the table between its marks in encoders.md."""
    order = [*ENTRIES, GMM, *PUBLISHED]
    kept = [rows[name] for name in sorted(rows, key=lambda n: order.index(n) if n in order else len(order))]
    with (docs / "encoders.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    page = docs / "encoders.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table(kept)}{END}{after}", encoding="utf-8")


def table(rows: Sequence[dict[str, str]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| encoder | input | weights | million multiply-adds | CPU seconds | real / fake clips | AUC (95 %) | EER |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cell = {name: row.get(name) or "" for name in COLUMNS}
        spread = f" ({cell['low']} to {cell['high']})" if cell["low"] else ""
        result = f"{cell['clips']} | {cell['auc']}{spread} | {cell['eer']}" if cell["auc"] else "not run | |"
        size = f"{int(cell['weights']):,}" if cell["weights"] else ""
        lines.append(
            f"| {cell['name']} | {cell['input']} | {size} | {cell['mmacs']} | {cell['cpu']} | {result} |"
        )
    return "\n".join(lines) + "\n"


def measured(name: str, runs: int) -> dict[str, str]:
    """The cost columns of one row."""
    found = cost_of_gmm(runs) if name == GMM else cost_of(ENTRIES[name], runs)
    mmacs = "" if found.mmacs is None else f"{found.mmacs:.0f}"
    return {
        "input": found.modality,
        "weights": str(found.weights),
        "mmacs": mmacs,
        "cpu": f"{found.cpu:.4f}",
    }


def read_results(manifest: Path, given: Sequence[str], rows: dict[str, dict[str, str]]) -> None:
    """Fill the result columns by NAME=SCORES arguments."""
    from avdetect.gmm_cli import trial_names
    from avdetect.manifest import read_manifest

    items = read_manifest(manifest)
    sources = {name: item.source or name for name, item in zip(trial_names(items), items, strict=True)}
    for pair in given:
        name, _, path = pair.partition("=")
        rows.setdefault(name, {"name": name}).update(result_of(Path(path), sources, pairs=name in COMPARED))


def main() -> int:
    """Arguments in, exit code out."""
    parser = argparse.ArgumentParser(description="Make the table of encoders.")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="DIR", help="where encoders.md lies")
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("cost", help="measure encoders")
    cost.add_argument("names", nargs="*", metavar="NAME", help=f"{'; '.join([*ENTRIES, GMM])} (default: all)")
    cost.add_argument("--runs", type=int, default=3, metavar="N")
    results = commands.add_parser("results", help="take in score files")
    results.add_argument("manifest", type=Path)
    results.add_argument("scores", nargs="+", metavar="NAME=SCORES")
    args = parser.parse_args()
    rows = read_rows(args.docs / "encoders.csv")
    try:
        if args.command == "cost":
            import torch

            torch.set_num_threads(1)
            wanted = args.names or [*ENTRIES, GMM]
            if unknown := [name for name in wanted if name not in ENTRIES and name != GMM]:
                parser.error(f"no row is called {unknown[0]!r}")
            for name in wanted:
                rows.setdefault(name, {"name": name}).update(measured(name, max(1, args.runs)))
                print(f"{name}: {rows[name]['cpu']} CPU seconds", flush=True)
                write(rows, args.docs)  # what is done stays, should this be stopped
        else:
            read_results(args.manifest, args.scores, rows)
            write(rows, args.docs)
    except AvdetectError as error:
        print(f"encoder_table: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
