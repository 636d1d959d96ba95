"""The baseline of fine-tuning: for each unseen distribution the operator's score is trained on.

It begins with the operator's weights, and with the u of the context set, or for an operator that
cannot embed one with the mean of the seen rows; both are trained on that set alone (the paper's
figure 2). What it costs beside a forward pass, and what it forgets, is the operator's case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.config.schema import Config
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.sampling.individual import IndividualModels
from sno_dist.sampling.plan import Unit, context_of
from sno_dist.score.of_one import ScoreOfOne
from sno_dist.shards.manifest import Entry
from sno_dist.shards.reader import Reader

__all__ = ["FinetunedModels"]


class FinetunedModels(IndividualModels):
    """Trains the operator on for the distributions of a unit side by side, and draws from each.

    Args:
        operator: On its device.
        reader: Of the population.
        config: Its sections sampling and training, and the seed.
    """

    method: ClassVar = "finetuned"

    def __init__(self, operator: ScoreNeuralOperator, reader: Reader, config: Config) -> None:
        super().__init__(operator, reader, config)
        self._reader, self._section = reader, config.sampling.finetuned

    def _models(self, unit: Unit, sources: Sequence[np.random.Generator]) -> list[ScoreOfOne]:
        del sources
        score = self._operator.score_model
        return [ScoreOfOne(score, self._begin(entry, unit.k)) for entry in unit.entries]

    def _index(self, entry: Entry, k: int | None) -> NDArray[np.int64]:
        return context_of(self._config.seed, entry, k, 0)

    def _begin(self, entry: Entry, k: int | None) -> Tensor:
        operator = self._operator
        if operator.embeds:
            samples = self._reader.take(entry, "model", self._index(entry, k))
            return operator.embed(torch.from_numpy(samples))
        rows = [operator.seen_embedding(name) for name in operator.spec.seen]
        return torch.stack([row for row in rows if row is not None]).mean(0)
