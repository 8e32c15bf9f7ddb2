"""The training loop: transformers' Trainer, made exact.

What a step does hangs on its number alone. An example is drawn by its index, and the random numbers inside the model
(dropout) by the index of the micro-batch, counted over all processes and accumulated parts. So a run that was killed
and resumed, one process that accumulates two micro-batches, and two processes with one each, all see the same.
"""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before transformers)

# isort: split
import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm  # type: ignore[import-untyped]
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from avdetect import metrics
from avdetect.checkpoints import seal
from avdetect.errors import AvdetectError
from avdetect.fusion import FusionModel
from avdetect.losses import teaching_rows
from avdetect.prepared import PreparedClip
from avdetect.processes import by_main, is_main, join
from avdetect.recipe import TrainConfig
from avdetect.recordings import ExampleSet, collate_examples, recordings_of
from avdetect.running_statistics import seen_by_all
from avdetect.types import CLAIMS
from avdetect.validation import arrays, validate


class ClaimTrainer(Trainer):
    """Trainer that draws batches in order, weighs every labelled row of a step alike, and validates whole clips."""

    def __init__(
        self, *args: Any, clips: Sequence[PreparedClip], backbone_rate: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.clips, self.backbone_rate = clips, backbone_rate
        self._part = 0

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> torch.utils.data.Sampler[int]:
        assert isinstance(self.train_dataset, ExampleSet)
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Trainer's own, in which pretrained networks learn more slowly."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        slow_down(optimizer, pretrained_weights(self.fusion_model), self.backbone_rate)
        return optimizer

    @property
    def fusion_model(self) -> FusionModel:
        """The model without what accelerate wraps around it."""
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, FusionModel)
        return model

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of one step, and `_get_num_items_in_batch` of them."""
        self._part = 0
        return super().get_batch_samples(*args, **kwargs)

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, torch.Tensor]], device: torch.device
    ) -> torch.Tensor:
        """[C + 1] how many rows of the whole step, in all processes, teach each claim (see `losses`)."""
        counts = [teaching_rows(batch["labels"], batch.get("true_lag")) for batch in batch_samples]
        total = torch.stack(counts).sum(0).to(device)
        return self.accelerator.reduce(total, "sum")

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Loss and gradients of one micro-batch. AvdetectError, in every process, where the loss is no number."""
        state, arguments = join(), self.args
        first = self.state.global_step * arguments.gradient_accumulation_steps
        number = (first + self._part) * state.num_processes + state.process_index
        self._part += 1
        set_seed(int(np.random.SeedSequence([arguments.seed, number]).generate_state(1)[0]))
        with seen_by_all(self.fusion_model):
            loss = super().training_step(*args, **kwargs)
        if not bool(self.accelerator.reduce(loss.isfinite().float(), "sum") == state.num_processes):
            raise AvdetectError(
                f"step {self.state.global_step + 1}: the loss is {float(loss)}, so nothing more would be learnt; "
                f"lower training.learning_rate ({arguments.learning_rate:g}) or training.clip_norm, or set "
                "training.bf16=false, and begin anew"
            )
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """AUC and EER per claim on the validation clips, and the mean AUC as `eval_score`."""
        began = time.perf_counter()
        found = by_main(lambda: validation_metrics(self.fusion_model, self.clips))
        results = {f"eval_{name}": value for name, value in found.items()}
        results["eval_runtime"] = time.perf_counter() - began
        self.log(results)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, results)
        return results

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint, sealed when every process has written its part of it."""
        checkpoint = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        state = join()
        if state.is_main_process:  # one that was cut off here before
            shutil.rmtree(checkpoint, ignore_errors=True)
        state.wait_for_everyone()
        super()._save_checkpoint(*args, **kwargs)
        state.wait_for_everyone()
        if state.is_main_process:
            seal(checkpoint, state.num_processes)
        state.wait_for_everyone()


class Patience(EarlyStoppingCallback):
    """Stops after so many evaluations without a better one, also when the last of them was before a resume."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Trainer has just forgotten what the checkpoint says of stopping."""
        super().on_train_begin(args, state, control, **kwargs)
        control.should_training_stop = self.early_stopping_patience_counter >= self.early_stopping_patience


class Account(TrainerCallback):
    """A line on stderr for each entry of the log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Steps, and what is known at them."""
        shown = {
            name: value for name, value in (logs or {}).items() if name in SHOWN or name.endswith("_auc")
        }
        if state.is_world_process_zero and shown:
            text = ", ".join(f"{name.removeprefix('eval_')} {value:.4g}" for name, value in shown.items())
            tqdm.write(f"step {state.global_step} of {state.max_steps}: {text}", file=sys.stderr)


