"""What a Score Neural Operator is made of, and the coordinates between data and latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sno_dist.errors import RunError
from sno_dist.model.build import (
    OperatorSpec,
    make_autoencoder,
    make_base,
    make_embedder,
    make_network,
    make_schedule,
    make_transform,
)
from sno_dist.model.latent import LatentMoments
from sno_dist.score.preconditioned import PreconditionedScore

__all__ = ["OperatorParts"]


class OperatorParts(nn.Module):
    """Autoencoder, embedder and score network, and what leads from one to the other.

    Units: *data* as given by the user (uint8 pixels, floats); *free* coordinates, where the model
    has a transform of constrained data; *model* after shift and scale of these;
    *latent* the autoencoder's, standardised by its running mean and deviation, (N, Z).

    Args:
        spec: What it is made of.
        fitted: Tensors of the embedding stage, for an embedding that is fitted.
    """

    shift: Tensor
    scale: Tensor
    latent_mean: Tensor
    latent_deviation: Tensor
    latent_updates: Tensor

    def __init__(self, spec: OperatorSpec, fitted: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.transform = make_transform(spec)
        self.autoencoder = make_autoencoder(spec.model_copy(update={"shape": self.transform.free}))
        self.embedder = make_embedder(spec, self.autoencoder.layout, fitted or {})
        network = make_network(spec.model, self.autoencoder.layout, self.embedder.layout)
        self.schedule = make_schedule(spec.model.schedule)
        base = make_base(spec, self.autoencoder.size)
        self.score_model = PreconditionedScore(network, self.schedule, spec.model.prediction, base)
        self.null = nn.Parameter(torch.zeros(self.embedder.size))
        dims = self.autoencoder.size
        self.register_buffer("shift", torch.tensor(spec.shift))
        self.register_buffer("scale", torch.tensor(spec.scale))
        self.register_buffer("latent_mean", torch.zeros(dims))
        self.register_buffer("latent_deviation", torch.ones(dims))
        self.register_buffer("latent_updates", torch.zeros((), dtype=torch.int64))

    @property
    def unknown(self) -> Tensor:
        """U of a distribution of which nothing is known, (U,): what guidance moves away from."""
        if self.score_model.base is None:
            return self.null
        return torch.cat([self.null, self.null.new_zeros(self.score_model.base.size)])

    @property
    def has_constant_u(self) -> bool:
        """Whether training leaves the u of every context set as it is."""
        learnt = self.embedder.view == "latent" or any(True for _ in self.embedder.parameters())
        return not learnt and self.score_model.base is None

    # ------------------------------------------------------------------ coordinates

    def context_view(self, context: Tensor) -> Tensor:
        """What the embedder looks at, of samples in data units, unchecked."""
        if self.embedder.view == "data":
            return self.to_model(context)
        return self.latents(context)

    def latents(self, x: Tensor) -> Tensor:
        """(N, *shape) data units to (N, Z), unchecked."""
        return self.standardise(self.autoencoder.encode(self.to_model(x))[0])

    def to_model(self, x: Tensor) -> Tensor:
        """Data units to model units, unchecked."""
        return (self.transform.inverse(x.to(self.scale)) - self.shift) / self.scale

    def standardise(self, raw: Tensor) -> Tensor:
        """The autoencoder's latents to standardised ones."""
        return (raw - self.latent_mean) / self.latent_deviation

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Samples from standardised latents: (N, Z) to (N, *shape), data units.

        Raises:
            RunError: If a latent is not finite, which an image would not show.
        """
        if not bool(z.isfinite().all()):
            raise RunError(
                "latents that are not finite cannot be decoded",
                got=f"{int((~z.isfinite()).any(1).sum())} of {len(z)}",
                fix="take more solver steps or less guidance, and training.precision=bf16 or fp32",
            )
        raw = z * self.latent_deviation + self.latent_mean
        out = self.autoencoder.decode(raw).float()
        if self.autoencoder.trains and self.spec.model.likelihood == "bernoulli":
            out = out.sigmoid()
        data = self.transform.forward(out * self.scale + self.shift)
        if self.spec.domain == "image":
            return data.round().clamp(0, 255).to(torch.uint8)
        return data

    # ------------------------------------------------------------------ the latent

    @property
    def latent_entries(self) -> int:
        """Entries of the sums that `forward` gives and `update_latent` takes."""
        dims = self.autoencoder.size
        return 2 * dims * (1 if self.score_model.base is None else 1 + dims)

    @torch.no_grad()
    def update_latent(self, sums: Tensor, distributions: int, targets: int) -> None:
        """Move the latent's running statistics towards one global batch's.

        Args:
            sums: Of "latent" over all ranks.
            distributions: P of the global batch.
            targets: B.
        """
        base = self.score_model.base
        if not (self.autoencoder.trains or base):
            return
        rate = max(0.01, 1.0 / (int(self.latent_updates) + 1))
        batch = LatentMoments.of(sums, self.autoencoder.size, distributions, targets)
        if self.autoencoder.trains:
            old = self.latent_deviation.double().square()
            self.latent_mean += (rate * (batch.mean - self.latent_mean)).float()
            # The floor keeps a collapsed dimension from being blown up to unit variance.
            new = (old + rate * (batch.variance - old)).clamp_min(1e-8)
            self.latent_deviation.copy_(new.sqrt())
        if base is not None and batch.within is not None and batch.between is not None:
            scale = torch.outer(self.latent_deviation, self.latent_deviation).double()
            base.update(batch.within / scale, batch.between / scale, rate)
        self.latent_updates += 1
