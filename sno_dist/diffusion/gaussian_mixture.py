"""Gaussian mixtures under noise, in closed form, for many distributions at once.

x = alpha x_0 + sigma eps takes N(Z, S) to N(alpha Z, alpha^2 S + sigma^2 I), so that a mixture is
closed under noise. One class is the Gaussian of a distribution's moments (one component), the
kernel density estimate (equal variances), the empirical law that memorises (no variance), the
Wasserstein-proximal kernel model (learned precisions) and the oracle of tests. Axes: P
distributions, C components, N points, D entries; n is 1, or N where every point has a noise level
of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sno_dist.diffusion.covariance import Covariance, Diagonal, Spectral, total_of

__all__ = ["GaussianMixture", "Local"]

VALUES = 1 << 19
"""Gaps of points from centres that are held at a time: 4 MiB."""

_LOG_2_PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Local:
    """What a mixture is at N points of P distributions.

    Args:
        log_density: (P, N) ln p, in nats.
        score: (P, N, D) grad ln p.
        laplacian: (P, N) Laplacian of p over p.
    """

    log_density: Tensor
    score: Tensor
    laplacian: Tensor

    def implicit_loss(self) -> Tensor:
        """(P, N) terms whose mean over data is E|s - s_data|^2 - E|s_data|^2.

        Equation: 2 div s + |s|^2 = 2 (Laplacian p) / p - |s|^2.
        """
        return 2 * self.laplacian - self.score.square().sum(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianMixture:
    """P mixtures of C Gaussians, p = sum_c w_c N(Z_c, S_c), in the dtype of their tensors.

    Args:
        log_weights: (P, C) ln w; -inf where a distribution has fewer components.
        centres: (P, n, C, D) Z.
        covariance: S, of any form.
    """

    log_weights: Tensor
    centres: Tensor
    covariance: Covariance

    @classmethod
    def isotropic(
        cls, centres: Tensor, deviation: Tensor, log_weights: Tensor | None = None
    ) -> GaussianMixture:
        """A kernel density estimate; of deviation 0, the empirical law, to be noised before use.

        Args:
            centres: (P, C, D).
            deviation: (P,) or (P, C) bandwidths.
            log_weights: (P, C); none: equal ones.
        """
        if log_weights is None:
            log_weights = torch.full_like(centres[..., 0], -math.log(centres.shape[1]))
        variances = deviation.to(centres).square().reshape(len(centres), 1, -1, 1)
        variances = variances.expand(centres[:, None].shape)
        return cls(
            log_weights=log_weights, centres=centres[:, None], covariance=Diagonal(variances)
        )

    @classmethod
    def gaussian(cls, mean: Tensor, covariance: Tensor) -> GaussianMixture:
        """One component, of means (P, D) and covariances (P, D, D)."""
        values, basis = torch.linalg.eigh(covariance)
        # a singular one has eigenvalues that rounding leaves below 0
        values = values.clamp_min(0)
        return cls(
            log_weights=torch.zeros_like(mean[:, :1]),
            centres=mean[:, None, None],
            covariance=Spectral(basis[:, None, None], values[:, None, None]),
        )

    @property
    def entries(self) -> int:
        """Standard normals that one sample takes."""
        return self.covariance.entries

    def noised(self, alpha: Tensor, sigma: Tensor) -> GaussianMixture:
        """The law of alpha x + sigma eps.

        Args:
            alpha: () for all, (P,) for each distribution, or (P, N) for each point.
            sigma: The same.
        """
        alpha, sigma = self._levels(alpha), self._levels(sigma)
        return GaussianMixture(
            log_weights=self.log_weights,
            centres=alpha[..., None, None] * self.centres,
            covariance=self.covariance.noised(alpha, sigma),
        )

    def log_density(self, x: Tensor, excluded: Tensor | None = None) -> Tensor:
        """Ln p, (P, N) nats; arguments as those of `at`."""
        parts = [law._logs(gap, own)[0] for law, gap, own in self._blocks(x, excluded)]
        return torch.cat(parts, 1)

    def score(self, x: Tensor, excluded: Tensor | None = None) -> Tensor:
        """Grad ln p, (P, N, D); arguments as those of `at`."""
        parts = []
        for law, gap, own in self._blocks(x, excluded):
            total, logs = law._logs(gap, own)
            shares = (logs - total[..., None]).exp()
            parts.append(-torch.einsum("pnc,pncd->pnd", shares, law.covariance.pull(gap)))
        return torch.cat(parts, 1)

    def at(self, x: Tensor, excluded: Tensor | None = None) -> Local:
        """Density, score and Laplacian.

        Equation: with gap = x - Z_c and r_c the shares of the components in p(x),
        grad ln p = -sum r_c S_c^-1 gap, Laplacian p / p = sum r_c (|S_c^-1 gap|^2 - tr S_c^-1).

        Args:
            x: (P, N, D) points.
            excluded: (P, N, C) components that have no say at a point; the others' weights are
                made to add up to 1. A centre that is itself a sample is left out of that sample's
                own density, or any fit would make it a spike.
        """
        found = []
        for law, gap, own in self._blocks(x, excluded):
            total, logs = law._logs(gap, own)
            shares = (logs - total[..., None]).exp()
            pull = law.covariance.pull(gap)
            curve = total_of(pull.square()) - law.covariance.trace()
            score = -torch.einsum("pnc,pncd->pnd", shares, pull)
            found.append((total, score, (shares * curve).sum(2)))
        return Local(*(torch.cat(parts, 1) for parts in zip(*found, strict=True)))

    def shares(self, x: Tensor) -> Tensor:
        """(P, N, C) odds r_c of the components at each point."""
        parts = []
        for law, gap, own in self._blocks(x, None):
            total, logs = law._logs(gap, own)
            parts.append((logs - total[..., None]).exp())
        return torch.cat(parts, 1)

    def mapped(self, change: Callable[..., Tensor], *others: GaussianMixture) -> GaussianMixture:
        """A mixture of changed tensors, each changed together with those of others like it."""
        laws = (self, *others)
        return GaussianMixture(
            log_weights=change(*(law.log_weights for law in laws)),
            centres=change(*(law.centres for law in laws)),
            covariance=self.covariance.mapped(change, *(law.covariance for law in others)),
        )

    def where(self, rows: Tensor, other: GaussianMixture) -> GaussianMixture:
        """This law's distributions where asked for, (P,), else another's of the same shapes."""

        def pick(own: Tensor, another: Tensor) -> Tensor:
            return torch.where(rows.reshape(-1, *[1] * (own.dim() - 1)), own, another)

        return self.mapped(pick, other)

    def sample(self, uniform: Tensor, normals: Tensor) -> Tensor:
        """Draws without a solver; a sample depends on its own numbers alone.

        Args:
            uniform: (P, N) on [0, 1), which choose components.
            normals: (P, N, entries) standard normals.

        Returns:
            (P, N, D).
        """
        steps = self.log_weights.exp().cumsum(-1)
        # one that rounds to 1 would be beyond the last component
        below = uniform.to(steps).clamp(max=1 - 0.5 * torch.finfo(steps.dtype).eps)
        index = torch.searchsorted(steps / steps[:, -1:], below, right=True)
        rows = torch.arange(len(index), device=index.device)[:, None]
        points = torch.arange(index.shape[1], device=index.device)
        centres = self.centres[rows, points if self.centres.shape[1] > 1 else 0, index]
        return centres + self.covariance.colour(normals.to(centres), index)

    def _levels(self, values: Tensor) -> Tensor:
        """Noise levels (), (P,) or (P, N) as (P, n)."""
        values = values.to(self.centres)
        return values if values.dim() == 2 else values.expand(len(self.centres))[:, None]

    def _logs(self, gap: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        """Ln p, (P, N), and what each component adds to it, ln w_c N_c, (P, N, C)."""
        weights = self.log_weights[:, None]
        normal = weights - 0.5 * self.covariance.log_det()
        logs = normal - 0.5 * (self.covariance.squares(gap) + gap.shape[-1] * _LOG_2_PI)
        if excluded is None:
            return logs.logsumexp(-1), logs
        logs = logs.masked_fill(excluded, -math.inf)
        left = weights.expand_as(logs).masked_fill(excluded, -math.inf)
        logs = logs - left.logsumexp(-1, keepdim=True)
        return logs.logsumexp(-1), logs

    def _blocks(
        self, x: Tensor, excluded: Tensor | None
    ) -> Iterator[tuple[GaussianMixture, Tensor, Tensor | None]]:
        """A few points at a time: the law there, gaps (P, N, C, D), what is excluded."""
        x = x.to(self.centres)
        block = max(1, VALUES // self.centres[:, 0].numel())
        for start in range(0, x.shape[1], block):
            part = slice(start, start + block)
            law = self._of(part)
            own = None if excluded is None else excluded[:, part]
            yield law, x[:, part, None] - law.centres, own

    def _of(self, part: slice) -> GaussianMixture:
        """The law at some of the points, if each has a noise level of its own."""

        def cut(values: Tensor) -> Tensor:
            return values if values.shape[1] == 1 else values[:, part]

        return GaussianMixture(
            log_weights=self.log_weights,
            centres=cut(self.centres),
            covariance=self.covariance.mapped(cut),
        )
