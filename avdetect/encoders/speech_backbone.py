"""Self-supervised speech networks as encoders: wav2vec 2.0, XLS-R, HuBERT, WavLM and Wav2Vec2-BERT.

All layers' outputs, each brought to zero mean and unit variance, are added up with learned weights, as in SUPERB (Yang
et al., 2021): what gives a synthetic voice away need not stand in the last layer.
"""

from __future__ import annotations

import avdetect.compat  # noqa: F401  (must stand before torchaudio)

# isort: split
import warnings
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.compliance.kaldi import fbank

from avdetect.encoders.backbone import Backbone, BackboneOptions, BackEnd, written_out
from avdetect.encoders.masking import step_mask
from avdetect.encoders.pretrained import speech_preprocessing
from avdetect.types import SAMPLE_RATE, EncoderOutput

WAVEFORM = ("wav2vec2", "hubert", "wavlm")
"""Networks that hear samples."""
FILTERBANK = ("wav2vec2-bert",)
"""Networks that hear log-mel energies, two frames of 10 ms at once."""
BINS, WINDOW, HOP = 80, 400, 160
"""Of these energies: mel bins, and samples of a frame and between frames."""
PLAIN: dict[str, Any] = {
    # A skipped layer would shift the layers' weights; the masking of pretraining fails on short inputs.
    **{"layerdrop": 0.0, "apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0},
    **{"add_adapter": False, "use_intermediate_ffn_before_adapter": False},
}


def _unheard(config: Any) -> str | None:
    kinds = (*WAVEFORM, *FILTERBANK)
    return None if config.model_type in kinds else f"is no speech network; there are {', '.join(kinds)}"


@dataclass(frozen=True)
class SpeechOptions(BackboneOptions):
    """`normalise`: bring each row to zero mean and unit variance first; None: as the checkpoint says, or yes."""

    normalise: bool | None = None


class SpeechBackbone(nn.Module):
    """Waveform [B, S] -> EncoderOutput [B, T, dim] at 50 steps per second."""

    modality = "audio"

    def __init__(self, options: SpeechOptions) -> None:
        super().__init__()
        self.backbone = Backbone(options, _unheard, **PLAIN)
        config = self.backbone.config
        if options.normalise is None:
            said = speech_preprocessing(options.pretrained, options.revision) if options.pretrained else {}
            options = replace(options, normalise=bool(said.get("do_normalize", True)))
        self.dim, self.normalise = options.dim, options.normalise
        self.hears_samples = config.model_type in WAVEFORM
        self.kernels: list[tuple[int, int]] = []
        if self.hears_samples:
            self.kernels = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.hop = prod(stride for _, stride in self.kernels) if self.hears_samples else 2 * HOP
        # Where the first layer is normalised over all of a row's time, padding would be counted too.
        self.apart = self.hears_samples and config.feat_extract_norm == "group"
        self.layer_weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.back_end = BackEnd(config.hidden_size, options)
        self.options = written_out(options, config)

    @property
    def shortest(self) -> int:
        """Samples of one step."""
        if not self.hears_samples:
            return WINDOW + HOP
        samples = 1
        for kernel, stride in reversed(self.kernels):
            samples = (samples - 1) * stride + kernel
        return samples

    def steps(self, lengths: Tensor) -> Tensor:
        """[B] steps of rows of `lengths` samples, each at least `shortest`."""
        if not self.hears_samples:
            return torch.div(lengths - WINDOW + HOP, 2 * HOP, rounding_mode="floor")
        for kernel, stride in self.kernels:
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths

    def forward(self, inputs: Tensor, lengths: Tensor) -> EncoderOutput:
        """Features of speech `inputs` [B, S] at 16 kHz; `lengths` [B] in samples."""
        waveform = self._prepared(inputs, lengths)
        lengths = lengths.clamp_min(self.shortest)
        steps = self.steps(lengths)
        if not self.hears_samples:
            mixed = self._of_energies(waveform, lengths, steps)
        elif self.apart:
            mixed = self._of_rows_apart(waveform, lengths, int(steps.max()))
        else:
            heard = step_mask(waveform.shape[1], lengths).long()
            mixed = self._mixed(input_values=waveform.to(self.backbone.dtype), attention_mask=heard)
        features = self.back_end(mixed[:, : int(steps.max())])
        mask = step_mask(features.shape[1], steps)[..., None].to(features.dtype)
        return EncoderOutput(features * mask, steps, SAMPLE_RATE / self.hop)

    def _prepared(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """[B, S] in single precision, zero beyond `lengths`, with samples enough for one step."""
        mask = step_mask(inputs.shape[1], lengths)
        waveform = inputs.float() * mask
        if self.normalise and self.hears_samples:
            count = lengths.clamp_min(1)[:, None]
            waveform = (waveform - waveform.sum(1, keepdim=True) / count) * mask
            variance = waveform.square().sum(1, keepdim=True) / count
            waveform = waveform / (variance + 1e-7).sqrt()
        return nn.functional.pad(waveform, (0, max(0, self.shortest - inputs.shape[1])))

    def _mixed(self, **inputs: Tensor) -> Tensor:
        """Weighted sum of all layers' outputs [B, T, hidden]."""
        with warnings.catch_warnings():  # WavLM hands torch two kinds of masks
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            output = self.backbone(output_hidden_states=True, **inputs)
        layers = [*output.hidden_states[:-1], output.last_hidden_state]  # the last one with its norm
        weights = self.layer_weights.softmax(0)
        parts = (w * nn.functional.layer_norm(x, x.shape[-1:]) for w, x in zip(weights, layers, strict=True))
        total: Tensor = sum(parts, torch.zeros((), device=weights.device, dtype=weights.dtype))
        return total

    def _of_rows_apart(self, waveform: Tensor, lengths: Tensor, steps: int) -> Tensor:
        """Rows of one length at a time, without padding."""
        parts, order = [], []
        for length in torch.unique(lengths).tolist():
            rows = torch.nonzero(lengths == length)[:, 0]
            mixed = self._mixed(input_values=waveform[rows, :length].to(self.backbone.dtype))
            parts.append(nn.functional.pad(mixed, (0, 0, 0, steps - mixed.shape[1])))
            order.append(rows)
        return torch.cat(parts)[torch.argsort(torch.cat(order))]

    def _of_energies(self, waveform: Tensor, lengths: Tensor, steps: Tensor) -> Tensor:
        """Log-mel energies as the checkpoints' own feature extractor makes them, through the network."""
        pictures = [log_mel(row[:length]) for row, length in zip(waveform, lengths.tolist(), strict=True)]
        features = nn.utils.rnn.pad_sequence(pictures, batch_first=True)
        mask = step_mask(features.shape[1], steps).long()
        return self._mixed(input_features=features.to(self.backbone.dtype), attention_mask=mask)


def log_mel(waveform: Tensor) -> Tensor:
    """[S] -> [T, 2 BINS], each bin at zero mean and unit variance over the row, neighbouring frames side by side.

    As transformers' SeamlessM4TFeatureExtractor, after Kaldi.
    """
    with torch.autocast(waveform.device.type, enabled=False):
        energy: Tensor = fbank(
            waveform[None] * 2**15,
            num_mel_bins=BINS,
            window_type="povey",
            sample_frequency=float(SAMPLE_RATE),
        )
        energy = (energy - energy.mean(0)) / (energy.var(0) + 1e-7).sqrt()
    return energy[: len(energy) // 2 * 2].reshape(-1, 2 * BINS)
