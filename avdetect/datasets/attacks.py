"""The spoofing systems A01 to A19 of ASVspoof 2019 LA, which its successors use again.

Kinds and waveform generators as in Wang et al., ASVspoof 2019: a large-scale public database of synthesized,
converted and replayed speech (Computer Speech & Language 2020), table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How the spoofed speech came about."""

    TTS = "text-to-speech"
    VC = "voice conversion"
    TTS_VC = "text-to-speech, then voice conversion"


@dataclass(frozen=True)
class Attack:
    """One system: its kind, what made its waveform, and whose it is where that is thought to be known."""

    kind: Kind
    vocoder: str
    origin: str = ""

    def extra(self) -> dict[str, str]:
        """For `Item.extra`."""
        values = {"attack_kind": self.kind.value, "vocoder": self.vocoder, "attack_origin": self.origin}
        return {name: value for name, value in values.items() if value}


# Google's synthetic-speech release went out through this set; that these three are it stands in no protocol.
_GOOGLE = "Google (not confirmed)"

ATTACKS: Mapping[str, Attack] = {
    "A01": Attack(Kind.TTS, "neural waveform"),
    "A02": Attack(Kind.TTS, "vocoder"),
    "A03": Attack(Kind.TTS, "vocoder"),
    "A04": Attack(Kind.TTS, "waveform concatenation"),
    "A05": Attack(Kind.VC, "vocoder"),
    "A06": Attack(Kind.VC, "spectral filtering"),
    "A07": Attack(Kind.TTS, "vocoder and GAN"),
    "A08": Attack(Kind.TTS, "neural waveform"),
    "A09": Attack(Kind.TTS, "vocoder"),
    "A10": Attack(Kind.TTS, "neural waveform", _GOOGLE),
    "A11": Attack(Kind.TTS, "Griffin-Lim", _GOOGLE),
    "A12": Attack(Kind.TTS, "neural waveform", _GOOGLE),
    "A13": Attack(Kind.TTS_VC, "waveform concatenation and filtering"),
    "A14": Attack(Kind.TTS_VC, "vocoder"),
    "A15": Attack(Kind.TTS_VC, "neural waveform"),
    "A16": Attack(Kind.TTS, "waveform concatenation"),
    "A17": Attack(Kind.VC, "waveform filtering"),
    "A18": Attack(Kind.VC, "vocoder"),
    "A19": Attack(Kind.VC, "spectral filtering"),
}

KEYS: Mapping[str, bool] = {"bonafide": False, "spoof": True}
"""The word in an ASVspoof protocol's key column, and whether it means spoofed."""


def attack_extra(attack: str) -> dict[str, str]:
    """What is known of an attack, for `Item.extra`; only its name where it is none of A01 to A19."""
    known = ATTACKS[attack].extra() if attack in ATTACKS else {}
    return {"attack": attack, **known}
