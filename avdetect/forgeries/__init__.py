"""Labelled fakes from real windows, by name. Builders import lazily.

To add one: a file here, its line in the table below and its weight in `family.WEIGHTS`; `forge` applies it, `draw`
finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

import numpy as np

from avdetect.forgeries.family import (
    CLAIM_OF,
    WEIGHTS,
    Act,
    Donor,
    Forged,
    Forgery,
    Kind,
    Member,
    Whose,
    chained,
)
from avdetect.types import Window

__all__ = [
    "CLAIM_OF",
    "FORGERIES",
    "TOGETHER",
    "WEIGHTS",
    "Act",
    "Donor",
    "Forged",
    "Kind",
    "Member",
    "Whose",
    "clash",
    "compose",
    "draw",
    "forge",
]

Rng = np.random.Generator


def _built(module: str, name: str, method: str, wrapper: str) -> Callable[[], Forgery]:
    """A builder for the method `name` of a module, made a member by the `as_forgery` of `wrapper`."""

    def build() -> Forgery:
        function = getattr(import_module(f"avdetect.forgeries.{module}"), name)
        return import_module(f"avdetect.forgeries.{wrapper}").as_forgery(function, method)

    return build


def _face(module: str, name: str, method: str, donor: Donor = Donor.NONE) -> Member:
    return Member(Kind.FACE, _built(module, name, method, "canvas"), Act.PAINT, donor)


def _voice(module: str, name: str, method: str, donor: Donor = Donor.NONE) -> Member:
    return Member(Kind.VOICE, _built(module, name, method, "voices"), Act.SPEAK, donor)


def _resynthesis(name: str, method: str, donor: Donor = Donor.NONE) -> Member:
    def build() -> Forgery:
        from avdetect.forgeries.voices import as_forgery, resynthesis

        return as_forgery(resynthesis(name), method)

    return Member(Kind.VOICE, build, Act.SPEAK, donor)


def _sync(name: str, method: str, act: Act, donor: Donor = Donor.NONE, whose: Whose = Whose.OTHER) -> Member:
    return Member(Kind.SYNC, _built("desync", name, method, "desync"), act, donor, whose)


def _mouth_held() -> Forgery:
    from avdetect.forgeries.held_mouth import mouth_held

    return mouth_held


FORGERIES: dict[str, Member] = {
    "self_blended": _face("self_blending", "blended", "self-blended image"),
    "mouth": _face("mouth", "mouth_redrawn", "redrawn mouth", Donor.OPTIONAL),
    "face_swap": _face("face_swap", "face_swapped", "face swap", Donor.NEEDED),
    "reenactment": _face("reenactment", "reenacted", "reenactment of a still", Donor.OPTIONAL),
    "generator": _face("generator", "generated", "generator traces"),
    "decoder": _face("trained_decoder", "decoded", "neural decoder"),
    "flicker": _face("flicker", "flickering", "temporal flicker"),
    "griffin_lim": _resynthesis("griffin_lim", "Griffin-Lim"),
    "mel_inversion": _resynthesis("mel_inversion", "mel inversion"),
    "source_filter": _resynthesis("source_filter", "source-filter vocoder"),
    "upsampling_traces": _resynthesis("upsampling_traces", "up-sampling traces"),
    "neural_vocoder": _resynthesis("neural_vocoder", "neural vocoder's habits"),
    "fourier_vocoder": _resynthesis("fourier_vocoder", "neural vocoder (spectral filters)"),
    "acoustic_model": _resynthesis("acoustic_model", "smoothed spectrum and neural vocoder"),
    "codec_model": _resynthesis("codec_model", "coded spectrum and neural vocoder"),
    "diffusion_vocoder": _resynthesis("diffusion_vocoder", "neural vocoder with residual noise"),
    "linear_prediction": _resynthesis("linear_prediction", "LPC vocoder"),
    "world_like": _resynthesis("world_like", "WORLD-like vocoder"),
    "neural_codec": _resynthesis("neural_codec", "neural codec's habits"),
    "voice_conversion": _resynthesis("voice_conversion", "voice conversion", Donor.OPTIONAL),
    "partial_resynthesis": _voice("splicing", "partly_resynthesised", "words re-synthesised", Donor.OPTIONAL),
    "word_edit": _voice("splicing", "word_edited", "words replaced", Donor.OPTIONAL),
    "text_to_speech": _voice("text_to_speech", "read_aloud", "text to speech"),
    "shift": _sync("shifted", "shifted sound", Act.MOVE_SOUND),
    "swap": _sync("swapped_in", "swapped speech", Act.REPLACE_SOUND, Donor.NEEDED),
    "swap_same_sex": _sync(
        "swapped_same_sex",
        "swapped speech of the same sex",
        Act.REPLACE_SOUND,
        Donor.NEEDED,
        Whose.SAME_SEX,
    ),
    "swap_same_person": _sync(
        "swapped_in", "swapped speech of the same person", Act.REPLACE_SOUND, Donor.NEEDED, Whose.SAME_PERSON
    ),
    "drift": _sync("drifting", "drifting sound", Act.MOVE_SOUND),
    "retimed": _sync("retimed", "re-timed words", Act.MOVE_SOUND),
    "dubbed": _sync("dubbed", "dubbed stretch", Act.REPLACE_SOUND, Donor.OPTIONAL, Whose.ANYONE),
    "frozen": _sync("frozen", "frozen picture", Act.REORDER_PICTURE),
    "looped": _sync("looped", "looped picture", Act.REORDER_PICTURE),
    "frozen_mouth": Member(Kind.SYNC, _mouth_held, Act.PAINT),
}
"""Name -> member."""
TOGETHER = "+"
"""Joins the names of forgeries that are made of one clip together, where they are written down."""


@cache
def _forgery(name: str) -> Forgery:
    return FORGERIES[name].build()


def forge(name: str, window: Window, rng: Rng, donor: Window | None = None, strength: float = 1.0) -> Forged:
    """The window through the forgery `name` (a key of FORGERIES); see `family.Forgery`."""
    return _forgery(name)(window, rng, donor, strength)


def compose(
    names: Sequence[str], window: Window, rng: Rng, donor: Window | None = None, strength: float = 1.0
) -> Forged:
    """The window through several forgeries, each made of what the one before left, with one joint label.

    They are done in the order of `family.Act` whatever the order of `names`. ValueError where they `clash`, or where
    one of them lacks something.
    """
    problem = clash(names)
    if problem is not None:
        raise ValueError(problem)
    first, *others = sorted(names, key=lambda name: (FORGERIES[name].act, name))
    forged = forge(first, window, rng, donor, strength)
    for name in others:
        forged = chained(forged, forge(name, forged.window, rng, donor, strength))
    return forged


def clash(names: Sequence[str]) -> str | None:
    """Why forgeries cannot be composed, None where they can."""
    together = TOGETHER.join(names)
    if not names or len(set(names)) < len(names):
        return f"'{together}' needs one or more forgeries, none of them twice"
    if sum(FORGERIES[name].act is Act.MOVE_SOUND for name in names) > 1:
        return f"'{together}' moves the sound twice, and what moves it on may move it back; name one of them"
    return None


def draw(kind: Kind | str, rng: Rng, *, donor: bool = False) -> str:
    """A name of that kind, by WEIGHTS; one that needs a donor only where there is one."""
    weights = {
        name: weight
        for name, weight in WEIGHTS[Kind(kind)].items()
        if donor or FORGERIES[name].donor is not Donor.NEEDED
    }
    shares = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(weights), p=shares / shares.sum()))]
