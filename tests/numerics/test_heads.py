"""The log-mixture head is the score of a density that is affine in u."""

from __future__ import annotations

import torch

from sno_dist.score.mixture import MixtureHead


def head() -> MixtureHead:
    torch.manual_seed(0)
    made = MixtureHead(2, 3, terms=7, width=16, depth=1, deviation=1.0, detail=0.5).double()
    with torch.no_grad():
        made.weights.bias.add_(40)  # where softplus is the identity to 1e-17
    return made


def numerators(made: MixtureHead, u: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """sum_j c_j(u) exp(psi_j(x)), the density but for a factor of x alone."""
    c = torch.zeros(len(x), dtype=x.dtype)
    psi = made.trunk(torch.cat([x, made.space(x), made.time(c)], 1))[:, : made.terms]
    return (made.weights(u) * psi.exp()).sum(1, keepdim=True)


def test_a_mixture_s_score_is_that_of_its_parts_weighed_by_their_densities() -> None:
    made, x = head(), torch.randn(50, 2, dtype=torch.float64)
    c = torch.zeros(50, dtype=torch.float64)
    first, second = torch.randn(2, 50, 3, dtype=torch.float64)
    mixed = 0.3 * first + 0.7 * second
    parts = [0.3 * numerators(made, first, x), 0.7 * numerators(made, second, x)]
    torch.testing.assert_close(numerators(made, mixed, x), parts[0] + parts[1])
    scores = [made(u, x, c) for u in (first, second)]
    weighed = (parts[0] * scores[0] + parts[1] * scores[1]) / (parts[0] + parts[1])
    # the head computes its softmax in float32
    torch.testing.assert_close(made(mixed, x, c), weighed, rtol=0, atol=1e-5, check_dtype=False)
