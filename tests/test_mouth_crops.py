"""Pictures of the mouth on their way through: window, batch, encoder, and the comparison with speech."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_fusion import SMALL, STREAMS, SYNC, labelled, make_batch, make_model, only, run, without_row
from test_recordings import MIX, recording
from torch import Tensor
from workshop import history, make_workshop, prepare_here
from workshop import run as train_run

from avdetect import detect, hub
from avdetect.batch import LIPS
from avdetect.encoders import sees_mouths
from avdetect.encoders.lip_crops import LipCrops
from avdetect.errors import ConfigError
from avdetect.fusion import FusionModel
from avdetect.fusion_layers import joined
from avdetect.loading import load_network
from avdetect.pieces import paced
from avdetect.recordings import ExampleSet, Recording, collate_examples
from avdetect.types import Claim, EncoderOutput

CROPS = {"encoder": "lip_crops", "options": {**SMALL, "layers": 1, "size": 16, "widths": [4, 8]}}
BOTH = {**STREAMS, "mouth": CROPS}
NAMES = ("mouth_crops", "mouth_crop_lengths")


def crops_batch(size: int = 2, seconds: float = 3.0, seed: int = 0) -> dict[str, Tensor]:
    """`make_batch` with crops, which change all the time as those of somebody who speaks."""
    batch = make_batch(size, seconds, seed)
    shape = (size, round(seconds * 25), 64, 64)
    batch["mouth_crops"] = torch.randint(
        0, 256, shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.uint8
    )
    batch["mouth_crop_lengths"] = torch.full((size,), shape[1])
    return batch


def without_crops(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    out = {name: value.clone() for name, value in batch.items()}
    for name in NAMES:
        out[name][row] = 0
    return out


def without_landmarks(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """Without the motion of the landmarks; where a face was found stays known."""
    out = without_row(batch, row, "mouth")
    out["found"][row] = batch["found"][row]
    return out


def row_of(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: value[row : row + 1] for name, value in batch.items()}


@pytest.fixture(scope="module")
def both() -> FusionModel:
    return make_model(BOTH)


@pytest.fixture(scope="module")
def encoder() -> LipCrops:
    torch.manual_seed(0)
    return LipCrops().eval()


def features(encoder: LipCrops, crops: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder(crops, torch.full((len(crops),), crops.shape[1])).features


# The encoder


def test_light_and_contrast_of_the_film_do_not_matter(encoder: LipCrops) -> None:
    source = torch.Generator().manual_seed(0)
    crops = torch.nn.functional.interpolate(torch.rand(1, 30, 8, 8, generator=source), (64, 64))
    moved = crops.roll(1, 1)
    first, darker, other = (features(encoder, x) for x in (crops, 0.6 * crops + 0.1, moved))
    assert (darker - first).norm() < 0.1 * (other - first).norm()


def test_a_still_mouth_gives_the_same_features_all_the_time(encoder: LipCrops) -> None:
    still = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).expand(1, 40, 64, 64)
    found = features(encoder, still)[0, 8:-8]  # away from the ends, which convolutions over time see
    torch.testing.assert_close(found, found[:1].expand_as(found), rtol=1e-4, atol=1e-5)


def test_training_shows_each_row_otherwise_and_all_its_frames_alike() -> None:
    torch.manual_seed(0)
    encoder = LipCrops(dropout=0.0).train()
    seen: list[Tensor] = []
    encoder.cnn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    picture = torch.nn.functional.interpolate(torch.rand(1, 1, 8, 8), (64, 64), mode="bilinear")
    encoder(picture.expand(2, 20, 64, 64), torch.tensor([20, 20]))
    shown = seen[0][:, 0].unflatten(0, (2, 20))  # the picture itself, without its differences
    within = (shown[:, 1:] - shown[:, :-1]).abs().mean()
    between = (shown[0] - shown[1]).abs().mean()
    assert between > 0.4 > 0.3 > within > 0  # only the camera's noise differs within a row


# Streams


def test_lips_may_be_crops_alone() -> None:
    model = make_model({**STREAMS, "lips": CROPS})
    batch = crops_batch()
    assert model.sees_mouth_crops
    assert run(model, **batch).claim_mask[:, SYNC].all()
    assert not run(model, **make_batch()).claim_mask[:, SYNC].any()


@pytest.mark.parametrize(("lost", "kept"), [("mouth", "lips"), ("lips", "mouth")])
def test_one_of_two_missing_leaves_what_the_other_says_alone(both: FusionModel, lost: str, kept: str) -> None:
    """The curve is exactly that of a model without the other stream, in its row; the rows beside it keep theirs."""
    single = make_model({**STREAMS, "lips": BOTH[kept]})
    single.load_state_dict(
        {
            name.replace(f"encoders.{kept}.", "encoders.lips."): value
            for name, value in both.state_dict().items()
            if not name.startswith(f"encoders.{lost}.")
        }
    )
    batch = crops_batch(2)
    drop = without_crops if lost == "mouth" else without_landmarks
    full, partial, alone = run(both, **batch), run(both, **drop(batch, 0)), run(single, **batch)
    torch.testing.assert_close(partial.curve[0], alone.curve[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(partial.clip_logits[0], alone.clip_logits[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(partial.curve[1], full.curve[1], rtol=1e-5, atol=1e-5)
    assert (full.curve[0] - alone.curve[0]).abs().max() > 0.01


def test_where_both_are_there_the_curve_is_that_of_their_mean(both: FusionModel) -> None:
    batch = crops_batch()
    lips = run(both, **{name: value for name, value in batch.items() if name not in NAMES}).curve
    crops = run(both, **only(batch, "audio"), found=batch["found"], **{n: batch[n] for n in NAMES}).curve
    torch.testing.assert_close(run(both, **batch).curve, (lips + crops) / 2, rtol=1e-4, atol=1e-4)


def test_a_longer_row_beside_it_changes_nothing(both: FusionModel) -> None:
    long, short = crops_batch(1, 4.0, seed=1), crops_batch(1, 2.0)
    together = {}
    for name, value in long.items():
        row = short[name]
        if value.ndim > 1:
            padding = [0, 0] * (value.ndim - 2) + [0, value.shape[1] - row.shape[1]]
            row = torch.nn.functional.pad(row, padding)
        together[name] = torch.cat([row, value])
    alone, among = run(both, **short), run(both, **together)
    torch.testing.assert_close(among.curve[0], alone.curve[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(among.clip_logits[0], alone.clip_logits[0], rtol=1e-4, atol=1e-4)


def test_joined_is_the_mean_at_each_step_over_those_that_are_there() -> None:
    ones, threes = torch.ones(1, 4, 2), torch.full((1, 3, 2), 3.0)
    one = EncoderOutput(ones, torch.tensor([4]), 25.0)
    other = EncoderOutput(threes, torch.tensor([3]), 25.0)
    both = joined([one, other])
    assert both.features[0, :, 0].tolist() == [2, 2, 2, 1] and both.lengths.tolist() == [4]
    assert joined([one]) is one


def test_lip_sync_examples_teach_both_streams(both: FusionModel) -> None:
    both.zero_grad()
    rows = labelled([[None, None, 0.0], [None, None, 1.0]])
    both(**crops_batch(), labels=rows, true_lag=torch.tensor([0.0, 4.0])).loss.backward()
    taught = {n.split(".")[1] for n, p in both.named_parameters() if p.grad is not None and p.grad.any()}
    both.zero_grad()
    assert {"lips", "mouth", "speech"} <= taught and not taught & {"voice", "face"}


def test_streams_of_unequal_width_are_refused() -> None:
    wide = {"encoder": "lip_crops", "options": {"dim": 24}}
    with pytest.raises(ConfigError, match="'lips' 16, 'speech' 16, 'mouth' 24"):
        make_model({**STREAMS, "mouth": wide})


def test_a_stream_called_mouth_without_lips_is_one_like_any_other() -> None:
    streams = {"mouth": STREAMS["face"]}
    model = make_model(streams, claims={"face_manipulation": ["mouth"]})
    assert run(model, **only(make_batch(), "face")).claim_mask[0].tolist() == [True, False, False]


def test_the_shipped_model_neither_asks_for_crops_nor_reads_them() -> None:
    model = load_network(hub.find("base"))
    batch = crops_batch()
    assert not model.sees_mouth_crops
    plain = run(model, **{name: value for name, value in batch.items() if name not in NAMES})
    given = run(model, **batch)
    assert torch.equal(given.clip_logits, plain.clip_logits) and torch.equal(given.curve, plain.curve)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (CROPS, True),
        (STREAMS["lips"], False),
        ({"encoder": "members", "options": {"of": [STREAMS["lips"], STREAMS["lips"]]}}, False),
        ({"encoder": "members", "options": {"of": [CROPS, CROPS]}}, True),
        ({"encoder": "somebody_elses"}, True),
        ({"encoder": "members", "options": "all"}, False),
        ("lips", True),
    ],
)
def test_mouths_are_cropped_for_whoever_may_look(stream: Any, expected: bool) -> None:
    assert sees_mouths(stream) is expected


def test_a_detector_crops_mouths_where_its_model_sees_them(tmp_path: Path) -> None:
    assert not detect.Detector("base").settings.mouths
    make_model({**STREAMS, "mouth": CROPS}).save_pretrained(tmp_path / "sees")
    assert detect.Detector(tmp_path / "sees").settings.mouths


# Training


@pytest.fixture(scope="module")
def talkers() -> list[Recording]:
    """Recordings whose crops are as bright as their mouths are open."""
    made = []
    for seed in range(2):
        one = recording(seed)
        assert one.window.landmarks is not None
        opening = one.window.landmarks[:, 17, 1] - one.window.landmarks[:, 0, 1]
        grey = np.clip(4 * opening, 0, 255).astype(np.uint8)
        crops = np.broadcast_to(grey[:, None, None], (len(grey), 64, 64))
        made.append(replace(one, window=replace(one.window, mouth_crops=crops)))
    return made


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.18])
def test_another_pace_keeps_crops_beside_landmarks(talkers: list[Recording], factor: float) -> None:
    window = talkers[0].window
    assert window.mouth_crops is not None and window.landmarks is not None
    steps = np.arange(window.steps)
    crops = np.broadcast_to(steps.astype(np.uint8)[:, None, None], window.mouth_crops.shape)
    landmarks = np.broadcast_to(steps.astype(np.float32)[:, None, None], window.landmarks.shape)
    changed = paced(replace(window, mouth_crops=crops, landmarks=landmarks), factor)
    assert changed.mouth_crops is not None and changed.landmarks is not None
    assert len(changed.mouth_crops) == changed.steps == int(window.steps / factor)
    apart = changed.landmarks[:, 0, 0] - changed.mouth_crops[:, 0, 0]
    assert np.abs(apart).max() <= 0.5


def test_examples_carry_crops_where_they_are_asked_for(talkers: list[Recording]) -> None:
    made = ExampleSet(talkers, replace(MIX, voice=2, face=2, sync=4), 1, 0)
    rows = [made[index] for index in range(8)]
    plain, with_crops = collate_examples(rows), collate_examples(rows, mouth_crops=True)
    assert set(with_crops) - set(plain) == set(NAMES)
    assert with_crops["mouth_crops"].dtype is torch.uint8
    assert torch.equal(with_crops["mouth_crop_lengths"], with_crops["mouth_lengths"])
    for row, length in enumerate(with_crops["mouth_lengths"].tolist()):
        assert not with_crops["mouth_crops"][row, length:].any()
        if length:
            bright = with_crops["mouth_crops"][row, :length, 0, 0].float()
            lips = with_crops["mouth"][row, :length].unflatten(1, (-1, 2))
            opening = lips[:, LIPS.index(17), 1] - lips[:, LIPS.index(0), 1]
            assert float(torch.corrcoef(torch.stack([bright, opening]))[0, 1]) > 0.8


@pytest.mark.parametrize("stream", ["lips", "mouth"])
def test_a_recipe_with_crops_trains_on_them_and_a_verdict_reads_them(
    stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avdetect.train.prepare_all", prepare_here)
    workshop = make_workshop(tmp_path)
    options = "options={width=16, dim=8, layers=1, size=16, widths=[4, 8]}"
    settings = (f'model.streams.{stream}={{encoder="lip_crops", {options}}}', "mix.voice=0", "mix.face=0")
    begun = train_run(workshop, "begun", *settings, "training.steps=1", "training.learning_rate=0.0")
    done = train_run(workshop, "done", *settings, "training.steps=1")
    weights = [
        dict(load_network(folder / "model").encoders[stream].named_parameters()) for folder in (begun, done)
    ]
    assert any("eval_lip_sync_mismatch_auc" in row for row in history(done))
    verdict = detect(workshop / "2.mp4", done / "model")
    assert verdict.claims[Claim.LIP_SYNC_MISMATCH].score is not None
    moved = [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])]
    assert len(moved) > len(weights[0]) / 2
