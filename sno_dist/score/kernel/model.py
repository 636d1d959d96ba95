"""The Wasserstein-proximal kernel model (arXiv 2402.06162): Gaussian kernels of local precision.

A score flow that lowers the cross-entropy to data, min E int |v|^2 / 2 + beta^2 H(rho_T, pi), is
decoupled by the Cole-Hopf transform: its velocity is beta^2 grad ln (G * pi), the reverse drift of
the variance-exploding SDE, so that a kernel model of pi at the terminal time alone is a score and
a density at every noise level, and is drawn from without a solver. With pi the samples themselves
it memorises; kernels around centres, of precisions that are fitted, generalise.

Fitted by the paper's implicit score matching, by likelihood, or by expectation-maximisation, since
the density is explicit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.errors import DataError
from sno_dist.score.kernel.centres import Centres, Choice, bandwidths, choose_centres
from sno_dist.score.kernel.descent import Descent, descend, losses
from sno_dist.score.kernel.em import Prior, expectation_maximisation
from sno_dist.score.kernel.precisions import Form, Precisions
from sno_dist.score.kernel.rows import averaged, kernel_estimate, mixed, rows_of, stacked
from sno_dist.score.kernel.sets import ContextSets, Members
from sno_dist.score.kernel.stacking import stacking_share

__all__ = ["KernelFit", "Method", "fit_kernel_models"]

Method = Literal["em", "likelihood", "implicit"]

VALUES = 1 << 22
"""Odds of components at samples, or features of samples, that are held at a time."""

SINGLE = 4.0
"""The prior's strength where a set is one Gaussian, over that where it has several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelFit:
    """What is fitted, and how.

    Args:
        method: "em", "likelihood", or "implicit" as in the paper.
        centres: Where they lie; "em" only begins there.
        per_centre: Samples for one centre, to be tried; each set keeps what does best on the
            samples that were left out. Without a say where all samples are centres.
        form: Of the covariances.
        rank: Of "low_rank".
        width: Of the network from a centre to its precision; 0: each precision is free. Without
            a say for "em".
        members: Models of a set, each of which leaves out another share; their mean is kept.
        held_out: That share.
        smallest: Samples below which a set is one Gaussian, shrunk to the pooled variance.
        strength: Samples for each dimension that the prior of covariances counts as in "em".
        kernels: Mix in the kernel density estimate of the set, by the share that samples left out
            give it: of few samples it is the better model, and costs a component for each.
        steps: Of "em", at most.
        patience: Steps of "em" without a better held-out likelihood.
        descent: Of the other two, but for the loss.
    """

    method: Method = "em"
    centres: Choice = "kmeans"
    per_centre: tuple[int, ...] = (60, 40, 20, 10)
    form: Form = "full"
    rank: int = 1
    width: int = 64
    members: int = 5
    held_out: float = 0.2
    smallest: int = 15
    strength: float = 0.5
    steps: int = 30
    patience: int = 4
    kernels: bool = True
    descent: Descent = field(default_factory=Descent)


