"""The engine that `accelerate launch` asked for: one match."""

from __future__ import annotations

from accelerate import Accelerator

from sno_dist.config.schema import Training
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime.accelerator import engine_name
from sno_dist.training.engines.data_parallel import DataParallel
from sno_dist.training.engines.engine import Engine

__all__ = ["make_engine"]


def make_engine(
    accelerator: Accelerator, operator: ScoreNeuralOperator, training: Training
) -> Engine:
    """Spread an operator over the ranks.

    Args:
        accelerator: Of this launch.
        operator: With the weights to start from, on its device.
        training: The config's section.

    **Collective.**
    """
    match engine_name():
        case "data_parallel":
            return DataParallel(accelerator, operator, training)
        case "deepspeed":
            from sno_dist.training.engines.zero import Zero

            return Zero(accelerator, operator, training)
        case "fsdp":
            from sno_dist.training.engines.fsdp import FullySharded

            return FullySharded(operator, training)
