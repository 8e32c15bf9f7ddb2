"""Settings from TOML into frozen dataclasses: typed, with `key=value` overrides; the unknown is refused."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from avdetect.errors import ConfigError

T = TypeVar("T")

RECIPES = Path(__file__).parent / "recipes"
"""Training configurations that ship with the package."""


def find_recipe(name: str | Path) -> Path:
    """A TOML file by path, or by the name of a recipe that ships with the package."""
    shipped = RECIPES / f"{name}.toml"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise ConfigError(f"{name}: no such configuration; give a .toml file or one of: {known}")
    return path


def read_config(cls: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """The settings of `path` with `key=value` overrides (`section.key=value`), as an instance of `cls`."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from None
    for override in overrides:
        _override(raw, override)
    return build(cls, raw, str(path))


def _override(raw: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError(f"'{text}' is not an override; write key=value, for example training.steps=100")
    target = raw
    *sections, last = key.strip().split(".")
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"'{text}': {section} is a value, not a section")
    target[last] = _value(value.strip())


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def build(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """A (nested) frozen dataclass from a mapping; ConfigError names the key, the value and the nearest known key."""
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # cls is a dataclass by contract
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(fields)}"
            raise ConfigError(f"{where}: unknown setting '{key}'; {hint}")
        values[key] = _typed(hints[key], value, f"{where}: {key}")
    missing = [
        f.name
        for f in fields.values()
        if f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: '{missing[0]}' is not set")
    return cls(**values)


def _typed(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} = {value!r} is a value, a section is expected")
        return build(hint, value, where)
    origin = get_origin(hint)
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_typed(get_args(hint)[0], item, where) for item in items)
    if origin is dict and not isinstance(value, Mapping):
        raise ConfigError(f"{where} = {value!r} is a value, a section is expected")
    if origin is dict or hint is Any:
        return value
    options = get_args(hint) or (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if option is Path and isinstance(value, str):
            return Path(value)
        if isinstance(option, type) and issubclass(option, StrEnum):
            return _one_of(option, value, where)
        if (
            isinstance(option, type)
            and isinstance(value, option)
            and (option is bool) == isinstance(value, bool)
        ):
            return value
    names = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise ConfigError(f"{where} = {value!r} is not of type {names}")


def _one_of(options: type[StrEnum], value: Any, where: str) -> StrEnum:
    if value not in list(options):
        raise ConfigError(f"{where} = {value!r} is none of {', '.join(options)}")
    return options(value)
