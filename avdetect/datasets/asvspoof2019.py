"""ASVspoof 2019, logical access (synthetic and converted speech) and physical access (replayed speech).

The `cm` protocols say what is what: SPEAKER FILE ENVIRONMENT SYSTEM KEY, the system id in the fourth column
(the readme's prose says the third). The `asv` protocols beside them hold the word "bonafide" too and are not
read. The flac folders also hold speech for enrolment that stands in no cm protocol: it has no label here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from avdetect.datasets.attacks import ATTACKS, KEYS, attack_extra
from avdetect.errors import DatasetError
from avdetect.survey import Dataset, Survey
from avdetect.tables import one_of, protocol_rows
from avdetect.types import Item, Label, Split

_COLUMNS = 5


@dataclass(frozen=True)
class Part:
    """One protocol file, and how many trials of each key it holds: bona fide, spoofed by `attacks`."""

    protocol: str
    split: Split
    bonafide: int
    spoofed: int
    attacks: str


LA_PARTS = (
    Part("ASVspoof2019.LA.cm.train.trn.txt", Split.TRAIN, 2_580, 22_800, "A01\u2013A06 in train"),
    Part("ASVspoof2019.LA.cm.dev.trl.txt", Split.VAL, 2_548, 22_296, "A01\u2013A06 in dev"),
    Part("ASVspoof2019.LA.cm.eval.trl.txt", Split.TEST, 7_355, 63_882, "A07\u2013A19"),
)
PA_PARTS = (
    Part("ASVspoof2019.PA.cm.train.trn.txt", Split.TRAIN, 5_400, 48_600, "replayed in train"),
    Part("ASVspoof2019.PA.cm.dev.trl.txt", Split.VAL, 5_400, 24_300, "replayed in dev"),
    Part("ASVspoof2019.PA.cm.eval.trl.txt", Split.TEST, 18_090, 116_640, "replayed in eval"),
)
_WORDS = {Split.TRAIN: "train", Split.VAL: "dev", Split.TEST: "eval"}


@dataclass(frozen=True)
class Trial:
    """One row of a cm protocol; `attack` is None for bona fide speech."""

    speaker: str
    file: str
    environment: str
    attack: str | None
    spoofed: bool


def read_cm_protocol(path: Path, known_attacks: Mapping[str, object] | None = ATTACKS) -> Iterator[Trial]:
    """Trials of a cm protocol, in its order.

    Raises DatasetError for a key or attack that nobody knows, and where the two contradict each other
    (`known_attacks` None takes any attack).
    """
    for where, (speaker, file, environment, attack, key) in protocol_rows(path, _COLUMNS):
        spoofed = one_of(KEYS, key, "key", where)
        if spoofed == (attack == "-"):
            raise DatasetError(f"{where}: key is '{key}', yet the attack is '{attack}'")
        if spoofed and known_attacks is not None:
            one_of(known_attacks, attack, "attack", where)
        yield Trial(speaker, file, environment, attack if spoofed else None, spoofed)


def _read_la(survey: Survey) -> Iterator[Item]:
    for part, trial, path in _trials(survey, LA_PARTS, "LA_", ATTACKS):
        yield Item(
            path=path,
            label=Label(voice_cloning=trial.spoofed),
            split=part.split,
            method=trial.attack,
            identities=(trial.speaker,),
            language="en",
            extra=attack_extra(trial.attack) if trial.attack else {},
        )


def _read_pa(survey: Survey) -> Iterator[Item]:
    for part, trial, path in _trials(survey, PA_PARTS, "PA_", None):
        # A replay is a recording of somebody's real voice: spoofed for ASVspoof, but not cloned.
        key = "spoof" if trial.spoofed else "bonafide"
        attack = {"attack": trial.attack} if trial.attack else {}
        yield Item(
            path=path,
            label=Label(voice_cloning=None if trial.spoofed else False),
            split=part.split,
            method=f"replay {trial.attack}" if trial.attack else None,
            identities=(trial.speaker,),
            language="en",
            extra={"key": key, "environment": trial.environment, **attack},
        )


def _trials(
    survey: Survey, parts: tuple[Part, ...], prefix: str, known_attacks: Mapping[str, object] | None
) -> Iterator[tuple[Part, Trial, Path]]:
    """Trials whose sound is there; the rest is counted as missing."""
    listed = set()
    for part in parts:
        groups = (f"bona fide in {_WORDS[part.split]}", part.attacks)
        survey.expect(groups[0], part.bonafide)
        survey.expect(groups[1], part.spoofed)
        protocol = survey.named.get(part.protocol)
        if protocol is None:
            survey.remark("protocols not found, the sound that they label is left out", part.protocol)
            continue
        for trial in read_cm_protocol(survey.path(protocol), known_attacks):
            sound = survey.named.get(f"{trial.file}.flac")
            listed.add(sound)
            if sound is not None:
                survey.see(groups[trial.spoofed])
                yield part, trial, survey.path(sound)
    for name, path in survey.named.items():
        if name.startswith(prefix) and name.endswith(".flac") and path not in listed:
            survey.remark("sound in no cm protocol (enrolment speech), left out", path)


_CITATION = (
    "Wang et al., ASVspoof 2019: a large-scale public database of synthesized, converted and "
    "replayed speech, Computer Speech & Language 2020"
)

LA = Dataset(
    title="ASVspoof 2019 logical access (with Google's synthetic-speech release)",
    labels="voice (no picture); attacks A01 to A19",
    size="25,380 train, 24,844 dev, 71,237 eval utterances; 16 kHz flac",
    licence="ODC-By 1.0 (VCTK-based)",
    access="open: datashare.ed.ac.uk/handle/10283/3336, LA.zip",
    citation=_CITATION,
    layout="LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.*.txt and LA/ASVspoof2019_LA_*/flac/*.flac",
    read=_read_la,
)

PA = Dataset(
    title="ASVspoof 2019 physical access",
    labels="voice: bona fide only (a replayed voice is not a cloned one; the key is kept in `key`)",
    size="54,000 train, 29,700 dev, 134,730 eval utterances; 16 kHz flac",
    licence="ODC-By 1.0 (VCTK-based)",
    access="open: datashare.ed.ac.uk/handle/10283/3336, PA.zip",
    citation=_CITATION,
    layout="PA/ASVspoof2019_PA_cm_protocols/ASVspoof2019.PA.cm.*.txt and PA/ASVspoof2019_PA_*/flac/*.flac",
    read=_read_pa,
)