def fit_kernel_models(
    sets: Sequence[Tensor],
    sources: Sequence[np.random.Generator],
    how: KernelFit,
    pooled: float | None = None,
) -> GaussianMixture:
    """One mixture for each of P context sets, of any sizes, in one batched call.

    A set's mixture depends on its samples, its source and `pooled`, up to rounding not on the
    sets beside it. A single sample is an isotropic Gaussian of twice the pooled variance, that
    of the difference of two samples.

    Args:
        sets: P sets, (K, D) each.
        sources: One for each set: all that is random in its fit.
        how: What is fitted.
        pooled: The variance within distributions per entry, to which small sets are shrunk;
            none: that of these sets.

    Returns:
        P mixtures in float64.

    Raises:
        DataError: If there is no set, one is empty, their dimensions differ, a value is not
            finite, or covariances of low rank have as many directions as a sample has entries.
    """
    contexts = ContextSets.of(sets)
    if how.form == "low_rank" and not 0 < how.rank < contexts.samples.shape[2]:
        raise DataError(
            "the covariances' rank does not fit the samples",
            got=f"rank {how.rank} for {contexts.samples.shape[2]} entries",
            expected="at least 1 and fewer than the entries",
            fix="lower the rank, or choose full covariances",
        )
    variances = contexts.variances(pooled)
    # Near 0 the odds of components are products that lose no digits.
    means = contexts.samples.sum(1) / contexts.lengths[:, None]
    small = contexts.lengths < how.smallest
    found: dict[int, GaussianMixture] = {}
    for chosen in _blocks(contexts, small, how):
        block = ContextSets.of([sets[item].double() - means[item] for item in chosen])
        fit = _Fit(block, variances[chosen], [sources[item] for item in chosen], how)
        mixtures = fit.single() if bool(small[chosen[0]]) else fit.best()
        found.update(zip(chosen, mixtures, strict=True))
    centred = stacked([found[item] for item in range(len(sets))])
    return replace(centred, centres=centred.centres + means[:, None, None])