class Bar(ProgressCallback):
    """The steps that are done and the time that is left, on stderr."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """`Account` tells the log."""


SHOWN = ("loss", "grad_norm", "learning_rate", "eval_score")


def pretrained_weights(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The weights of those parts of a model that other data has taught already."""
    return [w for part in model.modules() if getattr(part, "pretrained", False) for w in part.parameters()]


def slow_down(optimizer: torch.optim.Optimizer, weights: Sequence[torch.nn.Parameter], rate: float) -> None:
    """Give an optimizer's parameters that are among `weights` groups of their own, with `rate` times the lr."""
    chosen = {id(weight) for weight in weights}
    for group in list(optimizer.param_groups) if rate != 1 else []:
        slow = [weight for weight in group["params"] if id(weight) in chosen]
        if slow:
            group["params"] = [weight for weight in group["params"] if id(weight) not in chosen]
            optimizer.add_param_group({**group, "params": slow, "lr": group["lr"] * rate})


def validation_metrics(model: FusionModel, clips: Sequence[PreparedClip]) -> dict[str, float]:
    """AUC and EER per claim, and their mean AUC as `score`."""
    model.eval()
    scores, results = validate(model, clips), {}
    for claim in CLAIMS:
        logits, fake = arrays(scores, claim)
        if len(set(fake.tolist())) == 2:
            results[f"{claim.value}_auc"] = metrics.auc(logits, fake)
            results[f"{claim.value}_eer"] = metrics.eer(logits, fake)
    values = [value for name, value in results.items() if name.endswith("_auc")]
    results["score"] = float(np.mean(values)) if values else 0.0
    return results


def log_every(evaluate_every: int, most: int = 50) -> int:
    """Steps between entries of the log: none spans a checkpoint, or a resumed run would not know its beginning."""
    return max(steps for steps in range(1, most + 1) if evaluate_every % steps == 0)


def half_precision(wanted: bool) -> bool:
    """Whether to compute in bfloat16: only where there are units for it, since imitating them takes longer."""
    if torch.cuda.is_available():
        there = torch.cuda.is_bf16_supported()
    else:
        there = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if wanted and not there and is_main():
        print("training.bf16: this machine has no units for it, so in single precision", file=sys.stderr)
    return wanted and there


def training_arguments(config: TrainConfig, run: Path, *, choosing: bool) -> TrainingArguments:
    """What Trainer is told; `choosing`: keep the best checkpoint on the validation clips, not the last one."""
    t = config.training
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run / "tensorboard")
    return TrainingArguments(
        output_dir=str(run / "checkpoints"),
        max_steps=t.steps,
        per_device_train_batch_size=config.mix.batch,
        gradient_accumulation_steps=t.accumulate,
        learning_rate=t.learning_rate,
        weight_decay=t.weight_decay,
        warmup_steps=int(t.warmup * t.steps),
        lr_scheduler_type="cosine",
        max_grad_norm=t.clip_norm,
        bf16=half_precision(t.bf16),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps" if choosing else "no",
        eval_steps=t.evaluate_every,
        save_strategy="steps",
        save_steps=t.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=choosing,
        metric_for_best_model="eval_score",
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,
        logging_steps=log_every(t.evaluate_every),
        report_to=["tensorboard"],
        dataloader_num_workers=t.workers,
        dataloader_persistent_workers=t.workers > 0,
        ddp_find_unused_parameters=True,  # a stream rests where no row of a process has it
        remove_unused_columns=False,
        label_names=["labels"],
        seed=t.seed,
        data_seed=t.seed,
        disable_tqdm=not (is_main() and sys.stderr.isatty()),
    )


def make_trainer(
    model: FusionModel,
    config: TrainConfig,
    clips: Sequence[PreparedClip],
    held_out: Sequence[PreparedClip],
    run: Path,
) -> ClaimTrainer:
    """The Trainer of a recipe; the best checkpoint on `held_out` is kept, the last one where that is empty.

    Each process takes batches of the recipe's size: two of them do in a step what one does with training.accumulate=2.
    """
    t = config.training
    disable_progress_bar()  # of every file that is saved
    arguments = training_arguments(config, run, choosing=bool(held_out))
    batches = t.steps * t.accumulate * join().num_processes
    examples = ExampleSet(recordings_of(clips), config.mix, batches, t.seed)
    trainer = ClaimTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        eval_dataset=examples,  # Trainer asks for one; `evaluate` uses the validation clips
        data_collator=partial(collate_examples, mouth_crops=model.sees_mouth_crops),
        callbacks=[Patience(t.patience)] if t.patience and held_out else [],
        clips=held_out,
        backbone_rate=t.backbone_rate,
    )
    for writing in (PrinterCallback, ProgressCallback):  # they write the log on stdout
        trainer.remove_callback(writing)
    for callback in (Account(), *([] if arguments.disable_tqdm else [Bar()])):
        trainer.add_callback(callback)
    return trainer
