"""The project's one manifest format: a csv or parquet file with one row per clip.

`COLUMNS` says what each column means; only `file` must be there. A path is absolute, or relative to the
manifest's own folder. A label is 0, 1 or empty (unknown). Columns that `COLUMNS` does not name are kept in
`Item.extra`. A value that nobody knows is a DatasetError which names file, row and value; rows are counted as
an editor counts the lines of the csv, the header being row 1.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from avdetect.errors import DatasetError, MissingDependencyError
from avdetect.types import CLAIMS, Claim, Item, Label, Segment, Split

COLUMNS: Mapping[str, str] = {
    "file": "the clip (video, or audio alone): absolute, or relative to the manifest's folder",
    "split": "train, val or test (dev and validation read as val, eval as test); empty: not split",
    "face_manipulation": "1 if a face seen was swapped, reenacted or generated, 0 if not, empty if unknown",
    "voice_cloning": "1 if the voice was synthesised, converted or re-vocoded, 0 if not, empty if unknown",
    "lip_sync_mismatch": "1 if mouth and voice do not belong together, 0 if they do, empty if unknown",
    "method": "what made the fake, in the source's own words; empty for real clips",
    "identity": "who is seen or heard; several people are joined by ';'",
    "source": "what must not lie on both sides of a split: a repository, a recording, a channel",
    "pair_id": "rows with the same value show the same sentence or scene, real and made",
    "language": "language of the speech (ISO 639-1 where known)",
    "audio_file": "where the voice lies if it is in another file than the picture",
    "segments": 'manipulated stretches where the source gives them: [[start_s, end_s, "claim" or null], ...]',
}
"""Every column of the format and what it holds."""

SPLITS: Mapping[str, Split] = {
    "train": Split.TRAIN,
    "val": Split.VAL,
    "dev": Split.VAL,
    "validation": Split.VAL,
    "test": Split.TEST,
    "eval": Split.TEST,
}
"""The words for a split that manifests and data sets use."""

_LABELS: Mapping[str, bool | None] = {"": None, "0": False, "1": True, "false": False, "true": True}
_SOURCE_COLUMNS = ("source", "source_repo")
_SEPARATOR = ";"
_CELL_LIMIT = 1 << 24  # characters; the segments of a long clip outgrow csv's own limit of 131,072


def read_manifest(path: Path | str) -> list[Item]:
    """Items of a `.csv` or `.parquet` manifest, in its order.

    Files are not looked for here (`data check` does that). Raises DatasetError where the manifest is not one,
    or where a cell holds a value that the format does not know.
    """
    path = Path(path)
    folder = path.parent
    return [_item(row, folder, f"{path}, row {number}") for number, row in _rows(path)]


def write_manifest(items: Iterable[Item], path: Path | str) -> None:
    """Write `items` as `.csv` or `.parquet`; the file appears whole or not at all.

    Paths below the manifest's folder are written relative to it, all others absolute. The same items give the
    same bytes as csv.
    """
    path = Path(path)
    suffix = _suffix(path)
    folder = path.parent.absolute()
    rows = [_row(item, folder) for item in items]
    header = [*COLUMNS, *sorted({key for row in rows for key in row} - set(COLUMNS))]
    partial = path.with_name(f".{path.name}.partial")
    try:
        if suffix == ".csv":
            _write_csv(partial, header, rows)
        else:
            _write_parquet(partial, header, rows)
        os.replace(partial, path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def check_target(path: Path | str) -> None:
    """Raise DatasetError unless a manifest can be written as `path`; before long work, and nothing is left behind."""
    path = Path(path)
    _suffix(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror or error})") from error
    if path.is_dir():
        raise DatasetError(f"{path}: is a folder; name a file")


def schema() -> dict[str, Any]:
    """The format as a Frictionless Table Schema, as it stands in `data/manifest.schema.json`."""
    fields = []
    for name, description in COLUMNS.items():
        field: dict[str, Any] = {"name": name, "type": "string", "description": description}
        if name in tuple(CLAIMS):
            field |= {"type": "integer", "constraints": {"enum": [0, 1]}}
        if name == "split":
            field["constraints"] = {"enum": list(SPLITS)}
        if name == "file":
            field["constraints"] = {"required": True}
        fields.append(field)
    return {"fields": fields, "missingValues": [""]}


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise DatasetError(f"{path}: a manifest ends in .csv or .parquet, not {suffix or 'nothing'}")
    return suffix


# Reading


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Row number and the non-empty cells of each row, as text."""
    suffix = _suffix(path)
    if not path.is_file():
        raise DatasetError(f"{path}: no such manifest")
    try:
        yield from _csv_rows(path) if suffix == ".csv" else _parquet_rows(path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(_CELL_LIMIT)
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream)
        try:
            header = next(reader, [])
            _check_header(header, path)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DatasetError(
                        f"{path}, row {reader.line_num}: {len(cells)} cells under a header of {len(header)}"
                    )
                yield reader.line_num, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}: not UTF-8 text ({error.reason})") from error
        except csv.Error as error:
            raise DatasetError(f"{path}, row {reader.line_num}: not csv ({error})") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    pyarrow = _pyarrow()
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error
    _check_header(table.column_names, path)
    for number, row in enumerate(table.to_pylist(), start=2):
        cells = {name: _cell(value) for name, value in row.items()}
        yield number, {name: cell for name, cell in cells.items() if cell}