class _Fit:
    """The fit of sets of similar sizes.

    Args:
        sets: The sets.
        variances: (P,) of each.
        sources: Of each.
        how: What is fitted.
    """

    def __init__(
        self,
        sets: ContextSets,
        variances: Tensor,
        sources: Sequence[np.random.Generator],
        how: KernelFit,
    ) -> None:
        self._sets, self._variances, self._sources, self._how = sets, variances, sources, how
        self._strength = how.strength * sets.samples.shape[2]
        mask, unused = sets.mask.to(sets.samples), sets.samples.new_zeros(len(sources), 1)
        self._kernels = choose_centres(sets.samples, mask, sets.lengths, "context", unused)
        self._bandwidth = bandwidths(sets.samples, mask, self._kernels, variances.sqrt())

    def single(self) -> list[GaussianMixture]:
        """One Gaussian for each set.

        Equation: S = ((K - 1) s^2 + (kappa + 1) (1 + 1 / K) v I) / (K + kappa), s^2 the unbiased
        covariance, v the set's variance and kappa the prior's strength.
        """
        members = Members.of(self._sets, 1, 0.0, self._sets.samples.shape[1] + 1, self._sources)
        kappa = SINGLE * self._strength
        variance = (1 + 1 / kappa) * (self._variances + self._variances / self._sets.lengths)
        centres = self._centres(members, torch.ones_like(self._sets.lengths), "kmeans")
        mixture, _ = self._em(members, centres, Prior(variance, kappa))
        return rows_of(mixture)

    def best(self) -> list[GaussianMixture]:
        """For each set the mean of its members, at the number of centres that does best."""
        how, lengths = self._how, self._sets.lengths
        members = Members.of(self._sets, how.members, how.held_out, how.smallest, self._sources)
        each = how.per_centre if how.centres != "context" else (1,)
        kept: list[GaussianMixture] = []
        least = torch.full_like(self._variances, math.inf)
        logs = torch.zeros_like(members.told)
        for per_centre in each:
            counts = (lengths / per_centre).round().long().clamp(min=1)
            mixture, told = self._fitted(members, self._centres(members, counts, how.centres))
            loss = told.unflatten(0, (-1, how.members)).mean(1)
            better, least = loss < least, torch.minimum(loss, least)
            rows = rows_of(averaged(mixture, how.members))
            pairs = zip(better.tolist(), rows, kept or rows, strict=True)
            kept = [new if taken else old for taken, new, old in pairs]
            own = -losses(mixture, members.held_out, "likelihood")
            logs = torch.where(better.repeat_interleave(how.members)[:, None], own, logs)
        return self._with_kernels(kept, members, logs) if how.kernels else kept

    def _with_kernels(
        self, rows: list[GaussianMixture], members: Members, logs: Tensor
    ) -> list[GaussianMixture]:
        """Each set's mixture and its kernel density estimate, in the shares held-out samples tell.

        Args:
            rows: The mixtures.
            members: Their members.
            logs: (R, H) ln p of the members where held out.
        """
        how = self._how
        others = -losses(self._estimates(members), members.held_out, "likelihood")
        model, kernels, told = (
            values.unflatten(0, (-1, how.members)).flatten(1)
            for values in (logs, others, members.told)
        )
        share = stacking_share(model, kernels, told)
        estimate = kernel_estimate(self._kernels, self._bandwidth, how.form, how.rank)
        return mixed(rows, rows_of(estimate), share)

    def _estimates(self, members: Members) -> GaussianMixture:
        """The kernel density estimate of what each member was fitted to, (R, K) components."""
        how, fitted = self._how, members.fitted
        lengths = self._sets.lengths.repeat_interleave(how.members)
        unused = fitted.new_zeros(len(fitted), 1)
        centres = choose_centres(members.samples, fitted, lengths, "context", unused)
        deviation = self._variances.sqrt().repeat_interleave(how.members)
        width = bandwidths(members.samples, fitted, centres, deviation)
        return kernel_estimate(centres, width, how.form, how.rank)

    def _centres(self, members: Members, counts: Tensor, choice: Choice) -> Centres:
        """Centres of each member, from its fitted samples but where all samples are centres."""
        how, repeat = self._how, len(members.samples) // len(counts)
        uniform = torch.zeros(len(counts), repeat, int(counts.max()), dtype=torch.float64)
        for row, source, count in zip(uniform, self._sources, counts.tolist(), strict=True):
            row[:, :count] = torch.from_numpy(source.random((repeat, count)))
        among = members.fitted
        if choice == "context" and how.method != "em":
            among = self._sets.mask.repeat_interleave(repeat, 0).to(among)
        counts = counts.repeat_interleave(repeat)
        uniform = uniform.flatten(0, 1).to(among)
        return choose_centres(members.samples, among, counts, choice, uniform)

    def _fitted(self, members: Members, centres: Centres) -> tuple[GaussianMixture, Tensor]:
        how = self._how
        scale = self._variances.sqrt().repeat_interleave(how.members)
        if how.method == "em":
            prior = Prior(self._bandwidth.square().repeat_interleave(how.members), self._strength)
            return self._em(members, centres, prior)
        width = bandwidths(members.samples, members.fitted, centres, scale)
        precisions = Precisions(
            centres.points,
            width,
            scale=scale,
            form=how.form,
            rank=how.rank,
            width=how.width,
            sources=self._sources,
        )
        # Of their own: how long a set is drawn for depends on those beside it.
        sources = [np.random.default_rng(s.integers(2**63)) for s in self._sources]
        return descend(members, centres, precisions, sources, how.method, how.descent)

    def _em(
        self, members: Members, centres: Centres, prior: Prior
    ) -> tuple[GaussianMixture, Tensor]:
        how = self._how
        return expectation_maximisation(
            members,
            centres,
            prior,
            form=how.form,
            rank=how.rank,
            steps=how.steps,
            patience=how.patience,
        )


def _blocks(contexts: ContextSets, small: Tensor, how: KernelFit) -> Iterator[list[int]]:
    """Sets by their sizes, as many at a time as memory allows, small ones by themselves."""
    share, dims = 1 if how.centres == "context" else min(how.per_centre), contexts.samples.shape[2]
    known = 2 * dims if how.form == "diagonal" else dims + dims**2
    block: list[int] = []
    for item in torch.argsort(contexts.lengths, descending=True, stable=True).tolist():
        longest = int(contexts.lengths[block[0] if block else item])
        values = longest * max(how.members * max(1 + known, longest // share), longest)
        full = (len(block) + 1) * values > VALUES
        if block and (full or bool(small[item]) != bool(small[block[0]])):
            yield block
            block = []
        block.append(item)
    yield block
