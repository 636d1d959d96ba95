"""Memory and traffic in closed form; that ranks hold and send as much is in tests/distributed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sno_dist.config.load import load_config
from sno_dist.model.build import OperatorSpec
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.nn.tokens import TokenBlock
from sno_dist.training import step
from sno_dist.training.footprint import (
    BUCKET,
    ENGINES,
    TERMS,
    Engine,
    Size,
    Weight,
    dealt,
    memory_of,
    seconds_of,
    size_of,
    traffic_of,
)
from sno_dist.training.optim import build_optimizer

ROOT = Path(__file__).resolve().parents[3]
BIG = 2_000_000


def size(*shapes: tuple[int, ...], buffers: int = 0) -> Size:
    weights = [Weight(shape=shape, group=0, unit=0) for shape in shapes]
    return Size(weights=weights, buffers=buffers, latent=16)


@pytest.fixture(scope="module")
def operator() -> ScoreNeuralOperator:
    config = load_config(None, ["embedding.kind=set_encoder"])
    spec = OperatorSpec(
        model=config.model,
        embedding=config.embedding,
        domain="image",
        shape=(1, 8, 16),
        shift=(0.0,),
        scale=(255.0,),
        seen=("0", "1"),
    )
    with torch.device("meta"):
        return ScoreNeuralOperator(spec)


# ------------------------------------------------------------------------------ shapes


def test_an_operator_on_the_meta_device_has_the_sizes_that_training_sees(
    operator: ScoreNeuralOperator,
) -> None:
    found = size_of(operator)
    assert found.entries == sum(p.numel() for p in operator.parameters())
    assert found.buffers == sum(b.numel() * b.element_size() for b in operator.buffers())
    real = ScoreNeuralOperator(operator.spec)
    groups = build_optimizer(real, load_config().training).param_groups
    assert found.groups == [sum(p.numel() for p in group["params"]) for group in groups]
    assert size_of(real) == found
    blocks = [m for m in operator.modules() if isinstance(m, TokenBlock)]
    rest, *others = found.units(ranks=1)
    assert others == [sum(p.numel() for p in block.parameters()) for block in blocks]
    assert rest + sum(others) == found.entries


def test_the_terms_that_ranks_add_up_are_those_of_a_step() -> None:
    assert len(step.TERMS) == TERMS


def test_launch_leaves_deepspeed_the_sizes_that_are_reckoned_with() -> None:
    files = sorted((ROOT / "launch/deepspeed").glob("*.json"))
    assert {path.stem for path in files} == {name for name in ENGINES if "zero" in name}
    for path in files:
        section = json.loads(path.read_text())["zero_optimization"]
        buckets = {section.pop(f"{use}_bucket_size") for use in ("reduce", "allgather")}
        assert buckets == {BUCKET}, path
        assert section.keys() <= {"stage", "offload_optimizer"}, path


# ------------------------------------------------------------------------------ memory


def test_data_parallel_holds_sixteen_bytes_a_weight_and_two_copies_more() -> None:
    found = memory_of(size((1000, BIG // 1000), buffers=24), "data_parallel", 8)
    assert found.weights + found.gradients + found.moments == 16 * BIG + 4 + 24
    assert found.averages == 4 * BIG
    assert found.spare == 4 * BIG + 24
    assert found.step == 24 * BIG + 4 + 48
    assert (found.master, found.exchange, found.saving, found.host) == (0, 0, 0, 0)


def test_zero_divides_what_its_stage_is_named_for() -> None:
    """Rajbhandari et al. 2020, table 1, with float32 and DeepSpeed's master copy."""
    n, ranks, bucket = BIG, 8, 4 * (BUCKET + BIG)
    one, two, three = (
        memory_of(size((1000, n // 1000)), name, ranks) for name in ("zero1", "zero2", "zero3")
    )
    for found in (one, two, three):
        assert found.gradients == found.master == 4 * n // ranks
        assert found.moments == 8 * n // ranks + 4
        assert found.spare == 4 * n
    assert one.weights == two.weights == one.averages == two.averages == 4 * n
    assert three.weights == three.averages == 4 * n // ranks
    # until stage 1 has reduced them, all gradients are there; stage 3 gathers all weights
    assert (one.exchange, two.exchange, three.exchange) == (bucket + 4 * n, bucket, bucket + 4 * n)
    assert (one.saving, two.saving, three.saving) == (8 * n, 8 * n, 12 * n)


def test_zero_three_keeps_small_weights_whole() -> None:
    small, large = size((100, 1000)), size((100, 1001))
    assert memory_of(small, "zero3", 4).weights == 4 * 100_000 * 5 // 4
    assert memory_of(large, "zero3", 4).weights == 4 * 100_100 // 4


def test_offload_takes_from_the_device_what_it_puts_on_the_host() -> None:
    there, away = (memory_of(size((BIG,)), name, 4) for name in ("zero2", "zero2_offload"))
    share = 4 * BIG // 4
    assert there.step - away.step == 4 * share + 4
    assert away.host == 5 * share + 4


def test_fully_sharded_holds_rows_and_pads_them() -> None:
    """10 rows over 4 ranks: three on each of three ranks, one on the last, padded to three."""
    found = memory_of(size((10, 7)), "fsdp", 4)
    assert found.weights == found.gradients == found.averages == 4 * 3 * 7
    assert found.moments == 2 * 4 * 3 * 7 + 4
    # beyond ten ranks a row is the least, and what is exchanged grows with the ranks
    assert memory_of(size((10, 7)), "fsdp", 4096).weights == 4 * 7
    sent = traffic_of(size((10, 7)), "fsdp", 4096).all_gather
    assert sent == pytest.approx(4095 * 4 * 7)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "data_parallel"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 64, 1000])
def test_shares_hold_the_whole_and_little_more(
    operator: ScoreNeuralOperator, engine: Engine, ranks: int
) -> None:
    found = size_of(operator)
    together, whole = ranks * memory_of(found, engine, ranks).gradients, 4 * found.entries
    row = max(w.entries // w.shape[0] for w in found.weights)
    most = {"fsdp": row * len(found.weights), "zero3": len(found.weights)}.get(engine, 4)
    assert whole <= together < whole + 4 * ranks * most
    # a rank alone holds no less than it would data parallel, but for ZeRO's even number of entries
    if ranks == 1:
        assert together - whole <= 8


# ----------------------------------------------------------------------------- traffic


def test_a_ring_sends_each_entry_twice_round_but_for_its_own_share() -> None:
    one = size((BIG,))
    for ranks in (1, 2, 4, 4096):
        sent = traffic_of(one, "data_parallel", ranks)
        assert ranks * sent.all_reduce == pytest.approx(2 * (ranks - 1) * 4 * BIG)
        # four losses, sixteen sums of latents and one flag, float64
        assert ranks * sent.statistics == pytest.approx(2 * (ranks - 1) * 8 * 21)
    assert traffic_of(one, "data_parallel", 1).total == 0


def test_what_engines_send_in_units_of_all_weights_but_a_share() -> None:
    """A reduction is two; DeepSpeed's 1 and 2 gather on top; gloo scatters by reducing."""
    n = 4 * 1000 * 2000 * 3 / 4
    sent = {
        (engine, backend): traffic_of(size((1000, 2000)), engine, 4, backend=backend)
        for engine in ENGINES
        for backend in ("nccl", "gloo")
    }
    for backend, scatter in (("nccl", 1), ("gloo", 2)):
        assert sent["data_parallel", backend].all_reduce == pytest.approx(2 * n)
        for engine in ("zero1", "zero2", "zero2_offload"):
            assert sent[engine, backend].all_reduce == pytest.approx(2 * n)
            assert sent[engine, backend].all_gather == pytest.approx(n)
        for engine in ("zero3", "fsdp"):
            assert sent[engine, backend].reduce_scatter == pytest.approx(scatter * n)
            # no blocks, and no weight far from its backward
            assert sent[engine, backend].all_gather == pytest.approx(n)


def test_blocks_are_gathered_again_for_their_backward() -> None:
    weights = [Weight(shape=(8, 10), group=0, unit=unit) for unit in (0, 1, 2)]
    sent = traffic_of(Size(weights=weights, buffers=0, latent=2), "fsdp", 2)
    assert sent.all_gather == pytest.approx((1 + 2 + 2) * 4 * 80 / 2)
    assert sent.reduce_scatter == pytest.approx(3 * 4 * 80 / 2)


def test_zero_three_gathers_again_what_lies_too_far_from_its_backward() -> None:
    """Of 2e9 entries the first 1.5e9 are 1e9 or more from theirs."""
    sent = traffic_of(size(*[(1000, 200_000)] * 10), "zero3", 2)
    assert sent.all_gather == pytest.approx(4 * 3.5e9 / 2)


def test_more_passes_cost_only_the_engines_that_exchange_in_each() -> None:
    large = size((1000, 2000))
    once, twice = (
        {name: traffic_of(large, name, 2, passes=passes) for name in ENGINES} for passes in (1, 2)
    )
    for name in ("data_parallel", "zero1"):
        assert twice[name] == once[name]
    for name in ("zero2", "zero2_offload"):
        assert twice[name].all_reduce == 2 * once[name].all_reduce
        assert twice[name].all_gather == once[name].all_gather
    assert twice["zero3"].reduce_scatter == 2 * once["zero3"].reduce_scatter
    assert twice["zero3"].all_gather == 2 * once["zero3"].all_gather
    assert twice["fsdp"].reduce_scatter == once["fsdp"].reduce_scatter
    assert twice["fsdp"].all_gather == 2 * once["fsdp"].all_gather


# -------------------------------------------------------------------------------- time


def test_a_step_takes_the_fullest_ranks_share_and_the_exchange() -> None:
    assert seconds_of(0.32, 32, 8, 1e9, None) == pytest.approx(0.04)
    assert seconds_of(0.32, 32, 3, 0.0, 1e9) == pytest.approx(0.11)
    assert seconds_of(0.32, 32, 8, 1e9, 10e9) == pytest.approx(0.14)


@pytest.mark.parametrize(
    ("count", "ranks", "share"), [(32, 8, 4), (33, 8, 5), (1, 8, 1), (0, 8, 0)]
)
def test_the_fullest_rank_has_what_dealing_gives_the_first(
    count: int, ranks: int, share: int
) -> None:
    assert dealt(count, ranks) == share
