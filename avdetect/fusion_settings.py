"""What a fusion model is made of and how its scores are read: plain settings, as config.json holds them."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Self

from avdetect.errors import ConfigError
from avdetect.types import CLAIMS

STEP_RATE = 5.0
"""Steps per second of the time axis on which streams are fused."""

SYNC = "sync"
"""The stream that compares "lips" with "speech"."""


class Fusion(StrEnum):
    """How streams become claims: each speaks for itself and the sum counts, or all are read together."""

    EVIDENCE = "evidence"
    ATTENTION = "attention"


HEADS = ("context", "linear")
"""What turns a stream's features into evidence: attention over its steps, or a weighted sum of each step's own.

Linear ones are fitted to the end, see `linear_heads`."""
PENALTY = 0.01
"""How much the sum of a linear head's squared weights counts beside the mean cross-entropy, unless a stream says so."""


class FusionSettings:
    """The settings of a fusion model, without transformers.

    streams: name -> {"encoder": a name in encoders.ENCODERS, "options": {...}, "head": one of HEADS,
        "penalty": of a linear head, how much its squared weights count against it where it is fitted}
    claims: claim -> names of the streams it may read ("sync" is the comparison of "lips" with "speech";
        a stream "mouth" beside "lips" is compared together with them)
    fusion: one of `Fusion`: "evidence" adds up what each stream says; "attention" reads a claim's streams together
    dim, heads, layers, dropout: of the fusion; layers run over time in each stream, with "attention" across streams
    stream_dropout: share of a claim's streams that training hides, where the claim has several
    own_loss: 0..1, how much of a claim's loss is that of each of its streams alone, rather than of their sum; with 1
        they learn as if apart, and what they say together is their mean
    lags: frames of the 25 fps grid by which lips and speech are compared to either side
    calibration: claim -> {"scale", "bias"}: probability = sigmoid(scale * logit + bias)
    thresholds: claim -> {"low", "high"} on that probability
    window: {"length", "hop"} in seconds
    """

    def __init__(
        self,
        streams: dict[str, dict[str, Any]] | None = None,
        claims: dict[str, list[str]] | None = None,
        dim: int = 64,
        heads: int = 4,
        layers: int = 1,
        dropout: float = 0.2,
        stream_dropout: float = 0.2,
        own_loss: float = 0.0,
        lags: int = 25,
        fusion: str = Fusion.EVIDENCE.value,
        calibration: dict[str, dict[str, float]] | None = None,
        thresholds: dict[str, dict[str, float]] | None = None,
        window: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.streams = streams or {}
        self.claims = claims or {}
        self.dim, self.heads, self.layers = dim, heads, layers
        self.dropout, self.stream_dropout, self.own_loss = dropout, stream_dropout, own_loss
        self.lags, self.fusion = lags, fusion
        self.calibration = calibration or {claim.value: {"scale": 1.0, "bias": 0.0} for claim in CLAIMS}
        self.thresholds = thresholds or {claim.value: {"low": 0.5, "high": 0.5} for claim in CLAIMS}
        self.window = window or {"length": 4.0, "hop": 2.0}
        super().__init__(**kwargs)  # transformers' own settings, where this is a FusionConfig

    @classmethod
    def names(cls) -> list[str]:
        """What may be set."""
        known = inspect.signature(FusionSettings).parameters.values()
        return [one.name for one in known if one.kind is not inspect.Parameter.VAR_KEYWORD]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The settings in a config.json, without what transformers or a run's owner noted beside them."""
        return cls(**{name: config[name] for name in cls.names() if name in config})

    def check(self) -> None:
        """ConfigError where a claim or a stream is unknown, or a size impossible."""
        self._check_shape()
        for claim, streams in self.claims.items():
            if claim not in {c.value for c in CLAIMS}:
                raise ConfigError(f"no claim is called '{claim}'; {_hint(claim, CLAIMS)}")
            for stream in streams:
                if stream != SYNC and stream not in self.streams:
                    hint = _hint(stream, self.streams)
                    raise ConfigError(
                        f"claim '{claim}' reads the stream '{stream}', which is not configured; {hint}"
                    )
                if stream == SYNC and not {"lips", "speech"} <= set(self.streams):
                    raise ConfigError("the stream 'sync' compares 'lips' with 'speech': configure both")

    def _check_shape(self) -> None:
        for name, table in (("streams", self.streams), ("claims", self.claims)):
            if not isinstance(table, dict):
                raise ConfigError(f"'{name}' = {table!r} is not a table of names")
        for name, stream in self.streams.items():
            if not isinstance(stream, dict) or "encoder" not in stream:
                raise ConfigError(f"the stream '{name}' names no encoder; give it as encoder = \"...\"")
            if stream.get("head", HEADS[0]) not in HEADS:
                raise ConfigError(
                    f"the stream '{name}': no head is called {stream['head']!r}; {_hint(str(stream['head']), HEADS)}"
                )
            penalty = stream.get("penalty", PENALTY)
            if (
                isinstance(penalty, bool)
                or not isinstance(penalty, int | float)
                or not 0 < penalty < math.inf
            ):
                raise ConfigError(f"the stream '{name}': penalty = {penalty!r} is not a positive number")
            if "penalty" in stream and stream.get("head") != "linear":
                raise ConfigError(f"the stream '{name}': only a head that is \"linear\" has a penalty")
        sizes = {name: getattr(self, name) for name in ("dim", "heads", "layers", "lags")}
        for name, value in sizes.items():
            if not isinstance(value, int) or value < (name != "layers"):
                raise ConfigError(f"{name} = {value!r} is not a positive whole number")
        if self.dim % self.heads:
            raise ConfigError(f"dim = {self.dim} cannot be divided among heads = {self.heads}")
        if self.fusion not in list(Fusion):
            raise ConfigError(f"no fusion is called '{self.fusion}'; {_hint(str(self.fusion), Fusion)}")


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known], 1)
    return f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
