"""Eigenfunctions of the noising of several axes, their sample means, and their products.

phi_n(y) = product over axes q of phi_(n_q)(y_q), with n a row of indices and the rate r_n =
sum_q r_(n_q) (see `axes.py`). Means over samples are carried as sums, sums of squares and a count,
so that shards and ranks add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice
from math import comb

import torch
from torch import Tensor

from sno_dist.diffusion.axes import Axis
from sno_dist.errors import ConfigError

__all__ = ["Eigenfunctions", "Moments", "carre_du_champ", "up_to"]

MOST = 1 << 15
"""Eigenfunctions that can be afforded for every sample."""
VALUES = 1 << 22
"""Values of eigenfunctions that are held at a time: 32 MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Sums of K eigenfunctions over the samples of P distributions, float64.

    Args:
        total: (P, K) sums.
        squares: (P, K) sums of squares.
        count: (P,) how many samples each is of.
    """

    total: Tensor
    squares: Tensor
    count: Tensor

    def __add__(self, other: Moments) -> Moments:
        """Of the union of disjoint sets: shards, ranks and sites add up."""
        return Moments(
            total=self.total + other.total,
            squares=self.squares + other.squares,
            count=self.count + other.count,
        )

    @property
    def mean(self) -> Tensor:
        """(P, K) m."""
        return self.total / self.count[:, None]

    @property
    def variance(self) -> Tensor:
        """(P, K) unbiased estimates of the variance of `mean`; of one sample, its square."""
        count = self.count[:, None]
        spread = (self.squares / count - self.mean.square()).clamp_min(0)
        return torch.where(count > 1, spread / (count - 1).clamp_min(1), self.squares)


@dataclass(frozen=True)
class Eigenfunctions:
    """K products of one-dimensional eigenfunctions.

    Args:
        axis: The noising of every axis.
        indices: (K, D) int64, which of each axis; no row is 0, the constant.
    """

    axis: Axis
    indices: Tensor

    @property
    def dims(self) -> int:
        """D."""
        return self.indices.shape[1]

    @cached_property
    def rates(self) -> Tensor:
        """(K,) r_n > 0."""
        return self.axis.rates(self.indices).sum(1)

    def __call__(self, y: Tensor) -> Tensor:
        """(N, D) float64 to (N, K)."""
        tables = self.axis.values(y, self._count)
        found = torch.ones(len(y), len(self.indices)).to(y)
        for q in range(self.dims):
            found = found * tables[:, q, self.indices[:, q]]
        return found

    def moments(self, y: Tensor, lengths: Tensor) -> Moments:
        """Sums over sets laid end to end.

        Products over all axes but the last, then one matrix product for each set: no sample has
        all K values.

        Args:
            y: (at least sum of n, D) float64; rows beyond the sum are padding.
            lengths: (P,) int64 n, on the CPU.
        """
        totals = []
        for rows in y[: int(lengths.sum())].split(lengths.tolist()):
            sums = torch.zeros(2, len(self._fronts), self._count).to(y).double()
            for part in rows.split(max(1, VALUES // max(len(self._fronts), self._count))):
                tables = self.axis.values(part.double(), self._count)
                front, last = self._front(tables), tables[:, -1]
                sums += torch.stack([front.T @ last, front.square().T @ last.square()])
            totals.append(sums[:, self._row, self.indices[:, -1]])
        total, squares = torch.stack(totals, 1)
        return Moments(total=total, squares=squares, count=lengths.to(y.device))

    def expand(self, coefficients: Tensor, y: Tensor) -> Tensor:
        """The sum f of a_n phi_n: (G, K) coefficients and (G, B, D) positions to (G, B)."""
        tables = self.axis.values(y, self._count)
        return (self._front(tables) * (tables[..., -1, :] @ self._grid(coefficients))).sum(-1)

    def gradient(self, coefficients: Tensor, y: Tensor) -> Tensor:
        """Its gradient: (G, K) and (G, B, D) to (G, B, D)."""
        tables, slopes = (each(y, self._count) for each in (self.axis.values, self.axis.slopes))
        grid = self._grid(coefficients)
        inner = tables[..., -1, :] @ grid
        found = [(self._front(tables, slopes, q) * inner).sum(-1) for q in range(self.dims - 1)]
        found.append((self._front(tables) * (slopes[..., -1, :] @ grid)).sum(-1))
        return torch.stack(found, -1)

    @cached_property
    def _count(self) -> int:
        return int(self.indices.max()) + 1

    @cached_property
    def _fronts(self) -> Tensor:
        """(F, D - 1) the different rows of indices without their last axis."""
        return self._split[0]

    @cached_property
    def _row(self) -> Tensor:
        """(K,) which of them is each eigenfunction's."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        if self.dims == 1:
            return self.indices[:1, :0], torch.zeros_like(self.indices[:, 0])
        rows, row = torch.unique(self.indices[:, :-1], dim=0, return_inverse=True)
        return rows, row

    def _front(
        self, tables: Tensor, slopes: Tensor | None = None, axis: int | None = None
    ) -> Tensor:
        """Products over all axes but the last, one by its slopes: (..., D, count) to (..., F)."""
        found = torch.ones(*tables.shape[:-2], len(self._fronts)).to(tables)
        for q in range(self.dims - 1):
            own = slopes if slopes is not None and q == axis else tables
            found = found * own[..., q, self._fronts[:, q]]
        return found

    def _grid(self, coefficients: Tensor) -> Tensor:
        """(G, K) to (G, count, F)."""
        grid = coefficients.new_zeros(len(coefficients), self._count, len(self._fronts))
        grid[:, self.indices[:, -1], self._row] = coefficients
        return grid


