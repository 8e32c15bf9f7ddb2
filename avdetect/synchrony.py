"""Lips against speech: how alike they are at each lag, and what that says.

A clip is compared with itself: the similarity at the true offset against the same clip's own similarity at all other
lags. How far it stands above them makes the logit, by one weight: curves of clips that were trained on are much clearer
than any others, so that whatever learns their shape is wrong of these. A lag of +k frames
compares each mouth with the sound k frames later: where the peak stands at +k, the sound is late by k frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avdetect.encoders.masking import step_mask
from avdetect.types import EncoderOutput

NEAR = 3
"""Frames around zero lag that may count as in sync (120 ms; ITU-R BT.1359 puts what people notice at +45/-125 ms)."""
APART = 0.006
"""Similarity by which a peak there counts less, times the square of its lag in frames."""
LEAD = 3.0
"""How much more the distance to the best lag elsewhere counts than that to the mean of the far ones."""

IN_STEP = 0.7
"""Frames: spread of the true offsets among clips whose sound belongs to their picture (28 ms)."""

FEATURES = 6
"""Numbers that tell the shape of a curve."""


@dataclass(frozen=True)
class SynchronyCurve:
    """`similarity` [B, T, L] per step and lag with `mask` [B, T, L]; `total`, `weight` [B, L]: sums over steps.

    `lips`, `speech` [B, T, D]: what was compared. `lengths` [B]: frames of each row.
    """

    similarity: Tensor
    mask: Tensor
    total: Tensor
    weight: Tensor
    lips: Tensor
    speech: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class LocalCurve:
    """The curve around each of K steps: `total`, `weight` [B, K, L] sums, and `present` [B, K] where there is one."""

    total: Tensor
    weight: Tensor
    present: Tensor


class Synchrony(nn.Module):
    """Compares the embeddings of lips and speech at lags of -lags..lags frames of the 25 fps grid."""

    def __init__(self, lags: int) -> None:
        super().__init__()
        self.lags = lags
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.head = nn.Linear(1, 1)
        with torch.no_grad():  # about a quarter parts clips in step from others once the encoders have learnt
            self.head.weight.fill_(-8.0)
            self.head.bias.fill_(2.0)

    def forward(self, lips: EncoderOutput, speech: EncoderOutput, found: Tensor | None) -> SynchronyCurve:
        """The similarity of lips and speech at all lags; steps without a face (`found` [B, T]) are left out."""
        steps = min(lips.features.shape[1], speech.features.shape[1])
        v, a = lips.features[:, :steps].float(), speech.features[:, :steps].float()
        v_mask = step_mask(steps, lips.lengths)
        a_mask = step_mask(steps, speech.lengths)
        if found is not None:
            v_mask = v_mask & found[:, :steps]
        padded = nn.functional.pad(a, (0, 0, self.lags, self.lags))
        every = v @ padded.transpose(1, 2)  # [B, T, T + 2 lags]; the band along its diagonal is wanted
        width = 2 * self.lags + 1
        band = torch.arange(steps, device=v.device)[:, None] + torch.arange(width, device=v.device)
        similarity = every.gather(2, band.expand(len(v), -1, -1))
        near = nn.functional.pad(a_mask, (self.lags, self.lags)).unfold(1, width, 1)
        mask = near & v_mask[..., None]
        similarity = similarity * mask
        return SynchronyCurve(
            similarity,
            mask,
            similarity.sum(1),
            mask.sum(1).float(),
            v * v_mask[..., None],
            a,
            torch.maximum(lips.lengths, speech.lengths),
        )

    def features(self, total: Tensor, weight: Tensor) -> Tensor:
        """[..., L] sums -> [..., 6]: the peak near zero lag and the peak elsewhere as z-scores of the clip's own
        far lags, their difference, the mean level, the distance of the best lag from zero and the evidence's length.
        """
        distance = self._lags(total).abs()
        z, mean = self._against_far_lags(total, weight)
        here = z[..., distance <= NEAR].amax(-1)
        there = z.masked_fill(distance <= NEAR, -3.0)
        best, where = there.max(-1)
        away = distance[where].float() / self.lags
        length = torch.log1p(weight.amax(-1)) / 5
        return torch.stack([here / 4, best / 4, (here - best) / 4, mean[..., 0] * 4, away, length], -1)

    def agreement(self, total: Tensor, weight: Tensor) -> Tensor:
        """[..., L] sums -> [...]: how far the peak near zero lag stands above the mean of the clip's own far lags, and
        LEAD times how far above its best lag elsewhere; in units of similarity, whatever its length.

        Another person's speech has no such peak, and sound that was moved has it elsewhere.
        """
        lags = self._lags(total)
        near = lags.abs() <= NEAR
        curve, enough, mean, _ = self._far_lags(total, weight)
        here = (curve - APART * lags.square()).masked_fill(~(enough & near), -1.0).amax(-1)
        there = curve.masked_fill(~enough | near, -1.0).amax(-1)
        return here - mean[..., 0] + LEAD * (here - there)

    @torch.no_grad()
    def confidence(self, total: Tensor, weight: Tensor) -> Tensor:
        """[..., L] -> [...] how far the peak near zero lag stands above the clip's own far lags, in their spread.

        About 0 without any relation; it grows with the length of a clip, and is 12 at most.
        """
        z, _ = self._against_far_lags(total, weight)
        return z[..., self._lags(total).abs() <= NEAR].amax(-1)

    def _against_far_lags(self, total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """[..., L] z-scores of the curve, -3 where it rests on too little, and the mean of its far lags [..., 1]."""
        curve, enough, mean, spread = self._far_lags(total, weight)
        return ((curve - mean) / spread).masked_fill(~enough, -3.0).clamp(-12, 12), mean

    def _far_lags(self, total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[..., L] sums -> the curve, where it rests on enough; mean and spread of its far lags [..., 1]."""
        curve = total / weight.clamp_min(1)
        enough = weight >= 0.5 * weight.amax(-1, keepdim=True).clamp_min(1)
        far = enough & (self._lags(total).abs() > 5)
        count = far.sum(-1, keepdim=True).clamp_min(1)
        mean = (curve * far).sum(-1, keepdim=True) / count
        spread = (((curve - mean) ** 2 * far).sum(-1, keepdim=True) / count + 1e-4).sqrt()
        return curve, enough, mean, spread

    def _lags(self, like: Tensor) -> Tensor:
        return torch.arange(-self.lags, self.lags + 1, device=like.device)

    def logit(self, total: Tensor, weight: Tensor) -> Tensor:
        """[..., L] sums of similarity and weights -> [...] logit of a mismatch."""
        logit: Tensor = self.head(self.agreement(total, weight)[..., None])[..., 0]
        return logit

    @torch.no_grad()
    def offset(self, total: Tensor, weight: Tensor, logit: Tensor) -> Tensor:
        """[..., L] -> [...] frames by which the sound is late; `logit` [...] is that of a mismatch, see `logit`.

        Where a mismatch is the likelier, the peak of the curve. Elsewhere sound and picture belong together, and such
        clips are off by IN_STEP or so: the mean of that prior times the likelihood of each lag.
        """
        return torch.where(logit > 0, self.peak(total, weight), self._in_step(total, weight))

    def _in_step(self, total: Tensor, weight: Tensor) -> Tensor:
        """[..., L] -> [...] mean lag in frames; the learned scale of the contrastive loss makes a likelihood."""
        lag = self._lags(total).float()
        enough = weight >= 0.3 * weight.amax(-1, keepdim=True)
        scale = self.log_scale.exp().clamp_max(60)
        chance = (scale * total / weight.clamp_min(1) - (lag / IN_STEP).square() / 2).masked_fill(
            ~enough, -1e3
        )
        return (chance.softmax(-1) * lag).sum(-1)

    def peak(self, total: Tensor, weight: Tensor) -> Tensor:
        """[..., L] -> [...] frames by which the sound is late where the curve is highest, by a parabola through it."""
        curve = torch.where(weight >= 0.3 * weight.amax(-1, keepdim=True), total / weight.clamp_min(1), -1e3)
        inner = curve[..., 1:-1]
        peak = inner.argmax(-1, keepdim=True)
        left, mid, right = (curve.gather(-1, peak + k)[..., 0] for k in range(3))
        bend = (left - 2 * mid + right).clamp_max(-1e-6)
        shift = (0.5 * (left - right) / bend).clamp(-0.5, 0.5)
        return peak[..., 0] + 1 - self.lags + shift

    def around(self, curve: SynchronyCurve, steps: int, per_step: float, reach: int = 38) -> LocalCurve:
        """The curve within `reach` frames around each of `steps` fusion steps, `per_step` frames long.

        None is present beyond a row's end.
        """
        kernel = 2 * reach + 1
        total = _running_sum(curve.similarity, kernel)
        weight = _running_sum(curve.mask.float(), kernel)
        centre = (
            ((torch.arange(steps, device=total.device) + 0.5) * per_step).long().clamp_max(total.shape[1] - 1)
        )
        total, weight = total[:, centre], weight[:, centre]
        inside = torch.arange(steps, device=total.device) * per_step < curve.lengths[:, None]
        return LocalCurve(total, weight, (weight.amax(-1) >= per_step) & inside)

    def contrastive_loss(self, curve: SynchronyCurve, true_lag: Tensor) -> Tensor:
        """Cross-entropy of the true lag among all lags of the same clip and the zero lag of the other clips.

        `true_lag` [B] in frames, nan where lips and speech do not belong together or nobody knows.
        """
        rows = torch.nonzero(~true_lag.isnan() & (curve.weight.amax(-1) >= 15))[:, 0]
        if len(rows) == 0:
            return curve.total.sum() * 0
        scale = self.log_scale.exp().clamp_max(60)
        own = (curve.total[rows] / curve.weight[rows].clamp_min(1)).masked_fill(curve.weight[rows] < 8, -1.0)
        seen = curve.lips[rows].abs().sum(-1).gt(0).sum(1).clamp_min(1)
        others = torch.einsum("btd,ctd->bc", curve.lips[rows], curve.speech[rows]) / seen[:, None]
        same = torch.eye(len(rows), dtype=torch.bool, device=own.device)
        logits = torch.cat([own, others.masked_fill(same, -1.0)], 1) * scale
        target = true_lag[rows].round().long() + self.lags
        return nn.functional.cross_entropy(logits, target.clamp(0, 2 * self.lags))


def _running_sum(x: Tensor, kernel: int) -> Tensor:
    """Sum over a centred span of the time axis of [B, T, L]."""
    padded = nn.functional.pad(x.transpose(1, 2), (kernel // 2, kernel // 2))
    return (nn.functional.avg_pool1d(padded, kernel, 1) * kernel).transpose(1, 2)
