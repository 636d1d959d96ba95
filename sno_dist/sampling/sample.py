"""Stage 4: draw the configured samples, each rank its units, resumable unit by unit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sno_dist.config.drawing import check_drawing
from sno_dist.config.load import flatten
from sno_dist.config.schema import Config
from sno_dist.judge.find import find_judge, judge_inputs
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import device, start
from sno_dist.runtime.artifact import reuse, write_json
from sno_dist.runtime.progress import say
from sno_dist.runtime.share import share_of
from sno_dist.runtime.writing import writing
from sno_dist.sampling.baselines import Baselines
from sno_dist.sampling.draw import Drawer
from sno_dist.sampling.finetuned import FinetunedModels
from sno_dist.sampling.guidance import Calibration, SeenDiversity, beyond, calibrate, crossing
from sno_dist.sampling.individual import IndividualModels
from sno_dist.sampling.kernel import KernelModels
from sno_dist.sampling.oism import OismModels
from sno_dist.sampling.plan import Unit, label, plan_units, size_label
from sno_dist.sampling.sample_set import (
    EMBEDDINGS,
    INDEX,
    KIND,
    SampleSet,
    drawn_by,
    open_samples,
    samples_folder,
)
from sno_dist.sampling.stopwatch import stopwatch
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.reader import Reader, reader_of
from sno_dist.shards.tar import write_shard
from sno_dist.training.checkpoint import Checkpoint

__all__ = ["check_baselines", "sample"]

GUIDANCE = ".guidance.json"
RECORDS = ".records"
SECONDS = ".seconds.json"
OPTIMISATION = ("warmup", "final", "weight_decay", "clip", "ema")
"""Settings of training that the individual models take over, beside objective and precision."""

MODELS = {
    "individual": IndividualModels,
    "finetuned": FinetunedModels,
    "kernel": KernelModels,
    "oism": OismModels,
}

Draw = Callable[[Unit], NDArray[np.generic] | None]
"""A unit to its samples, (entries, samples, *shape); None if asked to stop before they are."""


def sample(config: Config, manifest: Manifest, checkpoint: Checkpoint) -> SampleSet:
    """Draw the samples of a config, or find them drawn.

    Raises:
        DataError: If a K is larger than a distribution.
        ConfigError: If a baseline cannot be had in the operator's latent space, or the operator
            was not trained for the guidance or acceptance asked for.
        ArtifactError: If the run's folder holds samples of another config.
        RunError: If an individual model's loss or a closed form's sample is not finite.
        Preempted: If the run was asked to stop; what was drawn is kept.

    **Collective** at the ends, where guidance weights are chosen, and before the baselines.
    """
    start()
    folder = samples_folder(config)
    inputs = _inputs(config, manifest, checkpoint)
    if reuse(folder, KIND, inputs):
        return open_samples(config, manifest)
    check_drawing(config)
    operator = checkpoint.operator().to(device())
    units = plan_units(config.sampling, manifest, unseen=operator.embeds)
    reader = reader_of(config, manifest)
    drawer = Drawer(operator, reader, config.sampling, config.seed, config.training.precision)
    # Before anything is drawn: what cannot be had is refused here.
    models = _models(config, operator, reader)
    chosen = isinstance(config.sampling.guidance, tuple)
    judge = find_judge(config, manifest) if chosen else None
    with (
        writing(folder, KIND, inputs, resume=True) as target,
        stopwatch(target / SECONDS) as seconds,
    ):
        own = [unit for unit in units if unit.method == "operator"]
        seen = SeenDiversity(operator, reader, judge, config)
        guidance, calibration = _guidance(config, seen, own, target)
        draw: Draw = partial(_with_guidance, drawer, guidance)
        _draw_share(drawer, draw, own, target, config.shards.block)
        if others := [unit for unit in units if unit.method != "operator"]:
            draw = _baselines(config, models, operator, drawer, reader, target)
            _draw_share(drawer, draw, others, target, config.shards.block)
        if collectives.world().is_main:
            told = {"guidance": guidance, "calibration": calibration, "seconds": seconds()}
            _index(target, units, manifest, told | {"entries": operator.embedder.size})
    return open_samples(config, manifest)


def check_baselines(config: Config, manifest: Manifest, operator: ScoreNeuralOperator) -> None:
    """Refuse baselines that cannot be had in the latent space of an operator, trained or not.

    Raises:
        ConfigError: With the setting to change.
    """
    _models(config, operator, reader_of(config, manifest))


def _inputs(config: Config, manifest: Manifest, checkpoint: Checkpoint) -> dict[str, Any]:
    training = config.training
    inputs: dict[str, Any] = {
        **drawn_by(config, manifest),
        "checkpoint": checkpoint.digest,
        "training.precision": training.precision,
    }
    if isinstance(config.sampling.guidance, tuple):
        inputs |= {
            "sampling.guidance.chosen": "for each K, at its crossing, from whole sets down",
            **judge_inputs(config.judge),
        }
    if {"individual", "finetuned"} & set(config.sampling.baselines):
        inputs |= flatten(training.objective, "training.objective")
        inputs |= {f"training.{name}": getattr(training, name) for name in OPTIMISATION}
    return inputs


def _guidance(
    config: Config, seen: SeenDiversity, units: Sequence[Unit], target: Path
) -> tuple[dict[str, float], Calibration]:
    """The weight for each K, by `size_label`, and what it was chosen by.

    A K that has no diversity of its own has the weight of whole context sets.
    """
    chosen, ks = config.sampling.guidance, list(dict.fromkeys(unit.k for unit in units))
    if not isinstance(chosen, tuple):
        return {size_label(k): chosen for k in ks}, {}
    kept, is_main = target / GUIDANCE, collectives.world().is_main
    known: dict[str, dict[str, float]] = {}
    if is_main and kept.is_file():
        known = json.loads(kept.read_text())
    known = collectives.broadcast(known, "reading the guidance weights")
    diversity = calibrate(
        seen,
        ks,
        chosen,
        {k: {float(weight): value for weight, value in own.items()} for k, own in known.items()},
        lambda found: write_json(kept, found) if is_main else None,
    )
    found = {k: crossing(own) for k, own in diversity.items()}
    weights = {size_label(k): found.get(size_label(k), found["all"]) for k in ks}
    told = ", ".join(f"{weight:g} (K = {k})" for k, weight in weights.items())
    say(f"guidance, where seen diversity is nearest to 1: {told}")
    if above := ", ".join(beyond(diversity)):
        say(f"seen diversity stays above 1 (K = {above}): sampling.guidance has no larger weight")
    return weights, diversity


def _with_guidance(
    drawer: Drawer, guidance: Mapping[str, float], unit: Unit
) -> NDArray[np.generic]:
    return drawer(unit, guidance[size_label(unit.k)])


def _models(config: Config, operator: ScoreNeuralOperator, reader: Reader) -> dict[str, Draw]:
    """The baselines that are models of one distribution each, as far as they are asked for."""
    return {
        name: MODELS[name](operator, reader, config)
        for name in config.sampling.baselines
        if name in MODELS
    }


def _baselines(
    config: Config,
    models: Mapping[str, Draw],
    operator: ScoreNeuralOperator,
    drawer: Drawer,
    reader: Reader,
    target: Path,
) -> Draw:
    """What draws a baseline's unit; all ranks have drawn the operator's units by now."""
    embeddings = {
        entry.name: np.asarray(json.loads(path.read_text())["u"], np.float32)
        for entry in reader.manifest.entries
        if (path := _record(target, f"{entry.split}/{label(None)}/{entry.name}")).is_file()
    }
    again = Baselines(
        reader,
        config.sampling,
        config.seed,
        lambda entry, k, group: drawer.embed(entry, k, group)[: operator.embedder.size],
        {name: u[: operator.embedder.size] for name, u in embeddings.items()},
        operator.transform,
    )
    return lambda unit: models.get(unit.method, again)(unit)


def _draw_share(
    drawer: Drawer, draw: Draw, units: Sequence[Unit], target: Path, block: int
) -> None:
    others = any(unit.method != "operator" for unit in units)
    phase = "sampling baselines" if others else "sampling"

    def missing() -> list[int]:
        drawn = [all(_record(target, key).is_file() for key in _keys(unit)) for unit in units]
        return [index for index, whole in enumerate(drawn) if not whole]

    # dealt without what an earlier attempt drew, or a rank might own that alone and wait
    left = [units[index] for index in collectives.from_main(missing, phase)]
    if left:
        for unit in share_of(left, phase, lambda unit: len(unit.entries)):
            _draw_unit(drawer, draw, unit, target, block)


def _draw_unit(drawer: Drawer, draw: Draw, unit: Unit, target: Path, block: int) -> None:
    drawn = draw(unit)
    if drawn is None:
        return
    for entry, key, samples in zip(unit.entries, _keys(unit), drawn, strict=True):
        if _record(target, key).is_file():
            continue  # written before the rest of its unit was
        shard = write_shard(target, f"{key}.tar", samples, block)
        record: dict[str, Any] = {"shard": shard.to_json()}
        if unit.k is None and unit.method == "operator":
            record["u"] = drawer.embed(entry).tolist()
        _record(target, key).parent.mkdir(parents=True, exist_ok=True)
        write_json(_record(target, key), record)


def _keys(unit: Unit) -> list[str]:
    return [f"{unit.split}/{label(unit.k, unit.method)}/{entry.name}" for entry in unit.entries]


def _record(target: Path, key: str) -> Path:
    return target / RECORDS / f"{key}.json"


def _index(
    target: Path,
    units: Sequence[Unit],
    manifest: Manifest,
    told: Mapping[str, Any],
) -> None:
    """Gather the records of all units into the index, with what is told of them all."""
    keys = [key for unit in units for key in _keys(unit)]
    records = {key: json.loads(_record(target, key).read_text()) for key in keys}
    embeddings = {
        key.rsplit("/")[-1]: np.asarray(record["u"], np.float32)
        for key, record in records.items()
        if "u" in record
    }
    save_file(embeddings, target / EMBEDDINGS)
    value = {
        "shards": {key: record["shard"] for key, record in records.items()},
        "shape": list(manifest.shape),
        "dtype": manifest.dtype,
        **told,
    }
    write_json(target / INDEX, value)
