"""avdetect tells whether a video or a voice recording has been faked, and how: face, voice, lip-sync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avdetect.detect import Detector, detect

__version__ = "0.1.0"
__all__ = ["Detector", "__version__", "detect"]


def __getattr__(name: str) -> Any:
    """Import the heavy part on first use, so that `import avdetect` and `--help` stay quick."""
    if name in {"Detector", "detect"}:
        import avdetect.detect as module

        return getattr(module, name)
    raise AttributeError(f"module 'avdetect' has no attribute {name!r}")
