"""Backbones of transformers beyond the encoders' common contract: checkpoints, their preparation, tuning, training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import backbones
import numpy as np
import pytest
import torch
from backbones import IMAGE, SPEECH, VIDEO, options
from safetensors.torch import save_file
from test_recordings import FAKE, REAL, recording
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPModel, SeamlessM4TFeatureExtractor

from avdetect.config import RECIPES, read_config
from avdetect.encoders import build_encoder
from avdetect.encoders.image_backbone import ImageBackbone, ImageOptions, prepared_as
from avdetect.encoders.speech_backbone import SpeechBackbone, SpeechOptions, log_mel
from avdetect.encoders.tuning import Tuning, merge, tune
from avdetect.errors import ConfigError, ModelError
from avdetect.fusion import FusionConfig, FusionModel
from avdetect.hub import load
from avdetect.prepared import PreparedClip
from avdetect.recipe import TrainConfig
from avdetect.train import build_model
from avdetect.trainer import make_trainer
from avdetect.types import SAMPLE_RATE

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
KINDS = [
    *(("speech_backbone", config) for config in SPEECH.values()),
    *(("image_backbone", config) for config in IMAGE.values()),
    *(("video_backbone", config) for config in VIDEO.values()),
]


def make(encoder: str, **more: Any) -> Any:
    built = build_encoder(encoder, **more)
    assert isinstance(built, nn.Module)
    return built.eval()


def checkpoint(folder: Path, config: dict[str, Any], preparation: dict[str, Any] | None = None) -> Path:
    """A folder as the hub holds them, with random weights."""
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)
    if preparation is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preparation))
    return folder


def sound(seconds: float = 1.0) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    count = round(seconds * SAMPLE_RATE)
    return 0.1 * torch.randn(1, count, generator=source), torch.tensor([count])


def crops(count: int = 5, side: int = 48) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.rand(1, count, 3, side, side, generator=source), torch.tensor([count])


def inputs_of(encoder: str) -> tuple[Tensor, Tensor]:
    return sound() if encoder == "speech_backbone" else crops()


@pytest.mark.parametrize(("encoder", "config"), KINDS, ids=lambda value: str(value)[:40])
def test_a_checkpoints_weights_come_in_and_go_on_in_the_saved_model(
    encoder: str, config: dict[str, Any], tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "hub", config, IMAGENET)
    built = make(encoder, **{**options(config, "frozen"), "config": None, "pretrained": str(folder)})
    stored = AutoModel.from_pretrained(folder).state_dict()
    kept = built.backbone.network.state_dict()
    assert kept.keys() <= stored.keys()
    assert all(torch.equal(kept[name], stored[name]) for name in kept)

    claim = "voice_cloning" if encoder == "speech_backbone" else "face_manipulation"
    streams = {"one": {"encoder": encoder, "options": built.options}}
    (folder / "model.safetensors").unlink()  # from here on nothing may ask for it
    model = FusionModel(FusionConfig(streams=streams, claims={claim: ["one"]}, dim=16)).eval()
    model.encoders["one"].load_state_dict(built.state_dict())
    model.save_pretrained(tmp_path / "model")
    inputs = inputs_of(encoder)
    expected = built(*inputs).features
    for again in (load(tmp_path / "model"), FusionModel.from_pretrained(tmp_path / "model").eval()):
        assert torch.equal(again.encoders["one"](*inputs).features, expected)
        trained = {name for name, p in again.encoders["one"].backbone.named_parameters() if p.requires_grad}
        assert trained == set()


def test_settings_can_be_laid_over_a_checkpoints(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, SPEECH["xls-r"])
    built = make("speech_backbone", pretrained=str(folder), config={"num_hidden_layers": 1})
    assert len(built.backbone.network.encoder.layers) == 1 and built.layer_weights.shape == (2,)
    assert built.options["config"]["num_hidden_layers"] == 1 and built.options["pretrained"] is None


def test_of_a_network_with_two_towers_the_visual_one_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {**backbones.SIZES, "vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
    vision = {k: v for k, v in IMAGE["clip"].items() if k != "model_type"}
    both = CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).eval()
    both.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    built = make("image_backbone", pretrained=str(tmp_path))
    pictures = torch.rand(2, 3, 32, 32)
    mine = built.backbone(pixel_values=pictures).pooler_output
    assert torch.equal(mine, both.vision_model(pixel_values=pictures).pooler_output)


def test_pictures_are_prepared_as_the_checkpoint_says(tmp_path: Path) -> None:
    said = {**IMAGENET, "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    folder = checkpoint(tmp_path, IMAGE["dinov2"], said)
    built = make("image_backbone", pretrained=str(folder))
    assert built.prepare.size == 32
    grey = built.prepare(torch.full((1, 3, 50, 50), 0.485))
    assert grey.shape == (1, 3, 32, 32)
    expected = [0.0, (0.485 - 0.456) / 0.224, (0.485 - 0.406) / 0.225]
    torch.testing.assert_close(grey.mean((0, 2, 3)), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert built.options["mean"] == (0.485, 0.456, 0.406) and built.options["size"] == 32


def test_positions_are_stretched_to_another_size() -> None:
    built = make("image_backbone", **options(IMAGE["vit"], "frozen", size=48))
    assert built(*crops()).features.isfinite().all()


def test_a_checkpoint_that_says_nothing_of_its_colours_needs_them_given(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, IMAGE["vit"])
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json says the mean and std"):
        build_encoder("image_backbone", pretrained=str(folder))
    given = ImageOptions(pretrained=str(folder), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    assert prepared_as(given, AutoConfig.from_pretrained(folder)).size == 32


@pytest.mark.parametrize("normalise", [True, False])
def test_loudness_counts_only_where_the_checkpoint_did_not_level_it(normalise: bool, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, SPEECH["xls-r"], {"do_normalize": normalise})
    built = make("speech_backbone", pretrained=str(folder))
    waveform, lengths = sound()
    prepared = built._prepared(waveform, lengths)
    if normalise:
        assert float(prepared.mean()) == pytest.approx(0, abs=1e-5)
        assert float(prepared.std()) == pytest.approx(1, abs=1e-3)
    else:
        assert torch.equal(prepared, waveform)


def test_energies_are_those_of_the_checkpoints_own_extractor() -> None:
    waveform = sound(1.03)[0][0]
    extractor = SeamlessM4TFeatureExtractor()
    expected = extractor(waveform.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="np")
    valid = int(expected["attention_mask"][0].sum())
    ours = log_mel(waveform).numpy()
    assert len(ours) == valid
    np.testing.assert_allclose(ours, expected["input_features"][0, :valid], atol=2e-3)


def test_layers_are_weighed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    built = SpeechBackbone(SpeechOptions(**options(SPEECH["wavlm"], "frozen"))).eval()
    inputs = sound()
    even = built(*inputs).features
    with torch.no_grad():
        built.layer_weights[0] = 20.0  # the first layer's input alone
        built.backbone.network.encoder.layers[1].final_layer_norm.weight.mul_(-3.0)
    first = built(*inputs).features
    with torch.no_grad():
        built.backbone.network.encoder.layers[1].final_layer_norm.weight.mul_(-3.0)
    assert not torch.allclose(even, first, atol=1e-3)
    torch.testing.assert_close(built(*inputs).features, first, rtol=1e-4, atol=1e-5)


def test_a_crop_of_a_clip_has_its_own_features() -> None:
    torch.manual_seed(0)
    built = make("video_backbone", **options(VIDEO["videomae"], "frozen"))
    pictures, lengths = crops(6)
    features = built(pictures, lengths).features[0]
    assert features.shape == (6, 24)
    changed = pictures.clone()
    changed[0, 5] = 1 - changed[0, 5]
    moved = (built(changed, lengths).features[0] - features).abs().amax(1)
    assert moved[:4].max() == 0 and moved[4:].min() > 0  # the other stretch doesn't see it


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"q_proj": nn.Linear(12, 10), "k_proj": nn.Linear(12, 10), "norm": nn.LayerNorm(10)})


@pytest.mark.parametrize(
    ("tuning", "targets", "trained"),
    [
        (Tuning.FROZEN, [], set()),
        (Tuning.LAYERNORM, [], {"norm.weight", "norm.bias"}),
        (Tuning.LORA, ["q_proj"], {f"q_proj.parametrizations.weight.0.{part}" for part in ("up", "down")}),
        (
            Tuning.FULL,
            [],
            {f"{name}.{part}" for name in ("q_proj", "k_proj", "norm") for part in ("weight", "bias")},
        ),
    ],
)
def test_tuning_leaves_its_own_parameters_to_training(
    tuning: Tuning, targets: list[str], trained: set[str]
) -> None:
    network = small()
    tune(network, tuning, 4, targets)
    assert {name for name, p in network.named_parameters() if p.requires_grad} == trained


def test_low_rank_changes_start_at_nothing_and_can_be_merged() -> None:
    network = small()
    layer = network["q_proj"]
    x = torch.randn(3, 12)
    before, weight = layer(x), layer.weight.detach().clone()
    tune(network, Tuning.LORA, 4)
    assert torch.equal(layer(x), before)
    change = layer.parametrizations.weight[0]
    nn.init.normal_(change.up)
    expected = weight + 2.0 * change.up @ change.down
    torch.testing.assert_close(layer.weight, expected)
    assert torch.linalg.matrix_rank(layer.weight - weight) == 4
    after = layer(x)
    merge(network)
    assert torch.equal(layer(x), after) and not torch.equal(after, before)
    assert set(network.state_dict()) == set(small().state_dict())


def test_a_frozen_network_has_no_dropout_in_training() -> None:
    torch.manual_seed(0)
    built = build_encoder("speech_backbone", **options(SPEECH["wav2vec2"], "frozen", dropout=0.0))
    assert isinstance(built, nn.Module)
    built.train()
    inputs = sound()
    assert torch.equal(built(*inputs).features, built(*inputs).features)
    assert built.back_end.training and not built.backbone.network.training


def broken(folder: Path, kind: str) -> Path:
    checkpoint(folder, SPEECH["wav2vec2"])
    weights = folder / "model.safetensors"
    if kind == "pickled":
        torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
        weights.unlink()
    elif kind == "junk":
        weights.write_bytes(b"junk")
    elif kind == "other":
        save_file({"a": torch.zeros(1)}, weights, {"format": "pt"})
    elif kind == "config":
        (folder / "config.json").write_text("{")
    elif kind == "code":
        code = {"model_type": "own", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
        (folder / "config.json").write_text(json.dumps(code))
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "pickled",
            r"holds pickled weights only \(pytorch_model.bin\), which are never loaded; .*save_pretrained",
        ),
        ("junk", "header too small.*; give a folder with config.json and model.safetensors"),
        ("other", "weights of Wav2Vec2Model are missing or of another shape, the first is"),
        ("config", "not a valid JSON file.*; give a folder with"),
        ("code", "contains custom code"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused_in_one_line(
    kind: str, message: str, tmp_path: Path
) -> None:
    folder = broken(tmp_path, kind)
    with pytest.raises(ModelError, match=message) as error:
        build_encoder("speech_backbone", pretrained=str(folder))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_a_name_that_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="`hf download nobody/has-this`") as error:
        build_encoder("speech_backbone", pretrained="nobody/has-this")
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="no such folder, nor can it be a name on the Hugging Face hub"):
        build_encoder("speech_backbone", pretrained="./no/such/folder")


@pytest.mark.parametrize(
    ("encoder", "given", "message"),
    [
        ("speech_backbone", {}, 'give pretrained = "a hub name or a folder", or config'),
        (
            "speech_backbone",
            {"config": {"model_type": "wav2vec3"}},
            "Unrecognized model identifier: wav2vec3",
        ),
        (
            "speech_backbone",
            {"config": {"model_type": "wav2vec2", "hiden_size": 3}},
            "no setting 'hiden_size'; did you mean 'hidden_size'",
        ),
        ("speech_backbone", {"config": {**SPEECH["hubert"], "hidden_size": "wide"}}, "expected int, got str"),
        (
            "speech_backbone",
            {"config": IMAGE["vit"]},
            "type 'vit' is no speech network; there are wav2vec2, hu",
        ),
        ("image_backbone", {"config": {"model_type": "bert"}}, "type 'bert' is no image network"),
        ("image_backbone", {"config": VIDEO["videomae"]}, "the encoder for it is video_backbone"),
        ("image_backbone", {"config": IMAGE["vit"], "std": [1, 0, 1]}, "is not three numbers"),
        ("image_backbone", {"config": IMAGE["vit"], "size": 0}, "size = 0"),
        ("video_backbone", {"config": IMAGE["vit"]}, "is no video network; there are videomae, vivit"),
        ("video_backbone", {"config": VIDEO["videomae"], "size": 64}, "positions are learnt for 32"),
        ("speech_backbone", {"config": SPEECH["wavlm"], "tuning": "lra"}, "none of frozen, layernorm, lora"),
        (
            "speech_backbone",
            {"config": SPEECH["wavlm"], "tuning": "lora", "targets": ["q_prj"]},
            "no linear layer is called 'q_prj'; there are .*q_proj",
        ),
        (
            "image_backbone",
            options(IMAGE["efficientnet"], "lora"),
            'no linear layers; give tuning = "layernorm"',
        ),
        ("speech_backbone", {"config": SPEECH["wavlm"], "tuning": "lora", "rank": 999}, "give a smaller one"),
        (
            "speech_backbone",
            {"config": SPEECH["wavlm"], "rank": 0},
            "rank = 0 is not a positive whole number",
        ),
        ("speech_backbone", {"config": SPEECH["wavlm"], "dropout": "no"}, "dropout = 'no' is not a share"),
        ("speech_backbone", {"config": "wavlm"}, "config = 'wavlm' is not a table"),
        ("speech_backbone", {"pretrained": 3}, "pretrained = 3 is not a name"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(
    encoder: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_encoder(encoder, **given)
    assert "\n" not in str(error.value)


TINY = [
    'model.streams.voice.options={config = {model_type = "wav2vec2", hidden_size = 16, num_hidden_layers = 1, '
    "num_attention_heads = 2, intermediate_size = 16, conv_dim = [8], conv_kernel = [400], conv_stride = [320], "
    "num_feat_extract_layers = 1, num_conv_pos_embeddings = 4, num_conv_pos_embedding_groups = 2}, "
    'tuning = "lora", rank = 2, dim = 8}',
    'model.streams.face.options={config = {model_type = "clip_vision_model", hidden_size = 16, '
    "num_hidden_layers = 1, num_attention_heads = 2, intermediate_size = 16, image_size = 32, patch_size = 16}, "
    'tuning = "lora", rank = 2, dim = 8, targets = ["q_proj", "v_proj"]}',
    *("model.dim=16", "model.lags=10"),
]


def test_the_recipe_can_be_read_and_built_in_miniature() -> None:
    recipe = RECIPES / "ssl-large.toml"
    whole = read_config(TrainConfig, recipe)
    voice, face = (whole.model["streams"][name]["options"] for name in ("voice", "face"))
    SpeechOptions(**voice)
    ImageOptions(**face)
    model = build_model(read_config(TrainConfig, recipe, TINY))
    assert set(model.encoders) == {"voice", "face", "lips", "speech"}
    assert isinstance(model.encoders["face"], ImageBackbone)
    trained = {name for name, p in model.encoders["voice"].named_parameters() if p.requires_grad}
    assert "layer_weights" in trained
    assert all(".0." in name for name in trained if name.startswith("backbone"))


def test_a_few_steps_train_what_is_open_to_training_and_nothing_else(tmp_path: Path) -> None:
    recipe = RECIPES / "ssl-large.toml"
    short = ["training.steps=2", "training.evaluate_every=2", "training.workers=0", "training.bf16=false"]
    mix = ["mix.voice=2", "mix.face=2", "mix.sync=2", "mix.forged_voices=0", "mix.forged_faces=0"]
    mix += ["mix.crops=1", "mix.shortest=1.0", "mix.longest=1.2", "mix.degrade=0"]
    config = read_config(TrainConfig, recipe, [*TINY, *short, *mix, "training.patience=0"])
    made = [recording(seed, label) for seed, label in enumerate((REAL, FAKE, REAL, FAKE))]
    torch.manual_seed(0)
    model = build_model(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clips = [PreparedClip(one.item, (one.window,)) for one in made]
    result = make_trainer(model, config, clips, [], tmp_path).train()
    assert result.global_step == 2 and np.isfinite(result.training_loss)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    for stream in ("voice", "face"):
        ours = {name for name in changed if name.startswith(f"encoders.{stream}.backbone")}
        assert ours and all(name.endswith((".up", ".down")) for name in ours)
    model.save_pretrained(tmp_path / "model")
    again = load(tmp_path / "model").state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
