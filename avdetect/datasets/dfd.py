"""DeepFakeDetection (Google and Jigsaw, 2019), as it comes with FaceForensics++.

Real `<AA>__<scene>.mp4` and fake `<target>_<source>__<scene>__<8 characters>.mp4`: the source's face on the
target's body, so both people are identities. The videos have no sound and the set has no split of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.survey import Dataset, Survey, clips
from avdetect.types import Item, Label

SCENES = frozenset(
    {
        "exit_phone_room",
        "hugging_happy",
        "kitchen_pan",
        "kitchen_still",
        "meeting_serious",
        "outside_talking_pan_laughing",
        "outside_talking_still_laughing",
        "podium_speech_happy",
        "secret_conversation",
        "talking_against_wall",
        "talking_angry_couch",
        "walk_down_hall_angry",
        "walking_and_outside_surprised",
        "walking_down_indoor_hall_disgust",
        "walking_down_street_outside_angry",
        "walking_outside_cafe_disgusted",
    }
)
ACTORS = tuple(f"{number:02}" for number in range(1, 29))
REALS, FAKES = 363, 3068

COMPRESSIONS = {"raw": "raw", "c0": "raw", "c23": "c23", "c40": "c40"}
"""What the folder is called, and what it is: the readme writes c0 for raw."""

_REAL = re.compile(r"(?P<target>\d\d)__(?P<scene>[a-z_]+)\.mp4")
_FAKE = re.compile(r"(?P<target>\d\d)_(?P<source>\d\d)__(?P<scene>[a-z_]+)__(?P<code>[A-Z0-9]{8})\.mp4")
_FOLDERS = ("/actors/", "/deepfakedetection/", "/dfd_")


def identity(actor: str) -> str:
    """How an actor (01 to 28) is called in manifests and protocols."""
    return f"dfd-{actor}"


def _read(survey: Survey) -> Iterator[Item]:
    levels = set()
    for path in clips(survey.files):
        *folders, name = path.split("/")
        if "masks" in folders:  # a mask video bears the name of its fake
            continue
        match = _FAKE.fullmatch(name) or _REAL.fullmatch(name)
        if match is None:
            if any(folder in f"/{path.lower()}" for folder in _FOLDERS):
                survey.remark("names that are not those of DFD, left out", path)
            continue
        level = next(
            (COMPRESSIONS[folder] for folder in reversed(folders) if folder in COMPRESSIONS), "unknown"
        )
        levels.add(level)
        yield _item(survey, path, match, level)
    for level in levels or {"c23"}:
        survey.expect(f"{level} real", REALS)
        survey.expect(f"{level} fake", FAKES)


def _item(survey: Survey, path: str, match: re.Match[str], level: str) -> Item:
    parts = match.groupdict()
    fake = "source" in parts
    if level == "unknown":
        survey.remark("clips in no folder called raw, c0, c23 or c40: compression unknown", path)
    if parts["scene"] not in SCENES:
        survey.remark("scenes that are not among the 16", path)
    survey.see(f"{level} {'fake' if fake else 'real'}")
    people = [parts["target"], parts["source"]] if fake else [parts["target"]]
    return Item(
        path=survey.path(path),
        label=Label(face_manipulation=fake),
        method="DeepFakeDetection" if fake else None,
        identities=tuple(identity(actor) for actor in people),
        pair_id=f"dfd-{parts['target']}__{parts['scene']}",
        extra={"compression": level, "scene": parts["scene"]},
    )


DFD = Dataset(
    title="DeepFakeDetection (Google, Jigsaw)",
    labels="face (no sound)",
    size="363 real, 3,068 fake videos of 28 actors; 1920x1080, 24 fps",
    licence="FaceForensics++ terms of use (research only, no redistribution)",
    access="form at github.com/ondyari/FaceForensics, then its download script: "
    "-d DeepFakeDetection and -d DeepFakeDetection_original",
    citation="Dufour and Gully, Contributing Data to Deepfake Detection Research, Google AI Blog 2019",
    layout="original_sequences/actors/<c>/videos/*.mp4 and "
    "manipulated_sequences/DeepFakeDetection/<c>/videos/*.mp4",
    read=_read,
)
