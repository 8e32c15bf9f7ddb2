"""Where verdicts go: text and JSON Lines as they come, the HTML page at the end.

What cannot be written, or would overwrite something else than an earlier report, is told before any work is done.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO, cast

from avdetect import report, wording
from avdetect.errors import AvdetectError, ConfigError
from avdetect.types import Verdict

MAX_HTML_CLIPS = 200
"""Clips on one page, those with the highest scores: a browser opens no page of a million clips."""


class OutputError(AvdetectError):
    """A result cannot be written where the user wants it."""


def check_output(path: Path, option: str, clips: Iterable[str | Path] = ()) -> None:
    """OutputError unless `path` can be written; ConfigError where that would destroy a clip or a binary file.

    Leaves no file behind, and an existing one as it is.
    """
    existed = path.exists() if _reachable(path, option) else False
    if existed and path.is_file():
        mine = os.stat(path)
        if any(_same(mine, clip) for clip in clips):
            raise ConfigError(f"{option} {path}: is one of the clips and would be lost; name another file")
        with path.open("rb") as file:
            if b"\0" in file.read(4096):
                raise ConfigError(f"{option} {path}: is no report and would be lost; name another file")
    open_output(path, option, "a").close()
    if not existed:
        path.unlink()


def _reachable(path: Path, option: str) -> bool:
    """Whether the path can be looked up; OutputError where the system refuses its very name."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(
            f"{option} {path}: cannot be written ({error.strerror}); name another file"
        ) from None
    return True


def _same(mine: os.stat_result, clip: str | Path) -> bool:
    try:
        return os.path.samestat(mine, os.stat(clip))
    except OSError:  # told of when its turn comes
        return False


def open_output(path: Path, option: str, mode: str = "w") -> TextIO:
    """The file opened for writing text; OutputError where that fails."""
    try:
        return cast("TextIO", path.open(mode, encoding="utf-8"))
    except OSError as error:
        raise OutputError(
            f"{option} {path}: cannot be written ({error.strerror}); name a file in a folder that is there"
        ) from None


def let_go_of(stream: TextIO) -> None:
    """Send what is still to be flushed to `stream` nowhere: its reader has gone, or its disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Outputs:
    """Takes verdicts in the order of the clips and writes them where the command line says.

    `json_file` and `html_file` are the options' values; `text` whether people read standard output.
    """

    def __init__(
        self, clips: Sequence[str], json_file: str | None, html_file: str | None, *, text: bool
    ) -> None:
        self.html = Path(html_file) if html_file else None
        self.text = text and json_file != "-" and sys.stdout is not None
        self._best: list[Verdict] = []
        self._taken = 0
        named = [
            (option, Path(name)) for option, name in (("--json", json_file), ("--html", html_file)) if name
        ]
        files = [(option, path) for option, path in named if (option, str(path)) != ("--json", "-")]
        for option, path in files:
            check_output(path, option, clips)
        if len({os.path.realpath(path) for _, path in files}) < len(files):
            raise ConfigError(f"--json and --html both name {files[0][1]}; give two files")
        self.json = None if not json_file else self._open_json(json_file)

    @staticmethod
    def _open_json(name: str) -> TextIO:
        if name != "-":
            return open_output(Path(name), "--json")
        if sys.stdout is None:
            raise OutputError("--json -: standard output is closed; name a file")
        return sys.stdout

    def take(self, given: str, verdict: Verdict) -> None:
        """Writes one verdict; `given` is the clip as the user named it. OutputError where that fails."""
        self._taken += 1
        if self.json is not None:
            answer = report.to_dict(verdict) | {"path": wording.encodable(given)}
            self._write(self.json, json.dumps(answer, allow_nan=False) + "\n")
        if self.html is not None:
            self._keep(verdict)
        if self.text and verdict.error is None:
            self._write(sys.stdout, _as_text(verdict))

    def _write(self, stream: TextIO, text: str) -> None:
        """Written at once, so that nothing is lost when the run is cut off."""
        try:
            stream.write(text)
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            name = "standard output" if stream is sys.stdout else f"--json {stream.name}"
            let_go_of(stream)
            raise OutputError(
                f"{name}: cannot be written ({error.strerror}); {self._taken - 1} clips were done"
            ) from None

    def _keep(self, verdict: Verdict) -> None:
        self._best.append(verdict)
        if len(self._best) >= 2 * MAX_HTML_CLIPS:
            self._best = highest(self._best, MAX_HTML_CLIPS)

    def finish(self) -> str | None:
        """Writes the page and closes the files; gives a note for the user, if there is one."""
        if self.json is not None and self.json is not sys.stdout:
            self.json.close()
        if self.html is None:
            return None
        shown = highest(self._best, MAX_HTML_CLIPS)
        try:
            self.html.write_text(report.to_html(shown), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"--html {self.html}: cannot be written ({error.strerror})") from None
        if self._taken > len(shown):
            return f"{self.html} shows the {len(shown)} clips with the highest scores of {self._taken}"
        return None


def highest(verdicts: Sequence[Verdict], limit: int) -> list[Verdict]:
    """The `limit` verdicts with the highest scores, in the order they came; those without a score go first."""
    ranked = sorted(range(len(verdicts)), key=lambda i: -1.0 if (s := verdicts[i].score) is None else s)
    return [verdicts[i] for i in sorted(ranked[-limit:])]


def _as_text(verdict: Verdict) -> str:
    """The verdict for people: with colours and wrapped on a terminal, plain elsewhere."""
    from rich.console import Console

    shown = Console()
    width = shown.width if shown.is_terminal else None
    page = io.StringIO()
    console = Console(file=page, force_terminal=shown.is_terminal, width=shown.width)
    console.print(report.to_text(verdict, width), soft_wrap=True)
    return page.getvalue()
