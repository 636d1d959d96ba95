"""What is drawn, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from sno_dist.config.sections.model import Network
from sno_dist.config.sections.section import Distinct, Section

__all__ = ["Baseline", "Finetuned", "Individual", "KernelModel", "Oism", "Sampling"]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Baseline = Literal[
    "individual", "finetuned", "nearest", "pooled", "resample", "jitter", "kernel", "oism"
]


class Individual(Section):
    """The baseline of one score model per distribution, trained on its own samples alone."""

    network: Network | None = Field(default=None, description="none: the operator's")
    steps: PositiveInt = Field(default=2000, description="updates of each model")
    batch: PositiveInt = Field(default=256, description="targets per step and distribution")
    learning_rate: PositiveFloat = Field(
        default=3e-3,
        description="at its height; it falls as training's does, and warms up as long, for a "
        "tenth of the steps at most",
    )
    group: PositiveInt = Field(
        default=16, description="distributions whose models are trained side by side"
    )


class Finetuned(Section):
    """The baseline of the operator's score trained on, with a u of its own, for each unseen set."""

    contexts: Annotated[tuple[PositiveInt, ...], Distinct] = Field(
        default=(1,), description="K, beside the whole set; of each one context set"
    )
    steps: PositiveInt = Field(default=300, description="updates of each model")
    batch: PositiveInt = Field(default=64, description="targets per step and distribution")
    learning_rate: PositiveFloat = Field(
        default=3e-4,
        description="at its height; it falls as training's does, and warms up as long, for a "
        "tenth of the steps at most",
    )
    group: PositiveInt = Field(
        default=8, description="distributions whose models are trained side by side"
    )


class KernelModel(Section):
    """The baseline of one Wasserstein-proximal kernel model per context set, in the latent."""

    method: Literal["em", "likelihood", "implicit"] = Field(
        default="em",
        description="em: expectation-maximisation, centres and covariances; of centres that are "
        "k-means', covariances by gradients: of the likelihood, or implicit score matching as in "
        "the paper, which is noisier",
    )
    form: Literal["full", "diagonal", "low_rank"] | None = Field(
        default=None,
        description="of covariances; none: full in latents of at most 32 entries, where it was "
        "best at every size of a set, diagonal beyond, where full ones grow dear",
    )
    rank: PositiveInt = Field(
        default=4, description="low_rank: directions besides a variance that all others share"
    )
    per_centre: tuple[PositiveInt, ...] = Field(
        default=(60, 40, 20, 10),
        min_length=1,
        description="samples for one centre, to be tried; each set keeps what samples left out "
        "tell; a set of fewer than 15 is one Gaussian, shrunk to the seen distributions' variance",
    )
    kernels: bool = Field(
        default=True,
        description="mix in the set's kernel density estimate, by the share samples left out tell",
    )
    largest: PositiveInt = Field(
        default=2000,
        description="samples of a set that are fitted at most; time grows as their square",
    )


class Oism(Section):
    """The baseline of operator-informed score matching per context set, in the latent."""

    noising: Literal["torus", "ou"] = Field(
        default="torus",
        description="whose eigenfunctions; torus: waves, which resolve clusters and are bounded; "
        "ou: Hermite polynomials, of degree 2 a Gaussian, of more apt to run off to infinity",
    )
    order: PositiveInt | None = Field(
        default=None,
        le=64,
        description="waves along an axis, none: 32, 8, 4 in 1, 2, 3 dimensions, 8 beyond, where "
        "each axis is a law of its own; or degree, none: 2",
    )
    period: PositiveFloat = Field(
        default=8.0, description="torus: deviations of a set that are once around"
    )
    shrinkage: Literal["heat", "stein", "none"] = Field(
        default="heat",
        description="of means for their sampling error; heat: as if noised a little more; stein: "
        "mixed with the stationary law; none: memorises",
    )
    ridge: PositiveFloat = Field(
        default=1e-4, description="mixes in the stationary law: the solves stay definite"
    )
    smallest: PositiveInt = Field(
        default=30, description="samples below which a set is a Gaussian: ou, degree 2"
    )


class Sampling(Section):
    """How samples are drawn and of what."""

    solver: Literal["euler_maruyama", "predictor_corrector", "ddim", "heun", "dpmpp_2m", "rk45"] = (
        "dpmpp_2m"
    )
    steps: PositiveInt = 16
    eta: Weight = Field(
        default=0.0,
        description="ddim and dpmpp_2m: how much noise is exchanged on the way; 0: none, the "
        "probability flow; 1: as the reverse SDE does, which mends what the score errs by, for "
        "twice the steps",
    )
    guidance: Weight | Annotated[tuple[Weight, ...], Field(min_length=1)] = Field(
        default=(1.0, 1.1, 1.25, 1.4, 1.6, 2.0, 3.0),
        description="one weight, or a grid on which each K gets that of seen diversity 1; a K of "
        "one sample a set, or larger than any seen distribution, that of whole sets",
    )
    acceptance: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the candidates of a context set that are kept, those whose own "
        "embeddings lie nearest to its u, so that samples which drifted to another distribution "
        "are dropped; with distributions that are broad in u, tails too. Candidates are whole: for "
        "10 samples a set 0.92 and 0.95 draw 11, for 5 both draw 5",
    )
    contexts: Annotated[tuple[PositiveInt, ...], Distinct] = Field(
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
    baselines: Annotated[tuple[Baseline, ...], Distinct] = Field(
        default=(),
        description="drawn beside the operator's samples: individual, a score model for each "
        "distribution; finetuned, the operator's own, trained on; nearest, samples of the seen "
        "distribution with the nearest u; pooled, of all seen ones; resample, the context set "
        "itself; jitter, with a kernel's noise; kernel and oism, closed-form score models of each "
        "context set",
    )
    individual: Individual = Individual()
    finetuned: Finetuned = Finetuned()
    kernel: KernelModel = KernelModel()
    oism: Oism = Oism()

    @field_validator("eta")
    @classmethod
    def _of_a_solver_with_noise(cls, eta: float, info: ValidationInfo) -> float:
        if eta and info.data.get("solver") not in ("ddim", "dpmpp_2m"):
            raise PydanticCustomError("no_noise", "0, or solver=dpmpp_2m or ddim")
        return eta
