"""avdetect tells whether a video or a voice recording has been faked, and how: face, voice, lip-sync."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avdetect.detect import Detector, detect

try:
    __version__ = version("avdetect")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["Detector", "__version__", "detect"]


def __getattr__(name: str) -> Any:
    """Import the heavy part on first use, so that `import avdetect` and `--help` stay quick."""
    if name in {"Detector", "detect"}:
        import avdetect.detect as module

        return getattr(module, name)
    raise AttributeError(f"module 'avdetect' has no attribute {name!r}")
