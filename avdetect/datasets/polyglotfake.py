"""PolyGlotFake (Hou et al., 2024): talks in seven languages, dubbed into the others with cloned voices and
new lips.

Real `<language>_<n>.mp4`; fake `<language>_<n>_to_<language>_<speech system>.mp4`. Every fake has a made
voice and a mouth fitted to it (Wav2Lip or VideoRetalking, the name does not say which). The set has no split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.survey import Dataset, Survey, clips
from avdetect.tables import one_of
from avdetect.types import Item, Label

LANGUAGES = {name: name for name in ("ar", "en", "es", "fr", "ja", "ru", "zh")}
_NAME = re.compile(r"(?P<origin>(?P<spoken>[a-z]{2})_\d+)(?:_to_(?P<dubbed>[a-z]{2})_(?P<tts>.+))?")


def _read(survey: Survey) -> Iterator[Item]:
    survey.expect("real", 766)
    survey.expect("fake", 14_472)
    for path in clips(survey.files):
        match = _NAME.fullmatch(path.rsplit("/", 1)[-1].rsplit(".", 1)[0])
        if match is None:
            survey.remark("names that are not those of PolyGlotFake, left out", path)
            continue
        fake = match["tts"] is not None
        where = str(survey.path(path))
        spoken = one_of(LANGUAGES, match["spoken"], "language", where)
        language = one_of(LANGUAGES, match["dubbed"], "language", where) if fake else spoken
        survey.see("fake" if fake else "real")
        yield Item(
            path=survey.path(path),
            label=Label(True, True) if fake else Label(False, False, False),
            method=match["tts"],
            source=f"polyglotfake-{match['origin']}",
            pair_id=f"polyglotfake-{match['origin']}",
            language=language,
            extra={"original_language": spoken} if fake else {},
        )


POLYGLOTFAKE = Dataset(
    title="PolyGlotFake",
    labels="face and voice; lip-sync of the real clips",
    size="766 real, 14,472 fake clips in 7 languages",
    licence="research only, academic institutions; YouTube footage",
    access="link at github.com/tobuta/PolyGlotFake",
    citation="Hou et al., PolyGlotFake: A Novel Multilingual and Multimodal DeepFake Dataset, "
    "arXiv:2405.08838",
    layout="<language>_<n>.mp4 and <language>_<n>_to_<language>_<tts>.mp4, in any folders",
    read=_read,
)
