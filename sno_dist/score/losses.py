"""What the score is trained by, per sample: against the noise, or without it.

All are equal up to a constant in expectation: E|sigma s + eps|^2 = E sigma^2 (|s|^2 + 2 div s) + Z,
and along a field B(x) e the squared distance to the score is weighed by B B'.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sno_dist.diffusion.matching import ProbedField, generalised_probed, implicit, sliced
from sno_dist.score.preconditioned import PreconditionedScore

__all__ = ["Matching", "score_losses"]

Matching = Literal["denoising", "implicit", "sliced", "generalised"]


def score_losses(
    model: PreconditionedScore,
    matching: Matching,
    u: Tensor,
    noised: Tensor,
    t: Tensor,
    noise: Tensor,
    probe: Tensor,
    field: tuple[ProbedField, int],
) -> Tensor:
    """The loss of each noised sample, (N,).

    Equation: denoising, |sigma s + eps|^2; else 2 sigma^2 times the objective of
    `diffusion/matching.py`, which knows nothing of the noise.

    Args:
        model: The score.
        matching: Which of them.
        u: (N, U).
        noised: (N, Z) x_t.
        t: (N,).
        noise: (N, Z) eps.
        probe: (N, 2 Z) standard normals that are no sample's own eps, for the sliced ones.
        field: Of "generalised": B(x) e, and the entries of e.
    """
    if matching == "denoising":
        return (model(u, noised, t) - noise).square().sum(1)

    def score(x: Tensor) -> Tensor:
        return model.score(u, x, t)

    match matching:
        case "implicit":
            found = implicit(score, noised)
        case "sliced":
            found = sliced(score, noised, probe[:, : noised.shape[1]])
        case "generalised":
            found = generalised_probed(score, noised, field[0], probe[:, : field[1]])
    return 2 * model.schedule.sigma(t).square() * found
