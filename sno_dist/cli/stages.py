"""The stages as commands: each loads the config, opens what is upstream, and calls its function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sno_dist.cli import layout
from sno_dist.config.load import load_config
from sno_dist.config.schema import Config

__all__ = ["COMMANDS"]

Action = Callable[[Config], None]


def _stage(name: str, stages: tuple[str, ...], text: str, example: str) -> Callable[..., Any]:
    """Make a command of an action on the config: `-c`, overrides and `--dry-run` are the same."""

    def wrap(action: Action) -> click.Command:
        def callback(path: str | None, overrides: tuple[str, ...], dry_run: bool) -> None:
            config = load_config(path, overrides)
            if dry_run:
                _plan(config, stages)
            else:
                _meet()
                action(config)

        launch = "accelerate launch --config_file launch/accelerate/one_machine.yaml"
        text_and_examples = (
            f"{text}\n\nAn override is section.key=value, the value in YAML; the last one wins.\n\n"
            f"\b\nExamples:\n  sno-dist {name} -c configs/digits.yaml\n"
            f"  sno-dist {name} -c configs/digits.yaml {example}\n"
            f"  {launch} --num_processes 2 \\\n    -m sno_dist {name} -c configs/digits.yaml\n"
        )
        return click.Command(
            name,
            callback=callback,
            help=text_and_examples,
            short_help=text.partition(".")[0] + ".",
            params=[
                click.Option(
                    ["-c", "--config", "path"], metavar="FILE", help="YAML; none: the defaults."
                ),
                click.Option(["--dry-run"], is_flag=True, help="Tell what would be done and stop."),
                click.Argument(["overrides"], nargs=-1, metavar="[SECTION.KEY=VALUE]..."),
            ],
        )

    return wrap


@_stage(
    "build-shards",
    ("shards",),
    "Write a source's samples as shards. Ranks share the distributions.",
    "shards.source.model=500",
)
def build_shards(config: Config) -> None:
    from sno_dist.shards.build import build_shards

    build_shards(config)
    _done(config, "shards")


@_stage(
    "fit-embedding",
    ("embedding",),
    "Fit the embedding of distributions to the seen ones. Ranks share the sums or tiles.",
    "embedding.kind=prototype",
)
def fit_embedding(config: Config) -> None:
    from sno_dist.embedding.fit import fit_embedding
    from sno_dist.shards.manifest import open_manifest

    fit_embedding(config, open_manifest(config))
    _done(config, "embedding")


@_stage(
    "train",
    ("training",),
    "Train the operator on all ranks. A stopped run goes on where it was.",
    "training.steps=500",
)
def train(config: Config) -> None:
    from sno_dist.embedding.table import open_table
    from sno_dist.runtime.accelerator import check_launcher
    from sno_dist.shards.manifest import open_manifest
    from sno_dist.training.train import train

    check_launcher(config.training.precision)
    manifest = open_manifest(config)
    train(config, manifest, open_table(config, manifest))
    _done(config, "training")


@_stage(
    "sample",
    ("sampling",),
    "Draw samples of seen and unseen distributions. Ranks share the distributions.",
    "sampling.contexts='[1, 10]'",
)
def sample(config: Config) -> None:
    from sno_dist.sampling.sample import sample
    from sno_dist.shards.manifest import open_manifest
    from sno_dist.training.checkpoint import open_checkpoint

    manifest = open_manifest(config)
    sample(config, manifest, open_checkpoint(config, manifest))
    _done(config, "sampling")


@_stage(
    "evaluate",
    ("evaluation",),
    "Compare samples with held-out real ones and print the table. Ranks share the distributions.",
    "evaluation.bootstrap=200",
)
def evaluate(config: Config) -> None:
    from sno_dist.evaluation.evaluate import evaluate
    from sno_dist.sampling.sample_set import open_samples
    from sno_dist.shards.manifest import open_manifest

    manifest = open_manifest(config)
    report = evaluate(config, manifest, open_samples(config, manifest))
    _show(report.table, report.path)


@_stage(
    "run",
    ("shards", *layout.STAGES),
    "All five stages, then the table. What is complete and of the same inputs is skipped.",
    "training.steps=500 seed=1",
)
def run(config: Config) -> None:
    from sno_dist.embedding.fit import fit_embedding
    from sno_dist.evaluation.evaluate import check_evaluation, evaluate
    from sno_dist.runtime.accelerator import check_launcher
    from sno_dist.sampling.sample import check_baselines, sample
    from sno_dist.shards.build import build_shards
    from sno_dist.training.check import check_settings
    from sno_dist.training.train import train
    from sno_dist.training.untrained import untrained_operator

    # What later stages would refuse is better refused now than after hours of training.
    check_launcher(config.training.precision)
    check_settings(config)
    manifest = build_shards(config)
    check_evaluation(config, manifest)
    table = fit_embedding(config, manifest)
    if config.sampling.baselines:
        check_baselines(config, manifest, untrained_operator(config, manifest, table.tensors))
    checkpoint = train(config, manifest, table)
    samples = sample(config, manifest, checkpoint)
    report = evaluate(config, manifest, samples)
    _show(report.table, report.path)


COMMANDS: tuple[click.Command, ...] = (
    run,
    build_shards,
    fit_embedding,
    train,
    sample,
    evaluate,
)


def _meet() -> None:
    """Bring up the ranks; a signal ends one that still waits for others, and later asks to stop."""
    from sno_dist.runtime import preemption
    from sno_dist.runtime.accelerator import start

    start()
    preemption.listen()


def _plan(config: Config, stages: tuple[str, ...]) -> None:
    places = layout.folders(config)
    width = max(len(places[stage]) for stage in stages)
    for stage in stages:
        would = {
            "complete": "complete; skipped if made from the same inputs",
            "begun": "begun; would be resumed if made from the same inputs",
            "absent": "would be made",
            "remote": "remote; would be read",
        }[layout.state_of(config, stage)]
        click.echo(f"{stage:<10}  {places[stage]:<{width}}  {would}")


def _done(config: Config, stage: str) -> None:
    from sno_dist.runtime.collectives import world

    if world().is_main:
        click.echo(f"{stage}: {layout.folders(config)[stage]}")


def _show(table: str, path: object) -> None:
    from sno_dist.runtime.collectives import world

    if world().is_main:
        click.echo(table)
        click.echo(f"report: {path}")
