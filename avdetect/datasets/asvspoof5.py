"""ASVspoof 5 (2024): crowd-sourced speech, 32 attacks, some of them adversarial, many codecs.

The protocols are called `.tsv` but part their ten columns with blanks and have no header: SPEAKER FLAC GENDER
CODEC CODEC_Q CODEC_SEED ATTACK_TAG ATTACK_LABEL KEY TMP.
"""

from __future__ import annotations

from collections.abc import Iterator

from avdetect.datasets.attacks import KEYS
from avdetect.survey import Dataset, Survey
from avdetect.tables import one_of, protocol_rows
from avdetect.types import Item, Label, Split

_PROTOCOLS = {
    "ASVspoof5.train.tsv": Split.TRAIN,
    "ASVspoof5.dev.track_1.tsv": Split.VAL,
    "ASVspoof5.eval.track_1.tsv": Split.TEST,
}
_COLUMNS = 10


def _read(survey: Survey) -> Iterator[Item]:
    for name, split in _PROTOCOLS.items():
        protocol = survey.named.get(name)
        if protocol is None:
            survey.remark("protocols not found, the sound that they label is left out", name)
            continue
        for where, cells in protocol_rows(survey.path(protocol), _COLUMNS):
            spoofed = one_of(KEYS, cells[8], "key", where)
            group = f"{'spoof' if spoofed else 'bona fide'} in {name.split('.')[1]}"
            survey.expect(group, 1)
            sound = survey.named.get(f"{cells[1]}.flac")
            if sound is not None:
                survey.see(group)
                yield _item(survey, sound, cells, spoofed, split)


def _item(survey: Survey, sound: str, cells: list[str], spoofed: bool, split: Split) -> Item:
    speaker, _, gender, codec, quality, seed, tag, attack, _, _ = cells
    extra = {
        "gender": gender,
        "codec": codec,
        "codec_quality": quality,
        "codec_seed": seed,
        "attack_tag": tag,
    }
    if spoofed:
        extra["attack"] = attack
    return Item(
        path=survey.path(sound),
        label=Label(voice_cloning=spoofed),
        split=split,
        method=attack if spoofed else None,
        identities=(speaker,),
        language="en",
        extra={name: cell for name, cell in extra.items() if cell != "-"},
    )


ASVSPOOF5 = Dataset(
    title="ASVspoof 5",
    labels="voice (no picture); attacks A01 to A32, which are not those of 2019",
    size="182,357 train, 140,950 dev, 680,774 eval utterances; 16 kHz flac",
    licence="ODC-By 1.0 (MLS-based, CC BY 4.0)",
    access="open: zenodo.org/records/14498691",
    citation="Wang et al., ASVspoof 5: Design, collection and validation of resources for spoofing, "
    "deepfake, and adversarial attack detection using crowdsourced speech, 2025",
    layout="ASVspoof5.train.tsv, ASVspoof5.dev.track_1.tsv, ASVspoof5.eval.track_1.tsv and flac_*/*.flac",
    read=_read,
)