def _cell(value: Any) -> str:
    """A parquet value as csv would hold it; pandas keeps integers with gaps as floats, and gaps as NaN."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return json.dumps(value)
    return str(value)


def _check_header(header: Sequence[str], path: Path) -> None:
    if "file" not in header:
        seen = ", ".join(header) if header else "nothing"
        raise DatasetError(f"{path}: a manifest needs a column 'file'; its first row holds {seen}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DatasetError(f"{path}: column '{twice[0]}' stands there twice")


def _item(row: Mapping[str, str], folder: Path, where: str) -> Item:
    if "file" not in row:
        raise DatasetError(f"{where}: 'file' is empty")
    source_column = next((name for name in _SOURCE_COLUMNS if name in row), "source")
    audio = row.get("audio_file")
    return Item(
        path=folder / row["file"],
        label=_label(row, where),
        split=_split(row.get("split", ""), where),
        method=row.get("method"),
        identities=tuple(
            part for name in row.get("identity", "").split(_SEPARATOR) if (part := name.strip())
        ),
        source=row.get(source_column),
        pair_id=row.get("pair_id"),
        language=row.get("language"),
        audio_path=folder / audio if audio else None,
        extra={name: cell for name, cell in row.items() if name not in COLUMNS and name != source_column},
    )


def _split(cell: str, where: str) -> Split | None:
    if cell and cell not in SPLITS:
        raise DatasetError(f"{where}: split is '{cell}', must be one of {', '.join(SPLITS)} or empty")
    return SPLITS.get(cell)


def _label(row: Mapping[str, str], where: str) -> Label:
    known: dict[str, bool | None] = {}
    for claim in CLAIMS:
        cell = row.get(claim, "").strip().lower()
        if cell not in _LABELS:
            raise DatasetError(f"{where}: {claim} is '{row[claim]}', must be 0, 1 or empty")
        known[claim.value] = _LABELS[cell]
    segments = _segments(row.get("segments", ""), where)
    for segment in segments:
        if segment.claim is not None and known[segment.claim.value] is False:
            raise DatasetError(f"{where}: {segment.claim} is 0, yet a segment says where it is")
    return Label(**known, segments=segments)


def _segments(cell: str, where: str) -> tuple[Segment, ...]:
    if not cell:
        return ()
    try:
        return tuple(
            Segment(float(start), float(end), None if claim is None else Claim(claim))
            for start, end, claim in json.loads(cell)
        )
    except (ValueError, TypeError) as error:  # json's own error is a ValueError
        raise DatasetError(
            f"{where}: segments '{cell[:80]}' are not [[start, end, claim or null], ...] ({error})"
        ) from error


# Writing


def _row(item: Item, folder: Path) -> dict[str, str]:
    """The non-empty cells of an item."""
    clash = sorted(set(item.extra) & set(COLUMNS))
    if clash:
        raise DatasetError(f"{item.path}: extra value '{clash[0]}' has the name of a manifest column")
    cells = {
        "file": _written(item.path, folder),
        "split": item.split or "",
        "method": item.method or "",
        "identity": _joined(item),
        "source": item.source or "",
        "pair_id": item.pair_id or "",
        "language": item.language or "",
        "audio_file": _written(item.audio_path, folder) if item.audio_path else "",
        "segments": _segments_cell(item.label.segments),
    }
    for claim in CLAIMS:
        value = item.label[claim]
        cells[claim] = "" if value is None else str(int(value))
    return {name: str(cell) for name, cell in (cells | dict(item.extra)).items() if cell != ""}


def _written(path: Path, folder: Path) -> str:
    # abspath, not resolve: a data set made of links keeps its own names, and no path costs a disk access
    full = os.path.abspath(path)
    base = str(folder)
    return full[len(base) :].lstrip("/") if full.startswith(base.rstrip("/") + "/") else full


def _joined(item: Item) -> str:
    for name in item.identities:
        if _SEPARATOR in name:
            raise DatasetError(f"{item.path}: identity '{name}' holds '{_SEPARATOR}', which separates people")
    return _SEPARATOR.join(item.identities)


def _segments_cell(segments: Sequence[Segment]) -> str:
    return json.dumps([[float(one.start), float(one.end), one.claim] for one in segments]) if segments else ""


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([row.get(name, "") for name in header] for row in rows)


def _write_parquet(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    pyarrow = _pyarrow()
    arrays = {}
    for name in header:
        cells = [row.get(name) for row in rows]
        if name in tuple(CLAIMS):
            arrays[name] = pyarrow.array(
                [None if cell is None else int(cell) for cell in cells], pyarrow.int8()
            )
        else:
            arrays[name] = pyarrow.array(cells, pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table(arrays), path)


def _pyarrow() -> ModuleType:
    """Arrow, imported where a parquet file is met: csv manifests do without it."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        raise MissingDependencyError(
            f"parquet needs pyarrow, which does not load ({error}); use .csv"
        ) from error
