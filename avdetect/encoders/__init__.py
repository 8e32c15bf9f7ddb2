"""The encoders, by name. Builders import lazily, so that listing them costs nothing.

To add one: a file here that fulfils `types.Encoder`, and a line below; or a package of one's own (see `plugins`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avdetect import plugins
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


def _efficientnet_lite(**options: Any) -> Encoder:
    from avdetect.encoders.efficientnet_lite import EfficientNetLite

    return EfficientNetLite(**options)


def _image_backbone(**options: Any) -> Encoder:
    from avdetect.encoders.image_backbone import ImageBackbone, ImageOptions

    return ImageBackbone(ImageOptions(**options))


def _speech_backbone(**options: Any) -> Encoder:
    from avdetect.encoders.speech_backbone import SpeechBackbone, SpeechOptions

    return SpeechBackbone(SpeechOptions(**options))


def _video_backbone(**options: Any) -> Encoder:
    from avdetect.encoders.image_backbone import ImageOptions
    from avdetect.encoders.video_backbone import VideoBackbone

    return VideoBackbone(ImageOptions(**options))


def _lip_crops(**options: Any) -> Encoder:
    from avdetect.encoders.lip_crops import LipCrops

    return LipCrops(**options)


def _lip_motion(**options: Any) -> Encoder:
    from avdetect.encoders.sync import LipMotion

    return LipMotion(**options)


def _sync_speech(**options: Any) -> Encoder:
    from avdetect.encoders.sync import SyncSpeech

    return SyncSpeech(**options)


def _members(**options: Any) -> Encoder:
    from avdetect.encoders.members import Members

    return Members(**options)


def _face_cnn(**options: Any) -> Encoder:
    from avdetect.encoders.face_cnn import FaceCNN

    return FaceCNN(**options)


def _frequency(**options: Any) -> Encoder:
    from avdetect.encoders.frequency import Frequency

    return Frequency(**options)


def _rawnet2(**options: Any) -> Encoder:
    from avdetect.encoders.rawnet2 import RawNet2

    return RawNet2(**options)


def _spectral_efficientnet(**options: Any) -> Encoder:
    from avdetect.encoders.spectral_efficientnet import SpectralEfficientNet

    return SpectralEfficientNet(**options)


def _spectral_resnet(**options: Any) -> Encoder:
    from avdetect.encoders.spectral_resnet import SpectralResNet

    return SpectralResNet(**options)


def _tdnn(**options: Any) -> Encoder:
    from avdetect.encoders.tdnn import TimeDelayNetwork

    return TimeDelayNetwork(**options)


def _xception(**options: Any) -> Encoder:
    from avdetect.encoders.xception import Xception

    return Xception(**options)


ENCODERS: dict[str, Callable[..., Encoder]] = {
    "aasist": _aasist,
    "aasist_l": _aasist_l,
    "efficientnet_lite": _efficientnet_lite,
    "face_cnn": _face_cnn,
    "frequency": _frequency,
    "image_backbone": _image_backbone,
    "lcnn": _light_cnn,
    "lip_crops": _lip_crops,
    "lip_motion": _lip_motion,
    "members": _members,
    "rawnet2": _rawnet2,
    "spectral_efficientnet": _spectral_efficientnet,
    "spectral_resnet": _spectral_resnet,
    "speech_backbone": _speech_backbone,
    "sync_speech": _sync_speech,
    "tdnn": _tdnn,
    "video_backbone": _video_backbone,
    "xception": _xception,
}


def sees_mouths(stream: Any) -> bool:
    """Whether the encoder of a stream's table may ask for mouth crops, told without building it.

    `lip_crops` does, and of another package's nobody knows.
    """
    name, options = (stream.get(key) if isinstance(stream, dict) else None for key in ("encoder", "options"))
    if name == "members" and isinstance(options, dict) and isinstance(options.get("of"), list):
        return any(map(sees_mouths, options["of"]))
    return name not in ENCODERS or name == "lip_crops"


def build_encoder(name: str, **options: Any) -> Encoder:
    """The encoder `name` with `options`; ConfigError for a name or an option that it doesn't have."""
    import difflib

    builder = ENCODERS.get(name) or plugins.find(plugins.ENCODERS, name)
    if builder is None:
        known = [*ENCODERS, *plugins.announced(plugins.ENCODERS)]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"no encoder is called '{name}'; {hint}")
    try:
        encoder: Encoder = builder(**options)
    except TypeError as error:
        raise ConfigError(f"encoder '{name}': {error}") from error
    return encoder
