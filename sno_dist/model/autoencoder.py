"""Variational autoencoders: data to a latent of T tokens with C entries, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sno_dist.nn.layers import mlp

__all__ = ["Autoencoder", "ConvAutoencoder", "IdentityAutoencoder", "MlpAutoencoder"]


class Autoencoder(nn.Module):
    """Interface of a VAE with a diagonal Gaussian posterior.

    Attributes:
        layout: (T, C): a latent is T tokens of C entries, carried flat, (N, T C).
        trains: Whether reconstruction and KL are to be computed.
    """

    layout: tuple[int, int]
    trains = True

    @property
    def size(self) -> int:
        """Z, the entries of a latent."""
        return self.layout[0] * self.layout[1]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, *shape) in model units to the posterior's mean and log variance, (N, Z) float32."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """(N, Z) to (N, *shape): logits or values, as the likelihood has it."""
        raise NotImplementedError


class IdentityAutoencoder(Autoencoder):
    """No autoencoder: the latent is the sample itself.

    Args:
        shape: One sample's shape.
    """

    trains = False

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.layout = (1, math.prod(shape))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The flat sample, with a variance that is nought."""
        flat = x.flatten(1)
        return flat, torch.full_like(flat, -math.inf)

    def decode(self, z: Tensor) -> Tensor:
        """The sample in its own shape."""
        return z.reshape(-1, *self.shape)


class MlpAutoencoder(Autoencoder):
    """The paper's fully connected VAE.

    Args:
        shape: One sample's shape.
        latent: Z.
        width: Width of the hidden layers.
        depth: Hidden layers of each half.
    """

    def __init__(self, shape: tuple[int, ...], *, latent: int, width: int, depth: int) -> None:
        super().__init__()
        self.shape = shape
        self.layout = (1, latent)
        self.encoder = mlp(math.prod(shape), width, depth, 2 * latent, nn.ReLU)
        self.decoder = mlp(latent, width, depth, math.prod(shape), nn.ReLU)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, (N, Z)."""
        mean, log_variance = self.encoder(x.flatten(1)).float().chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)

    def decode(self, z: Tensor) -> Tensor:
        """(N, Z) to (N, *shape)."""
        return self.decoder(z).reshape(-1, *self.shape)


class ConvAutoencoder(Autoencoder):
    """A small convolutional VAE: the latent is a grid whose cells are the tokens.

    A latent that keeps the layout has no gap on held-out images, where a flat one loses 6 to 15
    points of reconstruction accuracy.

    Args:
        shape: (channels, height, width), height and width divisible by 2**halvings.
        channels: C.
        width: Channels at half resolution, doubled with each further halving.
        halvings: How many times height and width are halved.
    """

    def __init__(self, shape: tuple[int, ...], *, channels: int, width: int, halvings: int) -> None:
        super().__init__()
        colours, height, breadth = shape
        self.grid = (height >> halvings, breadth >> halvings)
        self.channels = channels
        self.layout = (self.grid[0] * self.grid[1], channels)
        widths = [width << i for i in range(halvings)]
        self.encoder = _encoder(colours, widths, 2 * channels)
        self.decoder = _decoder(channels, widths, colours)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, (N, T C)."""
        out = self.encoder(x.contiguous(memory_format=torch.channels_last)).float()
        mean, log_variance = out.chunk(2, 1)
        return _tokens(mean), _tokens(log_variance).clamp(-12, 4)

    def decode(self, z: Tensor) -> Tensor:
        """(N, T C) to (N, *shape)."""
        grid = z.reshape(-1, *self.grid, self.channels).permute(0, 3, 1, 2)
        return self.decoder(grid)


def _tokens(grid: Tensor) -> Tensor:
    return grid.permute(0, 2, 3, 1).flatten(1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.Conv2d(width, 2 * width, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _encoder(colours: int, widths: list[int], exits: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    entries = colours
    for index, width in enumerate(widths):
        kernel = 4 if index == 0 else 3
        layers += [nn.Conv2d(entries, width, kernel, stride=2, padding=1), nn.SiLU()]
        entries = width
    return nn.Sequential(*layers, _Residual(entries), nn.Conv2d(entries, exits, 1))


def _decoder(channels: int, widths: list[int], colours: int) -> nn.Sequential:
    entries = widths[-1]
    layers: list[nn.Module] = [nn.Conv2d(channels, entries, 3, padding=1), _Residual(entries)]
    for width in reversed(widths[:-1]):
        layers += [
            nn.ConvTranspose2d(entries, width, 2, stride=2),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
        ]
        entries = width
    return nn.Sequential(*layers, nn.Conv2d(entries, 4 * colours, 3, padding=1), nn.PixelShuffle(2))
