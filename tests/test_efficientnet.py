"""The network that photographs have taught: folded without a change, shipped whole, trained as far as told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import ROOT
from torch import Tensor, nn

from avdetect.encoders import build_encoder
from avdetect.encoders import efficientnet_lite as lite
from avdetect.errors import ConfigError, ModelError
from avdetect.trainer import pretrained_weights, slow_down


def published(seed: int = 0) -> dict[str, Tensor]:
    """A checkpoint with the published names and shapes, and random numbers."""
    source = torch.Generator().manual_seed(seed)
    out: dict[str, Tensor] = {}

    def layer(conv: str, norm: str, *shape: int) -> None:
        out[f"{conv}.weight"] = (
            torch.randn(*shape, generator=source) / (shape[1] * shape[2] * shape[3]) ** 0.5
        )
        for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            out[f"{norm}.{name}"] = low + torch.rand(shape[0], generator=source)

    def sized(conv: str, norm: str, module: nn.Conv2d) -> None:
        layer(conv, norm, *module.weight.shape)

    layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    for index, block in enumerate(lite.Trunk().blocks):
        assert isinstance(block, lite.InvertedResidual)
        at = f"_blocks.{index}."
        if block.expand is not None:
            sized(f"{at}_expand_conv", f"{at}_bn0", block.expand)
        sized(f"{at}_depthwise_conv", f"{at}_bn1", block.depthwise)
        sized(f"{at}_project_conv", f"{at}_bn2", block.project)
    return out


def as_published(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The same network with its normalisations apart, as its authors compute it, layer by layer."""

    def normed(y: Tensor, norm: str) -> Tensor:
        w = {name: weights[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")}
        return nn.functional.batch_norm(y, *w.values(), False, 0.0, 1e-3)

    def conv(y: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        total = max((-(-y.shape[-1] // stride) - 1) * stride + weight.shape[-1] - y.shape[-1], 0)
        pad = (total // 2, total - total // 2)
        return nn.functional.conv2d(nn.functional.pad(y, (*pad, *pad)), weight, None, stride, 0, 1, groups)

    x = nn.functional.relu6(normed(conv(x, "_conv_stem", 2), "_bn0"))
    index = 0
    for _kernel, stride, expansion, _channels, repeats in lite.STAGES:
        for repeat in range(repeats):
            at, before = f"_blocks.{index}.", x
            if expansion > 1:
                x = nn.functional.relu6(normed(conv(x, f"{at}_expand_conv"), f"{at}_bn0"))
            step = stride if repeat == 0 else 1
            x = conv(x, f"{at}_depthwise_conv", step, x.shape[1])
            x = normed(conv(nn.functional.relu6(normed(x, f"{at}_bn1")), f"{at}_project_conv"), f"{at}_bn2")
            x = x + before if x.shape == before.shape else x
            index += 1
    return x


@pytest.mark.parametrize("side", [64, 50])
def test_folding_changes_nothing(side: int) -> None:
    weights, pictures = published(), torch.rand(2, 3, side, side)
    with torch.no_grad():
        found = lite.folded(weights)(pictures)
        expected = as_published(weights, (pictures * 255 - 127) / 128)
    assert found.shape == (2, 112, -(-side // 16), -(-side // 16))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_the_shipped_network_begins_an_encoder_and_has_learnt() -> None:
    encoder = build_encoder("efficientnet_lite")
    assert isinstance(encoder, lite.EfficientNetLite)
    whole = lite.imagenet_unless_loaded(lite.BLOCKS, 0).state_dict()
    for name, weight in encoder.trunk.state_dict().items():
        assert torch.equal(weight, whole[name]), name
    flat, edge = torch.full((1, 3, 224, 224), 0.5), torch.full((1, 3, 224, 224), 0.2)
    edge[..., 112:] = 0.8
    with torch.no_grad():
        told = [encoder.trunk(picture)[0, :, 4:10] for picture in (flat, edge)]
    along = [maps.std(2).mean().item() for maps in told]
    assert along[1] > 1.5 * along[0], "an edge shows where it stands, a grey wall hardly anything"


def test_a_damaged_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "lite.safetensors"
    damaged.write_bytes(lite.WEIGHTS.read_bytes()[:5000])
    monkeypatch.setattr(lite, "WEIGHTS", damaged)
    with pytest.raises(ModelError, match=r"lite\.safetensors: not EfficientNet-Lite0"):
        lite.imagenet_unless_loaded(3, 1)


def test_no_file_is_read_where_a_saved_model_gives_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "WEIGHTS", Path("nowhere"))
    with torch.device("meta"):
        assert lite.imagenet_unless_loaded(3, 1).stem.weight.is_meta


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blocks": 12}, "blocks = 12; there are 1 to 11"),
        ({"blocks": 4, "trained": 5}, "trained = 5; give 0 to 4"),
        ({"every": 0}, "every = 0 is not a positive number"),
    ],
)
def test_sizes_that_it_cannot_have_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_encoder("efficientnet_lite", **options)


def test_too_few_bands_are_refused() -> None:
    with pytest.raises(ConfigError, match="bands = 8; give 16 or more"):
        build_encoder("spectral_efficientnet", bands=8)


def test_only_the_last_blocks_are_trained_and_more_slowly() -> None:
    encoder = build_encoder("efficientnet_lite", blocks=3, trained=1)
    assert isinstance(encoder, lite.EfficientNetLite)
    encoder.requires_grad_(True)  # as loading a saved model leaves it
    encoder.train()
    trained = [name for name, weight in encoder.named_parameters() if weight.requires_grad]
    assert {name.split(".")[0] for name in trained} == {"trunk", "norm"}
    assert all(name.startswith("trunk.blocks.2.") for name in trained if name.startswith("trunk"))
    optimizer = torch.optim.SGD([w for w in encoder.parameters() if w.requires_grad], lr=0.5)
    slow_down(optimizer, pretrained_weights(encoder), 0.1)
    slow, fast = optimizer.param_groups[1], optimizer.param_groups[0]
    assert (slow["lr"], fast["lr"]) == (0.05, 0.5)
    assert {id(w) for w in slow["params"]} == {id(w) for w in encoder.trunk.blocks[2].parameters()}
    assert {id(w) for w in fast["params"]} == {id(w) for w in encoder.norm.parameters()}
    slow_down(optimizer, pretrained_weights(encoder), 1.0)
    assert len(optimizer.param_groups) == 2, "a rate of 1 leaves everything as it is"


def test_the_published_checkpoint_becomes_the_file_that_ships(tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "published.pth", tmp_path / "out.safetensors"
    torch.save(published(), checkpoint)
    command = [sys.executable, ROOT / "examples" / "convert_imagenet.py", checkpoint, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 and "692,688 numbers" in done.stdout, done.stderr
    assert out.stat().st_size == pytest.approx(lite.WEIGHTS.stat().st_size, rel=0.02)
    checkpoint.write_bytes(b"no checkpoint")
    failed = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert failed.returncode == 2 and "not a checkpoint of EfficientNet-Lite0" in failed.stderr
    assert "Traceback" not in failed.stderr
