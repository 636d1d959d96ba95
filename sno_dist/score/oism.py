"""Operator-informed score matching: scores in closed form from means of clean samples.

The score at clock tau is modelled as grad ln pi + grad f, f = sum_n a_n phi_n over M eigenfunctions
of the noising (`diffusion/eigenfunctions.py`). Score matching, E_tau[|grad f|^2 + 2 Lf], is then
quadratic in a, and by E_tau phi_k = exp(-r_k tau) m_k its minimiser needs only the means m of clean
samples: in units of sqrt(r_n), with b_n = sqrt(r_n) exp(-r_n tau) m_n,
(1 + ridge) a + sum_k exp(-r_k tau) m_k W_k a = b. No network, no training, no simulated noise.

Near zero noise the solution is that of the empirical law, which memorises (see `shrinkage.py`);
far outside the samples an Ornstein-Uhlenbeck f is a polynomial's continuation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sno_dist.diffusion.eigenfunctions import Eigenfunctions, Moments, carre_du_champ
from sno_dist.diffusion.objective import EPSILON
from sno_dist.diffusion.schedule import Schedule, level, like
from sno_dist.diffusion.solvers import ScoreAt
from sno_dist.score.shrinkage import Shrinkage, heat, stein

__all__ = ["Fit", "OperatorInformed", "TabledScore", "series_score"]

ENTRIES = 1 << 20
"""Of the matrices that are held at a time: 8 MiB."""


@dataclass(frozen=True)
class OperatorInformed:
    """Closed-form scores in the span of some eigenfunctions; all arithmetic is float64.

    Args:
        basis: M eigenfunctions, such as those of `up_to`.
    """

    basis: Eigenfunctions

    @property
    def measured(self) -> Eigenfunctions:
        """The K eigenfunctions whose means are needed: the basis, then those of its products."""
        return self._products[0]

    @cached_property
    def _products(self) -> tuple[Eigenfunctions, Tensor]:
        return carre_du_champ(self.basis)

    def coefficients(self, mean: Tensor, clocks: Tensor, *, ridge: float = 1e-4) -> Tensor:
        """The minimisers a, all in one call.

        Args:
            mean: (P, K) means of `measured` under P laws.
            clocks: (P, T) or (1, T) clocks of each, not negative.
            ridge: Added to the identity; the same as mixing each law with pi in the shares 1 and
                `ridge`.

        Returns:
            (P, T, M).

        Cost: P T symmetric solves of size M. Where rounding by e might move a solution by more
        than a hundredth of itself, 1 / v of each eigenvalue v is damped to v / (v^2 + e^2).
        """
        rates = self.measured.rates.to(mean)
        count = len(self.basis.indices)
        clocks = clocks.to(mean).expand(len(mean), -1)
        law = torch.arange(len(mean)).repeat_interleave(clocks.shape[1])
        found = []
        for rows in torch.arange(len(law)).split(max(1, ENTRIES // count**2)):
            faded = (-rates * clocks.flatten()[rows, None]).exp()
            found.append(self._solve(mean[law[rows]] * faded, ridge))
        return (torch.cat(found) / rates[:count].sqrt()).unflatten(0, clocks.shape)

    def _solve(self, mean: Tensor, ridge: float) -> Tensor:
        """(R, K) means under noised laws to (R, M) coefficients in units of sqrt(r)."""
        count = len(self.basis.indices)
        table = self._products[1].to(mean.device)
        # The lower triangles alone: neither solver reads the upper ones.
        matrix = torch.sparse.mm(table, mean.T.contiguous()).T.reshape(-1, count, count)
        matrix = matrix + (1 + ridge) * torch.eye(count).to(mean)
        right = (mean[:, :count] * self.basis.rates.to(mean).sqrt())[..., None]
        factor, failed = torch.linalg.cholesky_ex(matrix)
        found = torch.cholesky_solve(right, factor)
        bound = torch.finfo(mean.dtype).eps * self._largest * mean.abs().amax(1)
        moved = bound * torch.cholesky_solve(found, factor)[..., 0].norm(dim=1)
        doubtful = (failed > 0) | ~(moved < 0.01 * found[..., 0].norm(dim=1))
        if bool(doubtful.any()):
            values, vectors = torch.linalg.eigh(matrix[doubtful])
            damped = values / (values.square() + self._rounding(mean[doubtful]).square())
            found[doubtful] = vectors @ (damped[..., None] * (vectors.mT @ right[doubtful]))
        return found[..., 0]

    @cached_property
    def _largest(self) -> float:
        """The largest norm of the coefficients of which an entry of the matrix is a sum."""
        squares = self._products[1].square()
        return float(torch.sparse.sum(squares, 1).to_dense().amax().sqrt())

    def _rounding(self, mean: Tensor) -> Tensor:
        """(R, 1) e, the largest error of an entry: a sum's terms are rounded with random signs."""
        squares = self._products[1].to(mean.device).square()
        terms = torch.sparse.mm(squares, mean.square().T.contiguous())
        return torch.finfo(mean.dtype).eps / 2 * terms.amax(0).sqrt()[:, None]

    def score(self, coefficients: Tensor, y: Tensor) -> Tensor:
        """Grad ln pi + grad f: (G, M) coefficients and (G, B, D) positions to (G, B, D)."""
        pull = self.basis.axis.stationary_score(y)
        return pull + self.basis.gradient(coefficients, y)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """P laws fitted: their means, and how they are shrunk.

    Args:
        model: The span.
        moments: Of `model.measured` under P laws.
        shrinkage: What is done about the means' sampling error.
        ridge: See `OperatorInformed.coefficients`.
    """

    model: OperatorInformed
    moments: Moments
    shrinkage: Shrinkage = "heat"
    ridge: float = 1e-4

    def coefficients(self, clocks: Tensor) -> Tensor:
        """(T,) clocks to (P, T, M)."""
        clocks = clocks.to(self.moments.total)
        mean, shifted = self.moments.mean, clocks[None]
        match self.shrinkage:
            case "heat":
                shifted = clocks + heat(self.moments, self.model.measured.rates, clocks)
            case "stein":
                mean = stein(self.moments)[:, None] * mean
            case "none":
                pass
        return self.model.coefficients(mean, shifted, ridge=self.ridge)

    def log_density(self, y: Tensor, *, steps: int = 80) -> Tensor:
        """Ln p_0 of clean points, in nats, by the probability flow and its closed divergence.

        Equation: dy/dtau = -grad f, ln p_0(y_0) = ln pi(y_end) - integral of Laplace f, and
        Laplace f = -sum_n r_n a_n phi_n - grad ln pi . grad f. Runge and Kutta's fourth order on
        clocks that grow with the fourth power, until the slowest eigenfunction is 1e-6 of itself.
        Far outside the samples a polynomial's flow runs off to infinity: the density is 0 there.

        Args:
            y: (P, B, D) float64, B points for each law.
            steps: Of the integration.

        Returns:
            (P, B).

        Cost: 2 steps + 1 solves for each law, 4 steps evaluations.
        """
        axis = self.model.basis.axis
        end = math.log(1e6) / float(self.model.basis.rates.min())
        ticks = torch.arange(2 * steps + 1, dtype=torch.float64)
        # Halves of a step lie in the middle of its clocks, where Runge and Kutta want them.
        clocks = end * (ticks / (2 * steps)) ** 4
        clocks[1::2] = 0.5 * (clocks[:-1:2] + clocks[2::2])
        total = torch.zeros_like(y[..., 0])
        late = self._at(clocks[0])
        for i in range(steps):
            step = float(clocks[2 * i + 2] - clocks[2 * i])
            early, middle, late = late, self._at(clocks[2 * i + 1]), self._at(clocks[2 * i + 2])
            first = self._flow(early, y)
            second = self._flow(middle, y + 0.5 * step * first[0])
            third = self._flow(middle, y + 0.5 * step * second[0])
            fourth = self._flow(late, y + step * third[0])
            slopes = zip(first, second, third, fourth, strict=True)
            move, change = (step / 6 * (a + 2 * b + 2 * c + d) for a, b, c, d in slopes)
            y, total = y + move, total + change
        found = axis.log_stationary(y).sum(-1) + total
        return torch.where(found.isfinite(), found, -math.inf)

    def tabulate(self, schedule: Schedule, *, nodes: int = 128) -> TabledScore:
        """The score at every time of a schedule, from coefficients at `nodes` levels."""
        ends = level(schedule, torch.tensor([EPSILON, 1.0], dtype=torch.float64)).log()
        levels = torch.linspace(float(ends[0]), float(ends[1]), nodes, dtype=torch.float64).exp()
        axis = self.model.basis.axis
        return TabledScore(
            basis=self.model.basis,
            schedule=schedule,
            levels=levels,
            coefficients=self.coefficients(axis.clock(levels)),
        )

    def _at(self, clock: Tensor) -> Tensor:
        return self.coefficients(clock[None])[:, 0]

    def _flow(self, coefficients: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity (P, B, D) and divergence (P, B) of the probability flow."""
        basis = self.model.basis
        gradient = basis.gradient(coefficients, y)
        faded = basis.expand(basis.rates.to(y) * coefficients, y)
        return -gradient, faded + (basis.axis.stationary_score(y) * gradient).sum(-1)


@dataclass(frozen=True, kw_only=True)
class TabledScore:
    """The scores of P laws by interpolation, linear in a and in the logarithm of the level.

    Args:
        basis: M eigenfunctions.
        schedule: The noising that x has had.
        levels: (T,) increasing; beyond its ends the first and the last serve.
        coefficients: (P, T, M).
    """

    basis: Eigenfunctions
    schedule: Schedule
    levels: Tensor
    coefficients: Tensor

    def __call__(self, x: Tensor, t: Tensor, law: Tensor) -> Tensor:
        """s(x, t) of each row's law: (N, D), (N,) and (N,) int64 to (N, D), in x's precision.

        Equation: s(x) = (c / alpha) s_y(c x / alpha), c the axis's scale.
        """
        noise = level(self.schedule, t.double())
        logs = self.levels.log().to(noise)
        place = (noise.log() - logs[0]) / (logs[1] - logs[0])
        place = place.clamp(0, len(logs) - 1)
        below = place.long().clamp_max(len(logs) - 2)
        own = torch.lerp(
            self.coefficients[law, below],
            self.coefficients[law, below + 1],
            (place - below)[:, None],
        )
        axis = self.basis.axis
        factor = like(axis.scale(noise) / self.schedule.alpha(t.double()), x)
        y = (factor * x)[:, None]
        found = axis.stationary_score(y) + self.basis.gradient(own, y)
        return (factor * found[:, 0]).to(x)

    def of(self, law: int) -> ScoreAt:
        """One law's score, as samplers and likelihoods take it."""

        def score(x: Tensor, t: Tensor) -> Tensor:
            return self(x, t, torch.full((len(x),), law, device=x.device))

        return score


def series_score(basis: Eigenfunctions, mean: Tensor, clock: Tensor, y: Tensor) -> Tensor:
    """The score of the series of the noised density itself, without any solve.

    Equation: p_tau / pi = 1 + sum_n exp(-r_n tau) m_n phi_n. As precise as the means where the
    last of them are damped away, exp(-r_n tau) << 1; where they are not, the series turns negative.

    Args:
        basis: K eigenfunctions.
        mean: (P, K) means of P laws.
        clock: () tau.
        y: (P, B, D).

    Returns:
        (P, B, D).
    """
    own = mean * (-basis.rates.to(mean) * clock.to(mean)).exp()
    density = 1 + basis.expand(own, y)
    return basis.axis.stationary_score(y) + basis.gradient(own, y) / density[..., None]
