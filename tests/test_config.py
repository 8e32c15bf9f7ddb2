"""Settings from TOML: the unknown is refused with the nearest name, types are kept, overrides win."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from avdetect.config import RECIPES, build, find_recipe, read_config
from avdetect.errors import ConfigError


@dataclass(frozen=True)
class Section:
    rate: float = 0.5
    steps: int = 10
    on: bool = False


@dataclass(frozen=True)
class Settings:
    name: str
    folder: Path = Path("runs")
    limit: int | None = None
    splits: tuple[str, ...] = ("train",)
    model: dict[str, Any] = field(default_factory=dict)
    section: Section = Section()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text('name = "one"\nfolder = "here"\n[section]\nrate = 1\n[model.streams]\nvoice = "x"\n')
    return path


def test_a_recipe_becomes_typed_settings(recipe: Path) -> None:
    settings = read_config(Settings, recipe)
    assert settings == Settings("one", Path("here"), model={"streams": {"voice": "x"}}, section=Section(1.0))
    assert isinstance(settings.section.rate, float)


def test_overrides_win_and_keep_their_types(recipe: Path) -> None:
    overrides = [
        "name=two",
        "section.on=true",
        "section.rate=2e-3",
        "limit=4",
        'splits=["a", "b"]',
        "folder=/x/y z",
    ]
    settings = read_config(Settings, recipe, [*overrides, "model.streams.voice=y", "model.dim = 3"])
    assert settings == Settings(
        "two",
        Path("/x/y z"),
        4,
        ("a", "b"),
        {"streams": {"voice": "y"}, "dim": 3},
        Section(2e-3, 10, True),
    )


def test_a_single_value_stands_for_a_list_of_one(recipe: Path) -> None:
    assert read_config(Settings, recipe, ["splits=val"]).splits == ("val",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nme=two", "unknown setting 'nme'; did you mean 'name'"),
        ("section.stps=3", "section: unknown setting 'stps'; did you mean 'steps'"),
        ("zzzzzz=1", "unknown setting 'zzzzzz'; known: name, folder"),
        ("section.steps=1.5", "section: steps = 1.5 is not of type int"),
        ("section.steps=true", "steps = True is not of type int"),
        ("section.rate=fast", "rate = 'fast' is not of type float"),
        ("section.on=1", "on = 1 is not of type bool"),
        ("section=3", "section = 3 is a value, a section is expected"),
        ("limit=none", "limit = 'none' is not of type int or NoneType"),
        ("splits=[1]", "splits = 1 is not of type str"),
        ("model=3", "model = 3 is a value, a section is expected"),
        ("name.first=x", "name is a value, not a section"),
        ("steps", "'steps' is not an override; write key=value"),
        ("=3", "'=3' is not an override"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match="(?s)" + message.replace("(", r"\(")) as error:
        read_config(Settings, recipe, [override])
    assert "\n" not in str(error.value)


def test_the_message_names_the_file(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=str(recipe)):
        read_config(Settings, recipe, ["nme=1"])


def test_a_setting_without_a_default_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"x\.toml: 'name' is not set"):
        build(Settings, {}, "x.toml")


def test_broken_and_missing_files_are_told_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("name = [")
    with pytest.raises(ConfigError, match=r"broken\.toml: cannot be read as TOML") as error:
        read_config(Settings, broken)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        read_config(Settings, tmp_path / "absent.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "\xe4"')
    with pytest.raises(ConfigError, match=r"latin\.toml: cannot be read"):
        read_config(Settings, latin)


def test_recipes_are_found_by_name_or_path(recipe: Path) -> None:
    assert find_recipe(recipe) == recipe
    assert find_recipe("base") == RECIPES / "base.toml"
    with pytest.raises(
        ConfigError, match=r"bse: no such configuration; give a \.toml file or one of: .*base"
    ):
        find_recipe("bse")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_a_valid_model(path: Path) -> None:
    from avdetect.fusion import FusionConfig
    from avdetect.recipe import TrainConfig

    config = read_config(TrainConfig, path)
    FusionConfig(**config.model).check()
    assert path.stem.startswith(config.name)  # a second part goes on under the name of the first
    assert config.mix.batch > 0


def test_the_parts_of_base_tell_its_claims() -> None:
    from avdetect.apart import parts_of
    from avdetect.recipe import TrainConfig

    whole = read_config(TrainConfig, RECIPES / "base.toml")
    parts = {part.name: part for part in parts_of(whole)}
    told = {
        name: (list(part.model["claims"].items()), (part.mix.voice, part.mix.face, part.mix.sync))
        for name, part in parts.items()
    }
    assert told == {
        "lips-speech": ([("lip_sync_mismatch", ["sync"])], (0, 0, 16)),
        "face": ([("face_manipulation", ["face"])], (0, 32, 0)),
        "lcnn-harmonics": ([("voice_cloning", ["lcnn", "harmonics"])], (32, 0, 0)),
        "pictures": ([("voice_cloning", ["pictures"])], (32, 0, 0)),
    }
    assert {part.model["own_loss"] for part in parts.values()} == {1.0}
