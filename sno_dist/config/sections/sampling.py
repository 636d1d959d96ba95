"""What is drawn, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from sno_dist.config.sections.model import Network
from sno_dist.config.sections.section import Section

__all__ = ["Baseline", "Individual", "Sampling"]

Baseline = Literal["individual", "nearest", "pooled", "resample", "jitter"]


class Individual(Section):
    """The baseline of one score model per distribution, trained on its own samples alone."""

    network: Network | None = Field(default=None, description="none: the operator's")
    steps: PositiveInt = Field(default=2000, description="updates of each model")
    batch: PositiveInt = Field(default=256, description="targets per step and distribution")
    learning_rate: PositiveFloat = Field(
        default=3e-3, description="at its height; warm-up and fall are those of training"
    )
    group: PositiveInt = Field(
        default=16, description="distributions whose models are trained side by side"
    )


class Sampling(Section):
    """How samples are drawn and of what."""

    solver: Literal["euler_maruyama", "predictor_corrector", "heun", "dpmpp_2m", "rk45"] = (
        "dpmpp_2m"
    )
    steps: PositiveInt = 16
    guidance: float | tuple[float, ...] = Field(
        default=(1.0, 1.1, 1.25, 1.4, 1.6, 2.0),
        description="one weight, or a grid of which the one with seen diversity 1 is taken",
    )
    contexts: tuple[PositiveInt, ...] = Field(
        default=(1, 10, 100), description="K, beside the whole set"
    )
    distributions: PositiveInt | None = Field(
        default=None, description="of each split, spread evenly over them; none: all"
    )
    samples: PositiveInt = Field(default=100, description="per distribution and K")
    per_context: PositiveInt = Field(default=10, description="samples drawn from one context set")
    batch: PositiveInt = Field(default=500, description="samples integrated together")
    snr: PositiveFloat = Field(
        default=0.16, description="predictor-corrector: signal-to-noise ratio"
    )
    tolerance: PositiveFloat = Field(default=1e-5, description="rk45: relative and absolute")
    baselines: tuple[Baseline, ...] = Field(
        default=(),
        description="drawn beside the operator's samples: individual, a score model for each "
        "distribution; nearest, samples of the seen distribution with the nearest u; pooled, of "
        "all seen ones; resample, the context set itself; jitter, with a kernel's noise",
    )
    individual: Individual = Individual()
