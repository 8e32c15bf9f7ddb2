"""IDForge v1 (Xu et al., 2024): 54 public figures; ten ways to forge face, lips, voice and text.

`<task>/<id>/<session>/*.mp4`: the task folder labels a clip. In the three that have neither face nor lip in
their name only the voice was made. Where the sound is "mismatched" (another recording) nobody says whose
voice it is, so the voice is unknown. Synchrony is known for pristine clips, and broken by the mismatched
sound laid over a swapped face without fitting the lips.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.survey import Dataset, Survey, clips
from avdetect.tables import lines
from avdetect.types import Item, Label, Split

TASKS = {
    "pristine": Label(False, False, False),
    "face_audiomismatch_textmismatch": Label(True, None, True),
    "face_rvc_textmismatch": Label(True, True),
    "face_tts": Label(True, True),
    "face_tts_textgen": Label(True, True),
    "lip_audiomismatch_textmismatch": Label(True, None),
    "lip_rvc_textmismatch": Label(True, True),
    "lip_tts_textgen": Label(True, True),
    "rvc_textmismatch": Label(False, True),
    "tts_textgen": Label(False, True),
    "tts_textmismatch": Label(False, True),
}
_PATH = re.compile(r"(?:.*/)?(?P<key>(?P<task>[a-z_]+)/(?P<person>id\d+)/(?P<session>[^/]+)/(?P<name>[^/]+))")


def _read(survey: Survey) -> Iterator[Item]:
    splits = _splits(survey)
    for key in splits:
        survey.expect(key.split("/", 1)[0], 1)
    for path in clips(survey.files):
        place = _PATH.fullmatch(path)
        if place is None or place["task"] not in TASKS:
            survey.remark("clips outside the folders of the eleven tasks, left out", path)
            continue
        survey.see(place["task"])
        yield Item(
            path=survey.path(path),
            label=TASKS[place["task"]],
            split=splits.get(place["key"]),
            method=None if place["task"] == "pristine" else place["task"],
            identities=(f"idforge-{place['person']}",),
            source=f"idforge-{place['session']}",
            language="en",
        )


def _splits(survey: Survey) -> dict[str, Split]:
    """Split of each `<task>/<id>/<session>/<name>`, from the official lists (one path a line, no header)."""
    found: dict[str, Split] = {}
    for split in Split:
        table = survey.named.get(f"{split}.csv")
        if table is None:
            survey.remark("official split lists not found, their clips are in no split", f"{split}.csv")
            continue
        found |= {line.strip(",\"' "): split for line in lines(survey.path(table))}
    return found


IDFORGE = Dataset(
    title="IDForge v1",
    labels="face and voice; lip-sync of the real clips and of one task",
    size="79,827 pristine, 169,311 forged clips of 54 people; official split",
    licence="none stated; forged clips on request (research)",
    access="links at github.com/xyyandxyy/IDForge, request for the forged part",
    citation="Xu et al., Identity-Driven Multimedia Forgery Detection via Reference Assistance, ACM MM 2024",
    layout="{pristine,face_*,lip_*,rvc_*,tts_*}/<id>/<session>/*.mp4 and train.csv, val.csv, test.csv",
    read=_read,
)
