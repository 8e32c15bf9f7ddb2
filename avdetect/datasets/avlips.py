"""AVLips (Liu et al., 2024): lip-synced faces (Wav2Lip, MakeItTalk, TalkLip, SadTalker) and real ones.

`0_real/` and `1_fake/` hold the videos, `wav/0_real/` and `wav/1_fake/` the sound under the same names, which
goes with its video where it is there. Whose voice a fake has, and whether it fits, is not stated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.survey import Dataset, Survey, clips
from avdetect.types import Item, Label

_PATH = re.compile(r"(?P<root>(?:.*/)?)(?P<folder>0_real|1_fake)/(?P<name>[^/]+)\.(?P<ending>[^./]+)")


def _read(survey: Survey) -> Iterator[Item]:
    present = frozenset(survey.files)
    for path in clips(survey.files):
        place = _PATH.fullmatch(path)
        if place is None:
            survey.remark("clips outside 0_real and 1_fake, left out", path)
        elif place["ending"] != "wav":
            fake = place["folder"] == "1_fake"
            survey.see("fake" if fake else "real")
            sound = f"{place['root']}wav/{place['folder']}/{place['name']}.wav"
            yield Item(
                path=survey.path(path),
                label=Label(face_manipulation=True) if fake else Label(False, False, False),
                audio_path=survey.path(sound) if sound in present else None,
            )


AVLIPS = Dataset(
    title="AVLips",
    labels="face (lip-synced); voice and lip-sync of the real clips",
    size="several thousand clips, real and fake",
    licence="none stated (research)",
    access="link at github.com/AaronComo/LipFD",
    citation="Liu et al., Lips Are Lying: Spotting the Temporal Inconsistency between Audio and Visual in "
    "Lip-Syncing DeepFakes, NeurIPS 2024",
    layout="0_real/*.mp4, 1_fake/*.mp4, wav/{0_real,1_fake}/*.wav",
    read=_read,
)
