"""Fixtures for every test module."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real material beside the repository, where there is one."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared material at {folder}")
    return folder


@pytest.fixture(scope="session")
def corpus(shared_dir: Path) -> Path:
    """The folder of real and fake clips: audio_real, audio_fake, video_real, video_fake, manifest.csv."""
    folder = shared_dir / "corpus"
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"no corpus at {folder}")
    return folder


@pytest.fixture(scope="session")
def talking_clip(corpus: Path) -> Path:
    """A short real clip, 360x288, one person speaking in sync, with sound."""
    path = next(iter(sorted((corpus / "video_real").glob("lipnet_*.mp4"))), None)
    if path is None:
        pytest.skip(f"no lipnet clip in {corpus / 'video_real'}")
    return path
