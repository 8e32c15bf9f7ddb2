"""Xception: against a plain reading of a checkpoint with public names, and what checkpoints are taken or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from avdetect.encoders.xception import DIM, Xception, XceptionDetector, read_encoder
from avdetect.errors import ConfigError, ModelError

Weights = dict[str, Tensor]
SIDE = 64
# (inputs, outputs of each separable convolution, stride) of the twelve blocks, by Chollet's figure 5
BLOCKS = (
    (64, (128, 128), 2),
    (128, (256, 256), 2),
    (256, (728, 728), 2),
    *((728, (728, 728, 728), 1) for _ in range(8)),
    (728, (728, 1024), 2),
)


def norm(name: str, width: int, dice: torch.Generator) -> Weights:
    return {
        f"{name}.weight": 0.5 + torch.rand(width, generator=dice),
        f"{name}.bias": 0.1 * torch.randn(width, generator=dice),
        f"{name}.running_mean": 0.1 * torch.randn(width, generator=dice),
        f"{name}.running_var": 0.5 + torch.rand(width, generator=dice),
    }


def plain(name: str, shape: tuple[int, ...], dice: torch.Generator) -> Weights:
    fan = max(1, torch.Size(shape[1:]).numel())
    return {f"{name}.weight": torch.randn(shape, generator=dice) / fan**0.5}


def separable(name: str, inputs: int, outputs: int, dice: torch.Generator) -> Weights:
    """As in the checkpoint for ImageNet, whose 1x1 convolutions are matrices."""
    first = plain(f"{name}.conv1", (inputs, 1, 3, 3), dice)
    return first | plain(f"{name}.pointwise", (outputs, inputs), dice)


def checkpoint(classes: int = 1000) -> Weights:
    """Chance weights under the names and in the shapes of xception-b5690688.pth."""
    dice = torch.Generator().manual_seed(0)
    values = plain("conv1", (32, 3, 3, 3), dice) | norm("bn1", 32, dice)
    values |= plain("conv2", (64, 32, 3, 3), dice) | norm("bn2", 64, dice)
    for number, (inputs, widths, stride) in enumerate(BLOCKS, 1):
        name, place, width = f"block{number}", int(number > 1), inputs
        for outputs in widths:
            values |= separable(f"{name}.rep.{place}", width, outputs, dice)
            values |= norm(f"{name}.rep.{place + 1}", outputs, dice)
            place, width = place + 3, outputs
        if stride > 1 or inputs != width:
            values |= plain(f"{name}.skip", (width, inputs, 1, 1), dice) | norm(f"{name}.skipbn", width, dice)
    values |= separable("conv3", 1024, 1536, dice) | norm("bn3", 1536, dice)
    values |= separable("conv4", 1536, DIM, dice) | norm("bn4", DIM, dice)
    return values | plain("fc", (classes, DIM), dice) | {"fc.bias": torch.zeros(classes)}


def read_plainly(w: Weights, x: Tensor) -> Tensor:
    """Xception's features [B, DIM] of pictures [B, 3, H, W] in -1..1, straight from public names."""

    def normed(y: Tensor, name: str) -> Tensor:
        parts = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(y, *parts)

    def separated(y: Tensor, name: str) -> Tensor:
        y = functional.conv2d(y, w[f"{name}.conv1.weight"], padding=1, groups=y.shape[1])
        return functional.conv2d(y, w[f"{name}.pointwise.weight"][..., None, None])

    x = normed(functional.conv2d(x, w["conv1.weight"], stride=2), "bn1").relu()
    x = normed(functional.conv2d(x, w["conv2.weight"]), "bn2").relu()
    for number, (_, widths, stride) in enumerate(BLOCKS, 1):
        y, place = x, int(number > 1)
        for index in range(len(widths)):
            y = y.relu() if number > 1 or index else y
            y = normed(separated(y, f"block{number}.rep.{place}"), f"block{number}.rep.{place + 1}")
            place += 3
        if stride > 1:
            y = functional.max_pool2d(y, 3, 2, 1)
            x = functional.conv2d(x, w[f"block{number}.skip.weight"], stride=2)
            x = normed(x, f"block{number}.skipbn")
        x = x + y
    x = normed(separated(x, "conv3"), "bn3").relu()
    return normed(separated(x, "conv4"), "bn4").relu().mean((2, 3))


def crops(count: int, side: int = SIDE) -> Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return functional.interpolate(coarse, (side, side), mode="bilinear")[None]


@pytest.fixture(scope="module")
def imagenet() -> Weights:
    return checkpoint()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, imagenet: Weights) -> Path:
    folder = tmp_path_factory.mktemp("xception")
    torch.save(imagenet, folder / "xception-b5690688.pth")
    torch.save(faceforensics(imagenet), folder / "ffpp.pth")
    return folder


