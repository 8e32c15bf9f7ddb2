"""Media in, Clip and frames out: timing, formats, sound, damage, bad input; and writing."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import (
    beep,
    corrupt,
    make_audio,
    make_video,
    noise,
    onset,
    picture,
    read_index,
    tone,
    truncate,
)
from numpy.typing import NDArray

from avdetect import sound
from avdetect.errors import MediaError
from avdetect.media import frames, open_clip, write_clip
from avdetect.pictures import MAX_SIDE
from avdetect.types import Clip, Frame


def shown(clip: Clip) -> list[int]:
    """The source frame that stands at each grid time."""
    return [read_index(frame.image) for frame in frames(clip)]


def level(waveform: NDArray[np.float32]) -> float:
    """RMS without the ends."""
    return float(np.sqrt(np.square(waveform[2000:-2000]).mean()))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".ts"])
def test_containers_keep_picture_and_sound_together(tmp_path: Path, suffix: str) -> None:
    """The beep stands at the frame that it was made with, whatever the container does to the start."""
    rate = 16_000 if suffix in {".mp4", ".mov", ".mkv"} else 48_000
    clip = open_clip(make_video(tmp_path / f"a{suffix}", audio=beep(2.0, 1.0, rate), audio_rate=rate))
    assert clip.waveform is not None and clip.waveform.dtype == np.float32
    assert (clip.width, clip.height, clip.fps) == (160, 120, 25.0)
    assert clip.duration == pytest.approx(2.0, abs=0.12)
    at_25 = next(frame.time for frame in frames(clip) if read_index(frame.image) == 25)
    assert onset(clip.waveform) == pytest.approx(at_25, abs=0.03)  # avi: mp3's own delay of 23 ms


@pytest.mark.parametrize(
    ("suffix", "rate"),
    [
        (".wav", 8000),
        (".flac", 192_000),
        (".mp3", 44_100),
        (".m4a", 44_100),
        (".ogg", 48_000),
        (".opus", 48_000),
    ],
)
def test_sound_formats(tmp_path: Path, suffix: str, rate: int) -> None:
    """Every format gives the same 16 kHz waveform, with the beep where it was."""
    clip = open_clip(make_audio(tmp_path / f"a{suffix}", beep(2.0, 1.0, rate), rate))
    assert clip.waveform is not None and not clip.has_video
    assert clip.source_sample_rate == rate
    assert clip.waveform.size == pytest.approx(32_000, abs=16)
    assert onset(clip.waveform) == pytest.approx(1.0, abs=0.002)
    assert list(frames(clip)) == []


def test_resampling_is_filtered(tmp_path: Path) -> None:
    """A tone above 8 kHz vanishes instead of folding down; one below stays."""
    high = open_clip(make_audio(tmp_path / "high.wav", tone(1, 48_000, 11_000.0, 0.5), 48_000)).waveform
    low = open_clip(make_audio(tmp_path / "low.wav", tone(1, 48_000, 6000.0, 0.5), 48_000)).waveform
    assert high is not None and low is not None
    assert level(high) < 0.001
    assert level(low) == pytest.approx(0.5 / 2**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("suffix", "channels"), [(".wav", n) for n in (1, 2, 4, 6, 8)] + [(".flac", 8), (".m4a", 2), (".m4a", 8)]
)
def test_channels_are_averaged(tmp_path: Path, suffix: str, channels: int) -> None:
    """One live channel of several stays audible, at its share of the level."""
    samples = np.zeros((channels, 32_000), np.float32)
    samples[-1] = tone(2.0, level=0.8)[0]
    clip = open_clip(make_audio(tmp_path / f"a{suffix}", samples))
    assert clip.source_channels == channels and clip.waveform is not None
    assert level(clip.waveform) == pytest.approx(0.8 / 2**0.5 / channels, rel=0.02)
    assert clip.warnings == ()


def test_channels_of_opposite_polarity_do_not_cancel(tmp_path: Path) -> None:
    """A voice that is reversed on the second channel is heard, and said to have been."""
    samples = np.concatenate([tone(2.0, level=0.5), -tone(2.0, level=0.5)])
    clip = open_clip(make_audio(tmp_path / "a.wav", samples))
    assert clip.waveform is not None and level(clip.waveform) == pytest.approx(0.5 / 2**0.5, rel=0.02)
    assert "cancel" in clip.warnings[0]


def test_not_a_number_is_silence(tmp_path: Path) -> None:
    """Float sound with NaN and infinity gives a finite waveform."""
    samples = tone(1.0)
    samples[0, 100:200], samples[0, 300] = np.nan, np.inf
    clip = open_clip(make_audio(tmp_path / "a.wav", samples, codec="pcm_f32le"))
    assert clip.waveform is not None and np.isfinite(clip.waveform).all() and clip.waveform[150] == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_late_sound_keeps_its_offset(tmp_path: Path, suffix: str) -> None:
    """Zeros stand before sound that starts after the picture."""
    path = make_video(tmp_path / f"a{suffix}", audio=beep(1.5, 0.5), audio_offset=0.4)
    clip = open_clip(path)
    assert clip.waveform is not None
    assert onset(clip.waveform) == pytest.approx(0.9, abs=0.002)
    assert clip.video_start == 0 and clip.audio_start == pytest.approx(0.4, abs=0.07)  # less AAC's run-up
    assert not clip.waveform[:4000].any()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_late_picture_keeps_its_offset(tmp_path: Path, suffix: str) -> None:
    """Frames start later on the grid where the sound starts first."""
    clip = open_clip(make_video(tmp_path / f"a{suffix}", 1.0, audio=beep(1.5, 0.5), video_offset=0.48))
    first = next(frames(clip))
    assert (first.index, first.time, read_index(first.image)) == (12, 0.48, 0)
    assert clip.video_start == pytest.approx(0.48, abs=1e-3)
    assert clip.waveform is not None and onset(clip.waveform) == pytest.approx(0.5, abs=0.002)


def test_pause_in_the_timestamps_is_silence(tmp_path: Path) -> None:
    """Sound after a gap in a file's timestamps stands where they say."""
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for first in (0, 16_000, 48_000):
            samples = (tone(1.0, level=0.5) * 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, first
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    waveform = open_clip(path).waveform
    assert waveform is not None and waveform.size == 64_000
    assert [level(waveform[n * 16_000 : (n + 1) * 16_000]) > 0.3 for n in range(4)] == [
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (25.0, list(range(50))),
        (12.5, [n // 2 for n in range(50)]),
        (50.0, [n * 2 for n in range(50)]),
        (60.0, [round(n * 2.4) for n in range(50)]),
        (30000 / 1001, [round(n * 0.04 * 30000 / 1001) for n in range(50)]),
    ],
)
def test_rates_come_onto_the_grid(tmp_path: Path, fps: float, expected: list[int]) -> None:
    """Slow pictures are held, fast ones thinned: the frame nearest in time, for two seconds."""
    clip = open_clip(make_video(tmp_path / "a.mp4", fps=fps))
    assert clip.fps == pytest.approx(fps, rel=1e-3)
    assert shown(clip) == expected


def test_variable_rate_follows_the_timestamps(tmp_path: Path) -> None:
    """Each frame stands from its own time on, however uneven."""
    path = make_video(tmp_path / "a.mp4", times=[0.0, 0.2, 0.24, 1.0, 1.4])
    got = list(frames(open_clip(path)))
    assert [frame.index for frame in got] == list(range(len(got)))
    changes = {read_index(frame.image): frame.time for frame in reversed(got)}
    assert changes == pytest.approx({0: 0.0, 1: 0.2, 2: 0.24, 3: 1.0, 4: 1.4})


def test_jitter_neither_doubles_nor_drops(tmp_path: Path) -> None:
    """Timestamps up to 15 ms off the grid still give each frame once."""
    dice = np.random.default_rng(1)
    times = [n / 25 + float(dice.uniform(-0.015, 0.015)) * (n > 0) for n in range(50)]
    assert shown(open_clip(make_video(tmp_path / "a.mp4", times=times))) == list(range(50))


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotation_is_honoured(tmp_path: Path, rotation: int) -> None:
    """A clip that was stored turned comes out upright."""
    stored = [np.rot90(picture(n), -rotation // 90) for n in range(3)]
    size = (stored[0].shape[1], stored[0].shape[0])
    clip = open_clip(make_video(tmp_path / "a.mp4", size=size, images=stored, rotation=rotation))
    got = list(frames(clip))
    assert (clip.width, clip.height) == (160, 120)
    assert [read_index(frame.image) for frame in got] == [0, 1, 2]
    red, other = got[0].image[105, 20].astype(int), got[0].image[105, 140].astype(int)
    assert red[0] > red[1] + 100 and abs(other[0] - other[1]) < 20


def test_vertical_flip_is_honoured(tmp_path: Path) -> None:
    """A mirrored display matrix, which is no rotation, is followed too."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.set_display_matrix([65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30])
        image = np.ascontiguousarray(picture(5)[::-1])
        out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    assert shown(open_clip(path)) == [5]


@pytest.mark.parametrize("pix_fmt", ["yuv444p10le", "gray", "bgra", "yuv420p"])
def test_pixel_formats_and_odd_sizes(tmp_path: Path, pix_fmt: str) -> None:
    """10 bit, grey, alpha and odd sides give RGB of the same size."""
    path = make_video(tmp_path / "a.mkv", 0.2, size=(161, 121), codec="ffv1", pix_fmt=pix_fmt)
    got = list(frames(open_clip(path)))
    assert got[0].image.shape == (121, 161, 3) and got[0].image.dtype == np.uint8
    assert [read_index(frame.image) for frame in got] == [0, 1, 2, 3, 4]


def test_wide_pixels_are_squared(tmp_path: Path) -> None:
    """A stored 120x120 with pixels of 4:3 is shown 160 wide."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 120, 120, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        frame = av.VideoFrame.from_ndarray(picture(7, (120, 120)), format="rgb24")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    clip = open_clip(path)
    assert (clip.width, clip.height) == (160, 120)
    assert shown(clip) == [7]


def test_huge_picture_is_scaled_down(tmp_path: Path) -> None:
    """8000x8000 comes at the greatest side that is worked with; the clip tells its own size."""
    clip = open_clip(
        make_video(tmp_path / "a.mkv", 0.04, size=(8000, 8000), codec="mjpeg", pix_fmt="yuvj420p")
    )
    assert (clip.width, clip.height) == (8000, 8000)
    assert [frame.image.shape for frame in frames(clip)] == [(MAX_SIDE, MAX_SIDE, 3)]
    assert shown(clip) == [0]


@pytest.mark.parametrize("size", [(16, 16), (160, 120)])
def test_one_frame(tmp_path: Path, size: tuple[int, int]) -> None:
    """A video of one frame is a clip of one frame, however small."""
    clip = open_clip(make_video(tmp_path / "a.mp4", 0.04, size=size))
    assert clip.duration == pytest.approx(0.04, abs=0.001)
    assert [frame.image.shape[:2] for frame in frames(clip)] == [size[::-1]]


def test_cover_picture_is_no_video(tmp_path: Path) -> None:
    """Sound with a cover image attached is sound alone."""
    source = make_audio(tmp_path / "a.mp3", tone(1.0, 44_100), 44_100)
    path = tmp_path / "cover.mp3"
    with av.open(str(source)) as sound_in, av.open(str(path), "w") as out:
        voice = out.add_stream_from_template(sound_in.streams.audio[0])
        cover = out.add_stream("mjpeg", rate=25)
        assert isinstance(cover, av.VideoStream)
        cover.width, cover.height, cover.pix_fmt = 160, 120, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        out.mux(cover.encode(None))
        for packet in sound_in.demux(audio=0):
            if packet.dts is not None:
                packet.stream = voice
                out.mux(packet)
    with av.open(str(path)) as check:
        assert len(check.streams.video) == 1
    clip = open_clip(path)
    assert not clip.has_video and clip.waveform is not None and clip.duration == pytest.approx(1.0, abs=0.1)


def test_facts(tmp_path: Path) -> None:
    """The clip tells what it was made of, and its checksum."""
    path = make_video(tmp_path / "a.mp4", audio=tone(2.0, 44_100, channels=2), audio_rate=44_100)
    clip = open_clip(path)
    assert (clip.container, clip.video_codec, clip.audio_codec) == ("mp4", "h264", "aac")
    assert (clip.source_sample_rate, clip.source_channels, clip.warnings) == (44_100, 2, ())
    assert clip.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert clip.duration == pytest.approx(2.0, abs=0.001)


def test_frames_are_streamed(tmp_path: Path) -> None:
    """Reading many frames holds few of them."""
    clip = open_clip(make_video(tmp_path / "a.mp4", 4.0, size=(640, 480)))
    tracemalloc.start()
    assert sum(1 for _ in frames(clip)) == 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 640 * 480 * 3


def test_damage_in_the_middle_is_told_and_passed(tmp_path: Path) -> None:
    """What is whole on both sides of the damage is read; nothing is shown where frames are lost."""
    source = make_video(
        tmp_path / "a.mp4", 4.0, audio=noise(4.0), options={"g": "10", "preset": "ultrafast", "bf": "0"}
    )
    clip = open_clip(corrupt(source, tmp_path / "b.mp4", 0.4, 0.6, 0.05))
    warnings: list[str] = []
    got: list[Frame] = list(frames(clip, warnings=warnings))
    indexes = [frame.index for frame in got]
    assert clip.duration == pytest.approx(4.0, abs=0.05) and indexes == sorted(set(indexes))
    assert indexes[0] == 0 and indexes[-1] == 99 and 50 < len(indexes) < 100
    assert all(read_index(frame.image) == frame.index for frame in (*got[:10], *got[-10:]))
    assert any("picture is damaged" in warning for warning in warnings)
    assert any("sound is damaged" in warning for warning in clip.warnings)
    assert clip.waveform is not None and level(clip.waveform[-16_000:]) > 0.05


def test_cut_short_is_told(tmp_path: Path) -> None:
    """A file that ends before its stated end is read as far as it goes, with a warning."""
    clip = open_clip(truncate(make_video(tmp_path / "a.mkv", 6.0, audio=tone(6.0)), tmp_path / "b.mkv", 0.5))
    assert 0.5 < clip.duration < 5.0
    assert any("cut short" in warning for warning in clip.warnings)
    assert len(list(frames(clip))) > 10


def garbled(path: Path, kind: str) -> Path:
    """A clip of which one stream's packets are noise: `kind` is video or audio."""
    source = make_video(path.with_name("source.mkv"), audio=tone(2.0))
    dice = np.random.default_rng(0)
    with av.open(str(source)) as read, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == kind:
                packet.update(dice.bytes(packet.size)) if packet.size else None
            packet.stream = streams[packet.stream_index]
            out.mux(packet)
    return path


def test_undecodable_sound_leaves_the_picture(tmp_path: Path) -> None:
    """A clip whose sound is rubbish is still a picture."""
    clip = open_clip(garbled(tmp_path / "a.mkv", "audio"))
    assert clip.waveform is None and clip.has_video and len(shown(clip)) == 50
    assert any("cannot be decoded" in warning for warning in clip.warnings)


def test_undecodable_picture_leaves_the_sound(tmp_path: Path) -> None:
    """A clip whose picture is rubbish is still sound."""
    clip = open_clip(garbled(tmp_path / "a.mkv", "video"))
    assert clip.waveform is not None and not clip.has_video
    assert any("picture" in warning and "cannot be decoded" in warning for warning in clip.warnings)


def _directory(path: Path) -> None:
    path.mkdir()


def _no_frames(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        out.start_encoding()


def _image(path: Path) -> None:
    codec = "png" if path.suffix == ".png" else "mjpeg"
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = 160, 120
    context.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
    context.time_base = Fraction(1, 25)
    path.write_bytes(b"".join(bytes(p) for p in context.encode(av.VideoFrame.from_ndarray(picture(0)))))


def _without_index(path: Path) -> None:
    truncate(make_video(path.with_name("whole.mp4")), path, 0.5)


def _encrypted(path: Path) -> None:
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "0" * 31 + "1",
        "encryption_kid": "0" * 32,
    }
    with (
        av.open(str(make_video(path.with_name("plain.mp4")))) as read,
        av.open(str(path), "w", options=options) as out,
    ):
        stream = out.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)


def _playlist(path: Path) -> None:
    make_audio(path.with_name("secret.wav"), tone(1.0))
    path.write_text("ffconcat version 1.0\nfile secret.wav\n")


def _too_large(path: Path) -> None:
    make_video(path, 0.04, size=(16_390, 16), codec="ffv1")


@pytest.mark.parametrize(
    ("name", "make", "problem"),
    [
        ("missing.mp4", lambda path: None, "no such file"),
        ("folder.mp4", _directory, "is a directory"),
        ("empty.mp4", Path.touch, "empty"),
        ("text.mp4", lambda path: path.write_text("Dear diary, nothing moved today.\n" * 40), "is text"),
        (
            "noise.mp4",
            lambda path: path.write_bytes(np.random.default_rng(0).bytes(20_000)),
            "is not a video",
        ),
        ("cut.mp4", _without_index, "moov"),
        ("none.avi", _no_frames, "no frames"),
        ("none.mp4", _no_frames, "neither picture nor sound"),
        ("still.png", _image, "is an image"),
        ("still.jpg", _image, "is an image"),
        ("locked.mp4", _encrypted, "encrypted"),
        ("list.mp4", _playlist, "is a list of media"),
        ("huge.mkv", _too_large, "too large"),
        ("pipe.mp4", os.mkfifo, "not a regular file"),
        ("long" * 80, lambda path: None, "cannot be looked up"),
    ],
)
def test_bad_input_is_one_clear_line(
    tmp_path: Path, name: str, make: Callable[[Path], object], problem: str
) -> None:
    """File, cause and remedy, in one line, and never FFmpeg's own error."""
    path = tmp_path / name
    make(path)
    with pytest.raises(MediaError) as caught:
        open_clip(path)
    text = str(caught.value)
    assert name in text and problem in text and "\n" not in text and caught.value.remedy


def test_sound_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More hours than memory should hold are refused in words."""
    monkeypatch.setattr(sound, "MAX_HOURS", 1 / 3600)
    with pytest.raises(MediaError, match="hours"):
        open_clip(make_audio(tmp_path / "a.wav", tone(3.0)))


def test_wav_whose_header_lies_about_its_length(tmp_path: Path) -> None:
    """A recorder that never wrote the length leaves a readable file."""
    path = make_audio(tmp_path / "a.wav", tone(1.0))
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    clip = open_clip(path)
    assert clip.waveform is not None and clip.waveform.size == pytest.approx(16_000, abs=1)


def test_write_and_read_back(tmp_path: Path) -> None:
    """What is written is read again: each frame, and the sound in its place."""
    images = (picture(n, (161, 121)) for n in range(50))
    path = write_clip(tmp_path / "a.mp4", images, beep(2.0, 1.0)[0])
    clip = open_clip(path)
    assert (clip.width, clip.height, clip.fps) == (162, 122, 25.0)  # H.264 wants even sides
    assert shown(clip) == list(range(50))
    assert clip.waveform is not None and onset(clip.waveform) == pytest.approx(1.0, abs=0.002)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".m4a"])
def test_write_sound_alone(tmp_path: Path, suffix: str) -> None:
    """The suffix chooses the sound format; lossless ones give the samples back."""
    waveform = tone(2.0, level=0.5)[0]
    got = open_clip(write_clip(tmp_path / f"a{suffix}", waveform=waveform)).waveform
    assert got is not None and got.size == pytest.approx(waveform.size, abs=400)
    assert level(got) == pytest.approx(level(waveform), rel=0.06)  # lame turns down by 5 %
    if suffix in {".wav", ".flac"}:
        assert np.abs(got - waveform).max() < 1e-4


def test_write_refuses(tmp_path: Path) -> None:
    """Nothing is overwritten unasked, no half file stays, and what cannot be written is said."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"precious")
    with pytest.raises(MediaError, match="exists already"):
        write_clip(path, waveform=tone(0.1)[0])
    assert path.read_bytes() == b"precious"
    write_clip(path, waveform=tone(0.1)[0], overwrite=True)
    with wave.open(str(path)) as file:
        assert file.getframerate() == 16_000
    for bad in (tmp_path / "no" / "a.wav", tmp_path / "a.nonsense"):
        with pytest.raises(MediaError, match="cannot be written"):
            write_clip(bad, waveform=tone(0.1)[0])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.wav"]


def test_real_clip(talking_clip: Path) -> None:
    """A real clip: 25 fps, three seconds, picture and sound of the same length."""
    clip = open_clip(talking_clip)
    got = [frame.index for frame in frames(clip)]
    assert (clip.width, clip.height) == (360, 288) and clip.waveform is not None
    assert got == list(range(len(got)))
    assert len(got) / 25 == pytest.approx(clip.waveform.size / 16_000, abs=0.1)
