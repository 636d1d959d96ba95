"""A sampler: the prior and a solver, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from sno_dist.config.schema import Sampling
from sno_dist.diffusion import solvers
from sno_dist.diffusion.schedule import Schedule
from sno_dist.diffusion.solvers import Noise, ScoreAt

__all__ = ["Sampler", "SolverKind", "sampler_of"]

SolverKind = Literal["euler_maruyama", "predictor_corrector", "ddim", "heun", "dpmpp_2m", "rk45"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """How to go from noise to samples.

    Args:
        kind: The solver.
        steps: Grid points, T; the network is evaluated T times (Heun: 2 T - 1; predictor-
            corrector: 2 T - 1; rk45: as it needs).
        eta: Of ddim and dpmpp_2m: 0 follows the probability flow, 1 the reverse SDE.
        snr: Predictor-corrector's signal-to-noise ratio.
        tolerance: Of rk45.
    """

    kind: SolverKind = "dpmpp_2m"
    steps: int = 16
    eta: float = 0.0
    snr: float = 0.16
    tolerance: float = 1e-5

    def __call__(self, score: ScoreAt, schedule: Schedule, noise: Noise) -> Tensor:
        """Draw standardised latents, (N, Z), one for each stream of `noise`."""
        match self.kind:
            case "euler_maruyama":
                solve, grid = solvers.euler_maruyama, solvers.uniform_times
            case "predictor_corrector":
                solve = partial(solvers.predictor_corrector, snr=self.snr)
                grid = solvers.uniform_times
            case "ddim":
                solve, grid = partial(solvers.ddim, eta=self.eta), solvers.levels
            case "heun":
                solve, grid = solvers.heun, solvers.levels
            case "dpmpp_2m":
                solve, grid = partial(solvers.dpmpp_2m, eta=self.eta), solvers.levels
            case "rk45":
                solve = partial(solvers.rk45, tolerance=self.tolerance)
                grid = solvers.uniform_times
        # the adaptive solver takes the ends alone
        times = grid(schedule, 2 if self.kind == "rk45" else self.steps)
        prior = noise() * float(solvers.prior_scale(schedule, times[0]))
        return solve(score, schedule, prior, times, noise)


def sampler_of(sampling: Sampling) -> Sampler:
    """The sampler of a config's section."""
    return Sampler(
        kind=sampling.solver,
        steps=sampling.steps,
        eta=sampling.eta,
        snr=sampling.snr,
        tolerance=sampling.tolerance,
    )
