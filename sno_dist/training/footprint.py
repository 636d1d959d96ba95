"""What a run asks of each rank, by engine: memory, bytes sent in a step, time.

Arithmetic on the shapes of the weights: nothing is allocated and no rank is started. Numbers are of
the fullest rank, the first. Activations, data and what the libraries keep for themselves are not in
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from sno_dist.model.operator import ScoreNeuralOperator

__all__ = [
    "ENGINES",
    "Backend",
    "Engine",
    "Memory",
    "Size",
    "Traffic",
    "Weight",
    "dealt",
    "memory_of",
    "seconds_of",
    "size_of",
    "traffic_of",
]

Engine: TypeAlias = Literal["data_parallel", "zero1", "zero2", "zero2_offload", "zero3", "fsdp"]
"""As launch/ has them: launch/deepspeed/<name>.json, launch/accelerate/fsdp2.yaml."""

Backend: TypeAlias = Literal["nccl", "gloo"]
"""What carries the exchange: nccl between GPUs, gloo between processors."""

ENGINES: tuple[Engine, ...] = get_args(Engine)

FLOAT, DOUBLE = 4, 8
"""Bytes. Weights, gradients, moments and averages are float32 under every engine."""
TERMS = 4
"""Losses that ranks add up in a step, beside the latent's moments and the flag to stop."""
ALIGNED = 2
"""ZeRO 1 and 2 cut a group's flat weights into shares of a multiple of this many entries."""
BUCKET = 50_000_000
"""`reduce_bucket_size` of launch/deepspeed, in entries; the buffer is taken whole for any model."""
PERSISTENT = 100_000
"""DeepSpeed's `stage3_param_persistence_threshold`: weights up to so many entries stay whole."""
REUSE = 1_000_000_000
"""DeepSpeed's `stage3_max_reuse_distance`: a weight used again within so many entries stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """One tensor that is trained.

    Args:
        shape: Its shape.
        group: Its parameter group in the optimizer.
        unit: What it is gathered with under fully sharded: 0 the whole operator, else a block.
    """

    shape: tuple[int, ...]
    group: int
    unit: int

    @property
    def entries(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """What there is to hold and to exchange.

    Args:
        weights: In the operator's order.
        buffers: Bytes of what is kept but not trained.
        latent: Entries of the latents' sums.
    """

    weights: Sequence[Weight]
    buffers: int
    latent: int

    @property
    def entries(self) -> int:
        """Numbers in all weights."""
        return sum(weight.entries for weight in self.weights)

    @property
    def groups(self) -> list[int]:
        """Entries of each parameter group."""
        found = dict.fromkeys(sorted({weight.group for weight in self.weights}), 0)
        for weight in self.weights:
            found[weight.group] += weight.entries
        return list(found.values())

    def units(self, ranks: int) -> list[int]:
        """Entries of each unit of fully sharded, padded; the whole operator's own comes first."""
        found = dict.fromkeys(range(1 + max(weight.unit for weight in self.weights)), 0)
        for weight in self.weights:
            found[weight.unit] += ranks * _rows(weight, ranks)
        return list(found.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes that a rank holds.

    Args:
        weights: Between two steps, with the operator's buffers.
        gradients: As the optimizer sees them.
        moments: AdamW's two of each weight, and its step counts.
        master: DeepSpeed's own float32 copy of what it updates.
        averages: The moving average.
        spare: A whole operator, into which averages are put to be shown and saved.
        exchange: At most, beyond that, while a step reduces gradients and gathers weights.
        saving: Beyond the first six, while a checkpoint is collected.
        host: In host memory, of an engine that puts gradients, moments and master there.
    """

    weights: int
    gradients: int
    moments: int
    master: int
    averages: int
    spare: int
    exchange: int
    saving: int
    host: int = 0

    @property
    def step(self) -> int:
        """On the device at a step's largest, without activations."""
        held = self.gradients + self.moments + self.master
        away = held if self.host else 0
        return self.weights + held - away + self.averages + self.spare + self.exchange


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Bytes that a rank sends in a step, by collective.

    Args:
        all_reduce: Gradients, summed on every rank.
        reduce_scatter: Gradients, each rank its share.
        all_gather: Weights.
        statistics: The sum of losses and latent moments, float64.
        norms: The gradient's, where each rank knows a share of it.
    """

    all_reduce: float = 0.0
    reduce_scatter: float = 0.0
    all_gather: float = 0.0
    statistics: float = 0.0
    norms: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        exchanged = self.all_reduce + self.reduce_scatter + self.all_gather
        return exchanged + self.statistics + self.norms


def size_of(operator: ScoreNeuralOperator) -> Size:
    """The shapes of an operator, which may be on the meta device."""
    from sno_dist.nn.tokens import TokenBlock

    own = {id(parameter) for parameter in operator.autoencoder.parameters()}
    blocks = [module for module in operator.modules() if isinstance(module, TokenBlock)]
    unit = {id(p): index for index, block in enumerate(blocks, 1) for p in block.parameters()}
    return Size(
        weights=[
            Weight(shape=tuple(p.shape), group=int(id(p) in own), unit=unit.get(id(p), 0))
            for p in operator.parameters()
        ],
        buffers=sum(b.numel() * b.element_size() for b in operator.buffers()),
        latent=operator.latent_entries,
    )


def dealt(count: int, ranks: int) -> int:
    """The largest share of `count` equal pieces of work."""
    return -(-count // ranks)


def memory_of(size: Size, engine: Engine, ranks: int) -> Memory:
    """What a rank holds.

    A weight's shares differ by padding: ZeRO 1 and 2 cut each parameter group, laid flat, into
    equal runs; ZeRO 3 each weight, laid flat; fully sharded the rows of each weight, of which a
    rank holds one at least. Every engine keeps one whole operator beside (`spare`).
    """
    whole, share = FLOAT * size.entries, FLOAT * _share(size, engine, ranks)
    counts = FLOAT * (len(size.groups) if "zero" in engine else len(size.weights))
    spare = whole + size.buffers
    if engine == "data_parallel":
        return Memory(
            weights=spare,
            gradients=whole,
            moments=2 * whole + counts,
            master=0,
            averages=whole,
            spare=spare,
            exchange=0,
            saving=0,
        )
    splits = engine in ("zero3", "fsdp")
    held = share if splits else share * ranks
    if engine == "zero3":
        held += FLOAT * _persistent(size, ranks)
    return Memory(
        weights=held + size.buffers,
        gradients=share,
        moments=2 * share + counts,
        master=share if "zero" in engine else 0,
        averages=share if splits else whole,
        spare=spare,
        exchange=FLOAT * _exchanged(size, engine, ranks),
        # the two moments, and under engines that split weights these, whole
        saving=(3 if splits else 2) * whole,
        # with a buffer through which the updated share goes back
        host=5 * share + counts if engine == "zero2_offload" else 0,
    )


def traffic_of(
    size: Size, engine: Engine, ranks: int, *, backend: Backend = "nccl", passes: int = 1
) -> Traffic:
    """What a rank sends in a step.

    Equation: on a ring of N ranks each sends (N - 1) / N of a volume to gather or to scatter it,
    and twice that to reduce it on all. Gloo scatters by reducing on all. DeepSpeed's ZeRO 1 and 2
    reduce whole gradients on all too, and gather the updated weights.

    Args:
        size: Of the operator.
        engine: Which one.
        ranks: N.
        backend: Gloo or NCCL.
        passes: Forwards and backwards in a step (`training.micro`). Data parallel, ZeRO 1 and
            fully sharded reduce after the last; ZeRO 2 and 3 after each; ZeRO 3 and fully sharded
            gather for each.
    """
    ring = (ranks - 1) / ranks
    scatter = ring * (2 if backend == "gloo" else 1)
    padded = FLOAT * ranks * _share(size, engine, ranks)
    moments = TERMS + size.latent + 1
    small = {"statistics": 2 * ring * DOUBLE * moments}
    norms = 2 * ring * DOUBLE * len(size.groups)
    match engine:
        case "data_parallel":
            return Traffic(all_reduce=2 * ring * FLOAT * size.entries, **small)
        case "zero1" | "zero2" | "zero2_offload":
            times = 1 if engine == "zero1" else passes
            return Traffic(
                all_reduce=times * 2 * ring * FLOAT * size.entries,
                all_gather=ring * padded,
                norms=norms,
                **small,
            )
        case "zero3":
            return Traffic(
                reduce_scatter=passes * scatter * padded,
                all_gather=ring * FLOAT * _gathered(size, ranks, passes),
                norms=norms,
                **small,
            )
        case "fsdp":
            rest, *blocks = size.units(ranks)
            # a block is let go after its forward, the rest is not
            return Traffic(
                reduce_scatter=scatter * padded,
                all_gather=passes * ring * FLOAT * (rest + 2 * sum(blocks)),
                norms=norms,
                **small,
            )


def seconds_of(alone: float, slots: int, ranks: int, sent: float, bandwidth: float | None) -> float:
    """The time of a step, if computing shrinks with a rank's share and nothing overlaps.

    Args:
        alone: Seconds in which one rank computes the whole batch.
        slots: Distributions of the batch.
        ranks: How many share them.
        sent: Bytes that a rank sends.
        bandwidth: Bytes a second that it can send; none: the exchange takes no time.
    """
    return alone * dealt(slots, ranks) / slots + (sent / bandwidth if bandwidth else 0.0)


def _share(size: Size, engine: Engine, ranks: int) -> int:
    """Entries of a rank's share of the weights, with padding."""
    match engine:
        case "data_parallel":
            return size.entries
        case "zero1" | "zero2" | "zero2_offload":
            return sum(ALIGNED * dealt(entries, ALIGNED * ranks) for entries in size.groups)
        case "zero3":
            return sum(dealt(weight.entries, ranks) for weight in size.weights)
        case "fsdp":
            return sum(_rows(weight, ranks) for weight in size.weights)


def _rows(weight: Weight, ranks: int) -> int:
    """Entries of the rows of a weight that a rank holds."""
    return dealt(weight.shape[0], ranks) * math.prod(weight.shape[1:])


def _persistent(size: Size, ranks: int) -> int:
    """Entries that ZeRO 3 keeps whole, with padding."""
    small = [weight.entries for weight in size.weights if weight.entries <= PERSISTENT]
    return sum(ranks * dealt(entries, ranks) for entries in small)


def _gathered(size: Size, ranks: int, passes: int) -> int:
    """Entries that ZeRO 3 gathers in a step: small weights after it, the others in each pass.

    In a pass weights come once, and those again whose backward is further than REUSE away: of M
    entries all but the last REUSE / 2, since forward and backward lie between.
    """
    small = _persistent(size, ranks)
    large = ranks * _share(size, "zero3", ranks) - small
    return small + passes * (large + max(0, large - REUSE // 2))


def _exchanged(size: Size, engine: Engine, ranks: int) -> int:
    """Entries that a step holds for a moment, beside a rank's share."""
    if engine == "fsdp":
        rest, *blocks = size.units(ranks)
        # weights and gradients of the rest, this block and the next; the flat copies on the wire
        return 2 * (rest + 2 * max(blocks, default=0)) + 2 * max(rest, *blocks, 0)
    bucket = BUCKET + min(BUCKET, size.entries)
    if engine == "zero1":
        return bucket + size.entries
    if engine == "zero3":
        return bucket + ranks * _share(size, engine, ranks) - _persistent(size, ranks)
    return bucket
