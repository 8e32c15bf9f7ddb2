"""What recordings go through before they are judged, by name. Builders import lazily.

To add one: a function in `sound` or `picture`, and its line in the table below; `chosen` finds it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from avdetect.degradations.family import AAC, Coding, Degradation, Encoding, Kind, Made, Variant
from avdetect.errors import ConfigError

__all__ = ["DEGRADATIONS", "Degradation", "Kind", "Made", "Variant", "chosen", "setting_of"]


def _built(module: str, name: str) -> Callable[[], Any]:
    return lambda: getattr(import_module(f"avdetect.degradations.{module}"), name)


def _sound(
    name: str,
    title: str,
    severities: Mapping[str, Any],
    made: Made = Made.SAMPLES,
    *,
    keeps_time: bool = True,
) -> Degradation:
    return Degradation(Kind.SOUND, made, title, severities, _built("sound", name), keeps_time)


def _picture(name: str, title: str, severities: Mapping[str, Any], made: Made = Made.SAMPLES) -> Degradation:
    return Degradation(Kind.PICTURE, made, title, severities, _built("picture", name))


def _coded(title: str, suffix: str, encoder: str, rate: int, *bit_rates: float) -> Degradation:
    """A codec at several bit rates, kbit/s."""
    severities = {f"{each:g}": Coding(suffix, encoder, rate, round(1000 * each)) for each in bit_rates}
    return _sound("coded", title, severities, Made.ENCODER)


def _noise(colour: str, title: str) -> Degradation:
    return _sound("noisy", f"{title}, dB below the speech", {f"{db}": (colour, db) for db in (30, 20, 10, 0)})


def _numbers(*values: float) -> dict[str, float]:
    return {f"{value:g}": value for value in values}


OPUS_VOICE = Coding(".ogg", "libopus", 16_000, 16_000)
UPLOAD, MESSAGE, AGAIN = Encoding(26, side=720), Encoding(30, side=480), Encoding(33, side=360)

DEGRADATIONS: dict[str, Degradation] = {
    "trimmed": _sound(
        "trimmed", "silence cut away", {"edges": "edges", "pauses": "pauses"}, keeps_time=False
    ),
    "short": _sound("shortened", "seconds with the most speech", _numbers(4, 3, 2, 1.5, 1), keeps_time=False),
    "mp3": _coded("MP3, kbit/s", ".mp3", "libmp3lame", 16_000, 128, 64, 32, 16),
    "aac": _coded("AAC, kbit/s", ".m4a", "aac", 16_000, 64, 32, 16),
    "opus": _coded("Opus, kbit/s", ".ogg", "libopus", 16_000, 32, 16, 8),
    "alaw": _coded("A-law telephone, kbit/s", ".wav", "pcm_alaw", 8_000, 64),
    "gsm": _coded("mobile telephone, AMR-NB, kbit/s", ".amr", "libopencore_amrnb", 8_000, 12.2, 7.95, 4.75),
    "forwarded": _sound(
        "chained",
        "encoded again and again, times",
        {"2": (OPUS_VOICE, AAC), "4": (OPUS_VOICE, AAC) * 2},
        Made.ENCODER,
    ),
    "bandwidth": _sound("band_limited", "nothing above, Hz", _numbers(7000, 5500, 4000, 3000)),
    "noise": _noise("white", "white noise"),
    "pink": _noise("pink", "pink noise"),
    "babble": _noise("babble", "other voices"),
    "reverb": _sound("reverberant", "room, seconds of decay", _numbers(0.2, 0.5, 1.0)),
    "faster": _sound("sped", "played faster, times", _numbers(1.05, 1.1, 1.25), keeps_time=False),
    "slower": _sound("sped", "played slower, times", _numbers(0.95, 0.9, 0.8), keeps_time=False),
    "quiet": _sound("levelled", "turned down, dB", {"20": -20.0, "40": -40.0}),
    "clipped": _sound("levelled", "overdriven, dB", {"10": 10.0, "20": 20.0, "30": 30.0}),
    "crf": _picture("reencoded", "H.264 again, crf", _numbers(12, 23, 30, 36, 42), Made.ENCODER),
    "size": _picture(
        "scaled", "scaled down, pixels of the shorter side", _numbers(360, 240, 180, 120), Made.ENCODER
    ),
    "rate": _picture("slowed", "frames per second", _numbers(20, 15, 10, 6), Made.ENCODER),
    "social": _picture(
        "shared",
        "uploaded again and again, times",
        {"1": (UPLOAD,), "2": (UPLOAD, MESSAGE), "3": (UPLOAD, MESSAGE, AGAIN)},
        Made.ENCODER,
    ),
    "blur": _picture("blurred", "blur, pixels of 360", _numbers(0.5, 1, 2, 4)),
    "grain": _picture("grainy", "sensor noise, levels of 255", _numbers(4, 8, 16)),
    "crop": _picture("cropped", "middle kept, share of each side", _numbers(0.9, 0.75, 0.6)),
    "mirror": _picture("mirrored", "mirrored", {"mirrored": 1.0}),
    "dark": _picture("lit", "darker, gamma", _numbers(1.5, 2.2, 3.0)),
    "bright": _picture("lit", "brighter, gamma", _numbers(0.67, 0.45, 0.33)),
    "flat": _picture("contrasted", "less contrast, factor", _numbers(0.7, 0.4, 0.2)),
    "harsh": _picture("contrasted", "more contrast, factor", _numbers(1.5, 2.0, 3.0)),
}
"""Name -> degradation."""


def _variants(name: str) -> list[Variant]:
    one = DEGRADATIONS[name]
    alone = len(one.severities) == 1
    return [
        Variant(name if alone else f"{name}-{severity}", name, severity, one.claims)
        for severity in one.severities
    ]


def chosen(names: Sequence[str] = ()) -> list[Variant]:
    """The variants called by `names`: of a degradation all severities ("mp3"), or one ("mp3-32"); without names, all.

    In the table's order, each once. ConfigError, with the nearest name, for one that nobody knows.
    """
    every = {variant.name: variant for name in DEGRADATIONS for variant in _variants(name)}
    wanted: set[str] = set()
    for name in names:
        if name not in DEGRADATIONS and name not in every:
            near = difflib.get_close_matches(name, [*DEGRADATIONS, *every], 1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(DEGRADATIONS)}"
            raise ConfigError(f"no variant is called '{name}'; {hint}")
        wanted |= {name} if name in every else {variant.name for variant in _variants(name)}
    return [variant for name, variant in every.items() if not names or name in wanted]


def setting_of(variant: Variant) -> Any:
    """The setting that stands behind a variant's severity."""
    return DEGRADATIONS[variant.degradation].severities[variant.severity]
