"""WaveFake (Frank and Schönherr, 2021): real speech copied by vocoders, one folder per vocoder, and some
TTS.

The folder labels a clip, not its name: `ljspeech_waveglow/LJ008-0217.wav` is called like the recording it
copies. The real recordings (LJSpeech, JSUT) are not part of the download; they are read where they lie below
the root too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.survey import Dataset, Survey, clips
from avdetect.types import Item, Label

VOCODERS = {
    "melgan": "MelGAN",
    "melgan_large": "MelGAN (large)",
    "multi_band_melgan": "Multi-band MelGAN",
    "full_band_melgan": "Full-band MelGAN",
    "parallel_wavegan": "Parallel WaveGAN",
    "hifiGAN": "HiFi-GAN",
    "waveglow": "WaveGlow",
}
_TTS = "common_voices_prompts_from_conformer_fastspeech2_pwg_ljspeech"
_SIZES = {"ljspeech": 13_100, "jsut": 5_000}
_COPIES = {"ljspeech": tuple(VOCODERS), "jsut": ("multi_band_melgan", "parallel_wavegan")}
_LANGUAGES = {"ljspeech": "en", "jsut": "ja"}
_FAKE_FOLDER = re.compile(r"(?P<speaker>ljspeech|jsut)_(?P<vocoder>\w+)")
_REAL_FOLDER = re.compile(r"(?P<speaker>ljspeech|jsut)([-_]?(ver)?[\d.]+)?", re.IGNORECASE)
_COPY_MARK = re.compile(r"_(gen|generated)$")


def _read(survey: Survey) -> Iterator[Item]:
    for speaker, vocoders in _COPIES.items():
        for vocoder in vocoders:
            survey.expect(f"{speaker} {VOCODERS[vocoder]}", _SIZES[speaker])
    for path in clips(survey.files):
        *folders, name = path.split("/")
        item = next((item for folder in folders if (item := _item(survey, path, folder, name))), None)
        if item is None:
            survey.remark("sound in no folder of a known vocoder, left out", path)
            continue
        yield item
    if not any(group.endswith("real") for group in survey.found):
        survey.remark("no real speech: put LJSpeech-1.1 and jsut_ver1.1 below the root", str(survey.root))


def _item(survey: Survey, path: str, folder: str, name: str) -> Item | None:
    """The item that a folder on the way to a file makes of it, or None."""
    stem = _COPY_MARK.sub("", name.rsplit(".", 1)[0])
    fake, real = _FAKE_FOLDER.fullmatch(folder), _REAL_FOLDER.fullmatch(folder)
    if folder == _TTS:
        speaker, method, label = "ljspeech", "Conformer FastSpeech2 + Parallel WaveGAN", True
    elif fake is not None and fake["vocoder"] in VOCODERS:
        speaker, method, label = fake["speaker"], VOCODERS[fake["vocoder"]], True
    elif real is not None:
        speaker, method, label = real["speaker"].lower(), None, False
    else:
        return None
    survey.see("text-to-speech" if folder == _TTS else f"{speaker} {method or 'real'}")
    return Item(
        path=survey.path(path),
        label=Label(voice_cloning=label),
        method=method,
        identities=(speaker,),
        pair_id=None if folder == _TTS else f"{speaker}-{stem}",
        language=_LANGUAGES[speaker],
        extra={"vocoder": method} if method else {},
    )


WAVEFAKE = Dataset(
    title="WaveFake",
    labels="voice (no picture): copies by vocoders; the real halves are separate downloads",
    size="117,985 generated utterances by 7 vocoders and a TTS system; LJSpeech 13,100, JSUT 5,000 real",
    licence="CC BY-SA 4.0",
    access="open: zenodo.org/records/5642694; real: keithito.com/LJ-Speech-Dataset, "
    "sites.google.com/site/shinnosuketakamichi/publication/jsut",
    citation="Frank and Schönherr, WaveFake: A Data Set to Facilitate Audio Deepfake Detection, NeurIPS 2021",
    layout="ljspeech_<vocoder>/*.wav, jsut_<vocoder>/*.wav",
    read=_read,
)
