"""The encoders, by name. Builders import lazily, so that listing them costs nothing.

To add one: a file here that fulfils `types.Encoder`, and a line below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avdetect.errors import ConfigError
from avdetect.types import Encoder


def _aasist(**options: Any) -> Encoder:
    from avdetect.encoders.aasist import FULL, Aasist

    return Aasist(FULL, **options)


def _aasist_l(**options: Any) -> Encoder:
    from avdetect.encoders.aasist import LIGHT, Aasist

    return Aasist(LIGHT, **options)


def _light_cnn(**options: Any) -> Encoder:
    from avdetect.encoders.lcnn import LightCNN

    return LightCNN(**options)


def _lip_motion(**options: Any) -> Encoder:
    from avdetect.encoders.sync import LipMotion

    return LipMotion(**options)


def _sync_speech(**options: Any) -> Encoder:
    from avdetect.encoders.sync import SyncSpeech

    return SyncSpeech(**options)


def _face_cnn(**options: Any) -> Encoder:
    from avdetect.encoders.face_cnn import FaceCNN

    return FaceCNN(**options)


def _spectral_resnet(**options: Any) -> Encoder:
    from avdetect.encoders.spectral_resnet import SpectralResNet

    return SpectralResNet(**options)


def _tdnn(**options: Any) -> Encoder:
    from avdetect.encoders.tdnn import TimeDelayNetwork

    return TimeDelayNetwork(**options)


ENCODERS: dict[str, Callable[..., Encoder]] = {
    "aasist": _aasist,
    "aasist_l": _aasist_l,
    "face_cnn": _face_cnn,
    "lcnn": _light_cnn,
    "lip_motion": _lip_motion,
    "spectral_resnet": _spectral_resnet,
    "sync_speech": _sync_speech,
    "tdnn": _tdnn,
}


def build_encoder(name: str, **options: Any) -> Encoder:
    """The encoder `name` with `options`; ConfigError for a name or an option that it doesn't have."""
    import difflib

    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(ENCODERS)}"
        raise ConfigError(f"no encoder is called '{name}'; {hint}")
    try:
        return ENCODERS[name](**options)
    except TypeError as error:
        raise ConfigError(f"encoder '{name}': {error}") from error
