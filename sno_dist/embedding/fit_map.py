"""What a feature map is made of: measured on the data, or drawn from the kernel's spectral law."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.config import schema
from sno_dist.embedding import stream
from sno_dist.embedding.heat import HeatKernel
from sno_dist.embedding.kernels import Gaussian, Kernel, Radial
from sno_dist.embedding.sets import SampleSets
from sno_dist.errors import ConfigError
from sno_dist.runtime.rng import generator

__all__ = ["fit_map", "spectral_frequencies"]

AXES = 3
"""Dimensions up to which a product of trapezoid rules is affordable."""
RANK = 1e-10
"""Eigenvalues of the anchors' kernel matrix below this share of the largest are rounding."""


def fit_map(form: schema.Form, kernel: Kernel, sets: SampleSets) -> dict[str, Tensor]:
    """The tensors of a feature form's map, by the names that `make_feature_map` takes.

    Raises:
        ConfigError: If the form does not go with the kernel or the data.

    **Collective.**
    """
    match form:
        case schema.FourierForm():
            return _fourier(form, kernel, sets)
        case schema.RandomForm():
            return _random(form, kernel, sets)
        case schema.NystromForm():
            return _nystrom(form, kernel, sets)
        case schema.EigenForm():
            heat_kernel(kernel)
            return _named({"dims": torch.tensor(sets.dims)})
        case schema.ExactForm():
            raise ValueError("the exact form is fitted from the Gram matrix")


def spectral_frequencies(
    kernel: Radial, count: int, dims: int, *, orthogonal: bool, source: np.random.Generator
) -> NDArray[np.float64]:
    """Frequencies of a radial kernel's spectral law: (count, dims).

    Equation: w = s g with g ~ N(0, I) and s of the kernel's mixture; orthogonal: in blocks of
    `dims` rows g has the directions of a Haar rotation, and lengths of its own law.
    """
    normal = source.standard_normal((count, dims))
    if orthogonal:
        blocks = []
        for start in range(0, count, dims):
            rows = normal[start : start + dims]
            q, r = np.linalg.qr(source.standard_normal((dims, dims)))
            haar = q * np.sign(np.diag(r))
            blocks.append(haar[: len(rows)] * np.linalg.norm(rows, axis=1, keepdims=True))
        normal = np.concatenate(blocks)
    return normal * kernel.scales(source, count)[:, None]


def _fourier(form: schema.FourierForm, kernel: Kernel, sets: SampleSets) -> dict[str, Tensor]:
    if not isinstance(kernel, Gaussian):
        raise ConfigError(
            "Fourier quadrature is of the Gaussian kernel",
            where="embedding.kernel.kind",
            got=type(kernel).__name__,
            fix="set embedding.form.kind=random, nystrom or exact",
        )
    if sets.dims > AXES:
        raise ConfigError(
            "Fourier quadrature takes too many features in so many dimensions",
            where="embedding.form.kind",
            got=f"{sets.dims} dimensions",
            expected=f"at most {AXES}",
            fix="set embedding.form.kind=random, nystrom or exact",
        )
    found = {
        "bandwidth": torch.tensor(kernel.bandwidth, dtype=torch.float64),
        "extent": stream.extent(sets) * (1 + form.margin),
        "error": torch.tensor(form.error, dtype=torch.float64),
    }
    return _named(found)


def _random(form: schema.RandomForm, kernel: Kernel, sets: SampleSets) -> dict[str, Tensor]:
    if not isinstance(kernel, Radial):
        raise ConfigError(
            "random features are of a radial kernel",
            where="embedding.kernel.kind",
            got=type(kernel).__name__,
            expected="gaussian, matern or rational_quadratic",
            fix="set embedding.form.kind=nystrom or exact",
        )
    frequencies = spectral_frequencies(
        kernel,
        form.features // 2,
        sets.dims,
        orthogonal=form.orthogonal,
        source=generator(form.seed, "frequencies"),
    )
    return _named({"frequencies": torch.from_numpy(frequencies)})


def _nystrom(form: schema.NystromForm, kernel: Kernel, sets: SampleSets) -> dict[str, Tensor]:
    anchors = stream.evenly(sets, form.anchors)
    values, vectors = torch.linalg.eigh(kernel(anchors, anchors))
    kept = values > RANK * values[-1]
    roots = torch.where(kept, values.clamp(min=float(values[-1]) * RANK).rsqrt(), 0)
    return _named({"anchors": anchors, "whiten": (vectors * roots) @ vectors.T})


def heat_kernel(kernel: Kernel) -> HeatKernel:
    """The one kernel that has eigenfunctions.

    Raises:
        ConfigError: If it is another.
    """
    if not isinstance(kernel, HeatKernel):
        raise ConfigError(
            "eigenfunctions are those of the heat kernel",
            where="embedding.kernel.kind",
            got=type(kernel).__name__,
            fix="set embedding.kernel.kind=heat or another embedding.form.kind",
        )
    return kernel


def _named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"map.{name}": tensor for name, tensor in tensors.items()}
