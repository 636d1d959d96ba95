"""The Score Neural Operator: from a context set to u, and from u to scores and samples."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sno_dist.config.schema import Objective
from sno_dist.diffusion.sampler import Sampler
from sno_dist.diffusion.solvers import Noise
from sno_dist.embedding.features import Sums, sum_features
from sno_dist.errors import ConfigError
from sno_dist.model.acceptance import candidates, departures, nearest
from sno_dist.model.batch import Batch
from sno_dist.model.density import log_prob
from sno_dist.model.given import checked
from sno_dist.model.joint import joint_losses
from sno_dist.model.parts import OperatorParts
from sno_dist.model.pretrained import SPEC, WEIGHTS, load_weights, read_pretrained
from sno_dist.score.guidance import guided

__all__ = ["ScoreNeuralOperator"]


class ScoreNeuralOperator(OperatorParts):
    """One generative model over many distributions; the one module that training wraps.

    Units: *data* as given by the user (uint8 pixels, floats); *latent* the autoencoder's,
    standardised, (N, Z).

    Args:
        spec: What it is made of.
        fitted: Tensors of the embedding stage, for an embedding that is fitted.
    """

    # ------------------------------------------------------------------ training

    def forward(
        self,
        batch: Batch,
        objective: Objective,
        kl_weight: float,
        dtype: torch.dtype | None = None,
        *,
        at_rest: bool = False,
    ) -> dict[str, Tensor]:
        """The joint objective of a batch.

        Equation: E[-ln p(x|z)] + kl KL(q(z|x) | N(0, I)) + score E w(t) |sigma_t s(u, z_t, t) +
        eps|^2 (eq. 16-18), in nats per sample.

        Args:
            batch: Context sets, targets and random numbers.
            objective: The weights and the law of t.
            kl_weight: The KL's weight at this step.
            dtype: Of the matrix products; none: the weights' own.
            at_rest: Whether the autoencoder has come to rest: its losses are told, at a third of
                their cost, and have no gradient.

        Returns:
            "total", "reconstruction", "kl", "score": means over the batch; "latent": sums over
            the batch for the running statistics, (`latent_entries`,) float64.
        """
        # Here and not around the call: an engine may switch off what surrounds it.
        device = self.null.device.type
        with nullcontext() if dtype is None else torch.autocast(device, dtype):
            return joint_losses(self, batch, objective, kl_weight, at_rest=at_rest)

    # ------------------------------------------------------------------ use

    @property
    def embeds(self) -> bool:
        """Whether a distribution that is not in training can be embedded."""
        return self.embedder.embeds

    @torch.no_grad()
    def seen_embedding(self, name: str) -> Tensor | None:
        """U of a seen distribution from the embedder's table, (U,); None where there is none."""
        row = torch.tensor([self.spec.seen.index(name)], device=self.null.device)
        rows = self.embedder.rows(row)
        return None if rows is None else rows[0]

    @torch.no_grad()
    def embed_sums(self, context: Tensor, lengths: Tensor) -> Sums:
        """Feature sums of context sets laid end to end; add those of shards, then read out."""
        sums = self.embedder.sums(self.context_view(context), lengths)
        if self.score_model.base is None:
            return sums
        return replace(sums, latents=sum_features(self.latents(context), lengths).total)

    @torch.no_grad()
    def read_out(self, sums: Sums) -> Tensor:
        """U of each of P context sets, (P, U), from their sums."""
        u = self.embedder.read_out(sums.mean)
        if self.score_model.base is None:
            return u
        mean = sums.of_latents / sums.count[:, None]
        return torch.cat([u, self.score_model.base.statistic(mean, sums.count).to(u)], 1)

    @torch.no_grad()
    def embed(self, context: Tensor, *, chunk: int = 1024) -> Tensor:
        """U of a distribution known by samples alone.

        Args:
            context: (K, *shape) samples, a tensor or an array, data units, K >= 1.
            chunk: Samples held as features at a time.

        Returns:
            (U,) float32.

        Raises:
            DataError: If there are no samples, or they are of another shape or not finite.
        """
        context = checked(self, context)
        parts = [self.embed_sums(part, torch.tensor([len(part)])) for part in context.split(chunk)]
        sums = sum(parts[1:], parts[0])
        return self.read_out(sums)[0]

    @torch.no_grad()
    def draw(self, u: Tensor, noise: Noise, sampler: Sampler, guidance: float) -> Tensor:
        """One sample for each row of u.

        Args:
            u: (N, U).
            noise: Gives (N, Z) float32 standard normals, one stream per sample.
            sampler: Solver and steps.
            guidance: Weight of u against the null embedding.

        Returns:
            (N, *shape), data units: uint8 images, float32 vectors.

        Raises:
            ConfigError: If there is guidance, and training had none to learn from.
        """
        if guidance != 1 and not self.spec.guidable:
            raise ConfigError(
                "guidance needs a null embedding that was trained",
                where="guidance",
                got=f"{guidance} for an operator trained with training.objective.drop=0",
                fix="take guidance=1",
            )
        score = guided(self.score_model, u, self.unknown, guidance)
        latents = sampler(score, self.schedule, lambda: noise().to(u.device))
        return self.decode(latents)

    @torch.no_grad()
    def sample(
        self,
        u: Tensor,
        n: int,
        *,
        steps: int = 16,
        guidance: float = 1.0,
        acceptance: float = 1.0,
        seed: int = 0,
        sampler: Sampler | None = None,
    ) -> Tensor:
        """New samples of the distribution with embedding u.

        Args:
            u: (U,).
            n: How many.
            steps: Solver steps.
            guidance: 1 samples the model; more trades diversity for fidelity.
            acceptance: Share of what is drawn that is kept, the samples whose own embeddings lie
                nearest to u; 1: all.
            seed: Of the noise.
            sampler: Another solver; `steps` is then its own.

        Returns:
            (n, *shape), data units.

        Raises:
            ConfigError: If acceptance is not a share, or guidance cannot be.
            DataError: If some are to be dropped and the operator cannot embed.
        """
        generator = torch.Generator().manual_seed(seed)
        tried, dims = candidates(n, acceptance), self.autoencoder.size
        rows = u.expand(tried, -1)
        drawn = self.draw(
            rows,
            lambda: torch.randn(tried, dims, generator=generator),
            sampler or Sampler(steps=steps),
            guidance,
        )
        return drawn if acceptance == 1 else drawn[nearest(departures(self, rows, drawn), n)]

    def score(self, u: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The operator itself: s(u, z, t) in latent units.

        Args:
            u: (U,) or (N, U).
            z: (N, Z) standardised latents.
            t: (N,) times in (0, 1].
        """
        return self.score_model.score(u.expand(len(z), -1), z, t)

    def log_prob(
        self, u: Tensor, x: Tensor, *, probes: int | None = None, tolerance: float = 1e-5
    ) -> Tensor:
        """Ln p(x | u) in nats by the probability-flow ODE.

        Without an autoencoder it is the density of x in data units, of a composition that of all
        shares but the last; with one it is the density of the latent mean of x, since a decoder
        that changes dimension has no density.

        Args:
            u: (U,).
            x: (N, *shape), data units.
            probes: Hutchinson probes; none: the exact trace.
            tolerance: Of the solver.

        Returns:
            (N,).
        """
        return log_prob(self, u, checked(self, x), probes, tolerance)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Standardised latent means of samples: (N, *shape) data units to (N, Z)."""
        return self.latents(checked(self, x))

    # ------------------------------------------------------------------ disk

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the weights (safetensors) and the spec (JSON) that `from_pretrained` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SPEC).write_text(self.spec.model_dump_json(indent=1))
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> ScoreNeuralOperator:
        """Load an operator from a run's folder, a checkpoint, or a `save_pretrained` folder.

        Raises:
            ArtifactError: If there is no operator there, or it is damaged.
        """
        spec, tensors = read_pretrained(Path(path))
        prefix = "embedder."
        fitted = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        operator = cls(spec, fitted)
        load_weights(operator, tensors, Path(path))
        return operator.eval()
