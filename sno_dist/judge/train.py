"""Training of the judge: one short run on one rank, deterministic for a seed and thread count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sno_dist.config.schema import Judge as Settings
from sno_dist.errors import DataError, RunError
from sno_dist.judge.classifier import Classifier, to_unit
from sno_dist.judge.network import Form, ResNet18
from sno_dist.runtime.precision import has_bf16
from sno_dist.runtime.rng import generator

__all__ = ["Progress", "train_classifier", "updates_of"]

Progress = Callable[[float], None]
"""Called after every step with its loss."""

SMOOTHING = 0.1
WEIGHT_DECAY = 0.05
NOISE = 0.05


def train_classifier(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    settings: Settings,
    *,
    classes: int,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> Classifier:
    """Train a ResNet-18 to tell distributions apart.

    Args:
        images: (N, C, H, W) bytes, of samples that the generative model never sees.
        labels: (N,) integers, 0 <= label < classes.
        settings: Width, epochs, batch, learning rate and seed.
        classes: Number of distributions.
        progress: Told of every step.
        device: Where to train.

    Raises:
        DataError: If the images or labels are of the wrong form.
        RunError: If the loss stops being finite.
    """
    _check(images, labels, classes)
    device = torch.device(device)
    key = int(generator(settings.seed, "classifier").integers(2**62))
    source = torch.Generator().manual_seed(key)
    judge = _fresh(images, settings, classes, key, device)
    network = judge.network.train()
    total = updates_of(settings, len(images))
    optimizer, schedule = _optimisation(network, settings, total)
    batches = islice(_batches(images, labels, settings.batch, source), total)
    for step, (pictures, truth) in enumerate(batches, start=1):
        inputs = judge.standardise(augment(pictures, source).to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
            _, logits = network(inputs)
        loss = functional.cross_entropy(logits.float(), truth.to(device), label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        _report(step, total, loss.item(), progress)
    network.eval()
    return judge


def updates_of(settings: Settings, images: int) -> int:
    """Updates of a training: those of its epochs, but for few images no fewer than enough to learn.

    Args:
        settings: Epochs, batch, and the least.
        images: How many there are.
    """
    return max(settings.min_updates, settings.epochs * max(1, images // settings.batch))


def augment(images: Tensor, source: torch.Generator) -> Tensor:
    """Shift by a fraction of a sixteenth of the side (a pixel at least) and add a little noise.

    No flips, turns or colour changes: those may lead from one distribution to another.

    Args:
        images: (B, C, H, W) in [0, 1].
        source: Where the random numbers come from.
    """
    sides = torch.tensor(images.shape[:1:-1])  # width, height: the order of grid coordinates
    pixels = max(1.0, float(sides.min()) / 16)
    shift = (2 * torch.rand(len(images), 2, generator=source) - 1) * pixels
    theta = torch.eye(2, 3).repeat(len(images), 1, 1)
    theta[:, :, 2] = 2 * shift / sides
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved + NOISE * torch.randn(moved.shape, generator=source)


def _check(images: NDArray[Any], labels: NDArray[Any], classes: int) -> None:
    if (
        images.ndim != 4
        or images.dtype != np.uint8
        or len(images) != len(labels)
        or not len(images)
    ):
        raise DataError(
            "the classifier cannot be trained",
            got=f"{images.dtype} images {images.shape} with {len(labels)} labels",
            expected="uint8 images (N, C, H, W) with N labels, N > 0",
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            "a label is out of range",
            got=f"{labels.min()}..{labels.max()}",
            expected=f"0..{classes - 1}",
        )


def _fresh(
    images: NDArray[np.uint8], settings: Settings, classes: int, key: int, device: torch.device
) -> Classifier:
    channels, height, width = images.shape[1:]
    form = Form(shape=(channels, height, width), classes=classes, width=settings.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        network = ResNet18(form)
    network = network.to(device, memory_format=torch.channels_last)  # pyright: ignore
    mean, std = _moments(images)
    # A constant channel says nothing; a floor keeps it from becoming NaN.
    spread = torch.from_numpy(np.maximum(std, 1 / 255)).float()
    return Classifier(form, network, torch.from_numpy(mean).float(), spread)


def _moments(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each channel, (C,), of bytes over 255."""
    channels = torch.from_numpy(images).transpose(0, 1).flatten(1)
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in channels]).numpy()
    share = counts / channels.shape[1]
    values = np.arange(256) / 255
    mean = share @ values
    return mean, np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))


def _optimisation(
    network: nn.Module, settings: Settings, total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW that decays matrices alone; one cycle: linear up over a quarter, cosine to zero."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    warm = max(1, total // 4)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, total - warm))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _batches(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    batch: int,
    source: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole batches of epoch after epoch, shuffled anew; what does not fill one is left out."""
    truth = torch.from_numpy(np.array(labels, dtype=np.int64))
    size = min(batch, len(images))
    while True:
        order = torch.randperm(len(images), generator=source)
        for part in order[: len(order) // size * size].split(size):
            yield to_unit(images[part.numpy()]), truth[part]


def _report(step: int, total: int, loss: float, progress: Progress | None) -> None:
    if not math.isfinite(loss):
        raise RunError(
            "the classifier's loss is not finite",
            where=f"judge, step {step} of {total}",
            got=loss,
            fix="lower judge.learning_rate",
        )
    if progress is not None:
        progress(loss)
