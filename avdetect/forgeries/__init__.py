"""Labelled fakes from real windows, by name: `(window, rng) -> (window, label)`. Builders import lazily.

To add one: a file here, and a line below.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avdetect.types import Label, Window

Forgery = Callable[[Window, np.random.Generator], tuple[Window, Label]]


def _self_blended() -> Forgery:
    from avdetect.forgeries.self_blending import self_blended

    return self_blended


def _resynthesised() -> Forgery:
    from avdetect.forgeries.resynthesis import resynthesised

    return resynthesised


def _shifted() -> Forgery:
    from avdetect.forgeries.desync import shifted

    return shifted


FORGERIES: dict[str, Callable[[], Forgery]] = {
    "resynthesised": _resynthesised,
    "self_blended": _self_blended,
    "shifted": _shifted,
}
