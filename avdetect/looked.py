"""A clip that has been looked at from beginning to end: windows of any settings come from it without decoding.

`encoded` and `decoded` turn it into one safetensors file and back, to the same windows bit by bit.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from avdetect.speech import SpeechReport
from avdetect.types import Bytes, Clip, Floats, Segment, TrackSummary, Window
from avdetect.windows import Prepared, WindowSettings, _Seen

_APART = ("path", "waveform", "warnings")  # fields of a Clip that are not kept among its facts
_LENGTH = 8  # bytes at the start of a safetensors file that tell its header's length
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass
class Looked(Prepared):
    """A clip whose pictures have all been looked at: windows of any settings come from `seen`, without decoding."""

    seen: dict[int, dict[int, _Seen]] = field(default_factory=dict)

    @classmethod
    def at(cls, prepared: Prepared) -> Looked:
        """Look at every picture of a clip that was opened with `prepare`, once."""
        seen: dict[int, dict[int, _Seen]] = {}
        for _ in prepared._look(seen):
            pass
        return cls(**{one.name: getattr(prepared, one.name) for one in fields(prepared)}, seen=seen)

    def _look(self, seen: dict[int, dict[int, _Seen]]) -> Iterator[int]:
        seen.update({track: dict(frames) for track, frames in self.seen.items()})
        return iter(())

    def usable_windows(self) -> tuple[Window, ...]:
        """Its windows without faces that cannot be assessed: the sound alone where there are no others."""
        usable = {track.id for track in self.tracks if track.assessable}
        kept: list[Window] = []
        for _, together in groupby(self, lambda window: window.start):
            first, *rest = together
            seen = [window for window in (first, *rest) if window.track is None or window.track in usable]
            if not seen and first.waveform is not None:
                seen = [Window(first.start, first.end, waveform=first.waveform, speech=first.speech)]
            kept += seen
        return tuple(kept)


def encoded(looked: Looked) -> bytes:
    """The clip as a safetensors file: its arrays, and as json in the header all that is known of it."""
    arrays: Arrays = {} if looked.clip.waveform is None else {"waveform": looked.clip.waveform}
    for track, frames in looked.seen.items():
        arrays |= _track_arrays(track, frames)
    for summary in looked.tracks:
        if summary.thumbnail is not None:
            arrays[f"{summary.id}.thumbnail"] = summary.thumbnail
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    clip = {one.name: getattr(looked.clip, one.name) for one in fields(Clip) if one.name not in _APART}
    facts = {
        "clip": clip,
        "clip_warnings": looked.clip.warnings,
        "warnings": looked.warnings,
        "speech": looked.speech and asdict(looked.speech),
        "tracks": [asdict(replace(summary, thumbnail=None)) for summary in looked.tracks],
        "crc32": _checksum(arrays),
    }
    return save(arrays or {"empty": np.zeros(1, np.uint8)}, {"facts": json.dumps(facts)})


def _track_arrays(track: int, frames: dict[int, _Seen]) -> Arrays:
    cropped = {index: one.crop for index, one in frames.items() if one.crop is not None}
    arrays: Arrays = {
        f"{track}.frames": np.array(list(frames), np.int64),
        f"{track}.landmarks": np.stack([one.landmarks for one in frames.values()]),
    }
    mouths = [one.mouth for one in frames.values() if one.mouth is not None]
    if len(mouths) == len(frames):
        arrays[f"{track}.mouths"] = np.stack(mouths)
    if cropped:
        arrays[f"{track}.crop_frames"] = np.array(list(cropped), np.int64)
        arrays[f"{track}.crops"] = np.stack([crop for crop, _ in cropped.values()])
        arrays[f"{track}.crop_landmarks"] = np.stack([points for _, points in cropped.values()])
    return arrays


def _checksum(arrays: Arrays) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].data, zlib.crc32(name.encode(), total))
    return total


def decoded(data: bytes, path: Path, settings: WindowSettings) -> Looked:
    """The clip that `encoded` gave, as the file `path` and cut by `settings`. ValueError where the data is damaged."""
    try:
        arrays = load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    facts = facts_of(data)
    arrays.pop("empty", None)
    if _checksum(arrays) != facts["crc32"]:
        raise ValueError("the content is damaged")
    clip = Clip(
        path, waveform=arrays.get("waveform"), warnings=tuple(facts["clip_warnings"]), **facts["clip"]
    )
    tracks = [
        TrackSummary(**summary | {"thumbnail": arrays.get(f"{summary['id']}.thumbnail")})
        for summary in facts["tracks"]
    ]
    seen = {int(name[:-7]): _seen(arrays, name[:-7]) for name in arrays if name.endswith(".frames")}
    return Looked(clip, _speech(facts["speech"]), settings, None, tracks, list(facts["warnings"]), seen=seen)


def _seen(arrays: Arrays, track: str) -> dict[int, _Seen]:
    crops: dict[int, tuple[Bytes, Floats]] = {}
    if f"{track}.crops" in arrays:
        pictures = zip(arrays[f"{track}.crops"], arrays[f"{track}.crop_landmarks"], strict=True)
        crops = dict(zip(arrays[f"{track}.crop_frames"].tolist(), pictures, strict=True))
    indices, landmarks = arrays[f"{track}.frames"].tolist(), arrays[f"{track}.landmarks"]
    mouths = arrays.get(f"{track}.mouths", [None] * len(indices))
    return {
        index: _Seen(points, mouth, crops.get(index))
        for index, points, mouth in zip(indices, landmarks, mouths, strict=True)
    }


def _speech(facts: dict[str, Any] | None) -> SpeechReport | None:
    if facts is None:
        return None
    segments = tuple(Segment(**segment) for segment in facts["segments"])
    return SpeechReport(**facts | {"segments": segments})


def facts_of(data: bytes) -> dict[str, Any]:
    """The facts in a file of `encoded`, of which only the header needs to be there. ValueError without one."""
    try:
        header = json.loads(data[_LENGTH : header_size(data)])
        facts: dict[str, Any] = json.loads(header["__metadata__"]["facts"])
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a prepared clip ({error!r})") from error
    return facts


def header_size(data: bytes) -> int:
    """Bytes of a safetensors file up to the end of its header, told by the first eight."""
    return _LENGTH + int.from_bytes(data[:_LENGTH], "little")
