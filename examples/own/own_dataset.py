"""A data set of one's own: `<split>/<real|cloned>/<speaker>_<number>.flac`, as a laboratory might keep its recordings.

pip install ./examples/own
python -m avdetect data index own-lab recordings --out manifest.csv
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.survey import Dataset, Survey, clips
from avdetect.types import Item, Label, Split

PLACE = re.compile(r"(?P<split>train|val|test)/(?P<kind>real|cloned)/(?P<speaker>[^/_]+)_\d+\.(flac|wav)")


def read(survey: Survey) -> Iterator[Item]:
    """An item per recording. What the set doesn't say of it stays unknown; what is no recording of it is told."""
    for path in clips(survey.files):
        place = PLACE.fullmatch(path)
        if place is None:
            survey.remark("files that are not <split>/<real|cloned>/<speaker>_<number>, left out", path)
            continue
        cloned = place["kind"] == "cloned"
        survey.see(place["kind"])
        yield Item(
            path=survey.path(path),
            label=Label(voice_cloning=cloned),
            split=Split(place["split"]),
            method="cloned" if cloned else None,
            identities=(f"lab-{place['speaker']}",),
            source="lab",
        )


LAB = Dataset(
    title="Recordings of our laboratory",
    labels="voice",
    size="as many as there are",
    licence="ours",
    access="on our own disk",
    citation="none",
    layout="<split>/<real|cloned>/<speaker>_<number>.flac",
    read=read,
)
