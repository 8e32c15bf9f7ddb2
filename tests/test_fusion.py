"""The fusion model on random tensors: what is absent must not speak, and what is unknown must not teach."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avdetect.batch import LIPS
from avdetect.errors import ConfigError, ModelError
from avdetect.fusion import FusionConfig, FusionModel
from avdetect.fusion_layers import resample_steps, soft_maximum
from avdetect.fusion_settings import STEP_RATE
from avdetect.loading import load_network
from avdetect.network import FusionNetwork, FusionOutput
from avdetect.types import CLAIMS, Claim, EncoderOutput

FACE, VOICE, SYNC = (
    CLAIMS.index(claim) for claim in (Claim.FACE_MANIPULATION, Claim.VOICE_CLONING, Claim.LIP_SYNC_MISMATCH)
)
SAMPLE = Path(__file__).parents[1] / "data" / "samples" / "sample_late.mp4"
SMALL = {"width": 8, "dim": 16}
STREAMS: dict[str, dict[str, Any]] = {
    "voice": {"encoder": "lcnn", "options": {**SMALL, "bands": 32}},
    "lips": {"encoder": "lip_motion", "options": {**SMALL, "layers": 1}},
    "speech": {"encoder": "sync_speech", "options": {**SMALL, "layers": 1}},
    "face": {"encoder": "face_cnn", "options": {"widths": [8, 16], "size": 32}},
}
CLAIM_STREAMS = {
    "face_manipulation": ["face"],
    "voice_cloning": ["voice"],
    "lip_sync_mismatch": ["sync"],
}
KINDS = {
    "audio": ("waveform", "waveform_lengths", "speech"),
    "mouth": ("mouth", "mouth_lengths", "found"),
    "face": ("faces", "face_lengths"),
}


def make_model(streams: Mapping[str, Any] = STREAMS, **settings: Any) -> FusionModel:
    torch.manual_seed(0)
    config = FusionConfig(**{"streams": streams, "claims": CLAIM_STREAMS, "dim": 16, "lags": 10, **settings})
    return FusionModel(config).eval()


def make_batch(size: int = 2, seconds: float = 3.0, seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    frames, crops = round(seconds * 25), round(seconds * 5)
    return {
        "waveform": 0.1 * torch.randn(size, frames * 640, generator=source),
        "waveform_lengths": torch.full((size,), frames * 640),
        "speech": torch.ones(size, frames, dtype=torch.bool),
        "mouth": torch.randn(size, frames, 2 * len(LIPS), generator=source) * 0.1,
        "mouth_lengths": torch.full((size,), frames),
        "found": torch.ones(size, frames, dtype=torch.bool),
        "faces": torch.randint(0, 256, (size, crops, 3, 32, 32), generator=source, dtype=torch.uint8),
        "face_lengths": torch.full((size,), crops),
    }


def only(batch: dict[str, Tensor], *kinds: str) -> dict[str, Tensor]:
    return {name: batch[name] for kind in kinds for name in KINDS[kind]}


def without_row(batch: dict[str, Tensor], row: int, kind: str) -> dict[str, Tensor]:
    """The batch in which `row` lacks one modality, padded as `collate` pads it."""
    out = {name: value.clone() for name, value in batch.items()}
    for name in KINDS[kind]:
        out[name][row] = 0
    return out


@pytest.fixture(scope="module")
def model() -> FusionModel:
    return make_model()


def run(model: FusionNetwork, **batch: Tensor) -> FusionOutput:
    with torch.no_grad():
        output: FusionOutput = model(**batch)
    return output


def test_a_full_batch_has_evidence_for_all_claims(model: FusionModel) -> None:
    output = run(model, **make_batch())
    assert output.clip_logits.shape == (2, 3) and output.clip_logits.isfinite().all()
    assert output.step_logits.shape == (2, 15, 3) and output.step_logits.isfinite().all()
    assert output.claim_mask.all() and output.step_mask.all()
    assert output.curve.shape == output.curve_weight.shape == (2, 21)
    assert output.loss is None


@pytest.mark.parametrize(
    ("kinds", "evidence"),
    [
        (("audio",), {VOICE}),
        (("face",), {FACE}),
        (("mouth",), set()),
        (("mouth", "face"), {FACE}),
        (("audio", "mouth"), {VOICE, SYNC}),
        (("audio", "face"), {VOICE, FACE}),
    ],
)
def test_any_subset_of_inputs_speaks_for_its_own_claims_only(
    model: FusionModel, kinds: tuple[str, ...], evidence: set[int]
) -> None:
    output = run(model, **only(make_batch(), *kinds))
    assert {claim for claim in range(3) if output.claim_mask[0, claim]} == evidence
    assert output.clip_logits.isfinite().all()


@pytest.mark.parametrize(
    ("kept", "claim"), [(("audio",), VOICE), (("face",), FACE), (("audio", "mouth"), SYNC)]
)
def test_a_modality_that_a_claim_does_not_read_leaves_its_logits_unchanged(
    model: FusionModel, kept: tuple[str, ...], claim: int
) -> None:
    batch = make_batch()
    with_all, alone = run(model, **batch), run(model, **only(batch, *kept))
    torch.testing.assert_close(
        with_all.clip_logits[:, claim], alone.clip_logits[:, claim], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        with_all.step_logits[..., claim], alone.step_logits[..., claim], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["audio", "mouth", "face"])
def test_a_row_without_a_modality_has_no_evidence_and_leaves_the_other_rows_alone(
    model: FusionModel, kind: str
) -> None:
    batch = make_batch()
    full, partial = run(model, **batch), run(model, **without_row(batch, 0, kind))
    lost = {"audio": [VOICE, SYNC], "mouth": [SYNC], "face": [FACE]}[kind]
    kept = [claim for claim in range(3) if claim not in lost]
    assert partial.claim_mask[0].tolist() == [claim in kept for claim in range(3)]
    torch.testing.assert_close(partial.clip_logits[1], full.clip_logits[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(partial.clip_logits[0, kept], full.clip_logits[0, kept], rtol=1e-4, atol=1e-5)


def test_a_longer_row_beside_it_changes_nothing(model: FusionModel) -> None:
    short, long = make_batch(1, 2.0), make_batch(1, 4.0, seed=1)
    joined = {}
    for name, value in long.items():
        row = short[name]
        if value.ndim > 1:
            padding = value.new_zeros(1, value.shape[1] - row.shape[1], *value.shape[2:])
            row = torch.cat([row, padding], 1)
        joined[name] = torch.cat([row, value])
    alone, among = run(model, **short), run(model, **joined)
    torch.testing.assert_close(among.clip_logits[0], alone.clip_logits[0], rtol=1e-4, atol=1e-4)
    assert not among.step_mask[0, 10:].any()


def test_sound_without_speech_is_no_evidence_on_the_voice(model: FusionModel) -> None:
    batch = only(make_batch(), "audio")
    batch["speech"][0] = False
    batch["speech"][1, :25] = False
    output = run(model, **batch)
    assert output.claim_mask[:, VOICE].tolist() == [False, True]
    assert output.step_mask[1, :, VOICE].tolist() == [False] * 5 + [True] * 10


def test_frames_without_a_face_are_left_out_of_synchrony(model: FusionModel) -> None:
    batch = make_batch()
    batch["found"][0] = False
    output = run(model, **batch)
    assert output.claim_mask[:, SYNC].tolist() == [False, True]
    assert float(output.curve_weight[0].max()) == 0


def test_a_model_with_one_stream_takes_the_whole_batch(model: FusionModel) -> None:
    voice = make_model({"voice": STREAMS["voice"]}, claims={"voice_cloning": ["voice"]})
    output = run(voice, **make_batch())
    assert output.claim_mask[0].tolist() == [False, True, False]
    assert output.curve is None


def test_two_streams_of_a_claim_add_up() -> None:
    streams = {"voice": STREAMS["voice"], "echo": STREAMS["voice"]}
    both = make_model(streams, claims={"voice_cloning": ["voice", "echo"]})
    first = make_model(streams, claims={"voice_cloning": ["voice"]})
    second = make_model(streams, claims={"voice_cloning": ["echo"]})
    batch = only(make_batch(), "audio")
    sums = run(first, **batch).step_logits + run(second, **batch).step_logits
    torch.testing.assert_close(run(both, **batch).step_logits, sums, rtol=1e-4, atol=1e-5)


def test_streams_are_dropped_in_training_only_where_a_claim_has_several() -> None:
    streams = {"voice": STREAMS["voice"], "echo": STREAMS["voice"]}
    batch = only(make_batch(8), "audio")
    several = make_model(streams, claims={"voice_cloning": ["voice", "echo"]}, stream_dropout=0.9).train()
    assert not several(**batch).claim_mask[:, VOICE].all()
    single = make_model(
        {"voice": STREAMS["voice"]}, claims={"voice_cloning": ["voice"]}, stream_dropout=0.9
    ).train()
    assert single(**batch).claim_mask[:, VOICE].all()
    assert several.eval()(**batch).claim_mask[:, VOICE].all()
    beside = make_model(
        {**streams, "face": STREAMS["face"]},
        claims={"voice_cloning": ["voice", "echo"], "face_manipulation": ["face"]},
        stream_dropout=0.9,
    ).train()
    assert beside(**only(make_batch(8), "face")).claim_mask[:, FACE].all()


def labelled(rows: list[list[float | None]]) -> Tensor:
    return torch.tensor([[float("nan") if v is None else v for v in row] for row in rows])


def test_streams_with_losses_of_their_own_learn_as_if_apart() -> None:
    streams = {"voice": STREAMS["voice"], "echo": STREAMS["voice"]}
    both = make_model(streams, claims={"voice_cloning": ["voice", "echo"]}, own_loss=1.0)
    batch = only(make_batch(4), "audio")
    labels = labelled([[None, 1.0, None], [None, 0.0, None], [None, None, None], [None, 1.0, None]])
    losses = []
    for name in streams:
        one = make_model(streams, claims={"voice_cloning": [name]})
        weights = {  # each speaks for both of them
            key: 2 * value if ".evidence." in key else value for key, value in both.state_dict().items()
        }
        one.load_state_dict(weights)
        losses.append(one(**batch, labels=labels).loss)
    torch.testing.assert_close(both(**batch, labels=labels).loss, torch.stack(losses).mean())
    half = make_model(streams, claims={"voice_cloning": ["voice", "echo"]}, own_loss=0.5)
    none = make_model(streams, claims={"voice_cloning": ["voice", "echo"]})
    ends = torch.stack([both(**batch, labels=labels).loss, none(**batch, labels=labels).loss])
    torch.testing.assert_close(half(**batch, labels=labels).loss, ends.mean())
    assert ends[0] != ends[1]


def test_a_claim_of_one_stream_has_no_loss_of_its_own() -> None:
    labels = labelled([[1.0, 1.0, None], [0.0, None, None]])
    plain, own = (make_model(own_loss=share)(**make_batch(), labels=labels).loss for share in (0.0, 1.0))
    torch.testing.assert_close(own, plain)


def test_an_unknown_label_teaches_nothing() -> None:
    model, batch = make_model(), make_batch()
    loss = model(**batch, labels=labelled([[None, 1.0, None], [None, 0.0, None]])).loss
    loss.backward()
    assert loss.item() > 0
    taught = {
        n.split(".")[1]
        for n, p in model.named_parameters()
        if p.grad is not None and p.grad.any() and "." in n
    }
    assert "voice" in taught and not taught & {"face", "lips", "speech"}


def test_rows_of_unknown_label_do_not_change_the_loss(model: FusionModel) -> None:
    batch = make_batch(2)
    one = {name: value[:1] for name, value in batch.items()}
    alone = run(model, **one, labels=labelled([[1.0, 0.0, None]])).loss
    among = run(model, **batch, labels=labelled([[1.0, 0.0, None], [None, None, None]])).loss
    assert float(among) == pytest.approx(float(alone), rel=1e-4)


def test_a_label_without_evidence_teaches_nothing(model: FusionModel) -> None:
    batch = only(make_batch(), "audio")
    labels = labelled([[1.0, None, 1.0], [0.0, None, 0.0]])
    assert float(run(model, **batch, labels=labels).loss) == 0


@pytest.mark.parametrize("claim", [FACE, VOICE, SYNC])
def test_the_loss_falls_as_logits_go_towards_the_label(claim: int) -> None:
    model, batch = make_model(), make_batch()
    labels = torch.full((2, 3), float("nan"))
    labels[:, claim] = torch.tensor([0.0, 1.0])
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02
    logits = run(model, **batch).clip_logits[:, claim]
    assert logits[1] > logits[0]


def test_the_true_lag_adds_the_contrastive_loss(model: FusionModel) -> None:
    batch, labels = make_batch(), labelled([[None, None, 0.0], [None, None, 0.0]])
    without = run(model, **batch, labels=labels, true_lag=torch.full((2,), float("nan"))).loss
    with_lag = run(model, **batch, labels=labels, true_lag=torch.zeros(2)).loss
    assert float(with_lag) > float(without) + 0.1


def test_silent_and_empty_rows_give_finite_gradients() -> None:
    model = make_model().train()
    batch = make_batch(4)
    batch["waveform"][0] = 0
    batch["mouth"][0] = 0
    batch["faces"][0] = 0
    for row, kind in enumerate(KINDS, 1):
        batch = without_row(batch, row, kind)
    model(**batch, labels=torch.ones(4, 3), true_lag=torch.zeros(4)).loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_soft_maximum_runs_from_the_mean_to_the_maximum() -> None:
    logits, mask = torch.tensor([[-1.0, 0.5, 3.0, 99.0]]), torch.tensor([[True, True, True, False]])
    assert float(soft_maximum(logits, mask, torch.tensor([1e-3]))) == pytest.approx(2.5 / 3, abs=1e-2)
    assert float(soft_maximum(logits, mask, torch.tensor([200.0]))) == pytest.approx(3.0, abs=1e-2)
    between = [float(soft_maximum(logits, mask, torch.tensor([s]))) for s in (0.1, 0.5, 1.0, 5.0)]
    assert between == sorted(between)


def test_soft_maximum_keeps_a_short_fake_stretch_in_a_long_real_clip() -> None:
    logits = torch.full((1, 300), -4.0)
    logits[0, 100:105] = 6.0
    mask = torch.ones_like(logits, dtype=torch.bool)
    assert float(soft_maximum(logits, mask, torch.tensor([1.0]))) > 0 > float(logits.mean())


def test_soft_maximum_of_nothing_is_zero_with_finite_gradients() -> None:
    logits = torch.ones(2, 4, requires_grad=True)
    mask = torch.tensor([[False] * 4, [True] * 4])
    pooled = soft_maximum(logits, mask, torch.tensor([1.0, 1.0]))
    pooled.sum().backward()
    assert pooled.tolist() == pytest.approx([0.0, 1.0])
    assert logits.grad is not None and logits.grad.isfinite().all() and not logits.grad[0].any()


def test_pooling_a_clip_is_the_soft_maximum_of_a_window(model: FusionModel) -> None:
    batch = only(make_batch(1), "audio")
    output = run(model, **batch)
    pooled = model.pool(output.step_logits[0, :, VOICE], Claim.VOICE_CLONING)
    assert pooled == pytest.approx(float(output.clip_logits[0, VOICE]), abs=1e-5)


@pytest.mark.parametrize(
    ("rate", "length", "steps"), [(25.0, 50, 10), (12.5, 25, 10), (5.0, 10, 10), (2.5, 5, 10)]
)
def test_features_of_any_rate_stand_at_their_time(rate: float, length: int, steps: int) -> None:
    times = (torch.arange(length) + 0.5) / rate
    output = EncoderOutput(times[None, :, None], torch.tensor([length]), rate)
    values, mask = resample_steps(output, steps)
    expected = (torch.arange(steps) + 0.5) / STEP_RATE
    assert mask.all()
    assert (values[0, :, 0] - expected).abs().max() <= 0.5 / min(rate, STEP_RATE) + 1e-6


def test_features_beyond_a_rows_length_do_not_reach_its_steps() -> None:
    features = torch.ones(1, 50, 3)
    features[:, 30:] = 100.0
    values, mask = resample_steps(EncoderOutput(features, torch.tensor([30]), 25.0), 10)
    assert mask[0].tolist() == [True] * 6 + [False] * 4
    assert values.max() == 1 and not values[0, 6:].any()


def test_comes_back_bit_equal_from_its_folder(model: FusionModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again = FusionModel.from_pretrained(tmp_path).eval()
    one, other = model.state_dict(), again.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    batch = make_batch()
    assert torch.equal(run(again, **batch).clip_logits, run(model, **batch).clip_logits)
    assert again.config.claims == CLAIM_STREAMS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"claims": {"face_manipulaton": ["face"]}},
            "no claim is called 'face_manipulaton'; did you mean 'face_manipulation'",
        ),
        (
            {"claims": {"voice_cloning": ["voise"]}},
            "the stream 'voise', which is not configured; did you mean 'voice'",
        ),
        ({"streams": {"voice": {}}, "claims": {}}, "the stream 'voice' names no encoder"),
        ({"streams": ["voice"], "claims": {}}, "'streams' = .'voice'. is not a table"),
        ({"dim": "wide"}, "dim = 'wide' is not a positive whole number"),
        ({"dim": 18}, "dim = 18 cannot be divided among heads = 4"),
        (
            {"streams": {"face": STREAMS["face"]}, "claims": {"lip_sync_mismatch": ["sync"]}},
            "'lips' with 'speech'",
        ),
        ({"fusion": "atention"}, "no fusion is called 'atention'; did you mean 'attention'"),
        (
            {"streams": {"voice": {"encoder": "lcn"}}, "claims": {}},
            "no encoder is called 'lcn'; did you mean 'lcnn'",
        ),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_model(**settings)
    assert "\n" not in str(error.value)


# --- streams read together ----------------------------------------------------------------------------------------

JOINT = {
    "face_manipulation": ["face", "lips"],
    "voice_cloning": ["voice", "speech"],
    "lip_sync_mismatch": ["sync", "lips", "speech"],
}


def make_joint(streams: Mapping[str, Any] = STREAMS, **settings: Any) -> FusionModel:
    """An attention whose answers differ widely from step to step, so that a leak shows."""
    model = make_model(streams, **{"fusion": "attention", "claims": JOINT, **settings})
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.attention.named_parameters():
            if name.startswith(("stream", "claim")):
                parameter.copy_(torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def joint() -> FusionModel:
    return make_joint()


def test_attention_answers_all_claims(joint: FusionModel) -> None:
    output = run(joint, **make_batch())
    assert output.step_logits.shape == (2, 15, 3) and output.step_logits.isfinite().all()
    assert output.claim_mask.all() and not hasattr(joint, "heads")
    assert output.step_logits.std(1).min() > 1e-3


@pytest.mark.parametrize(
    ("kinds", "evidence"),
    [
        (("audio",), {VOICE}),
        (("face",), {FACE}),
        (("mouth",), {FACE}),
        (("mouth", "face"), {FACE}),
        (("audio", "face"), {VOICE, FACE}),
        (("audio", "mouth"), {FACE, VOICE, SYNC}),
    ],
)
def test_attention_takes_any_subset(joint: FusionModel, kinds: tuple[str, ...], evidence: set[int]) -> None:
    output = run(joint, **only(make_batch(), *kinds))
    assert {claim for claim in range(3) if output.claim_mask[0, claim]} == evidence
    assert not output.clip_logits[0, [c for c in range(3) if c not in evidence]].any()


def test_a_stream_that_is_all_masked_changes_nothing(joint: FusionModel) -> None:
    """The face is there for the other row alone: this row's answers are those of a batch without any face."""
    batch = make_batch()
    absent = without_row(batch, 0, "face")
    beside, alone = run(joint, **absent), run(joint, **only(batch, "audio", "mouth"))
    assert not torch.allclose(run(joint, **batch).step_logits[0, :, FACE], alone.step_logits[0, :, FACE])
    torch.testing.assert_close(beside.step_logits[0], alone.step_logits[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(beside.clip_logits[0], alone.clip_logits[0], rtol=1e-4, atol=1e-5)


def test_attention_reads_no_padding(joint: FusionModel) -> None:
    short, long = make_batch(1, 2.0), make_batch(1, 4.0, seed=1)
    joined = {}
    for name, value in long.items():
        row = short[name]
        if value.ndim > 1:
            padding = value.new_zeros(1, value.shape[1] - row.shape[1], *value.shape[2:])
            row = torch.cat([row, padding], 1)
        joined[name] = torch.cat([row, value])
    alone, among = run(joint, **short), run(joint, **joined)
    torch.testing.assert_close(among.clip_logits[0], alone.clip_logits[0], rtol=1e-4, atol=1e-4)
    assert not among.step_mask[0, 10:].any()


@pytest.mark.parametrize(("claim", "kind"), [(VOICE, "face"), (VOICE, "mouth"), (FACE, "audio")])
def test_attention_of_a_claim_reads_its_own_streams_only(joint: FusionModel, claim: int, kind: str) -> None:
    batch, other = make_batch(), make_batch(seed=7)
    changed = {**batch, **only(other, kind)}
    torch.testing.assert_close(
        run(joint, **changed).clip_logits[:, claim],
        run(joint, **batch).clip_logits[:, claim],
        rtol=1e-4,
        atol=1e-5,
    )
    reader = {"face": FACE, "mouth": FACE, "audio": VOICE}[kind]
    assert not torch.allclose(
        run(joint, **changed).clip_logits[:, reader], run(joint, **batch).clip_logits[:, reader]
    )


def test_attention_looks_across_streams(joint: FusionModel) -> None:
    """What the mouth says changes how the face is read: the answer is no sum of two."""
    batch = make_batch()
    both, face, mouth = (
        run(joint, **only(batch, *kinds)).step_logits[..., FACE]
        for kinds in (("face", "mouth"), ("face",), ("mouth",))
    )
    assert not torch.allclose(both, face, atol=1e-3)
    assert not torch.allclose(both - face, mouth, atol=1e-3)


def test_attention_learns_nothing_from_an_unknown_label() -> None:
    model, batch = make_joint(), make_batch()
    model(**batch, labels=labelled([[None, 1.0, None], [None, 0.0, None]])).loss.backward()
    taught = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    streams = {n.split(".")[1] for n in taught if n.startswith("encoders.")}
    assert streams == {"voice", "speech"}
    projected = {n.split(".")[2] for n in taught if n.startswith("attention.project.")}
    assert projected == {"voice", "speech"}
    assert model.attention.evidence.weight.grad[VOICE].any()
    assert not model.attention.evidence.weight.grad[[FACE, SYNC]].any()


def test_one_batch_of_partial_labels_teaches_every_claim() -> None:
    """A silent row with a face label, a row of sound with a voice label, a row with both in sync."""
    model = make_joint().train()
    batch = without_row(without_row(without_row(make_batch(3), 0, "audio"), 1, "face"), 1, "mouth")
    labels = labelled([[1.0, None, None], [None, 1.0, None], [0.0, 0.0, 0.0]])
    model(**batch, labels=labels, true_lag=torch.tensor([float("nan"), float("nan"), 0.0])).loss.backward()
    grad = model.attention.evidence.weight.grad
    assert grad[[FACE, VOICE, SYNC]].abs().sum(1).min() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_attention_hides_streams_in_training_but_never_all() -> None:
    model = make_joint(stream_dropout=0.9, dropout=0.0)
    batch = only(make_batch(8), "audio")
    whole = run(model, **batch)
    hidden = run(model.train(), **batch)
    assert hidden.claim_mask[:, VOICE].all()
    moved = (hidden.step_logits[..., VOICE] - whole.step_logits[..., VOICE]).abs().amax(1)
    assert (moved > 1e-3).any()


def test_attention_pools_a_clip_as_it_pools_a_window(joint: FusionModel) -> None:
    output = run(joint, **make_batch(1))
    pooled = joint.pool_sync(output.step_logits[0, :, SYNC], output.curve[0], output.curve_weight[0])
    assert pooled == pytest.approx(float(output.clip_logits[0, SYNC]), abs=1e-5)


def test_attention_can_be_trained() -> None:
    settings = {"fusion": "attention", "claims": JOINT, "dropout": 0.0, "stream_dropout": 0.0}
    model, batch = make_model(**settings), make_batch()
    labels = labelled([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    optimiser = torch.optim.Adam(model.attention.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


# --- without transformers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["evidence", "attention"])
def test_the_plain_network_reads_what_training_wrote(fusion: str, tmp_path: Path) -> None:
    model = make_model(fusion=fusion)
    model.save_pretrained(tmp_path)
    network = load_network(tmp_path)
    assert not isinstance(network, FusionModel) and not network.training
    one, other = model.state_dict(), network.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    batch = make_batch()
    plain, wrapped = run(network, **batch), run(model, **batch)
    assert torch.equal(plain.clip_logits, wrapped.clip_logits)
    assert torch.equal(plain.step_logits, wrapped.step_logits)
    assert network.config.claims == CLAIM_STREAMS and network.config.fusion == fusion


def test_half_precision_weights_are_read_in_single(tmp_path: Path) -> None:
    make_model().half().save_pretrained(tmp_path)
    assert {p.dtype for p in load_network(tmp_path).parameters()} == {torch.float32}


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"dim": 16,\n  "dropout"', '"dim": 32,\n  "dropout"'))
    with pytest.raises(ModelError, match=r"do not fit config\.json, the first is 'heads\.face") as error:
        load_network(tmp_path)
    assert "\n" not in str(error.value)


def test_scoring_a_clip_imports_no_transformers(tmp_path: Path) -> None:
    """Its import takes longer than a short clip."""
    script = (
        "import sys\n"
        "from avdetect.__main__ import main\n"
        "code = main([sys.argv[1], '--quiet'])\n"
        "heavy = {'transformers', 'accelerate', 'sklearn', 'pandas', 'torch.distributed.tensor'} & sys.modules.keys()\n"
        "print(code, sorted(heavy))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(SAMPLE)], capture_output=True, text=True, timeout=300, check=False
    )
    assert answer.stdout == "0 []\n", answer.stderr
