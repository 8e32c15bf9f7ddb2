"""Modules that are imported when something of them is first used, not when another module imports them."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands where a module would be, and imports it once something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # asked for where a module inside it is imported
            raise AttributeError(name)
        for known in [self.__name__, self.__name__.rpartition(".")[0]]:
            if isinstance(sys.modules.get(known), _Later):
                sys.modules.pop(known, None)
        return getattr(importlib.import_module(self.__name__), name)


def defer(*names: str) -> dict[str, ModuleType]:
    """What now stands in place of those of the modules, parents before children, that are not imported yet."""
    made: dict[str, ModuleType] = {}
    for name in names:
        if name not in sys.modules:
            made[name] = sys.modules[name] = _Later(name)
            parent, _, child = name.rpartition(".")
            if parent in made:
                setattr(made[parent], child, made[name])
    return made


@contextlib.contextmanager
def deferred(*names: str) -> Iterator[None]:
    """Modules, parents before children, that are not imported in here, but when they are first used."""
    known = set(sys.modules)
    made = defer(*names)
    try:
        yield
    finally:
        for name, module in made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
                parent, _, child = name.rpartition(".")
                if parent in sys.modules and parent not in known and not hasattr(sys.modules[parent], child):
                    setattr(sys.modules[parent], child, module)  # as the import in there would have done