def up_to(
    axis: Axis,
    dims: int,
    order: int,
    *,
    active: int | None = None,
    most: int = MOST,
    where: str | None = None,
) -> Eigenfunctions:
    """All eigenfunctions that decay no faster than one axis's of an order: a ball of indices.

    Of Ornstein-Uhlenbeck the total degree is at most `order`; of Brownian motion the wave vector is
    at most `order` waves long.

    Args:
        axis: The noising.
        dims: D.
        order: Degree, or number of waves.
        active: At most so many axes in one eigenfunction, D if None: for high dimension.
        most: How many can be afforded.
        where: The setting that told the order, for the error.

    Raises:
        ConfigError: If there are more.
    """
    rates = axis.rates(torch.arange(axis.last(order) + 1)).tolist()
    rows = []
    for count in range(1, min(dims, active or dims) + 1):
        # A wave vector on the ball's surface is inside, whatever its rate was rounded to.
        found = _within(rates, count, rates[-1] * (1 + 1e-9))
        chosen = list(islice(found, most + 1))
        if len(rows) + len(chosen) * comb(dims, count) > most:
            raise ConfigError(
                "there are too many eigenfunctions",
                where=where,
                got=f"more than {most:,} of order {order} in {dims} dimensions",
                fix="lower the order, or how many axes may be active in one",
            )
        for axes in combinations(range(dims), count):
            for own in chosen:
                row = [0] * dims
                for q, n in zip(axes, own, strict=True):
                    row[q] = n
                rows.append(row)
    return Eigenfunctions(axis, torch.tensor(rows))


def _within(rates: Sequence[float], count: int, bound: float) -> Iterator[tuple[int, ...]]:
    """All `count` indices above 0 whose rates sum to `bound` at most."""
    if count == 0:
        yield ()
        return
    for n in range(1, len(rates)):
        if rates[n] + (count - 1) * rates[1] > bound:
            return
        for rest in _within(rates, count - 1, bound - rates[n]):
            yield (n, *rest)


def carre_du_champ(basis: Eigenfunctions) -> tuple[Eigenfunctions, Tensor]:
    """Gamma(phi_i, phi_j) = grad phi_i . grad phi_j as sums of eigenfunctions, products linearised.

    Equation: Gamma_ij / sqrt(r_i r_j) = delta_ij + sum_k W_ijk phi_k with W_ijk =
    C_ijk (r_i + r_j - r_k) / (2 sqrt(r_i r_j)) for k other than the constant, and phi_i phi_j =
    sum_k C_ijk phi_k, since Gamma(f, g) = (L(fg) - f Lg - g Lf) / 2.

    Args:
        basis: M eigenfunctions.

    Returns:
        The K >= M eigenfunctions that are needed, those of the basis first; and W for i >= j,
        sparse (M M, K), its row i M + j.
    """
    count = len(basis.indices)
    i, j = torch.tril_indices(count, count)
    pair, weight = torch.arange(len(i)), torch.ones(len(i), dtype=torch.float64)
    columns: list[Tensor] = []
    for q in range(basis.dims):
        own = basis.indices[:, q]
        k, c = basis.axis.products(own[i[pair]], own[j[pair]])
        row, term = c.nonzero(as_tuple=True)
        pair, weight = pair[row], weight[row] * c[row, term]
        columns = [*(column[row] for column in columns), k[row, term]]
    indices = torch.stack(columns, 1)
    i, j, r = i[pair], j[pair], basis.rates
    scale = (r[i] * r[j]).sqrt()
    weight = weight * (r[i] + r[j] - basis.axis.rates(indices).sum(1)) / (2 * scale)
    # Where the rates add up the terms vanish, up to rounding: more moments would be asked for.
    kept = (weight.abs() > 1e-12) & (indices > 0).any(1)
    whole, place = torch.unique(
        torch.cat([basis.indices, indices[kept]]), dim=0, return_inverse=True
    )
    order = torch.full((len(whole),), count)
    order[place[:count]] = torch.arange(count)
    order = order.argsort(stable=True)
    rank = order.argsort()
    table = torch.sparse_coo_tensor(
        torch.stack([i[kept] * count + j[kept], rank[place[count:]]]),
        weight[kept],
        (count * count, len(whole)),
        check_invariants=False,
    )
    return Eigenfunctions(basis.axis, whole[order]), table.coalesce()
