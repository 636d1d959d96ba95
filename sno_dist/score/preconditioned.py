"""From a plain network to a score: scaling at the door, and what its output means."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sno_dist.diffusion.schedule import Schedule, level, like
from sno_dist.score.base import GaussianBase

__all__ = ["PreconditionedScore", "Prediction"]

Prediction = Literal["edm", "noise"]


class PreconditionedScore(nn.Module):
    """s(u, x, t) for data of unit variance.

    Equation, with c_in = (alpha^2 + sigma^2)^(-1/2) and r = sigma / alpha:
    noise, s = F(u, c_in x, t) / sigma; edm, D = x~ / (1 + r^2) + r F / sqrt(1 + r^2), that is
    -sigma s = r x~ / (1 + r^2) - F(u, c_in x, ln r / 4) / sqrt(1 + r^2) with x~ = x / alpha.

    Args:
        network: F(u, x, c).
        schedule: The SDE.
        prediction: What the network's output means.
        base: A closed form that the network corrects, of what the last entries of u tell; with
            prediction "edm" alone.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        base: GaussianBase | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.prediction = prediction
        self.base = base

    def forward(self, u: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """-sigma_t s(u, x, t), the predicted noise.

        Args:
            u: (N, U).
            x: (N, Z), float32 or float64.
            t: (N,), same dtype.

        Returns:
            (N, Z) in the dtype of x; the network runs in the ambient autocast, the rest not.
        """
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        scaled = x * like((alpha.square() + sigma.square()).rsqrt(), x)
        dtype = next(self.network.parameters()).dtype
        if self.prediction == "noise":
            return -self.network(u, scaled.to(dtype), t.to(dtype)).to(x.dtype)
        r, told = level(self.schedule, t), u.shape[1] - (self.base.size if self.base else 0)
        out = self.network(u[:, :told], scaled.to(dtype), (r.log() / 4).to(dtype)).to(x.dtype)
        if self.base is not None:
            return self.base(u[:, told:], x / like(alpha, x), r, out)
        skip = r / (1 + r.square()) / alpha
        return like(skip, x) * x - like((1 + r.square()).rsqrt(), x) * out

    def score(self, u: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """s(u, x, t), (N, Z)."""
        return -self(u, x, t) / like(self.schedule.sigma(t), x)
