"""LAV-DF (Cai et al., 2022): words of a sentence replaced in the picture (Wav2Lip), the sound (SV2TTS) or
both.

`metadata.json`, or the smaller `metadata.min.json`, is a list with one row per clip. `fake_periods` are
seconds and hold for whichever streams were modified. Whether mouth and voice still agree in them is not
stated: lip-sync is known for untouched clips alone. The official split calls its second part dev.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from avdetect.errors import DatasetError
from avdetect.manifest import SPLITS
from avdetect.survey import Dataset, Survey
from avdetect.tables import field, one_of, read_json
from avdetect.types import Claim, Item, Label, Segment

_FILES = ("metadata.min.json", "metadata.json")
_KINDS = {
    (False, False): "real",
    (True, False): "video only",
    (False, True): "audio only",
    (True, True): "both",
}


def segments(periods: Any, claims: list[Claim], where: str) -> tuple[Segment, ...]:
    """Each of `periods` [[start, end], ...], seconds, once for each claim.

    Raises DatasetError where they are not such a list.
    """
    try:
        return tuple(Segment(float(start), float(end), claim) for claim in claims for start, end in periods)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"{where}: {str(periods)[:80]} are not [[start, end], ...] in seconds ({error})"
        ) from error


def _read(survey: Survey) -> Iterator[Item]:
    table = next((survey.named[name] for name in _FILES if name in survey.named), None)
    if table is None:
        survey.remark("metadata not found, nothing can be labelled", " or ".join(_FILES))
        return
    rows = read_json(survey.path(table))
    if not isinstance(rows, list):
        raise DatasetError(f"{survey.path(table)}: not a list of clips")
    present = frozenset(survey.files)
    for number, row in enumerate(rows, start=1):
        where = f"{survey.path(table)}, clip {number}"
        file = field(row, "file", str, where)
        made = (field(row, "modify_video", bool, where), field(row, "modify_audio", bool, where))
        split = one_of(SPLITS, field(row, "split", str, where), "split", where)
        group = f"{split} {_KINDS[made]}"
        survey.expect(group, 1)
        path = survey.folder(table) + file
        if path in present:
            survey.see(group)
            yield Item(
                path=survey.path(path),
                label=_label(row, made, where),
                split=split,
                method={True: "Wav2Lip", False: ""}[made[0]] + "+SV2TTS" * made[1] if any(made) else None,
                pair_id=f"lavdf-{row.get('original') or file}",
                extra={"kind": _KINDS[made]},
            )


def _label(row: dict[str, Any], made: tuple[bool, bool], where: str) -> Label:
    video, audio = made
    claims = [Claim.FACE_MANIPULATION] * video + [Claim.VOICE_CLONING] * audio
    return Label(
        face_manipulation=video,
        voice_cloning=audio,
        lip_sync_mismatch=None if claims else False,
        segments=segments(field(row, "fake_periods", list, where), claims, where),
    )


LAV_DF = Dataset(
    title="LAV-DF",
    labels="face and voice, with segments; lip-sync of the real clips",
    size="136,304 clips: 36,431 real, 33,170 with fake sound only; official split",
    licence="LAV-DF terms (CC BY-NC 4.0, research only); VoxCeleb2 footage",
    access="accept the terms at github.com/ControlNet/LAV-DF",
    citation="Cai et al., Do You Really Mean That? Content Driven Audio-Visual Deepfake Dataset and "
    "Multimodal Method for Temporal Forgery Localization, DICTA 2022",
    layout="metadata.json or metadata.min.json beside {train,dev,test}/NNNNNN.mp4",
    read=_read,
)