def faceforensics(imagenet: Weights) -> Weights:
    """The names of FaceForensics++'s detector: under `model.`, with dropout, and counters of batches."""
    out = {}
    for name, value in imagenet.items():
        if name.startswith("fc."):
            out[name.replace("fc.", "model.last_linear.1.")] = value[:2]
            continue
        out[f"model.{name}"] = value[..., None, None] if name.endswith("pointwise.weight") else value
        if name.endswith("running_var"):
            out[f"model.{name.replace('running_var', 'num_batches_tracked')}"] = torch.tensor(7)
    return out


def test_has_as_many_weights_as_published() -> None:
    with torch.device("meta"):
        network = Xception()
    assert sum(p.numel() for p in network.parameters()) == 22_855_952 - 1000 * (DIM + 1)


@torch.no_grad()
def test_a_published_checkpoint_gives_what_a_plain_reading_of_it_gives(
    folder: Path, imagenet: Weights
) -> None:
    encoder = Xception(size=SIDE).eval()
    read_encoder(encoder, folder / "xception-b5690688.pth")
    seen = crops(3)
    out = encoder(seen, torch.tensor([3]))
    torch.testing.assert_close(out.features[0], read_plainly(imagenet, 2 * seen[0] - 1), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_detector_in_the_names_of_faceforensics_scores_fakes_higher(
    folder: Path, imagenet: Weights
) -> None:
    detector = XceptionDetector.from_published(folder / "ffpp.pth", size=SIDE)
    seen = crops(3)
    scores = detector.scores(seen, torch.tensor([2]))
    real, fake = imagenet["fc.weight"][:2]
    expected = read_plainly(imagenet, 2 * seen[0, :2] - 1) @ (fake - real)
    torch.testing.assert_close(scores[0, :2], expected, rtol=1e-3, atol=1e-3)
    assert scores[0, 2] == 0
    counter = "encoder.network.bn1.num_batches_tracked"
    assert detector.state_dict()[counter] == 7 and not detector.training


@torch.no_grad()
def test_a_detector_goes_through_safetensors_unchanged(folder: Path, tmp_path: Path) -> None:
    detector = XceptionDetector.from_published(folder / "ffpp.pth", size=SIDE)
    detector.save(tmp_path / "d.safetensors")
    again = XceptionDetector.load(tmp_path / "d.safetensors", size=SIDE)
    seen, lengths = crops(1), torch.tensor([1])
    assert torch.equal(again.scores(seen, lengths), detector.scores(seen, lengths))
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"x\.safetensors: cannot be read"):
        XceptionDetector.load(tmp_path / "x.safetensors")


def test_weights_of_imagenet_are_no_detector(folder: Path) -> None:
    with pytest.raises(
        ModelError, match=r"b5690688\.pth: has no layer with two outputs, real and fake; give"
    ):
        XceptionDetector.from_published(folder / "xception-b5690688.pth", size=SIDE)


class Hostile:
    """What runs code when it is unpickled, as a whole pickled module may."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickled_module_is_refused_and_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "was_here"
    torch.save({"model.conv1.weight": Hostile(trace)}, tmp_path / "full_c23.p")
    with pytest.raises(
        ModelError, match=r"full_c23\.p: cannot be read as a file of weights alone .*give the"
    ):
        XceptionDetector.from_published(tmp_path / "full_c23.p")
    assert not trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {"conv1.weight": 3}, {4: torch.zeros(1)}])
def test_what_is_no_table_of_weights_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth: holds no table of weights; give"):
        read_encoder(Xception(size=SIDE), tmp_path / "other.pth")


def test_a_checkpoint_that_lacks_a_layer_is_refused(imagenet: Weights, tmp_path: Path) -> None:
    part = {name: value for name, value in imagenet.items() if not name.startswith("block5.")}
    torch.save(part, tmp_path / "part.pth")
    with pytest.raises(ModelError, match=r"part\.pth: the weights do not fit Xception .*blocks\.4"):
        read_encoder(Xception(size=SIDE), tmp_path / "part.pth")


@torch.no_grad()
def test_crops_of_any_size_are_brought_to_its_own() -> None:
    torch.manual_seed(0)
    encoder, large = Xception(size=SIDE).eval(), crops(2, side=100)
    small = functional.interpolate(large[0], (SIDE, SIDE), mode="bilinear", antialias=True)[None]
    one, other = (encoder(x, torch.tensor([2])).features for x in (large, small))
    torch.testing.assert_close(one, other)


def test_a_size_that_leaves_nothing_to_see_is_refused() -> None:
    with pytest.raises(ConfigError, match="size = 40: Xception needs faces of 48 pixels or more"):
        Xception(size=40)
