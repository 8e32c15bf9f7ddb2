"""Everything that avdetect raises on purpose.

AvdetectError
├── InputError        a clip, manifest or folder that a user handed in cannot be used
│   ├── MediaError    not media, damaged, empty, encrypted, of absurd size
│   └── DatasetError  a data set's files or labels are not what its format says
├── ModelError        a model folder or checkpoint cannot be used
├── ConfigError       a training or model setting is unknown or has an impossible value
└── MissingDependencyError   the machine lacks a shared library or an optional package

Each message is one line: what is wrong, with the value and the file, and what would mend it.
"""

from __future__ import annotations

from pathlib import Path


class AvdetectError(Exception):
    """Base of every error that avdetect raises on purpose; its text is meant for the user."""


class InputError(AvdetectError):
    """A clip, manifest or folder that a user handed in cannot be used."""


class MediaError(InputError):
    """A media file cannot be read: `path`, what is wrong with it, and what would help."""

    def __init__(self, path: Path | str, problem: str, remedy: str = "") -> None:
        self.path = Path(path)
        self.problem = problem
        self.remedy = remedy
        shown = str(path).encode("unicode_escape", "backslashreplace").decode() if "\n" in str(path) else path
        super().__init__(f"{shown}: {problem}" + (f"; {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[type[MediaError], tuple[Path, str, str]]:
        """Errors cross process borders whole."""
        return type(self), (self.path, self.problem, self.remedy)


class DatasetError(InputError):
    """A data set's files or labels are not what its format says."""


class ModelError(AvdetectError):
    """A model folder or checkpoint cannot be used."""


class ConfigError(AvdetectError):
    """A setting is unknown or has an impossible value."""


class MissingDependencyError(AvdetectError):
    """The machine lacks a shared library or a package; the text says how to get it."""
