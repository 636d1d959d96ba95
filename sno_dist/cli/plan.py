"""`plan`: what a run asks of any number of ranks, without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args

import click

from sno_dist.cli.unbuilt import operator_of, population_of
from sno_dist.config.load import load_config
from sno_dist.config.schema import Config, ExactForm, Kme
from sno_dist.training.footprint import (
    ENGINES,
    Backend,
    Engine,
    Memory,
    Size,
    Traffic,
    dealt,
    memory_of,
    seconds_of,
    size_of,
    traffic_of,
)

if TYPE_CHECKING:
    from sno_dist.shards.manifest import Manifest

__all__ = ["plan"]

RANKS = (8, 64, 512, 4096)
MIB, GB = 1 << 20, 10**9


class Work(NamedTuple):
    """Pieces of work that ranks share: slots of a batch, sampling units, Gram tiles."""

    slots: int
    units: tuple[int, ...]
    tiles: int | None


@click.command(short_help="Tell what a run asks of any number of ranks, without them.")
@click.option("-c", "--config", "path", metavar="FILE", help="YAML; none: the defaults.")
@click.option(
    "--ranks",
    type=click.IntRange(min=1),
    multiple=True,
    help=f"How many; may come again.  [default: {', '.join(map(str, RANKS))}]",
)
@click.option(
    "--engine",
    "engines",
    type=click.Choice(ENGINES),
    multiple=True,
    help="As launch/ has them; may come again.  [default: all]",
)
@click.option("--backend", type=click.Choice(get_args(Backend)), default="nccl", show_default=True)
@click.option(
    "--step-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="What a step of the whole batch took on one rank: adds steps per hour.",
)
@click.option(
    "--bandwidth",
    type=click.FloatRange(min=0, min_open=True),
    help="What a rank can send, GB/s: adds the exchange to the step.",
)
@click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")
def plan(
    path: str | None,
    ranks: tuple[int, ...],
    engines: tuple[Engine, ...],
    backend: Backend,
    step_seconds: float | None,
    bandwidth: float | None,
    overrides: tuple[str, ...],
) -> None:
    """Tell a rank's memory, traffic and share of the work, for each engine and number of ranks.

    It needs neither the ranks nor the shards, nor anything that a stage has left.

    \b
      sno-dist plan -c configs/double_digit.yaml
      sno-dist plan -c configs/digits.yaml --ranks 8 --engine zero2 training.distributions=64
      sno-dist plan -c configs/digits.yaml --step-seconds 0.35 --bandwidth 10
    """
    if bandwidth is not None and step_seconds is None:
        raise click.UsageError("--bandwidth says nothing without --step-seconds")
    config = load_config(path, overrides)
    manifest, origin = population_of(config)
    operator, assumed = operator_of(config, manifest)
    size, work = size_of(operator), _work(config, manifest)
    for line in _heading(config, manifest, origin, size, assumed):
        click.echo(line)
    cases: list[tuple[int, Engine]] = [
        (count, engine) for count in ranks or RANKS for engine in engines or ENGINES
    ]
    click.echo("\nmemory of a rank, MiB; activations and data come on top")
    _table(MEMORY, [_memory_row(*case, memory_of(size, case[1], case[0])) for case in cases])
    click.echo(f"\nsent by a rank in a step over {backend}, MiB; statistics and norms in bytes")
    rows = []
    for count, engine in cases:
        passes = _passes(config, count)
        sent = traffic_of(size, engine, count, backend=backend, passes=passes)
        row = [str(count), engine, *_sent(sent)]
        if step_seconds is not None:
            row.append(_pace(work.slots, count, sent, step_seconds, bandwidth))
        rows.append(row)
    _table(TRAFFIC if step_seconds is None else (*TRAFFIC, "steps/h"), rows)
    click.echo("\npieces of work that the fullest rank has")
    _table(WORK, [_work_row(work, count) for count in ranks or RANKS])
    for line in _walls(work, max(ranks or RANKS)):
        click.echo(line)


MEMORY = (
    *("ranks", "engine", "weights", "gradients", "moments", "master", "averages", "spare"),
    *("exchange", "step", "host", "saving"),
)
TRAFFIC = (
    *("ranks", "engine", "all-reduce", "reduce-scatter", "all-gather", "statistics", "norms"),
    "sum",
)
WORK = ("ranks", "distributions", "sampling units", "Gram tiles")


def _heading(
    config: Config, manifest: Manifest, origin: str, size: Size, assumed: str | None
) -> Iterator[str]:
    seen, unseen = len(manifest.split("seen")), len(manifest.split("unseen"))
    training = config.training
    yield f"population  {seen} seen and {unseen} unseen distributions: {origin}"
    yield (
        f"operator    {size.entries:,} weights in {len(size.weights)} tensors, "
        f"{4 * size.entries / MIB:.1f} MiB; {size.buffers / MIB:.1f} MiB of buffers"
    )
    yield f"a step      {training.distributions} distributions of {training.targets} targets"
    if assumed:
        yield f"assumed     {assumed}"


def _work(config: Config, manifest: Manifest) -> Work:
    """What there is to share.

    Raises:
        DataError: If a distribution is too small for what training or sampling asks of it.
    """
    from math import prod

    from sno_dist.embedding.gram import panels_of
    from sno_dist.sampling.plan import plan_units
    from sno_dist.training.loader import make_plan

    section, tiles = config.embedding, None
    counts = make_plan(config, manifest).counts
    if isinstance(section, Kme) and isinstance(section.form, ExactForm):
        held = [min(count, section.samples or count) for count in counts]
        panels = len(panels_of(held, prod(manifest.shape)))
        tiles = panels * (panels + 1) // 2
    units = plan_units(config.sampling, manifest, unseen=section.kind != "conditional")
    own = sum(unit.method == "operator" for unit in units)
    # the baselines are dealt on their own, when all ranks have drawn the operator's
    return Work(config.training.distributions, (own, len(units) - own), tiles)


def _passes(config: Config, ranks: int) -> int:
    slots = dealt(config.training.distributions, ranks)
    return dealt(slots, config.training.micro or slots)


def _pace(slots: int, ranks: int, sent: Traffic, alone: float, bandwidth: float | None) -> str:
    """Steps per hour, where training does not refuse."""
    if ranks > slots:
        return "-"
    rate = None if bandwidth is None else bandwidth * GB
    return f"{3600 / seconds_of(alone, slots, ranks, sent.total, rate):,.0f}"


def _memory_row(ranks: int, engine: Engine, memory: Memory) -> list[str]:
    held = [memory.weights, memory.gradients, memory.moments, memory.master, memory.averages]
    held += [memory.spare, memory.exchange, memory.step, memory.host, memory.saving]
    return [str(ranks), engine, *(f"{value / MIB:.1f}" for value in held)]


def _sent(sent: Traffic) -> list[str]:
    large = (sent.all_reduce, sent.reduce_scatter, sent.all_gather)
    small = (sent.statistics, sent.norms)
    return [
        *(f"{value / MIB:.2f}" for value in large),
        *(f"{value:.0f}" for value in small),
        f"{sent.total / MIB:.2f}",
    ]


def _work_row(work: Work, ranks: int) -> list[str]:
    slots = "refused" if ranks > work.slots else str(dealt(work.slots, ranks))
    units = sum(dealt(count, ranks) for count in work.units)
    tiles = "-" if work.tiles is None else str(dealt(work.tiles, ranks))
    return [str(ranks), slots, str(units), tiles]


def _walls(work: Work, ranks: int) -> Iterator[str]:
    """What keeps some of so many ranks from helping, if anything does."""
    if ranks > work.slots:
        yield (
            f"wall: training refuses more than {work.slots} ranks, since each takes at least one "
            f"of a batch's distributions; for {ranks} set training.distributions={ranks} or more"
        )
    if ranks > (most := max(work.units)):
        yield (
            f"wall: sampling has {most} units, and further ranks draw nothing; "
            "a smaller sampling.batch makes more, down to one for each distribution and K"
        )
    if work.tiles is not None and ranks > work.tiles:
        yield f"wall: the Gram matrix has {work.tiles} tiles, and further ranks fill none"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = zip(header, row, widths, strict=True)
        words = (w.ljust(n) if name == "engine" else w.rjust(n) for name, w, n in cells)
        click.echo("  ".join(words).rstrip())
