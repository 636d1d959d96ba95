"""What `plan` says of memory and traffic, beside what real ranks hold and send."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sno_dist.cli.unbuilt import operator_of, population_of
from sno_dist.config.load import load_config
from sno_dist.shards.build import build_shards
from sno_dist.training.footprint import (
    BUCKET,
    PERSISTENT,
    REUSE,
    Engine,
    Size,
    dealt,
    memory_of,
    size_of,
    traffic_of,
)
from tests.distributed.isolated import entry, isolated_launch

# the first test of a case waits for its launch, and a machine may be busy
pytestmark = pytest.mark.timeout(300)

PROGRAM = Path(__file__).with_name("footprint_program.py")
SLOTS, MICRO = 8, 2
SHARING: Sequence[Engine] = ("zero1", "zero2", "zero3", "fsdp")
CASES: Sequence[tuple[Engine, int]] = [
    *(("data_parallel", ranks) for ranks in (1, 2, 4)),
    *((engine, 2) for engine in SHARING),
]
SEVERAL = [case for case in CASES if case[1] > 1]
HELD = ("weights", "gradients", "moments", "master", "averages")
Facts = list[dict[str, Any]]


def overrides(root: Path) -> list[str]:
    return [
        f"shards.path={root}/shards",
        f"run={root}/run",
        "shards.source.model=40",
        "shards.source.judge=4",
        "shards.source.reference=4",
        # large enough that headers of packets are small beside; two sizes of weights for ZeRO 3
        "model.network={kind: tokens, width: 384, hidden: 768, blocks: 2}",
        f"training.distributions={SLOTS}",
        "training.targets=3",
        "training.context=[1,4]",
        "training.workers=0",
        "training.precision=fp32",
        # on two ranks, two passes a step
        f"training.micro={MICRO}",
    ]


def options(engine: Engine) -> Sequence[str]:
    match engine:
        case "data_parallel":
            return ["--config_file", "launch/accelerate/one_machine.yaml"]
        case "fsdp":
            return ["--config_file", "launch/accelerate/fsdp2.yaml"]
        case _:
            file = f"launch/deepspeed/{engine}.json"
            deepspeed = ["--config_file", "launch/accelerate/deepspeed.yaml"]
            return [*deepspeed, "--deepspeed_config_file", file]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footprint")
    build_shards(load_config(None, overrides(folder)))
    return folder


@pytest.fixture(scope="module")
def size(root: Path) -> Size:
    config = load_config(None, overrides(root))
    return size_of(operator_of(config, population_of(config)[0])[0])


@pytest.fixture(scope="module")
def facts(root: Path) -> Callable[[Engine, int], Facts]:
    """What the ranks of a case found, from one launch for all tests."""
    found: dict[tuple[Engine, int], Facts] = {}

    def find(engine: Engine, ranks: int) -> Facts:
        if (engine, ranks) not in found:
            folder = root / f"{engine}-{ranks}"
            folder.mkdir()
            done = isolated_launch(
                *(ranks, PROGRAM, folder, *overrides(root)), timeout=240, options=options(engine)
            )
            assert done.returncode == 0, done.stderr
            told = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
            found[engine, ranks] = told
        return found[engine, ranks]

    return find


@pytest.mark.parametrize(("engine", "ranks"), CASES)
def test_a_rank_holds_what_was_planned(
    facts: Callable[[Engine, int], Facts], size: Size, engine: Engine, ranks: int
) -> None:
    planned = memory_of(size, engine, ranks)
    expected = {name: getattr(planned, name) for name in HELD}
    first, *others = facts(engine, ranks)
    assert {name: first[name] for name in HELD} == expected
    # beyond the first rank, fully sharded ones may lack the padding, and no other does
    padding = ranks * planned.gradients - 4 * size.entries if engine == "fsdp" else 0
    for other in others:
        for name in HELD:
            lacking = expected[name] - other[name]
            assert 0 <= lacking <= (2 if name == "moments" else 1) * padding, name


@pytest.mark.parametrize(("engine", "ranks"), SEVERAL)
def test_a_rank_sends_what_was_planned(
    facts: Callable[[Engine, int], Facts], size: Size, engine: Engine, ranks: int
) -> None:
    if not entry():
        pytest.skip("no network of its own: `unshare --net` and `ip link` are not permitted here")
    passes = dealt(dealt(SLOTS, ranks), MICRO)
    planned = traffic_of(size, engine, ranks, backend="gloo", passes=passes)
    for fact in facts(engine, ranks):
        assert fact["sent"] == pytest.approx(planned.total, rel=0.05)


@pytest.mark.parametrize(("engine", "ranks"), [c for c in CASES if "zero" in c[0]])
def test_deepspeed_has_the_sizes_that_are_reckoned_with(
    facts: Callable[[Engine, int], Facts], engine: Engine, ranks: int
) -> None:
    assert facts(engine, ranks)[0]["deepspeed"] == [BUCKET, PERSISTENT, REUSE]
