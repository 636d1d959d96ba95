"""Score matching without noise: objectives of which the data's own score is the minimiser.

Each is, for any score s of which p s vanishes at the edge of the support, a weighted squared
distance to the data's score up to a constant. At noise level t the data are x_t, and the callable
closes over t. All are per sample and are differentiated through.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sno_dist.diffusion.divergence import divergence, probed

__all__ = [
    "Field",
    "ProbedField",
    "ScoreOf",
    "generalised",
    "generalised_probed",
    "implicit",
    "sliced",
]

ScoreOf = Callable[[Tensor], Tensor]
"""(N, d) points to (N, d) scores, each row from its own point alone."""

Field = Callable[[Tensor], Tensor]
"""(N, d) points to (N, d) vectors, each row from its own point alone."""

ProbedField = Callable[[Tensor, Tensor], Tensor]
"""(N, d) points and (N, m) probes e to B(x) e, (N, d), linear in e."""


def implicit(score: ScoreOf, x: Tensor) -> Tensor:
    """Implicit score matching (Hyvarinen 2005): |s|^2 / 2 + div s, (N,).

    Cost: d vector-Jacobian products.
    """
    x = _leaf(x)
    found = score(x)
    return 0.5 * found.square().sum(1) + divergence(found, x, graph=True)


def sliced(score: ScoreOf, x: Tensor, probe: Tensor) -> Tensor:
    """Sliced score matching (Song et al. 2019), with reduced variance: |s|^2 / 2 + e'J_s e, (N,).

    Args:
        score: s.
        x: (N, d).
        probe: e, (N, d) independent of mean 0 and covariance 1.
    """
    x = _leaf(x)
    found = score(x)
    return 0.5 * found.square().sum(1) + probed(found, x, probe, graph=True)


def generalised(
    score: ScoreOf, x: Tensor, field: Field, *, field_divergence: Tensor | None = None
) -> Tensor:
    """Generalised sliced score matching along a vector field w (arXiv 2412.07904), (N,).

    Equation: q^2 / 2 + w . grad q + q div w, q = w . s: the mean is that of (w . (s - s_x))^2 / 2
    and a constant, if p q w vanishes at the edge of the support. A constant w is sliced score
    matching; one that vanishes at the edge serves bounded supports; w = grad v looks along v's
    gradient, w = grad v / |grad v|^2 matches the score of the coordinate v.

    Args:
        score: s.
        x: (N, d).
        field: w.
        field_divergence: div w where it is known, (N,); none: it is computed.

    Cost: a derivative of q, and d of w where its divergence is not given.
    """
    x = _leaf(x)
    along = field(x)
    q = (along * score(x)).sum(1)
    return 0.5 * q.square() + _transport(q, along, x, field_divergence)


def generalised_probed(
    score: ScoreOf,
    x: Tensor,
    field: ProbedField,
    probe: Tensor,
    *,
    field_divergence: Tensor | None = None,
) -> Tensor:
    """Generalised sliced score matching along w = B(x) e with reduced variance, (N,).

    Equation: |B's|^2 / 2 + w . grad q + q div w, q = w . s: over e of mean 0 and covariance 1 the
    mean is that of |B'(s - s_x)|^2 / 2 and a constant. B = J^-1 of a map y = phi(x) is score
    matching in y; B = 1 is sliced score matching.

    Args:
        score: s.
        x: (N, d).
        field: B(x) e.
        probe: e, (N, m), m the field's own.
        field_divergence: div w where it is known, (N,); none: it is computed.
    """
    x, probe = _leaf(x), _leaf(probe)
    along, found = field(x, probe), score(x)
    q = (along * found).sum(1)
    (reduced,) = torch.autograd.grad(q.sum(), probe, create_graph=True)
    return 0.5 * reduced.square().sum(1) + _transport(q, along, x, field_divergence)


def _transport(q: Tensor, along: Tensor, x: Tensor, known: Tensor | None) -> Tensor:
    """W . grad q + q div w, whose mean is -E[q w . s_x]."""
    (slope,) = torch.autograd.grad(q.sum(), x, create_graph=True, materialize_grads=True)
    if known is None:
        # A field that has no gradient does not depend on x.
        known = divergence(along, x, graph=True) if along.requires_grad else torch.zeros_like(q)
    return (along * slope).sum(1) + q * known


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()
