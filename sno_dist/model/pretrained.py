"""Where an operator's weights are found on disk, read without ever unpickling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sno_dist.errors import ArtifactError
from sno_dist.model.build import OperatorSpec

__all__ = ["LATEST", "SPEC", "TRAINING", "WEIGHTS", "load_weights", "read_pretrained"]

SPEC = "operator.json"
WEIGHTS = "model.safetensors"
TRAINING = "training"
LATEST = "LATEST"


def read_pretrained(path: Path) -> tuple[OperatorSpec, dict[str, Tensor]]:
    """The spec and weights at a run's folder, a checkpoint, or a `save_pretrained` folder.

    Raises:
        ArtifactError: If there is none, or it is damaged.
    """
    folder = _resolve(path)
    try:
        spec = OperatorSpec.model_validate_json((folder / SPEC).read_text())
        return spec, load_file(folder / WEIGHTS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(
            "no trained operator here",
            where=path,
            got=f"no {Path(error.filename or WEIGHTS).name}",
            expected=f"a run's folder, a checkpoint, or a folder with {SPEC} and {WEIGHTS}",
            fix="run `sno-dist train` first",
        ) from error
    except (SafetensorError, ValidationError) as error:
        raise ArtifactError(
            "the operator's files are damaged", where=folder, got=str(error).splitlines()[0]
        ) from error


def load_weights(operator: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill an operator that was built of the spec at `path` with the weights there.

    Raises:
        ArtifactError: If they are of another spec.
    """
    try:
        operator.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtifactError(
            "the operator's weights are not of its spec",
            where=path,
            got=" ".join(str(error).split()),
            fix=f"take {SPEC} and {WEIGHTS} from one checkpoint",
        ) from error


def _resolve(path: Path) -> Path:
    training = path / TRAINING if (path / TRAINING).is_dir() else path
    pointer = training / LATEST
    return training / pointer.read_text().strip() if pointer.is_file() else training
