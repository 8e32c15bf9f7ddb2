"""Networks of transformers by hub name or folder, or with random weights from their sizes alone.

Safetensors only: a checkpoint that holds nothing but pickled weights is refused, and no repository's code is run.
"""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before transformers)

# isort: split
import difflib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils import logging as notes

from avdetect.errors import ConfigError, ModelError

T = TypeVar("T")

UNREADABLE = (
    *(OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ImportError),
    *(ArithmeticError, SafetensorError, StrictDataclassError),
)
"""What transformers and the hub's client raise of names, files and settings that they can't use."""
UNREAD = ("transformers_version", "architectures", "_name_or_path", "dtype", "id2label", "label2id")
"""Settings that say nothing of a network's shape."""


def read_config(
    pretrained: str | None, settings: Mapping[str, Any] | None, revision: str | None = None
) -> PreTrainedConfig:
    """The settings of the network `pretrained`, with `settings` laid over them; or of `settings` alone.

    Of networks with several towers (CLIP) those of the visual one. ModelError where `pretrained` cannot be read,
    ConfigError where `settings` cannot be.
    """
    given = dict(settings or {})
    if pretrained is not None:
        stored = _from_checkpoint(pretrained, revision, AutoConfig.from_pretrained, trust_remote_code=False)
        given = {**settings_of(getattr(stored, "vision_config", stored)), **given}
    elif "model_type" not in given:
        raise ConfigError(
            'give pretrained = "a hub name or a folder", or config = { model_type = "...", ... } for random weights'
        )
    try:
        config = AutoConfig.for_model(**given)
    except UNREADABLE as error:
        raise ConfigError(f"config: {_line(error)}") from error
    _refuse_unknown(config, given)
    return getattr(config, "vision_config", config)


def _refuse_unknown(config: PreTrainedConfig, given: Mapping[str, Any]) -> None:
    """ConfigError for a setting that the kind of network doesn't have: transformers would keep it, unread."""
    known = type(config)().to_dict()
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"config: a network of type '{config.model_type}' has no setting '{name}'{hint}"
            )


def settings_of(config: PreTrainedConfig) -> dict[str, Any]:
    """Plain settings from which `read_config` makes the same network again, without any file."""
    known = type(config)().to_dict()
    return {name: value for name, value in config.to_dict().items() if name in known and name not in UNREAD}


def input_of(config: PreTrainedConfig) -> str:
    """The name of what such a network takes: "pixel_values" of pictures, "input_values" of sound, ..."""
    kind = MODEL_MAPPING.get(type(config), None)
    return str(getattr(kind, "main_input_name", "nothing"))


def load_network(
    pretrained: str | None, config: PreTrainedConfig, revision: str | None = None
) -> PreTrainedModel:
    """The network in single precision; ModelError where its weights cannot be had, or are not all there."""
    if pretrained is None:
        try:
            network: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
        except UNREADABLE as error:
            raise ConfigError(f"config: {_line(error)}") from error
        _drop_pooler(network)
        return network
    network, loading = _from_checkpoint(
        pretrained,
        revision,
        AutoModel.from_pretrained,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,  # half-precision checkpoints would stay so
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are told below
    )
    _drop_pooler(network)
    kept = network.state_dict()
    misshapen = {name for name, *_ in loading["mismatched_keys"]}
    lacking = sorted(name for name in {*loading["missing_keys"], *misshapen} if name in kept)
    if lacking:  # transformers would go on with random numbers in their place
        raise ModelError(
            f"{pretrained}: {len(lacking)} weights of {type(network).__name__} are missing or of another shape, the "
            f"first is '{lacking[0]}'; give a checkpoint of this kind of network"
        )
    return network


def _drop_pooler(network: PreTrainedModel) -> None:
    """Without the dense layer that some put on top for their pretraining task; many checkpoints lack its weights."""
    pooler = getattr(network, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        setattr(network, "pooler", None)  # noqa: B010  (its type says that it is there)


def speech_preprocessing(pretrained: str, revision: str | None = None) -> dict[str, Any]:
    """What a checkpoint says of how its speech was prepared; empty where it says nothing."""
    return _preprocessing(FeatureExtractionMixin.get_feature_extractor_dict, pretrained, revision)


def image_preprocessing(pretrained: str, revision: str | None = None) -> dict[str, Any]:
    """What a checkpoint says of how its pictures were prepared; empty where it says nothing."""
    return _preprocessing(ImageProcessingMixin.get_image_processor_dict, pretrained, revision)


def _preprocessing(
    read: Callable[..., tuple[dict[str, Any], Any]], pretrained: str, revision: str | None
) -> dict[str, Any]:
    try:
        return _from_checkpoint(pretrained, revision, read)[0]
    except ModelError:
        return {}


def _from_checkpoint(pretrained: str, revision: str | None, read: Callable[..., T], **options: Any) -> T:
    """What `read` gives of a checkpoint: a folder, else the hub's cache, else the hub.

    ModelError in one line where it cannot be had, with what was looked for and how to get it.
    """
    options = {**options, "revision": revision}
    try:
        with _quiet():
            try:
                return read(pretrained, local_files_only=True, **options)
            except OSError:
                if Path(pretrained).is_dir():
                    raise
                return read(pretrained, **options)
    except UNREADABLE as error:
        raise ModelError(f"{pretrained}: {_problem(pretrained, revision, error)}") from error


def _problem(pretrained: str, revision: str | None, error: BaseException) -> str:
    folder = Path(pretrained)
    pickled = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
    if pickled and not [*folder.glob("*.safetensors")]:
        return (
            f"holds pickled weights only ({pickled[0]}), which are never loaded; where you trust them, save them "
            "again with save_pretrained() and give that folder"
        )
    if folder.is_dir():
        return f"cannot be used ({_line(error)}); give a folder with config.json and model.safetensors"
    try:
        validate_repo_id(pretrained)
    except HFValidationError:
        return "no such folder, nor can it be a name on the Hugging Face hub; give the folder of a checkpoint"
    if isinstance(error, OSError) and "safetensors" in str(error):
        return (
            "holds no model.safetensors, and pickled weights are never loaded; give a revision= that has one "
            "(refs/pr/N), or the folder of a copy saved with save_pretrained()"
        )
    named = f"{pretrained} --revision {revision}" if revision else pretrained
    return (
        "no such folder, and it could not be read from the Hugging Face hub or its cache "
        f"({_line(error)}); fetch it where there is a network with `hf download {named}`, or give its folder"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of transformers and the hub's client: parts left over are meant to be, failures are told."""
    client = logging.getLogger("huggingface_hub")
    level, bars, told = notes.get_verbosity(), notes.is_progress_bar_enabled(), client.level
    notes.set_verbosity(logging.CRITICAL)
    notes.disable_progress_bar()
    client.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        notes.set_verbosity(level)
        client.setLevel(told)
        if bars:
            notes.enable_progress_bar()


def _line(error: BaseException) -> str:
    """The first sentence of what an error says, of bearable length."""
    text = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return text[:160] or type(error).__name__
