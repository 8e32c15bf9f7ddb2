"""Lip/speech comparison on embeddings made by hand, so that the true lag is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from avdetect.synchrony import Synchrony, SynchronyCurve
from avdetect.types import FRAME_RATE, EncoderOutput

LAGS = 10
STEPS = 100
DIM = 16


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def unit(*shape: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=source), dim=-1)


def delayed(features: Tensor, frames: int) -> Tensor:
    """[T, D] later by `frames`, zeros where it ran out."""
    out = torch.zeros_like(features)
    if frames >= 0:
        out[frames:] = features[: len(features) - frames]
    else:
        out[:frames] = features[-frames:]
    return out


def output(*rows: Tensor, lengths: list[int] | None = None) -> EncoderOutput:
    return EncoderOutput(torch.stack(rows), torch.tensor(lengths or [len(r) for r in rows]), FRAME_RATE)


def compare(lips: EncoderOutput, speech: EncoderOutput, found: Tensor | None = None) -> SynchronyCurve:
    curve: SynchronyCurve = Synchrony(LAGS)(lips, speech, found)
    return curve


@pytest.mark.parametrize("lag", [-7, -1, 0, 2, 9])
def test_sound_that_is_late_gives_a_positive_offset(lag: int) -> None:
    mouth = unit(STEPS, DIM)
    curve = compare(output(mouth), output(delayed(mouth, lag)))
    assert int(curve.total[0].argmax()) - LAGS == lag
    offset = Synchrony(LAGS).peak(curve.total, curve.weight)
    assert float(offset[0]) == pytest.approx(lag, abs=0.3)


def test_the_offset_lies_on_the_parabola_through_the_peak() -> None:
    lag = torch.arange(-LAGS, LAGS + 1, dtype=torch.float32)
    weight = torch.full((1, 2 * LAGS + 1), 50.0)
    for true in (-3.4, -0.25, 0.0, 2.4):
        total = (5 - 0.3 * (lag - true) ** 2)[None] * weight
        assert float(Synchrony(LAGS).peak(total, weight)) == pytest.approx(true, abs=1e-3)


def test_lags_with_too_little_overlap_cannot_be_the_peak() -> None:
    total, weight = torch.ones(1, 2 * LAGS + 1), torch.full((1, 2 * LAGS + 1), 50.0)
    total[0, LAGS + 1] = 20.0
    total[0, LAGS - 6], weight[0, LAGS - 6] = 5.0, 5.0  # a mean of 1 over 5 frames against 0.4 over 50
    assert float(Synchrony(LAGS).peak(total, weight)) == pytest.approx(1, abs=0.5)


def peaked(true: float, height: float) -> tuple[Tensor, Tensor]:
    """Sums [1, L] and weights of a curve that rises by `height` around one lag."""
    lag = torch.arange(-LAGS, LAGS + 1, dtype=torch.float32)
    weight = torch.full((1, 2 * LAGS + 1), 50.0)
    return height * torch.exp(-((lag - true) ** 2) / 4)[None] * weight, weight


def test_an_offset_is_the_peak_where_a_mismatch_is_likelier_and_near_zero_where_not() -> None:
    sync = Synchrony(LAGS)
    for true in (-6.0, 1.5, 4.0):
        total, weight = peaked(true, 0.8)
        apart, together = (float(sync.offset(total, weight, torch.tensor([x]))) for x in (2.0, -2.0))
        assert apart == pytest.approx(true, abs=0.3)
        assert abs(together) < min(2.0, abs(true))
    total, weight = peaked(1.5, 0.8)  # evidence pulls it, in its direction
    assert 0.2 < float(sync.offset(total, weight, torch.tensor([-1.0]))) < 1.5
    flat = torch.zeros_like(total)
    assert float(sync.offset(flat, weight, torch.tensor([-1.0]))) == pytest.approx(0, abs=1e-5)


def test_confidence_grows_with_the_fit_in_step_and_is_none_elsewhere() -> None:
    sync = Synchrony(LAGS)
    noise = 0.05 * torch.randn(1, 2 * LAGS + 1)

    def confidence(true: float, height: float) -> float:
        total, weight = peaked(true, height)
        return float(sync.confidence(total + noise * weight, weight))

    assert confidence(0, 0.1) < confidence(0, 0.2) < confidence(0, 0.4) <= 12
    assert confidence(0, 0.4) > 4 and confidence(8, 0.4) < 2


def test_steps_without_a_face_and_beyond_a_row_count_nothing() -> None:
    mouth = unit(STEPS, DIM)
    found = torch.ones(1, STEPS, dtype=torch.bool)
    found[0, 20:50] = False
    curve = compare(output(mouth), output(mouth, lengths=[80]), found=found)
    assert not curve.mask[0, 20:50].any() and not curve.similarity[0, 20:50].any()
    assert not curve.mask[0, 80:, LAGS].any()
    assert float(curve.weight[0, LAGS]) == 80 - 30
    assert float(curve.total[0, LAGS]) == pytest.approx(50, rel=1e-5)


def test_weight_counts_the_steps_that_a_lag_can_be_compared_over() -> None:
    mouth = unit(STEPS, DIM)
    curve = compare(output(mouth), output(mouth))
    expected = [STEPS - abs(lag) for lag in range(-LAGS, LAGS + 1)]
    assert curve.weight[0].tolist() == expected


def test_streams_of_unequal_length_are_compared_where_both_are() -> None:
    mouth = unit(STEPS, DIM)
    curve = compare(output(mouth), output(mouth[:60]))
    assert curve.similarity.shape == (1, 60, 2 * LAGS + 1)
    assert float(curve.total[0, LAGS]) == pytest.approx(60, rel=1e-5)


def test_a_rows_curve_does_not_depend_on_other_rows() -> None:
    one, two = unit(STEPS, DIM), unit(STEPS, DIM, seed=1)
    alone = compare(output(one[:70]), output(delayed(one, 3)[:70]))
    padded = (
        torch.cat([one[:70], torch.zeros(30, DIM)]),
        torch.cat([delayed(one, 3)[:70], torch.zeros(30, DIM)]),
    )
    among = compare(output(padded[0], two, lengths=[70, 100]), output(padded[1], two, lengths=[70, 100]))
    torch.testing.assert_close(among.total[0], alone.total[0])
    torch.testing.assert_close(among.weight[0], alone.weight[0])


def test_features_tell_the_peak_at_zero_from_one_elsewhere() -> None:
    mouth = unit(STEPS, DIM)
    curve = compare(output(mouth, mouth), output(mouth, delayed(mouth, 8)))
    in_sync, moved = Synchrony(LAGS).features(curve.total, curve.weight)
    assert in_sync[0] > moved[0] and moved[1] > in_sync[1]
    assert in_sync[2] > 0 > moved[2]
    assert float(moved[4]) == pytest.approx(8 / LAGS)


def test_features_do_not_depend_on_the_level_of_similarity() -> None:
    mouth = unit(200, DIM)
    curve = compare(output(mouth), output(mouth))
    sync = Synchrony(LAGS)
    plain, offset = (
        sync.features(curve.total, curve.weight),
        sync.features(curve.total + 0.2 * curve.weight, curve.weight),
    )
    torch.testing.assert_close(plain[:, :3], offset[:, :3], rtol=1e-3, atol=1e-3)


def test_a_mismatch_is_told_where_the_peak_is_low_or_stands_elsewhere() -> None:
    mouth, stranger = unit(STEPS, DIM), unit(STEPS, DIM, seed=1)
    sound = [mouth, delayed(mouth, 5), delayed(mouth, -LAGS), stranger]
    curve = compare(output(*[mouth] * 4), output(*sound))
    sync = Synchrony(LAGS)
    agreement = sync.agreement(curve.total, curve.weight)
    in_step, moved, early, other = agreement.tolist()
    assert in_step > 2.5
    assert max(moved, early) < -1.5  # nothing here and a whole peak elsewhere
    assert abs(other) < 0.5
    assert sync.logit(curve.total, curve.weight).tolist() == pytest.approx(
        [2 - 8 * one for one in (in_step, moved, early, other)], rel=1e-4
    )


def test_agreement_hangs_on_the_shape_of_the_curve_alone() -> None:
    mouth = unit(STEPS, DIM)
    curve = compare(output(mouth), output(mouth))
    sync = Synchrony(LAGS)
    told = sync.agreement(curve.total, curve.weight)
    assert torch.allclose(told, sync.agreement(3 * curve.total, 3 * curve.weight), atol=1e-5)
    assert torch.allclose(told, sync.agreement(curve.total + 0.3 * curve.weight, curve.weight), atol=1e-5)


def test_lags_that_rest_on_little_are_not_read() -> None:
    total, weight = torch.zeros(2 * LAGS + 1), torch.full((2 * LAGS + 1,), 100.0)
    total[LAGS] = 40.0
    total[0], weight[0] = 0.9 * 20, 20.0  # a chance hit at the clip's edge
    sync = Synchrony(LAGS)
    assert float(sync.agreement(total, weight)) == pytest.approx(4 * 0.4)


def test_a_peak_that_is_a_little_off_counts_a_little_less() -> None:
    sync, weight = Synchrony(LAGS), torch.full((2 * LAGS + 1,), 100.0)

    def of(lag: int) -> float:
        total = torch.zeros(2 * LAGS + 1)
        total[LAGS + lag] = 40.0
        return float(sync.agreement(total, weight))

    told = [of(lag) for lag in range(5)]
    assert told[0] > told[1] > told[2] > told[3] > 1.0 > 0 > told[4]
    assert [of(-lag) for lag in range(5)] == pytest.approx(told)


def test_local_logits_follow_the_clip() -> None:
    mouth = unit(400, DIM)
    speech = torch.cat([mouth[:200], unit(200, DIM, seed=5)])
    sync = Synchrony(LAGS)
    curve = compare(output(mouth), output(speech))
    local = sync.around(curve, 80, 5.0, reach=25)
    logits, valid = sync.logit(local.total, local.weight), local.present
    assert logits.shape == valid.shape == (1, 80) and valid.all()
    first, second = logits[0, 6:30], logits[0, 50:74]
    assert (first.mean() - second.mean()).abs() > 3 * first.std()


def test_local_logits_are_absent_where_nothing_can_be_compared() -> None:
    mouth = unit(400, DIM)
    found = torch.ones(1, 400, dtype=torch.bool)
    found[0, 200:] = False
    curve = compare(output(mouth), output(mouth), found=found)
    valid = Synchrony(LAGS).around(curve, 80, 5.0, reach=25).present
    assert valid[0, :40].all() and not valid[0, 46:].any()


def test_the_contrastive_loss_prefers_the_true_lag() -> None:
    mouths = [unit(STEPS, DIM, seed=seed) for seed in range(3)]
    curve = compare(output(*mouths), output(*(delayed(m, 4) for m in mouths)))
    sync = Synchrony(LAGS)
    with torch.no_grad():
        losses = {
            lag: sync.contrastive_loss(curve, torch.full((3,), float(lag))).item()
            for lag in range(-LAGS, LAGS + 1)
        }
    assert min(losses, key=losses.__getitem__) == 4
    assert losses[4] < 0.5 < losses[3]


def test_the_contrastive_loss_sets_other_peoples_voices_against_a_mouth() -> None:
    mouths = [unit(STEPS, DIM, seed=seed) for seed in range(2)]
    sync = Synchrony(LAGS)
    zero = torch.zeros(2)
    own = sync.contrastive_loss(compare(output(*mouths), output(*mouths)), zero)
    both_alike = compare(output(mouths[0], mouths[0]), output(mouths[0], mouths[0]))
    assert sync.contrastive_loss(both_alike, zero).item() > own.item() + 0.3


def test_rows_of_unknown_lag_or_without_evidence_teach_nothing() -> None:
    mouth = unit(STEPS, DIM)
    sync = Synchrony(LAGS)
    curve = compare(output(mouth), output(mouth))
    assert sync.contrastive_loss(curve, torch.tensor([float("nan")])).item() == 0
    short = compare(output(mouth[:10]), output(mouth[:10]))
    assert sync.contrastive_loss(short, torch.tensor([0.0])).item() == 0


def test_empty_and_silent_rows_give_finite_gradients() -> None:
    mouth = unit(STEPS, DIM)
    lips = torch.stack([mouth, torch.zeros(STEPS, DIM), mouth]).requires_grad_()
    speech = torch.stack([mouth, mouth, torch.zeros(STEPS, DIM)]).requires_grad_()
    sync = Synchrony(LAGS)
    curve = sync(
        EncoderOutput(lips, torch.tensor([STEPS, 0, STEPS]), FRAME_RATE),
        EncoderOutput(speech, torch.tensor([STEPS, STEPS, STEPS]), FRAME_RATE),
        None,
    )
    around = sync.around(curve, 20, 5.0)
    local, valid = sync.logit(around.total, around.weight), around.present
    loss = (
        sync.contrastive_loss(curve, torch.zeros(3))
        + sync.logit(curve.total, curve.weight).sum()
        + local.sum()
    )
    loss.backward()
    assert not valid[1].any()
    for tensor in (lips, speech, *sync.parameters()):
        assert tensor.grad is not None and tensor.grad.isfinite().all()
