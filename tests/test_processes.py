"""Several processes, and parts of a step, give what one process gives with the whole step at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import environment
from torch import Tensor, nn
from workshop import losses, make_workshop, prepare_here, run, settings_of, weights

from avdetect import encoders
from avdetect.fusion import FusionConfig, FusionModel
from avdetect.losses import claim_losses, teaching_rows
from avdetect.recordings import ExampleSet
from avdetect.trainer import ClaimTrainer
from avdetect.types import CLAIMS, EncoderOutput

ONCE = ("training.steps=3", "training.evaluate_every=3", "training.learning_rate=0.001")
"""A small step: Adam turns rounding errors of gradients near zero into errors of the size of a step."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With one thread, as the processes beside it have: on some CPUs the sums of several end in other bits."""
    monkeypatch.setattr("avdetect.train.prepare_all", prepare_here)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_close(one: Path, other: Path) -> None:
    """Losses to 1e-5, lengths of gradients to 1e-3, weights to a tenth of a step, what batch norms keep to 1e-5."""
    for first, second in zip(losses(one), losses(other), strict=True):
        assert first[:2] == pytest.approx(second[:2], rel=1e-5)
        assert first[2] == pytest.approx(second[2], rel=1e-3)
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys() and len(a) > 10
    for name in a:
        kept = "running_" in name or "num_batches" in name
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-5 if kept else 1e-4, msg=name)


