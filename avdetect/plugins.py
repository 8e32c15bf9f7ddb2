"""Encoders and data sets of other packages, found by the entry points that these announce when they are installed:

    [project.entry-points."avdetect.encoders"]
    my_encoder = "my_package:MyEncoder"

    [project.entry-points."avdetect.datasets"]
    my-set = "my_package:MY_SET"

Nothing has to be imported first, so a name in a recipe or in a model's config is found by training, by the processes
that load its data, and by detection alike. A model folder can only name what its user has installed.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from avdetect.errors import ConfigError

ENCODERS, DATASETS = "avdetect.encoders", "avdetect.datasets"


def announced(group: str) -> dict[str, EntryPoint]:
    """Name -> entry point, of all packages that are installed."""
    return {point.name: point for point in entry_points(group=group)}


def find(group: str, name: str) -> Any:
    """What another package calls `name`, None where none does; ConfigError where it cannot be imported."""
    point = announced(group).get(name)
    if point is None:
        return None
    try:
        return point.load()
    except Exception as error:  # whatever foreign code does when it is imported
        package = point.dist.name if point.dist is not None else point.module
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(
            f"'{name}' of the installed package {package} cannot be imported from {point.value} ({reason}); "
            "mend or reinstall that package"
        ) from error
