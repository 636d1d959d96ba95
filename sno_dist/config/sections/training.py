"""The optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from sno_dist.config.sections.section import Ascending, Fraction, Natural, Section

__all__ = ["Objective", "Training"]


class Objective(Section):
    """Reconstruction + kl * KL + score * L_SGM (eq. 16-18), in nats per sample."""

    reconstruction: PositiveFloat = 1.0
    kl: Annotated[float, Field(ge=0)] = 0.1
    kl_warmup: Natural = Field(default=300, description="steps over which the KL weight rises")
    score: PositiveFloat = 1.0
    score_gradient: Fraction = Field(
        default=0.0,
        description="share of the score's gradient that reaches the autoencoder; 1: eq. 18",
    )
    matching: Literal["denoising", "implicit", "sliced", "generalised"] = Field(
        default="denoising",
        description="denoising: against the noise; implicit: by the score's divergence, dear in "
        "many dimensions; sliced: by a random slice of it; generalised: along gradients of the "
        "data's coordinates, which a transform bends, without an autoencoder",
    )
    weight: Literal["noise", "edm", "likelihood"] = "edm"
    times: Literal["uniform", "lognormal"] = "lognormal"
    log_mean: float = Field(default=-0.6, description="lognormal: mean of ln(sigma/alpha)")
    log_std: PositiveFloat = 1.4
    drop: Fraction = Field(
        default=0.1, description="share of samples whose u is dropped, for guidance"
    )


class Probe(Section):
    """The learning curve: accuracy of a few generated samples while training goes on."""

    every: Natural = Field(default=0, description="steps between two visits; 0: none")
    distributions: PositiveInt = Field(default=10, description="of each split")
    samples: PositiveInt = Field(default=20, description="per distribution")
    guidance: PositiveFloat = Field(
        default=1.25, description="fixed, since the weight is chosen after training"
    )


class Training(Section):
    """The optimisation. All numerics live here, none in the launcher."""

    steps: PositiveInt = 3000
    distributions: PositiveInt = Field(default=32, description="P: distributions per global batch")
    targets: PositiveInt = Field(default=16, description="B: targets per distribution")
    references: Natural = Field(
        default=0,
        description="R: further samples per distribution; without an autoencoder, the noise to "
        "predict is averaged over all that the noised sample may have come from",
    )
    context: Annotated[tuple[PositiveInt, PositiveInt], Ascending] = Field(
        default=(1, 100), description="K: smallest and largest context set"
    )
    context_exponent: Annotated[float, Field(ge=0)] = Field(
        default=1.0,
        description="K's density falls as K^-exponent; 0: uniform, 1: log-uniform; above, large "
        "sets are met at the cost of smaller ones",
    )
    micro: PositiveInt | None = Field(
        default=None, description="distributions per forward on one rank; none: all of its share"
    )
    learning_rate: PositiveFloat = 2e-3
    autoencoder_rate: PositiveFloat = Field(default=1.0, description="times learning_rate")
    autoencoder_end: Fraction = Field(
        default=1.0, gt=0, description="share of the steps after which the autoencoder is at rest"
    )
    warmup: Natural = 100
    final: Fraction = Field(default=0.01, description="learning rate at the end, as a share")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: PositiveFloat = 1.0
    ema: Fraction = 0.999
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="of the networks; auto: bf16 where the device has it, elsewhere fp32, which is "
        "faster than bf16 imitated",
    )
    workers: Natural = Field(default=1, description="loader processes per rank")
    save_every: PositiveInt = 1000
    keep: PositiveInt = Field(default=2, description="checkpoints kept")
    log_every: PositiveInt = 20
    picture_every: PositiveInt = 1000
    probe: Probe = Probe()
    objective: Objective = Objective()
