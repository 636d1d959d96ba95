"""What a run tells: TensorBoard for people, JSON lines for programs. Rank 0 alone writes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sno_dist.runtime import collectives

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Tracker"]


class Tracker:
    """Writes a run's scalars, images and embeddings; does nothing on other ranks.

    Args:
        run: The run's folder.
        resume: The step that is gone on from: what an earlier attempt wrote beyond it is purged.
            None: nothing is.
    """

    def __init__(self, run: Path, *, resume: int | None = None) -> None:
        self._writer = None
        if not collectives.world().is_main:
            return
        # tensorboard takes a second to import, and only this rank needs it
        from torch.utils.tensorboard.writer import SummaryWriter

        self._folder = run / "tensorboard"
        purge = None if resume is None else resume + 1
        self._writer = SummaryWriter(str(self._folder), purge_step=purge)
        log = run / "logs" / "rank-00000.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        if resume is not None and log.is_file():
            _cut(log, resume)
        self._log = log.open("a", buffering=1)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write `group/name` -> value at a step, to both places."""
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._log.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")

    def curve(self, name: str, values: Sequence[float]) -> None:
        """Write a curve over anything but training's steps, as a run of its own beside them.

        In the run itself, a resumed training would purge it from its first step on.
        """
        if self._writer is None:
            return
        with type(self._writer)(str(self._folder / name)) as writer:
            for place, value in enumerate(values):
                writer.add_scalar(name, value, place)

    def images(self, name: str, grid: Tensor, step: int) -> None:
        """Write one (C, H, W) image in [0, 1]."""
        if self._writer is not None:
            self._writer.add_image(name, grid, step)

    def embedding(self, u: Tensor, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Fill the projector with (P, U) embeddings and a row of labels for each."""
        if self._writer is not None:
            self._writer.add_embedding(
                u, metadata=[list(row) for row in rows], metadata_header=list(header), tag="u"
            )

    def hparams(self, settings: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        """Write the settings beside the final metrics, once, under a name that does not change."""
        if self._writer is None:
            return
        plain = {
            k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in settings.items()
        }
        self._writer.add_hparams(plain, dict(metrics), run_name="hparams")

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
            self._log.close()


def _cut(log: Path, last: int) -> None:
    """Drop the lines beyond a step, and a part of one that a kill has left."""
    kept = []
    for line in log.read_text().splitlines(keepends=True):
        with suppress(json.JSONDecodeError):
            if json.loads(line)["step"] <= last:
                kept.append(line)
    part = log.with_name(f".{log.name}.part")
    part.write_text("".join(kept))
    part.replace(log)