def torchrun(workshop: Path, name: str, count: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node=COUNT -m avdetect train ...`, all dropout and all streams on."""
    start = ("-m", "torch.distributed.run", f"--nproc-per-node={count}", "--standalone")
    command = [sys.executable, *start, "-m", "avdetect", "train", str(workshop / "tiny.toml")]
    command += settings_of(workshop, name, *overrides)
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=300, cwd=workshop
    )


def test_two_processes_learn_what_one_learns_from_twice_as_much(workshop: Path) -> None:
    single = run(workshop, "single", *ONCE, "training.accumulate=2")
    done = torchrun(workshop, "double", 2, *ONCE)
    assert done.returncode == 0, done.stderr
    double = workshop / "runs" / "double"
    assert_close(single, double)
    assert sum("running_var" in name for name in weights(double)) >= 4
    # one of them speaks and writes
    assert done.stdout.split() == [str(double / "model")]
    assert done.stderr.count("left out: ") == 1 and done.stderr.count("step 3 of 3: loss") == 1
    assert len(list((double / "tensorboard").rglob("events*"))) == 1
    assert '"processes": 2' in (double / "environment.json").read_text()

    refused = torchrun(workshop, "double", 1, *ONCE, "--resume")
    assert refused.returncode == 1
    assert "was written by 2 process(es), not 1" in refused.stderr  # torchrun adds a traceback of its own


class Plain(nn.Module):
    """An encoder whose rows know nothing of each other: a frame's samples or pixels, through one layer."""

    def __init__(self, modality: str, inputs: int, rate: float) -> None:
        super().__init__()
        self.modality, self.dim, self.inputs, self.rate = modality, 8, inputs, rate
        self.layer = nn.Linear(inputs, 8)

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """[B, S] sound or [B, N, 3, H, W] pictures."""
        if self.modality == "audio":
            steps, lengths = inputs[:, : inputs.shape[1] // 640 * 640].unflatten(1, (-1, 640)), lengths // 640
        else:
            steps = nn.functional.adaptive_avg_pool2d(inputs.flatten(0, 1), 8).flatten(1)
            steps = steps.unflatten(0, inputs.shape[:2])
        mask = torch.arange(steps.shape[1]) < lengths[:, None]
        return EncoderOutput(torch.tanh(self.layer(steps)) * mask[..., None], lengths, self.rate)


PLAIN = (
    'model.streams={voice = {encoder = "plain_voice"}, face = {encoder = "plain_face"}}',
    'model.claims={face_manipulation = ["face"], voice_cloning = ["voice"]}',
    "model.dropout=0.0",
    *("mix.voice=3", "mix.face=1", "mix.sync=0"),
)


def test_parts_of_a_step_add_up_to_the_whole_step(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builders: dict[str, Callable[..., Plain]] = {
        "plain_voice": lambda: Plain("audio", 640, 25.0),
        "plain_face": lambda: Plain("face", 192, 5.0),
    }
    for name, builder in builders.items():
        monkeypatch.setitem(encoders.ENCODERS, name, builder)
    parts = run(workshop, "parts", *ONCE, *PLAIN, "training.accumulate=2")
    make = ClaimTrainer.__init__

    def twice(self: ClaimTrainer, *args: object, **kwargs: object) -> None:
        arguments = kwargs["args"]
        arguments.per_device_train_batch_size *= 2  # type: ignore[attr-defined]
        make(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ClaimTrainer, "__init__", twice)
        patch.setattr("avdetect.trainer.ExampleSet", TwiceAsMany)
        whole = run(workshop, "entire", *ONCE, *PLAIN)
    assert_close(parts, whole)


class TwiceAsMany(ExampleSet):
    """The examples of twice as many batches, in the same order."""

    def __len__(self) -> int:
        return 2 * super().__len__()


def test_a_model_learns_the_same_from_parts_whose_labels_are_unequal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoders.ENCODERS, "plain_voice", lambda: Plain("audio", 640, 25.0))
    monkeypatch.setitem(encoders.ENCODERS, "plain_face", lambda: Plain("face", 192, 5.0))
    torch.manual_seed(0)
    model = FusionModel(
        FusionConfig(
            streams={"voice": {"encoder": "plain_voice"}, "face": {"encoder": "plain_face"}},
            claims={"face_manipulation": ["face"], "voice_cloning": ["voice"]},
            dropout=0.0,
        )
    ).train()
    batch = {
        "waveform": torch.randn(6, 16_000),
        "waveform_lengths": torch.full((6,), 16_000),
        "faces": torch.rand(6, 5, 3, 16, 16),
        "face_lengths": torch.full((6,), 5),
    }
    labels = torch.randint(0, 2, (6, len(CLAIMS))).float()
    labels[:3, 0], labels[4:, 1], labels[:, 2] = torch.nan, torch.nan, torch.nan

    def gradient(*parts: slice) -> Tensor:
        model.zero_grad()
        for part in parts:
            some = {name: value[part] for name, value in batch.items()}
            counts = teaching_rows(labels, None)
            model(**some, labels=labels[part], num_items_in_batch=counts).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole, apart = gradient(slice(0, 6)), gradient(slice(0, 4), slice(4, 6))
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(apart, whole, rtol=1e-4, atol=1e-6)


def test_sums_over_unequal_parts_are_the_sum_over_all() -> None:
    torch.manual_seed(0)
    rows, steps, claims = 7, 4, len(CLAIMS)
    clip, step = torch.randn(rows, claims), torch.randn(rows, steps, claims)
    step_mask = torch.rand(rows, steps, claims) > 0.3
    labels = torch.randint(0, 2, (rows, claims)).float()
    labels[:5, 0], labels[4:, 1] = torch.nan, torch.nan  # known in one part far more often than in the other
    inputs = (clip, step, step_mask.any(1), step_mask, labels)
    parts = [claim_losses(*(x[some] for x in inputs)) for some in (slice(0, 5), slice(5, 7))]
    torch.testing.assert_close(sum(parts), claim_losses(*inputs))
    lag = torch.tensor([0.0, torch.nan, 2.0, torch.nan, torch.nan, 1.0, torch.nan])
    assert teaching_rows(labels, lag).tolist() == [2, 4, 7, 3]
    assert teaching_rows(labels, None).tolist() == [2, 4, 7, 0]


def test_what_is_hidden_adds_nothing_to_the_loss() -> None:
    known = torch.ones(2, 1, dtype=torch.bool)
    labels = torch.tensor([[1.0], [0.0]])
    inputs = torch.zeros(2, 1), torch.zeros(2, 3, 1)
    both = claim_losses(*inputs, known, known[:, None].expand(2, 3, 1), labels)
    assert float(both) == pytest.approx(
        2 * 1.3 * 0.693147, rel=1e-4
    )  # log 2 for a clip, 0.3 of it for its steps
    seen = torch.tensor([[True], [False]])
    assert float(claim_losses(*inputs, seen, seen[:, None].expand(2, 3, 1), labels)) == pytest.approx(
        float(both) / 2
    )
