"""From a context set to u."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from sno_dist.config.sections.section import Natural, Section

__all__ = [
    "Conditional",
    "EigenForm",
    "Embedding",
    "ExactForm",
    "Form",
    "FourierForm",
    "GaussianKernel",
    "HeatKernel",
    "Kernel",
    "Kme",
    "LaplaceKernel",
    "MaternKernel",
    "NystromForm",
    "PolynomialKernel",
    "Prototype",
    "RandomForm",
    "RationalQuadraticKernel",
    "SetEncoder",
    "SumKernel",
]

Bandwidth: Any = Field(
    default=None, description="length scale, model units; none: the median distance"
)


class SetEncoder(Section):
    """A learned network on each sample, pooled by mean and by attention, and a read-out."""

    kind: Literal["set_encoder"] = "set_encoder"
    width: PositiveInt = Field(default=96, multiple_of=4, description="channels, in four groups")
    blocks: PositiveInt = Field(default=2, description="blocks before pooling; one follows it")
    features: PositiveInt = Field(default=32, description="entries of u per token")
    attention: Natural = Field(
        default=1, description="attention-pooling queries; 0: the mean alone"
    )


class Prototype(Section):
    """The mean of the autoencoder's means (eq. 12)."""

    kind: Literal["prototype"]


class GaussianKernel(Section):
    """Equation: exp(-|x - y|^2 / (2 bandwidth^2))."""

    kind: Literal["gaussian"] = "gaussian"
    bandwidth: PositiveFloat | None = Bandwidth


class LaplaceKernel(Section):
    """Equation: exp(-|x - y|_1 / bandwidth)."""

    kind: Literal["laplace"]
    bandwidth: PositiveFloat | None = Bandwidth


class MaternKernel(Section):
    """The Matern kernel of smoothness nu = order + 1/2."""

    kind: Literal["matern"]
    bandwidth: PositiveFloat | None = Bandwidth
    order: Literal[0, 1, 2] = 1


class RationalQuadraticKernel(Section):
    """Equation: (1 + |x - y|^2 / (2 alpha bandwidth^2))^-alpha."""

    kind: Literal["rational_quadratic"]
    bandwidth: PositiveFloat | None = Bandwidth
    alpha: PositiveFloat = 1.0


class PolynomialKernel(Section):
    """Equation: (x'y / D + constant)^degree: moments up to the degree."""

    kind: Literal["polynomial"]
    degree: PositiveInt = 2
    constant: Annotated[float, Field(ge=0)] = 1.0


class HeatKernel(Section):
    """The heat kernel of a noising: sum over eigenfunctions of exp(-2 r heat) phi(x) phi(y)."""

    kind: Literal["heat"]
    noising: Literal["circle", "ornstein_uhlenbeck"] = Field(
        default="circle",
        description="circle: waves, for few dimensions; ornstein_uhlenbeck: Hermite polynomials",
    )
    order: PositiveInt = Field(default=8, description="waves, or degree, at most")
    active: PositiveInt | None = Field(
        default=None,
        description="axes in one eigenfunction at most, for many dimensions; none: all",
    )
    heat: Annotated[float, Field(ge=0)] = Field(
        default=0.02,
        description="clock to which both sides are noised; circle: bandwidth^2 / 4",
    )
    period: PositiveFloat = Field(
        default=8.0, description="circle: model units, beyond the data's range"
    )


SingleKernel = Annotated[
    GaussianKernel | LaplaceKernel | MaternKernel | RationalQuadraticKernel | PolynomialKernel,
    Field(discriminator="kind"),
]


class SumKernel(Section):
    """A sum of kernels, such as Gaussians of several bandwidths."""

    kind: Literal["sum"]
    terms: tuple[SingleKernel, ...] = Field(min_length=1)
    weights: tuple[PositiveFloat, ...] | None = Field(
        default=None, description="one for each term; none: equal"
    )

    @field_validator("weights")
    @classmethod
    def _one_each(
        cls, weights: tuple[float, ...] | None, info: ValidationInfo
    ) -> tuple[float, ...] | None:
        if weights is not None and len(weights) != len(info.data.get("terms", weights)):
            raise PydanticCustomError("weights", "as many as there are terms")
        return weights


Kernel = Annotated[
    GaussianKernel
    | LaplaceKernel
    | MaternKernel
    | RationalQuadraticKernel
    | PolynomialKernel
    | HeatKernel
    | SumKernel,
    Field(discriminator="kind"),
]


class ExactForm(Section):
    """Kernel values of all pairs of samples: N^2 n^2 / 2 of them, tile by tile."""

    kind: Literal["exact"] = "exact"


class FourierForm(Section):
    """Deterministic quadrature of the Gaussian kernel in up to three dimensions."""

    kind: Literal["fourier"]
    error: PositiveFloat = Field(default=1e-6, lt=1, description="of the kernel, at most")
    margin: Annotated[float, Field(ge=0)] = Field(
        default=0.25, description="room beyond the seen data's range, as a share of it"
    )


class RandomForm(Section):
    """Random Fourier features of a radial kernel, in any dimension."""

    kind: Literal["random"]
    features: PositiveInt = Field(default=2048, multiple_of=2, description="cosines and sines")
    orthogonal: bool = Field(default=True, description="frequencies orthogonal in blocks")
    seed: Natural = Field(default=0, description="their own, so that runs of other seeds agree")


class NystromForm(Section):
    """The kernel against anchor samples, whitened: any kernel, any dimension."""

    kind: Literal["nystrom"]
    anchors: PositiveInt = Field(default=1024, description="samples, spread over the seen data")


class EigenForm(Section):
    """The eigenfunctions of the heat kernel: their means are what OISM fits a score to."""

    kind: Literal["eigen"]


Form = Annotated[
    ExactForm | FourierForm | RandomForm | NystromForm | EigenForm, Field(discriminator="kind")
]


class Kme(Section):
    """Kernel mean embedding of the seen distributions, then RKHS PCA (eq. 11, 25)."""

    kind: Literal["kme"]
    kernel: Kernel = GaussianKernel()
    form: Form = ExactForm()
    samples: PositiveInt | None = Field(
        default=500, description="of each seen distribution, in the fit; none: all"
    )
    components: PositiveInt | None = Field(
        default=None, description="entries of u; none: by noise floor"
    )
    scaling: Literal["isometric", "whitened"] = "isometric"
    fixed: bool = Field(
        default=True,
        description="train on each seen distribution's fitted embedding; "
        "false: on those of random context sets",
    )


class Conditional(Section):
    """A learned row per seen distribution: the baseline that cannot meet a new one."""

    kind: Literal["conditional"]
    features: PositiveInt = 64


Embedding = Annotated[SetEncoder | Prototype | Kme | Conditional, Field(discriminator="kind")]
