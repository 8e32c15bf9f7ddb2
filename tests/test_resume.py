"""Runs that are killed and gone on with: the same losses and the same weights, bit for bit, as if nothing had been."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ROOT, environment
from workshop import history, make_workshop, prepare_here, run, weights

from avdetect.checkpoints import newest
from avdetect.config import build
from avdetect.errors import AvdetectError, ConfigError
from avdetect.fusion import FusionModel
from avdetect.recipe import TrainConfig
from avdetect.run_folder import begin, difference_to
from avdetect.trainer import ClaimTrainer, Patience, log_every

LONGER = ("training.steps=6", "training.evaluate_every=2")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.train.prepare_all", prepare_here)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums over several threads differ in their last bits from one process to the next on some CPUs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def kill(workshop: Path, name: str, where: str, count: int, *overrides: str) -> Path:
    """A run in a process of its own that SIGKILL ends; gives its folder."""
    command = [
        sys.executable,
        ROOT / "tests" / "killed_run.py",
        workshop,
        name,
        where,
        str(count),
        *overrides,
    ]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment() | paths, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return workshop / "runs" / name


def told(folder: Path) -> list[dict[str, Any]]:
    """What the log says of learning, without times."""
    names = ("step", "loss", "grad_norm", "learning_rate", "eval_score", "eval_voice_cloning_auc")
    return [{n: row[n] for n in names if n in row} for row in history(folder) if "train_runtime" not in row]


def assert_same(one: Path, other: Path) -> None:
    assert told(one) == told(other)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]


@pytest.mark.parametrize(
    ("where", "count", "settings"),
    [
        ("writing", 2, ("training.workers=0", "training.bf16=false")),
        ("step", 7, ("training.workers=1", "training.bf16=true", "training.accumulate=2")),
    ],
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    where: str,
    count: int,
    settings: tuple[str, ...],
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    killed = kill(workshop, f"killed-{where}", where, count, *LONGER, *settings)
    assert not (killed / "model").exists() and (killed / "config.json").is_file()
    assert (killed / "checkpoints" / "checkpoint-4").is_dir() == (where == "writing")
    steps: list[int] = []
    step = ClaimTrainer.training_step

    def training_step(self: ClaimTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        steps.append(self.state.global_step)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ClaimTrainer, "training_step", training_step)
        run(workshop, killed.name, *LONGER, *settings, resume=True)
    said = capsys.readouterr().err
    assert sorted(set(steps)) == [2, 3, 4, 5] and "going on from checkpoint-2" in said
    assert ("checkpoint-4: cannot be gone on from, it was not written to its end" in said) == (
        where == "writing"
    )
    whole = run(workshop, f"whole-{where}", *LONGER, *settings)
    assert_same(whole, killed)
    assert list((killed / "tensorboard").rglob("events*"))


@pytest.fixture(scope="module")
def finished(workshop: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avdetect.train.prepare_all", prepare_here)
        return run(workshop, "finished")


@pytest.fixture
def checkpoints(finished: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoints of a finished run: of steps 2 and 4."""
    target: Path = shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints")
    for state in target.glob("*/trainer_state.json"):  # each its own best, so that they stand alone
        told = json.loads(state.read_text())
        assert "best_model_checkpoint" in told
    return target


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        ("model.safetensors", b"", "model.safetensors is damaged"),
        ("optimizer.pt", None, "optimizer.pt is missing"),
        ("trainer_state.json", b"{}", "trainer_state.json is damaged"),
        ("complete.json", None, "it was not written to its end"),
        ("complete.json", b'{"files', "it was not written to its end"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    file: str, change: bytes | None, problem: str, checkpoints: Path
) -> None:
    for state in checkpoints.glob("checkpoint-*/complete.json"):
        assert json.loads(state.read_text())["processes"] == 1
    last, remarks = newest(checkpoints)
    assert (last, remarks) == (checkpoints / "checkpoint-4", [])
    path = checkpoints / "checkpoint-4" / file
    path.unlink() if change is None else path.write_bytes(change)
    last, remarks = newest(checkpoints)
    assert last == checkpoints / "checkpoint-2"
    assert len(remarks) == 1 and f"checkpoint-4: cannot be gone on from, {problem}" in remarks[0]


