"""Every setting of a run, typed and bounded; the only home of defaults.

A choice among kinds (a source, an embedding, a network) is a tagged union: the `kind` key says
which member, and unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

__all__ = [
    "Autoencoder",
    "Conditional",
    "Config",
    "ConvAutoencoder",
    "Digits",
    "Embedding",
    "Evaluation",
    "Folder",
    "GaussianMixture",
    "IdentityAutoencoder",
    "Judge",
    "Kme",
    "MlpAutoencoder",
    "MnistPairs",
    "Model",
    "Network",
    "Nomad",
    "Objective",
    "Prototype",
    "Sampling",
    "Schedule",
    "ScoreNet",
    "SetEncoder",
    "Shards",
    "Source",
    "Split",
    "TokenOperator",
    "Training",
]

Fraction = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0)]
SolverName = Literal["euler_maruyama", "predictor_corrector", "heun", "dpmpp_2m", "rk45"]


class Section(BaseModel):
    """A part of the config: immutable, strict about keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


# ------------------------------------------------------------------------------ shards


class Digits(Section):
    """Pairs of the 1,797 handwritten digits that ship inside scikit-learn: 00..99, 8 x 16 px."""

    kind: Literal["digits"] = "digits"
    model: PositiveInt = Field(
        default=2000, description="pairs per distribution that the model may see"
    )
    judge: PositiveInt = Field(
        default=400, description="pairs per distribution that train the classifier"
    )
    reference: PositiveInt = Field(default=200, description="real held-out pairs per distribution")


class MnistPairs(Section):
    """Pairs of MNIST digits side by side, resized to 32 x 32: 00..99."""

    kind: Literal["mnist_pairs"]
    path: str | None = Field(
        default=None, description="folder of the four IDX files; none: fetch them"
    )
    model: PositiveInt = Field(
        default=2000, description="pairs per distribution that the model may see"
    )
    judge: PositiveInt = Field(
        default=500, description="pairs per distribution that train the classifier"
    )
    reference: PositiveInt = Field(default=200, description="real held-out pairs per distribution")


class GaussianMixture(Section):
    """The 6 x 6 lattice family: four equal cells a law, chosen by a rule for each half."""

    kind: Literal["gaussian_mixture"]
    seen: PositiveInt | None = Field(
        default=None, description="how many seen laws; none: all 1,620"
    )
    unseen: PositiveInt | None = Field(
        default=None, description="how many unseen laws; none: all 324"
    )
    model: PositiveInt = Field(default=1000, description="samples per law that the model may see")
    reference: PositiveInt = Field(default=1000, description="held-out samples per law")


class Folder(Section):
    """Your own data: image folders, .npy/.npz arrays, or one CSV/Parquet table with a group."""

    kind: Literal["folder"]
    path: str = Field(description="a directory, or a .csv/.parquet file")
    group: str | None = Field(
        default=None, description="tables: the column that names the distribution"
    )
    columns: tuple[str, ...] | None = Field(
        default=None, description="tables: the value columns; all"
    )
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="images: height, width to resize to; none: the first image's"
    )
    mode: Literal["L", "RGB"] = Field(default="L", description="images: grey or colour")
    reference: Fraction = Field(
        default=0.15, description="share of each distribution held out as real"
    )
    judge: Fraction = Field(default=0.25, description="share that trains the classifier")


Source = Annotated[Digits | MnistPairs | GaussianMixture | Folder, Field(discriminator="kind")]


class Split(Section):
    """Which distributions are never trained on. A source may fix its own split."""

    unseen: Fraction = Field(default=0.3, description="share of the distributions held out")
    seed: Natural = 0


class Shards(Section):
    """The data on disk."""

    source: Source = Digits()
    path: str | None = Field(
        default=None, description="the artifact's folder or URL; none: data_shards/<name>"
    )
    split: Split = Split()
    block: PositiveInt = Field(default=256, description="samples per record")
    shard: PositiveInt = Field(default=65536, description="samples per tar at most")
    verify: Literal["full", "size"] = Field(
        default="full", description="what a reader checks of a shard"
    )
    cache: str | None = Field(
        default=None, description="where remote shards are kept; none: a temp folder"
    )


