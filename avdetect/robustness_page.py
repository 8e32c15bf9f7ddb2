"""One page on degraded and attacked clips, which opens offline: plots and numbers per claim."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avdetect.robustness import as_number, as_share, as_span
from avdetect.wording import TITLES


@dataclass(frozen=True)
class Section:
    """One claim's table with its plot (SVG text)."""

    rows: Sequence[dict[str, Any]]
    plot: str

    @property
    def picture(self) -> str:
        """The plot as a data URI: an image keeps its names and styles to itself."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.plot.encode()).decode("ascii")


def page(facts: Mapping[str, Any], swept: Mapping[str, Section], attacked: Mapping[str, Section]) -> str:
    """HTML of `robustness.table`s and `attempts.table`s by claim; `facts`: those of `robustness_cli`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("avdetect", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"number": as_number, "span": as_span, "share": as_share}
    return environment.get_template("robustness.html.j2").render(
        model=facts["model"],
        seed=facts["seed"],
        facts=facts,
        swept=swept,
        attacked=attacked,
        TITLES={claim.value: title for claim, title in TITLES.items()},
    )
