"""From a media file to a Clip: its sound in memory, its frames to be streamed; and back to a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av.error
from av.container import InputContainer

from avdetect.container import check_file, is_encrypted, open_container, stated_seconds
from avdetect.errors import MediaError
from avdetect.pictures import Picture, frames, read_picture
from avdetect.sound import Sound, read_sound
from avdetect.types import SAMPLE_RATE, Clip
from avdetect.writing import write_clip

__all__ = ["frames", "open_clip", "write_clip"]

STILL_BRANDS = {"avif", "heic", "heix", "mif1"}
"""mp4 brands of still images."""


def open_clip(path: Path | str) -> Clip:
    """Open a video or sound file: checked, probed, hashed, its sound decoded to 16 kHz mono.

    The clock's zero is where the first of the chosen picture and sound streams starts, so that late sound has
    zeros before it and a late picture has frames that start later. What is damaged but readable gives
    `warnings`. `width` and `height` are as displayed: upright, with square pixels, before any scaling down.
    Memory: the waveform (230 MB an hour) and a few frames. Raises MediaError, one line, for anything else.
    """
    path = Path(path)
    check_file(path)
    try:
        return _open(path)
    except av.error.FFmpegError as error:
        reason = error.strerror or "FFmpeg gave up"
        raise MediaError(path, f"cannot be read ({reason})", "convert it, e.g. to mp4 or wav") from error


def _open(path: Path) -> Clip:
    with open_container(path) as container:
        _refuse_unfit(path, container)
        name, stated = _container_name(path, container), stated_seconds(container)
    picture, picture_notes = read_picture(path)
    sound, sound_notes = read_sound(path)
    warnings = [*picture_notes, *sound_notes]
    if picture is None and sound is None:
        raise MediaError(
            path, "; ".join(warnings) or "holds neither picture nor sound", "check or convert the file"
        )
    duration = max(picture.end if picture else 0.0, sound.waveform.size / SAMPLE_RATE if sound else 0.0)
    if stated > duration * 1.05 + 1.0:
        warnings.append(f"the file states {stated:.1f} s but ends after {duration:.1f} s: it seems cut short")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return _clip(path, duration, sha256, name, picture, sound, tuple(warnings))


def _clip(
    path: Path,
    duration: float,
    sha256: str,
    container: str,
    picture: Picture | None,
    sound: Sound | None,
    warnings: tuple[str, ...],
) -> Clip:
    return Clip(
        path=path,
        duration=duration,
        sha256=sha256,
        waveform=sound.waveform if sound else None,
        fps=picture.fps if picture else None,
        width=picture.width if picture else None,
        height=picture.height if picture else None,
        video_start=picture.start if picture else 0.0,
        audio_start=sound.start if sound else 0.0,
        container=container,
        video_codec=picture.codec if picture else None,
        audio_codec=sound.codec if sound else None,
        source_sample_rate=sound.rate if sound else None,
        source_channels=sound.channels if sound else None,
        audio_bit_rate=sound.bit_rate if sound else None,
        warnings=warnings + (sound.warnings if sound else ()),
    )


def _refuse_unfit(path: Path, container: InputContainer) -> None:
    """Raise MediaError for a still image, an encrypted file, or one without picture and sound."""
    brand = container.metadata.get("major_brand", "").strip()
    still = container.format.name in {"gif", "apng"} and sum(1 for _ in container.demux()) <= 2
    if still or container.format.name.endswith("_pipe") or brand in STILL_BRANDS:
        raise MediaError(path, "is an image, not a video or sound file", "give a clip")
    if not container.streams.video and not container.streams.audio:
        raise MediaError(path, "holds neither picture nor sound", "check that it is the file you meant")
    if is_encrypted(container):
        raise MediaError(path, "is encrypted (copy protection)", "give an unprotected copy")


def _container_name(path: Path, container: InputContainer) -> str:
    """The container's short name; the suffix where FFmpeg's one reader serves it among others."""
    names = container.format.name.split(",")
    suffix = path.suffix.lower().lstrip(".")
    return suffix if suffix in names else names[0]