# --------------------------------------------------------------------------- embedding


class SetEncoder(Section):
    """A learned network on each sample, pooled by mean and by attention, and a read-out."""

    kind: Literal["set_encoder"] = "set_encoder"
    width: PositiveInt = 96
    blocks: PositiveInt = Field(default=2, description="blocks before pooling; one follows it")
    features: PositiveInt = Field(default=32, description="entries of u per token")
    attention: Natural = Field(
        default=1, description="attention-pooling queries; 0: the mean alone"
    )


class Prototype(Section):
    """The mean of the autoencoder's means (eq. 12)."""

    kind: Literal["prototype"]


class Kme(Section):
    """Kernel mean embedding against the seen distributions, then RKHS PCA (eq. 11, 25)."""

    kind: Literal["kme"]
    bandwidth: PositiveFloat | None = Field(
        default=None, description="model units; none: median distance"
    )
    components: PositiveInt | None = Field(
        default=None, description="entries of u; none: by noise floor"
    )
    samples: PositiveInt = Field(
        default=500, description="samples per seen distribution in the Gram matrix"
    )
    scaling: Literal["isometric", "whitened"] = "isometric"


class Conditional(Section):
    """A learned row per seen distribution: the baseline that cannot meet a new one."""

    kind: Literal["conditional"]
    features: PositiveInt = 64


Embedding = Annotated[SetEncoder | Prototype | Kme | Conditional, Field(discriminator="kind")]


# ------------------------------------------------------------------------------- model


class Schedule(Section):
    """The SDE: alpha_t and sigma_t for t in [0, 1]."""

    kind: Literal["vp", "ve", "sub_vp"] = "vp"
    beta_min: PositiveFloat = Field(default=0.1, description="VP and sub-VP")
    beta_max: PositiveFloat = Field(default=20.0, description="VP and sub-VP")
    sigma: PositiveFloat = Field(default=25.0, gt=1, description="VE: g = sigma**t")


class IdentityAutoencoder(Section):
    """No autoencoder: the score lives in data space."""

    kind: Literal["identity"]


class MlpAutoencoder(Section):
    """The paper's VAE: fully connected encoder and decoder."""

    kind: Literal["mlp"]
    latent: PositiveInt = 32
    width: PositiveInt = 512
    depth: PositiveInt = 3


class ConvAutoencoder(Section):
    """A small convolutional VAE whose latent keeps the image's layout: one token a cell."""

    kind: Literal["conv"] = "conv"
    channels: PositiveInt = Field(default=8, description="latent entries per token")
    width: PositiveInt = Field(
        default=32, description="channels at full resolution; doubled per halving"
    )
    halvings: PositiveInt = Field(
        default=2, le=5, description="times that height and width are halved"
    )


Autoencoder = Annotated[
    IdentityAutoencoder | MlpAutoencoder | ConvAutoencoder, Field(discriminator="kind")
]


class Nomad(Section):
    """Branch(u), trunk(x, t), and an output network on both (the paper's NOMAD)."""

    kind: Literal["nomad"]
    width: PositiveInt = 500
    depth: PositiveInt = 7
    branch: Literal["mlp", "linear"] = Field(
        default="mlp", description="linear: affine in u, which generalised ten times better in 2-D"
    )
    fourier: PositiveFloat = Field(
        default=10.0, description="standard deviation of the time frequencies"
    )


class ScoreNet(Section):
    """The paper's U-shaped multilayer perceptron for images and latents."""

    kind: Literal["scorenet"]
    width: PositiveInt = 512
    levels: PositiveInt = 3
    fourier: PositiveFloat = 10.0


