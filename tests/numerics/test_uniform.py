"""The exact noised score of uniform cells: printed values, differences, and the far tails."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from sno_dist.diffusion.uniform import UniformMixture
from sno_dist.shards.sources.gaussian_mixture import lower_corners

CORNERS = torch.from_numpy(lower_corners("00-02-14-54"))
LAW = UniformMixture(low=CORNERS, high=CORNERS + 1)


def at(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "alpha", "sigma", "log_density", "score"),
    [
        ((0.0, 0.0), 1.0, 1.0, -4.9218887326, (0.8630467734, -1.2624429887)),
        ((-1.0, 1.0), 0.6, 0.8, -5.4142523117, (2.3100587719, -0.3293779543)),
    ],
)
def test_printed_values(
    x: tuple[float, float],
    alpha: float,
    sigma: float,
    log_density: float,
    score: tuple[float, float],
) -> None:
    arguments = at(*x)[None], at(alpha), at(sigma)
    assert float(LAW.log_density(*arguments)) == pytest.approx(log_density, abs=1e-8)
    np.testing.assert_allclose(LAW.score(*arguments)[0], score, rtol=0, atol=1e-8)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0, 30.0])
def test_the_score_is_the_density_s_slope(sigma: float) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(-4, 4, (50, 2)))
    alpha, sigmas, step = at(0.7).expand(50), at(sigma).expand(50), 1e-4 * sigma
    score = LAW.score(x, alpha, sigmas)
    for axis in range(2):
        shift = step * torch.eye(2, dtype=torch.float64)[axis]
        above, below = (LAW.log_density(x + s * shift, alpha, sigmas) for s in (1, -1))
        slope = (above - below) / (2 * step)
        torch.testing.assert_close(slope, score[:, axis], rtol=1e-6, atol=1e-6 / sigma)


def test_every_row_has_its_own_noise() -> None:
    x = torch.tensor([[0.3, -2.0], [0.3, -2.0]], dtype=torch.float64)
    both = LAW.score(x, at(1, 0.5), at(0.2, 3))
    for row, (alpha, sigma) in enumerate(((1.0, 0.2), (0.5, 3.0))):
        torch.testing.assert_close(both[row : row + 1], LAW.score(x[:1], at(alpha), at(sigma)))


@pytest.mark.parametrize(
    ("x", "sigma"),
    [(0.3, 0.01), (0.999, 1e-4), (1.5, 0.01), (-40.0, 0.5), (60.0, 1.0), (3.0, 1e4), (900.0, 0.7)],
)
def test_one_cell_agrees_with_quadrature_far_out_in_the_tail(x: float, sigma: float) -> None:
    cell = UniformMixture(low=at(0)[None], high=at(1)[None])
    log_density, score = integrated(x, sigma)
    found = at(x)[None], at(1.0), at(sigma)
    assert float(cell.log_density(*found)) == pytest.approx(log_density, rel=1e-12, abs=1e-12)
    assert float(cell.score(*found)) == pytest.approx(score, rel=1e-9, abs=1e-12)


def integrated(x: float, sigma: float) -> tuple[float, float]:
    """Log density and score of the cell [0, 1], integrating the noise over it with 40 digits."""
    with mpmath.workdps(40):
        place, width = mpmath.mpf(x), mpmath.mpf(sigma)
        nearest = min(max(place, 0), 1)
        gap = abs(place - nearest)
        scale = min(width, width**2 / gap) if gap else width
        cuts = {nearest + side * s * scale for s in (1, 4, 12, 40) for side in (-1, 1)}
        parts = sorted({mpmath.mpf(0), mpmath.mpf(1)} | {c for c in cuts if 0 < c < 1})
        peak = (gap / width) ** 2 / 2

        def density(v: mpmath.mpf) -> mpmath.mpf:
            return mpmath.exp(peak - ((place - v) / width) ** 2 / 2)

        mass = mpmath.quad(density, parts)
        slope = mpmath.quad(lambda v: density(v) * (v - place) / width**2, parts) / mass
        logs = mpmath.log(mass) - peak - mpmath.log(width * mpmath.sqrt(2 * mpmath.pi))
        return float(logs), float(slope)


def test_far_out_the_score_points_to_the_nearest_cell() -> None:
    x = torch.tensor([[500.0, 500.0]], dtype=torch.float64)
    # The cell of row 5, column 4: its corner is at (2, 3).
    score = LAW.score(x, at(1.0), at(0.1))
    np.testing.assert_allclose(score, (np.array([[2.0, 3.0]]) - 500) / 0.01, rtol=1e-4)


def test_a_cell_s_centre_has_no_slope_and_its_density_is_one() -> None:
    cell = UniformMixture(low=at(-2)[None], high=at(-1)[None])
    centre = at(-1.5)[None], at(1.0), at(1e-3)
    assert float(cell.score(*centre)) == 0
    assert float(cell.log_density(*centre)) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(("sigma", "loss"), [(0.5, 0.379713), (1.0, 0.374835), (2.0, 0.347959)])
def test_the_least_loss_of_denoising_is_the_printed_one(sigma: float, loss: float) -> None:
    """1 - sigma^2 E |s|^2 / D, by the trapezoid rule, which is exact to rounding here."""
    line = torch.arange(-3 - 8 * sigma, 3 + 8 * sigma, sigma / 6, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    noise = at(1.0).expand(len(x)), at(sigma).expand(len(x))
    weight = LAW.log_density(x, *noise).exp() * (sigma / 6) ** 2
    assert float(weight.sum()) == pytest.approx(1, abs=1e-9)
    energy = (weight * LAW.score(x, *noise).square().sum(1)).sum()
    assert 1 - sigma**2 * float(energy) / 2 == pytest.approx(loss, abs=1e-5)
