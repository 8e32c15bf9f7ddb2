"""Folders that a command fills and goes on with: known by a record of the settings that they were made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avdetect.errors import InputError


def claim(folder: Path, record: str, settings: Mapping[str, Any], what: str) -> None:
    """Make `folder` ready for files made with these settings, which stand in its file `record`.

    InputError where it holds others' files, `what` ("forgeries") of other settings, or cannot be written.
    """
    text = json.dumps(settings, indent=1) + "\n"
    known = folder / record
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if known.is_file():
            if known.read_text(encoding="utf-8") != text:
                raise InputError(f"{folder}: holds {what} of other settings; choose another folder")
        elif any(folder.iterdir()):
            raise InputError(f"{folder}: holds files that were not made here; choose an empty folder")
        else:
            known.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error
