"""In-the-Wild (Müller et al., 2022): politicians and celebrities, real and cloned, found on the net.

`meta.csv` with the header `file,speaker,label`; real speech is spelt `bona-fide`, with a hyphen. No split.
"""

from __future__ import annotations

from collections.abc import Iterator

from avdetect.survey import Dataset, Survey
from avdetect.tables import csv_rows, one_of
from avdetect.types import Item, Label

_LABELS = {"bona-fide": False, "spoof": True}
_EXPECTED = {"bona-fide": 19_963, "spoof": 11_816}


def _read(survey: Survey) -> Iterator[Item]:
    for label, number in _EXPECTED.items():
        survey.expect(label, number)
    table = survey.named.get("meta.csv")
    if table is None:
        survey.remark("meta.csv not found, nothing can be labelled", "release_in_the_wild/meta.csv")
        return
    present = frozenset(survey.files)
    for where, row in csv_rows(survey.path(table), ("file", "speaker", "label")):
        spoofed = one_of(_LABELS, row["label"], "label", where)
        sound = survey.folder(table) + row["file"]
        if sound not in present:
            continue
        survey.see(row["label"])
        yield Item(
            path=survey.path(sound),
            label=Label(voice_cloning=spoofed),
            identities=(row["speaker"],) if row["speaker"] else (),
            language="en",
        )


IN_THE_WILD = Dataset(
    title="In-the-Wild",
    labels="voice (no picture); methods unknown",
    size="19,963 bona fide, 11,816 spoofed utterances of 58 speakers; 16 kHz wav",
    licence="Apache-2.0 (as released; the speech is other people's)",
    access="open: deepfake-total.com/in_the_wild",
    citation="Müller et al., Does Audio Deepfake Detection Generalize?, Interspeech 2022",
    layout="release_in_the_wild/meta.csv and release_in_the_wild/*.wav",
    read=_read,
)
