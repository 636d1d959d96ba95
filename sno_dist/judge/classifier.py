"""The judge: an image classifier over distributions that gives accuracies and features.

It is trained on real samples that the model never sees. It is saved as safetensors and JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sno_dist.errors import ArtifactError, DataError
from sno_dist.judge.network import Form, ResNet18
from sno_dist.runtime.artifact import write_json

__all__ = ["Classifier", "Verdict", "load_classifier", "to_unit"]

FORMAT = 1
WEIGHTS, HEAD = "classifier.safetensors", "classifier.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the judge says of n images.

    Args:
        features: (n, F) float32, the pooled features.
        logits: (n, classes) float32.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) the most likely class of each image."""
        return self.logits.argmax(axis=1)


class Classifier:
    """A trained ResNet-18 with the standardisation of its training images.

    Args:
        form: What the network was built from.
        network: The network; it is put in evaluation mode.
        mean: (C,) mean of the training images, which are in [0, 1].
        std: (C,) their standard deviation.
    """

    def __init__(self, form: Form, network: ResNet18, mean: Tensor, std: Tensor) -> None:
        self.form = form
        self.network = network.eval()
        self.mean = mean
        self.std = std

    @torch.no_grad()
    def judge(self, images: NDArray[Any], batch: int = 500) -> Verdict:
        """Features and logits of images, in float32.

        Args:
            images: (N, C, H, W) uint8, or floats in [0, 1].
            batch: Images seen together; results depend on it by rounding alone.

        Raises:
            DataError: If the images are not of the form that the judge was trained on.
        """
        if tuple(images.shape[1:]) != self.form.shape:
            raise DataError(
                "the classifier was trained on other images",
                got=tuple(images.shape[1:]),
                expected=self.form.shape,
            )
        features = np.empty((len(images), self.form.features), np.float32)
        logits = np.empty((len(images), self.form.classes), np.float32)
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            seen = self.network(self.standardise(to_unit(images[part]).to(self._device)))
            features[part], logits[part] = (tensor.float().cpu().numpy() for tensor in seen)
        return Verdict(features=features, logits=logits)

    def features(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """The pooled features, (N, F); see `judge`."""
        return self.judge(images).features

    def standardise(self, images: Tensor) -> Tensor:
        """Images in [0, 1] -> what the network takes, in the memory format it is fast in."""
        shape = (1, -1, 1, 1)
        mean, std = (value.to(images.device).view(shape) for value in (self.mean, self.std))
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    def save(self, folder: Path) -> None:
        """Write the judge into an existing folder: two files, no pickle."""
        state = {key: value.cpu().contiguous() for key, value in self.network.state_dict().items()}
        save_file(state, folder / WEIGHTS)
        head = asdict(self.form) | {"mean": self.mean.tolist(), "std": self.std.tolist()}
        write_json(folder / HEAD, {"format": FORMAT} | head)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def load_classifier(folder: Path, device: torch.device | str = "cpu") -> Classifier:
    """Read a judge that `Classifier.save` wrote.

    Raises:
        ArtifactError: If a file is missing, damaged or of another format.
    """
    try:
        head = json.loads((folder / HEAD).read_text())
        if head["format"] != FORMAT:
            raise ArtifactError(
                "a classifier of another format", where=folder, got=head["format"], expected=FORMAT
            )
        form = Form(shape=tuple(head["shape"]), classes=head["classes"], width=head["width"])
        network = ResNet18(form)
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(
            "the classifier cannot be read",
            where=folder,
            got=str(error).splitlines()[0],
            fix="delete this folder and run the stage again",
        ) from error
    network = network.to(device, memory_format=torch.channels_last)  # pyright: ignore
    return Classifier(form, network, torch.tensor(head["mean"]), torch.tensor(head["std"]))


def to_unit(images: NDArray[Any]) -> Tensor:
    """Images as a float32 tensor in [0, 1]: bytes are divided by 255."""
    tensor = torch.from_numpy(np.array(images, dtype=np.float32))
    return tensor / 255 if images.dtype == np.uint8 else tensor
