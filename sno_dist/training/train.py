"""Stage 3: train until the configured step, from the newest checkpoint if there is one."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator

from sno_dist.config.load import dump, run_folder
from sno_dist.config.schema import Config
from sno_dist.embedding.table import EmbeddingTable
from sno_dist.errors import ConfigError, Preempted, RunError
from sno_dist.judge.find import find_judge
from sno_dist.model.batch import Batch
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.model.pretrained import TRAINING
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import autocast, build_accelerator
from sno_dist.runtime.disk import disk_watched
from sno_dist.runtime.lock import locked
from sno_dist.runtime.precision import settled
from sno_dist.runtime.progress import Progress, say
from sno_dist.runtime.provenance import write_provenance
from sno_dist.runtime.tracking import Tracker
from sno_dist.runtime.workers import workers_watched
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.reader import Reader, reader_of
from sno_dist.training.check import check_settings
from sno_dist.training.checkpoint import (
    Checkpoint,
    Snapshot,
    find_checkpoint,
    find_trained,
    open_checkpoint,
    save_checkpoint,
    training_inputs,
)
from sno_dist.training.ema import Ema
from sno_dist.training.engines.factory import make_engine
from sno_dist.training.failure import keep_failure
from sno_dist.training.loader import StepBatches, batches
from sno_dist.training.optim import learning_rates
from sno_dist.training.pictures import show_embeddings, show_images
from sno_dist.training.probe import Probe
from sno_dist.training.step import NotFiniteError, StepOutcome, Stepper, is_rank_agreed
from sno_dist.training.untrained import untrained_operator

__all__ = ["train"]


def train(config: Config, manifest: Manifest, table: EmbeddingTable) -> Checkpoint:
    """Train the operator of a config, or find it trained.

    Args:
        config: The run's.
        manifest: The shards.
        table: The embedding stage's artifact.

    Returns:
        The checkpoint of the last step.

    Raises:
        ConfigError: If there are more ranks than distributions in a batch.
        ArtifactError: If the run's folder holds a checkpoint of another config.
        RunError: If the loss is not finite, ranks disagree, or another run holds the folder.
        Preempted: If the run was asked to stop; it has saved.

    **Collective.**
    """
    accelerator = build_accelerator(config.training.precision)
    check_settings(config)
    run = run_folder(config)
    inputs = {**training_inputs(config, manifest), "embedding.digest": table.digest}
    with disk_watched(run):
        # before the lock: what is trained may lie where nothing can be written
        if done := find_trained(config, inputs):
            return done
    with disk_watched(run), locked(run):
        found = find_checkpoint(run / TRAINING, inputs)
        if found is None or found.step < config.training.steps:
            if collectives.world().is_main:
                (run / "config.yaml").write_text(dump(config))
                upstream = {"shards": manifest.digest, "embedding": table.digest}
                precision = settled(config.training.precision, accelerator.device)
                write_provenance(run, upstream, precision=precision, resumes=found is not None)
            # no name for what is read: a whole snapshot would stay in memory for the run
            _Training(config, manifest, table, accelerator, inputs, found and found.read()).run()
    return open_checkpoint(config, manifest)


class _Training:
    """The parts of a run in progress."""

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        table: EmbeddingTable,
        accelerator: Accelerator,
        inputs: Mapping[str, Any],
        found: Snapshot | None,
    ) -> None:
        self._config, self._manifest, self._inputs = config, manifest, inputs
        self._folder = run_folder(config) / TRAINING
        # The same seed on every rank: the weights start equal, without a broadcast.
        torch.manual_seed(config.seed)
        self._operator = untrained_operator(config, manifest, table.tensors)
        self._averaged = copy.deepcopy(self._operator).eval().to(accelerator.device)
        if found is not None:
            self._operator.load_state_dict(found.weights)
        self._operator.to(accelerator.device)
        with collectives.in_contact("wrapping the operator"):
            self._engine = make_engine(accelerator, self._operator, config.training)
        self._ema = Ema(self._engine.pieces(), config.training.ema)
        self._first = 0 if found is None else self._go_on(found)
        self._probe = self._make_probe()

    def _go_on(self, found: Snapshot) -> int:
        say(f"training goes on from step {found.step}")
        with collectives.in_contact("restoring a checkpoint"):
            self._ema.restore(self._engine.split(dict(found.averaged.named_parameters())))
            if found.moments:
                self._engine.restore(found.moments)
        if self._engine.scaler is not None and found.scaler:
            self._engine.scaler.load_state_dict(dict(found.scaler))
        return found.step

    def run(self) -> None:
        """From a checkpoint, or from the start, to the last step."""
        training, first = self._config.training, self._first
        stepper = Stepper(self._engine, training)
        dims = self._operator.autoencoder.size
        data = StepBatches(self._config, self._manifest, collectives.world(), dims)
        tracker = Tracker(run_folder(self._config), resume=first)
        try:
            with Progress(training.steps, "training", done=first) as progress, workers_watched():
                self._loop(stepper, data, first, tracker, progress)
            self._show(tracker, training.steps, embeddings=True)
        finally:
            tracker.close()

    def _loop(
        self, stepper: Stepper, data: StepBatches, first: int, tracker: Tracker, progress: Progress
    ) -> None:
        training = self._config.training
        stream = batches(data, first, training.steps, training.workers)
        meter = _Meter(training.distributions * training.targets)
        for step in range(first, training.steps):
            waited = time.perf_counter()
            batch = next(stream)
            meter.wait(time.perf_counter() - waited)
            outcome = self._step(stepper, batch, step)
            self._ema.update(self._engine.pieces(), step)
            done = step + 1
            meter.add(outcome)
            progress.advance(note=f"score {outcome.losses['score']:.3g}")
            if done % training.log_every == 0 or done == training.steps:
                tracker.scalars(meter.read(learning_rates(step, training)), done)
            if done % training.save_every == 0 or done == training.steps or outcome.stop:
                self._save(done)
            looked = time.perf_counter()
            if done % training.picture_every == 0 and done < training.steps:
                self._show(tracker, done)
            if self._probe is not None and done % training.probe.every == 0:
                tracker.scalars(self._probed(self._probe), done)
            meter.leave_out(time.perf_counter() - looked)
            if outcome.stop and done < training.steps:
                raise Preempted(
                    "asked to stop",
                    got=f"step {done} saved",
                    fix="run the same command to go on",
                )

    def _step(self, stepper: Stepper, batch: Batch, step: int) -> StepOutcome:
        try:
            return stepper(batch, step)
        except NotFiniteError as found:
            kept = keep_failure(self._folder, step, self._engine, batch, self._inputs)
            raise RunError(
                f"the loss or the gradient is not finite at step {step}; nothing was updated",
                where=f"{kept}, where weights and batch are kept",
                got=found,
                fix="lower training.learning_rate or training.clip in a folder of its own "
                "(run=...); the last checkpoint stays as it is",
            ) from None

    def _save(self, step: int) -> None:
        with collectives.in_contact(f"saving step {step}"):
            snapshot = Snapshot(
                step=step,
                weights=self._engine.weights(),
                averaged=self._average(),
                moments=self._engine.moments(),
                scaler=self._engine.scaler_state(),
            )
        if not is_rank_agreed(snapshot.weights.values()):
            raise RunError("the ranks hold different weights", got=f"at step {step}")
        save_checkpoint(self._folder, snapshot, self._inputs, self._config.training.keep)

    def _show(self, tracker: Tracker, step: int, *, embeddings: bool = False) -> None:
        averaged = self._average()
        if collectives.world().is_main:
            reader = self._reader()
            with autocast(self._config.training.precision), _told(f"no pictures at step {step}"):
                show_images(averaged, self._manifest, reader, tracker, step)
                if embeddings:
                    show_embeddings(averaged, self._manifest, reader, tracker)
        # here and not in a group of the engine's, whose patience may be shorter
        collectives.barrier("showing pictures")

    def _probed(self, probe: Probe) -> dict[str, float]:
        averaged, found = self._average(), {}
        if collectives.world().is_main:
            with autocast(self._config.training.precision), _told("the probe found nothing"):
                found = probe(averaged)
        collectives.barrier("the probe")
        return found

    def _average(self) -> ScoreNeuralOperator:
        """The operator as it will be used, in a module of its own. **Collective.**"""
        with collectives.in_contact("gathering the averaged weights"):
            state = {**self._engine.weights(), **self._engine.whole(self._ema.shadow)}
        self._averaged.load_state_dict(state)
        return self._averaged

    def _make_probe(self) -> Probe | None:
        """The learning curve's probe; its judge may have to be trained first. **Collective.**

        Raises:
            ConfigError: If there is nothing to judge by.
        """
        if not self._config.training.probe.every:
            return None
        judge = find_judge(self._config, self._manifest)
        if judge is None:
            raise ConfigError(
                "a learning curve needs a judge of images",
                where="training.probe.every",
                got=f"{self._config.training.probe.every}, and no judge",
                fix="set training.probe.every=0, or judge.* and the source's share for the judge",
            )
        return Probe(self._config, self._manifest, self._reader(), judge)

    def _reader(self) -> Reader:
        return reader_of(self._config, self._manifest, verify=False)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """An operator that draws nothing finite is a reason to say so, not to end its training."""
    try:
        yield
    except RunError as error:
        say(f"{what}: {error}")


class _Meter:
    """Means over the steps since the last reading."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._reset()

    def _reset(self) -> None:
        self._outcomes: list[StepOutcome] = []
        self._waited, self._start = 0.0, time.perf_counter()

    def wait(self, seconds: float) -> None:
        self._waited += seconds

    def leave_out(self, seconds: float) -> None:
        """Time in which no update was worked on."""
        self._start += seconds

    def add(self, outcome: StepOutcome) -> None:
        self._outcomes.append(outcome)

    def read(self, rates: tuple[float, float]) -> dict[str, float]:
        count, seconds = len(self._outcomes), time.perf_counter() - self._start
        norms = [o.norm for o in self._outcomes if not o.skipped]
        values = {
            f"loss/{name}": sum(o.losses[name] for o in self._outcomes) / count
            for name in self._outcomes[0].losses
        }
        values |= {
            "optimizer/learning_rate": rates[0],
            "optimizer/autoencoder_rate": rates[1],
            "optimizer/overflows": float(sum(o.skipped for o in self._outcomes)),
            "speed/samples_per_second": count * self._samples / seconds,
            "speed/steps_per_second": count / seconds,
            "speed/data_wait": self._waited / seconds,
        }
        if norms:
            values["optimizer/gradient_norm"] = sum(norms) / len(norms)
        self._reset()
        return values
