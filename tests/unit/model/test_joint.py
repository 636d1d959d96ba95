"""The joint objective, term by term, beside the equations written out."""

from __future__ import annotations

import pytest
import torch

from sno_dist.config import schema
from sno_dist.diffusion.objective import times
from tests.unit.model.test_operator import AUTOENCODERS, NETWORKS, make, make_batch, wake

OBJECTIVE = schema.Objective(reconstruction=2.0, score=0.5, weight="noise")


@pytest.mark.parametrize("autoencoder", AUTOENCODERS[:2], ids=["convolutional", "perceptron"])
def test_every_term_is_its_equation(autoencoder: schema.Autoencoder) -> None:
    operator = wake(make(NETWORKS[1], autoencoder=autoencoder))
    with torch.no_grad():
        operator.latent_mean += 0.3
        operator.latent_deviation *= 1.7
    batch = make_batch(operator)
    assert batch.null.any()
    assert not batch.null.all()
    with torch.no_grad():
        found = operator(batch, OBJECTIVE, 0.25)
        x = batch.targets.flatten(0, 1).double().flatten(1) / 255
        mean, log_variance = operator.autoencoder.encode(batch.targets.flatten(0, 1) / 255)
        raw = mean + log_variance.exp().sqrt() * batch.posterior.flatten(0, 1)
        p = operator.autoencoder.decode(raw).double().flatten(1).sigmoid()
        sets = batch.context.split(batch.lengths.tolist())
        u = torch.stack([operator.embed(own) for own in sets]).repeat_interleave(4, 0)
        u[batch.null.flatten()] = operator.null
        t = times(batch.times.flatten(), operator.schedule, "lognormal", -0.6, 1.4)
        alpha, sigma = operator.schedule.alpha(t)[:, None], operator.schedule.sigma(t)[:, None]
        noise = batch.noise.flatten(0, 1)
        noised = alpha * (raw - 0.3) / 1.7 + sigma * noise
        score = operator.score(u, noised, t)
    # eq. 16: -ln p(x | z), KL(q(z | x) | N(0, I)), |sigma s + eps|^2
    bernoulli = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    denoising = (sigma * score + noise).square().sum(1).mean()
    assert float(found["reconstruction"]) == pytest.approx(float(bernoulli), rel=1e-4)
    assert float(found["kl"]) == pytest.approx(float(divergence), rel=1e-5)
    assert float(found["score"]) == pytest.approx(float(denoising), rel=1e-4)
    total = 2.0 * bernoulli + 0.25 * divergence + 0.5 * denoising
    assert float(found["total"]) == pytest.approx(float(total), rel=1e-4)


def test_the_gaussian_likelihood_is_the_squared_miss() -> None:
    operator = wake(make(likelihood="gaussian"))
    batch = make_batch(operator)
    with torch.no_grad():
        found = operator(batch, OBJECTIVE, 0.25)["reconstruction"]
        x = batch.targets.flatten(0, 1) / 255
        mean, log_variance = operator.autoencoder.encode(x)
        raw = mean + log_variance.exp().sqrt() * batch.posterior.flatten(0, 1)
        miss = (operator.autoencoder.decode(raw) - x).square().flatten(1).sum(1).mean()
    assert float(found) == pytest.approx(float(miss), rel=1e-5)
