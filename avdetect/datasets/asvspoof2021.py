"""ASVspoof 2021, evaluation only: LA (speech over telephone networks) and DF (speech through media
codecs).

`keys/<LA|DF>/CM/trial_metadata.txt` holds eight columns for LA and thirteen for DF. Published error rates use
only the rows whose subset is `eval` (148,176 of 181,566 and 533,928 of 611,829): those are in the test split,
the `progress` and `hidden` rows in none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from avdetect.datasets.attacks import KEYS, attack_extra
from avdetect.survey import Dataset, Survey
from avdetect.tables import one_of, protocol_rows
from avdetect.types import Item, Label, Split

_SUBSETS: dict[str, Split | None] = {
    "eval": Split.TEST,
    "progress": None,
    "hidden": None,
    "hidden_track": None,
}
_LA_COLUMNS = ("speaker", "file", "codec", "transmission", "attack", "key", "trim", "subset")
_DF_COLUMNS = (
    *("speaker", "file", "codec", "corpus", "attack", "key", "trim", "subset"),
    *("vocoder", "task", "team", "gender_pair", "languages"),
)
_NOT_EXTRA = frozenset({"speaker", "file", "key", "attack"})
_METADATA = "trial_metadata.txt"


def _read(prefix: str, columns: tuple[str, ...], survey: Survey) -> Iterator[Item]:
    for table in survey.files:
        if table.rsplit("/", 1)[-1] == _METADATA and _is_of(survey, table, prefix):
            yield from _read_table(survey, table, columns)
            return
    survey.remark(
        f"{_METADATA} of this track not found, nothing can be labelled", f"keys/{prefix[:2]}/CM/{_METADATA}"
    )


def _is_of(survey: Survey, table: str, prefix: str) -> bool:
    """Whether the first trial of a table is of the track: all tracks call their table the same."""
    try:
        with survey.path(table).open(encoding="utf-8", errors="replace") as stream:
            cells = stream.readline().split()
    except OSError as error:
        survey.remark(f"tables that could not be read ({error.strerror})", table)
        return False
    return len(cells) > 1 and cells[1].startswith(prefix)


def _read_table(survey: Survey, table: str, columns: tuple[str, ...]) -> Iterator[Item]:
    for where, cells in protocol_rows(survey.path(table), len(columns)):
        row = dict(zip(columns, cells, strict=True))
        spoofed = one_of(KEYS, row["key"], "key", where)
        split = one_of(_SUBSETS, row["subset"], "subset", where)
        group = f"{row['subset']} {'spoof' if spoofed else 'bona fide'}"
        survey.expect(group, 1)
        sound = survey.named.get(f"{row['file']}.flac")
        if sound is None:
            continue
        survey.see(group)
        known = {name: cell for name, cell in row.items() if name not in _NOT_EXTRA and cell != "-"}
        yield Item(
            path=survey.path(sound),
            label=Label(voice_cloning=spoofed),
            split=split,
            method=row["attack"] if spoofed else None,
            identities=(row["speaker"],),
            # the table's own columns win: DF states a vocoder for attacks that the 2019 table knows too
            extra={**(attack_extra(row["attack"]) if spoofed else {}), **known},
        )


def _reader(prefix: str, columns: tuple[str, ...]) -> Callable[[Survey], Iterator[Item]]:
    return partial(_read, prefix, columns)


LA = Dataset(
    title="ASVspoof 2021 LA",
    labels="voice (no picture); attacks A07 to A19 over telephone codecs",
    size="181,566 utterances, of which 148,176 in eval; 16 kHz flac",
    licence="ODC-By 1.0",
    access="open: zenodo.org/records/4837263 (sound), asvspoof.org/index2021.html (keys)",
    citation="Liu et al., ASVspoof 2021: Towards Spoofed and Deepfake Speech Detection in the Wild, "
    "TASLP 2023",
    layout="keys/LA/CM/trial_metadata.txt and ASVspoof2021_LA_eval/flac/LA_E_*.flac",
    read=_reader("LA_E_", _LA_COLUMNS),
)

DF = Dataset(
    title="ASVspoof 2021 DF",
    labels="voice (no picture); more than 100 systems through media codecs",
    size="611,829 utterances, of which 533,928 in eval; 16 kHz flac",
    licence="ODC-By 1.0",
    access="open: zenodo.org/records/4835108 (sound), asvspoof.org/index2021.html (keys)",
    citation="Liu et al., ASVspoof 2021: Towards Spoofed and Deepfake Speech Detection in the Wild, "
    "TASLP 2023",
    layout="keys/DF/CM/trial_metadata.txt and ASVspoof2021_DF_eval/flac/DF_E_*.flac",
    read=_reader("DF_E_", _DF_COLUMNS),
)