class TokenOperator(Section):
    """Blocks that mix tokens linearly and channels by a gated MLP, with u at every block."""

    kind: Literal["tokens"] = "tokens"
    width: PositiveInt = 192
    hidden: PositiveInt = 384
    blocks: PositiveInt = 4
    groups: PositiveInt = Field(default=4, description="token-mixing matrices per block")


Network = Annotated[Nomad | ScoreNet | TokenOperator, Field(discriminator="kind")]


class Model(Section):
    """The operator: autoencoder, score network and SDE. The embedder has its own section."""

    autoencoder: Autoencoder = ConvAutoencoder()
    network: Network = TokenOperator()
    likelihood: Literal["gaussian", "bernoulli"] = Field(
        default="bernoulli",
        description="gaussian: squared error summed; bernoulli: pixels in [0, 1]",
    )
    schedule: Schedule = Schedule()
    prediction: Literal["edm", "noise"] = Field(
        default="edm",
        description="noise: score = network / sigma_t; edm: preconditioned at every level",
    )


# ---------------------------------------------------------------------------- training


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
    weight: Literal["noise", "edm", "likelihood"] = "edm"
    times: Literal["uniform", "lognormal"] = "lognormal"
    log_mean: float = Field(default=-0.6, description="lognormal: mean of ln(sigma/alpha)")
    log_std: PositiveFloat = 1.4
    null: Fraction = Field(
        default=0.1, description="share of samples whose u is dropped, for guidance"
    )


class Training(Section):
    """The optimisation. All numerics live here, none in the launcher."""

    steps: PositiveInt = 3000
    distributions: PositiveInt = Field(default=32, description="P: distributions per global batch")
    targets: PositiveInt = Field(default=16, description="B: targets per distribution")
    context: tuple[PositiveInt, PositiveInt] = Field(
        default=(1, 100), description="K: smallest and largest context set, log-uniform between"
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
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    workers: Natural = Field(default=1, description="loader processes per rank")
    save_every: PositiveInt = 1000
    keep: PositiveInt = Field(default=2, description="checkpoints kept")
    log_every: PositiveInt = 20
    picture_every: PositiveInt = 1000
    objective: Objective = Objective()


# ---------------------------------------------------------------------------- sampling


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
    samples: PositiveInt = Field(default=100, description="per distribution and K")
    per_context: PositiveInt = Field(default=10, description="samples drawn from one context set")
    batch: PositiveInt = Field(default=500, description="samples integrated together")
    snr: PositiveFloat = Field(
        default=0.16, description="predictor-corrector: signal-to-noise ratio"
    )
    tolerance: PositiveFloat = Field(default=1e-5, description="rk45: relative and absolute")


# -------------------------------------------------------------------------- evaluation


class Judge(Section):
    """The ResNet-18 that judges images, trained on glyphs that the model never sees."""

    path: str | None = Field(
        default=None, description="folder to share a judge between runs; none: own"
    )
    seed: Natural = Field(default=0, description="its own, so that runs of other seeds share it")
    width: PositiveInt = Field(default=16, description="channels of the first of four stages")
    epochs: PositiveInt = 3
    batch: PositiveInt = 250
    learning_rate: PositiveFloat = 3e-3


class Evaluation(Section):
    """Which figures are computed."""

    bandwidth: PositiveFloat | None = Field(
        default=None, description="MMD; none: median of real samples"
    )
    neighbours: PositiveInt = Field(default=3, description="k of the recall's manifold")
    bootstrap: PositiveInt = Field(default=1000, description="resamples for the intervals")


class Config(Section):
    """One experiment."""

    name: str = Field(default="digits", pattern=r"^[A-Za-z0-9_.-]+$")
    seed: Natural = 0
    run: str | None = Field(default=None, description="the run's folder; none: runs/<name>")
    shards: Shards = Shards()
    embedding: Embedding = SetEncoder()
    model: Model = Model()
    training: Training = Training()
    sampling: Sampling = Sampling()
    judge: Judge | None = Field(default=Judge(), description="none: no accuracy, features are data")
    evaluation: Evaluation = Evaluation()