def test_a_checkpoint_whose_best_one_is_damaged_is_not_taken(checkpoints: Path) -> None:
    state = checkpoints / "checkpoint-4" / "trainer_state.json"
    best = json.loads(state.read_text())["best_model_checkpoint"]
    (checkpoints / Path(best).name / "model.safetensors").unlink()
    last, remarks = newest(checkpoints)
    assert last != checkpoints / "checkpoint-4" and "model.safetensors is missing" in remarks[0]


def test_a_run_does_not_go_on_with_other_settings_or_data(workshop: Path, finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"other settings, training\.learning_rate was 0\.01 and is 0\.02"):
        run(workshop, "finished", "training.learning_rate=0.02", resume=True)
    manifest = workshop / "manifest.csv"
    before = manifest.read_text()
    try:
        manifest.write_text(before.replace("made,b", "made,c"))
        with pytest.raises(ConfigError, match=r"manifest\.csv: has changed since .*finished was begun"):
            run(workshop, "finished", resume=True)
    finally:
        manifest.write_text(before)
    again = run(workshop, "finished", "training.workers=1", resume=True)  # touches no result
    assert again == finished


def test_a_new_run_takes_nothing_of_an_older_one_with_other_settings(tmp_path: Path) -> None:
    raw = {"name": "x", "data": {"manifest": "m.csv"}}
    config = build(TrainConfig, raw, "test")
    begin(tmp_path, config)
    (tmp_path / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "scores.csv").write_text("")
    assert difference_to(tmp_path, config) is None
    other = build(TrainConfig, {**raw, "training": {"seed": 5}}, "test")
    assert difference_to(tmp_path, other) == "training.seed was 0 and is 5"
    begin(tmp_path, other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json"]


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = FusionModel.forward

    def broken(self: FusionModel, **inputs: Any) -> Any:
        output = forward(self, **inputs)
        if (
            output.loss is not None and float(self.sharpness.detach().abs().sum()) > 0
        ):  # not at the first step
            output.loss = output.loss * float("nan")
        return output

    monkeypatch.setattr(FusionModel, "forward", broken)
    with pytest.raises(
        AvdetectError, match=r"step 2: the loss is nan.*lower training\.learning_rate"
    ) as error:
        run(workshop, "broken", "training.warmup=0")
    assert "\n" not in str(error.value)
    assert not (workshop / "runs" / "broken" / "model").exists()


def test_the_best_step_on_validation_is_kept_and_patience_ends_the_run(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.9, 0.8, 0.7, 0.99])
    states = []

    def metrics(model: FusionModel, _: Any) -> dict[str, float]:
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"score": next(scores)}

    monkeypatch.setattr("avdetect.trainer.validation_metrics", metrics)
    every = ("training.steps=5", "training.evaluate_every=1", "training.patience=2")
    folder = run(workshop, "patient", *every)
    assert [row["step"] for row in history(folder) if "eval_score" in row] == [1, 2, 3, 4]
    kept = weights(folder)
    assert all(torch.equal(kept[name], states[1][name]) for name in kept)
    assert not all(torch.equal(kept[name], states[3][name]) for name in kept)


def test_patience_that_had_run_out_still_ends_a_resumed_run() -> None:
    class Control:
        should_training_stop = False

    class Arguments:
        load_best_model_at_end, metric_for_best_model, eval_strategy = True, "eval_score", "steps"

    for counter, stops in ((1, False), (2, True)):
        patience, control = Patience(2), Control()
        patience.early_stopping_patience_counter = counter
        patience.on_train_begin(Arguments(), None, control)
        assert control.should_training_stop is stops


@pytest.mark.parametrize(("every", "log"), [(300, 50), (75, 25), (2, 2), (1, 1), (53, 1), (70, 35)])
def test_no_entry_of_the_log_spans_a_checkpoint(every: int, log: int) -> None:
    assert log_every(every) == log
