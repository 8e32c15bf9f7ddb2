"""KoDF (Kwon et al., 2021): 403 Korean speakers, six ways to swap or drive their faces.

Real `<person>_<n>.mp4`; fake `<target>_<source>_<code>_<n>.mp4`, whose code names the method. The release
differs with where it was got: clips are known by their names, in whatever folders. Nothing is said of the
fakes' sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.survey import Dataset, Survey, clips
from avdetect.tables import one_of
from avdetect.types import Item, Label

METHODS = {
    "1": "DeepFaceLab",
    "2": "DeepFakes (dffs)",
    "3": "FSGAN",
    "4": "first-order motion model",
    "5": "audio-driven",
}
_PERSON = r"[0-9a-f]{20}|\d{6}"
_REAL = re.compile(rf"(?P<target>{_PERSON})_\d+")
_FAKE = re.compile(rf"(?P<target>{_PERSON})_(?P<source>{_PERSON})_(?P<code>\d+)_\d+")


def _read(survey: Survey) -> Iterator[Item]:
    survey.expect("real", 62_166)
    survey.expect("fake", 175_776)
    for path in clips(survey.files):
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        match = _FAKE.fullmatch(stem) or _REAL.fullmatch(stem)
        if match is None:
            survey.remark("names that are not those of KoDF, left out", path)
            continue
        parts = match.groupdict()
        fake = "code" in parts
        survey.see("fake" if fake else "real")
        people = dict.fromkeys(parts[who] for who in ("target", "source") if who in parts)
        yield Item(
            path=survey.path(path),
            label=Label(face_manipulation=True) if fake else Label(False, False, False),
            method=one_of(METHODS, parts["code"], "method code", str(survey.path(path))) if fake else None,
            identities=tuple(f"kodf-{person}" for person in people),
            language="ko",
        )


KODF = Dataset(
    title="KoDF",
    labels="face; voice and lip-sync of the real clips",
    size="62,166 real, 175,776 fake clips of 403 people; 1920x1080",
    licence="KoDF terms (research)",
    access="form at github.com/deepbrainai-research/kodf; in Korea aihub.or.kr",
    citation="Kwon et al., KoDF: A Large-Scale Korean DeepFake Detection Dataset, ICCV 2021",
    layout="<person>_<n>.mp4 and <target>_<source>_<code>_<n>.mp4, in any folders",
    read=_read,
)
