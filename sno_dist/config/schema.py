"""Every setting of a run, typed and bounded: the sections put together.

A choice among kinds (a source, an embedding, a network) is a tagged union: the `kind` key says
which member, and unknown keys are refused. Defaults live in the sections and nowhere else.
"""

from __future__ import annotations

from pydantic import Field

from sno_dist.config.sections.embedding import (
    Conditional,
    EigenForm,
    Embedding,
    ExactForm,
    Form,
    FourierForm,
    GaussianKernel,
    HeatKernel,
    Kernel,
    Kme,
    LaplaceKernel,
    MaternKernel,
    NystromForm,
    PolynomialKernel,
    Prototype,
    RandomForm,
    RationalQuadraticKernel,
    SetEncoder,
    SumKernel,
)
from sno_dist.config.sections.evaluation import Evaluation, Judge
from sno_dist.config.sections.model import (
    Autoencoder,
    BoxTransform,
    ConvAutoencoder,
    IdentityAutoencoder,
    MixtureHead,
    MlpAutoencoder,
    Model,
    Network,
    Nomad,
    NoTransform,
    Schedule,
    ScoreNet,
    SimplexTransform,
    TokenOperator,
    Transform,
)
from sno_dist.config.sections.sampling import (
    Baseline,
    Finetuned,
    Individual,
    KernelModel,
    Oism,
    Sampling,
)
from sno_dist.config.sections.section import Natural, Section
from sno_dist.config.sections.shards import (
    Digits,
    Dirichlet,
    Folder,
    GaussianMixture,
    MnistPairs,
    Planar,
    Shards,
    Source,
    Split,
)
from sno_dist.config.sections.training import Objective, Training

__all__ = [
    "Autoencoder",
    "Baseline",
    "BoxTransform",
    "Conditional",
    "Config",
    "ConvAutoencoder",
    "Digits",
    "Dirichlet",
    "EigenForm",
    "Embedding",
    "Evaluation",
    "ExactForm",
    "Finetuned",
    "Folder",
    "Form",
    "FourierForm",
    "GaussianKernel",
    "GaussianMixture",
    "HeatKernel",
    "IdentityAutoencoder",
    "Individual",
    "Judge",
    "Kernel",
    "KernelModel",
    "Kme",
    "LaplaceKernel",
    "MaternKernel",
    "MixtureHead",
    "MlpAutoencoder",
    "MnistPairs",
    "Model",
    "Network",
    "NoTransform",
    "Nomad",
    "NystromForm",
    "Objective",
    "Oism",
    "Planar",
    "PolynomialKernel",
    "Prototype",
    "RandomForm",
    "RationalQuadraticKernel",
    "Sampling",
    "Schedule",
    "ScoreNet",
    "SetEncoder",
    "Shards",
    "SimplexTransform",
    "Source",
    "Split",
    "SumKernel",
    "TokenOperator",
    "Training",
    "Transform",
]


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
