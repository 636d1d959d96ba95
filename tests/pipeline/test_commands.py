"""The commands as a user types them: stage by stage or all at once, again, wrongly, and used."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sno_dist import ScoreNeuralOperator
from sno_dist.cli.layout import STAGES
from tests.distributed.forked import Ended, start, start_ranks, wait_for
from tests.pipeline.small import contents, plain, small_run
from tests.unit.cli.run_cli import call

# the first test waits for the runs that the others look at
pytestmark = pytest.mark.timeout(300)

COMMANDS = ("build-shards", "fit-embedding", "train", "sample", "evaluate")
KINDS = ("set_encoder", "prototype", "kme", "conditional")
VECTORS = (
    "shards.source={kind: gaussian_mixture, seen: 12, unseen: 4, model: 60, reference: 20}",
    "model.autoencoder={kind: identity}",
    "model.network={kind: nomad, width: 32, depth: 2}",
    "model.likelihood=gaussian",
    "model.schedule={kind: ve, sigma: 25.0}",
    "training={steps: 8, distributions: 6, targets: 5, context: [1, 12], precision: fp32}",
    "training.workers=0",
    "sampling={steps: 4, guidance: 1.0, contexts: [1, 4], samples: 8, per_context: 4}",
    "evaluation.bootstrap=50",
    "judge=null",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """`whole/run`, made by `run`, and `parts/run`, made by one command after the other."""

    root: Path
    whole: Ended
    parts: list[Ended]

    def words(self, name: str, *overrides: str) -> list[str]:
        folder = self.root / name
        return small_run(folder / "shards", folder / "run", folder / "judge", *overrides)

    def beside(self, folder: Path, *overrides: str) -> list[str]:
        """A run of its own on the shards and with the judge of `whole`."""
        whole = self.root / "whole"
        return small_run(whole / "shards", folder, whole / "judge", *overrides)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("commands")
    words = Made(root=root, whole=Ended(code=0, out="", err="", seconds=0), parts=[]).words
    with ThreadPoolExecutor() as pool:
        whole = pool.submit(lambda: start(root / "a", "run", *words("whole")).end())
        parts = [start(root / "b", name, *words("parts")).end() for name in COMMANDS]
    made = Made(root=root, whole=whole.result(), parts=parts)
    assert {ended.code for ended in (made.whole, *parts)} == {0}, made
    return made


def test_one_command_a_stage_leaves_what_run_leaves(made: Made) -> None:
    whole, parts = made.root / "whole", made.root / "parts"
    for folder in ("shards", "judge", "run/embedding", "run/training"):
        assert contents(parts / folder) == contents(whole / folder), folder
    mine, theirs = (contents(root / "run/sampling") for root in (parts, whole))
    assert mine.keys() == theirs.keys()
    assert {name for name in mine if mine[name] != theirs[name]} <= {"index.json", "COMPLETE"}
    for file in ("sampling/index.json", "evaluation/summary.json"):
        assert plain(parts / "run" / file) == plain(whole / "run" / file)


def test_run_shows_the_table_and_each_stage_where_it_wrote(made: Made) -> None:
    run = made.root / "parts/run"
    told = [ended.out.splitlines()[-1] for ended in made.parts]
    assert told == [
        f"shards: {made.root}/parts/shards",
        *(f"{stage}: {run / stage}" for stage in ("embedding", "training", "sampling")),
        f"report: {run}/evaluation/report.html",
    ]
    for out in (made.whole.out, made.parts[-1].out):
        assert "unseen, K =" in out
        assert "accuracy" in out


def test_run_again_does_nothing(made: Made) -> None:
    def times() -> dict[Path, int]:
        files = [path for path in (made.root / "whole").rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files if path.name != ".lock"}

    before = times()
    again = start(made.root / "a", "run", *made.words("whole")).end()
    assert (again.code, again.out) == (0, made.whole.out)
    assert again.err == "1 rank on cpu\n"
    assert times() == before


def test_inspect_finds_everything_whole(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    whole = made.root / "whole"
    told = call(capsys, "inspect", whole / "run")
    assert told.code == 0
    lines = [line.split() for line in told.out.splitlines()[1:]]
    states, found = lines[: len(STAGES)], lines[len(STAGES) :]
    told = {stage: ["complete"] for stage in STAGES} | {"training": ["step", "12"]}
    assert states == [[stage, *words] for stage, words in told.items()]
    # training keeps two checkpoints
    assert {word for word, _ in found} == {"whole"}
    assert len(found) == len(STAGES) + 1
    checkpoint = whole / "run/training/step-00000012"
    stages = (whole / f"run/{stage}" for stage in ("embedding", "sampling", "evaluation"))
    for path in (whole / "shards", whole / "judge", checkpoint, *stages):
        told = call(capsys, "inspect", path)
        assert told.out.splitlines()[-1].startswith("whole"), told


def test_the_readme_s_lines_work_on_what_training_left(made: Made) -> None:
    sno = ScoreNeuralOperator.from_pretrained(made.root / "whole/run")
    images = torch.randint(0, 256, (5, 1, 8, 16), dtype=torch.uint8)
    u = sno.embed(images)
    x = sno.sample(u, n=3, steps=4, guidance=1.25)
    assert (x.shape, x.dtype) == ((3, 1, 8, 16), torch.uint8)
    z = sno.encode(x)
    s = sno.score(u, z, torch.full((3,), 0.5))
    assert s.shape == z.shape
    logp = sno.log_prob(u, x, probes=2, tolerance=1e-2)
    assert logp.shape == (3,)
    assert bool(s.isfinite().all() and logp.isfinite().all())


# ------------------------------------------------------------------- vectors, all embeddings


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of embedding a finished run of that name, on shards that the first built."""
    root = tmp_path_factory.mktemp("vectors")

    def go(kind: str) -> Ended:
        overrides = (f"shards.path={root}/shards", f"run={root}/{kind}", f"embedding.kind={kind}")
        return start(root / "streams", "run", *overrides, *VECTORS).end()

    with ThreadPoolExecutor(2) as pool:
        ended = [go(KINDS[0]), *pool.map(go, KINDS[1:])]
    assert [e.code for e in ended] == [0, 0, 0, 0], ended
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_over_vectors_ends_with_a_report(vectors: Path, kind: str) -> None:
    evaluation = vectors / kind / "evaluation"
    summary = json.loads((evaluation / "summary.json").read_text())
    assert summary["seen"]["distributions"] == 12
    assert summary["seen"]["accuracy"] is None
    assert summary["seen"]["frechet"] >= 0
    if kind == "conditional":
        assert summary["unseen"] is None
    else:
        assert list(summary["unseen"]["mmd_by_k"]) == ["1", "4", "all"]
    assert "<html" in (evaluation / "report.html").read_text()


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_density_of_vectors_is_in_their_own_units(vectors: Path, kind: str) -> None:
    sno = ScoreNeuralOperator.from_pretrained(vectors / kind)
    x = torch.tensor([[0.0, 0.0], [1.5, -2.5], [300.0, 300.0]])
    logp = sno.log_prob(sno.embed(x[:2]), x, tolerance=1e-3)
    assert bool(logp.isfinite().all())
    assert logp[2] < logp[:2].min()


# ----------------------------------------------------------------------------------- errors


def the_error(ended: Ended) -> str:
    """The one line that tells of an error; anything else on stderr is progress."""
    assert "Traceback" not in ended.err, ended.err
    (line,) = ended.errors
    return line


def test_more_ranks_than_distributions_in_a_batch(made: Made, tmp_path: Path) -> None:
    words = made.beside(tmp_path / "run", "training.distributions=1")
    ended = [rank.end() for rank in start_ranks(2, tmp_path, "run", *words)]
    assert [rank.code for rank in ended] == [2, 2]
    for number, rank in enumerate(ended):
        assert the_error(rank) == (
            f"[rank {number}] error: more ranks than distributions in a batch | "
            "at: training.distributions | got: 2 ranks, 1 distributions | "
            "do: raise training.distributions or launch fewer ranks"
        )


def test_a_context_set_larger_than_a_distribution(made: Made, tmp_path: Path) -> None:
    words = made.beside(tmp_path / "run", "sampling.contexts=[1,41]")
    ended = start(tmp_path, "run", *words).end()
    assert ended.code == 3
    assert the_error(ended).startswith("error: a context set is larger than the distribution | ")
    assert "got: K = 41 | expected: at most 40" in ended.err
    # told before the hours of training, not after
    assert not (tmp_path / "run/training").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["sampling.baselines=[kernel]", "sampling.kernel={form: low_rank, rank: 4096}"],
            "sampling.kernel.rank",
        ),
        (["evaluation.beside=[nowhere]"], "a run to show beside is not there"),
    ],
)
def test_what_a_later_stage_would_refuse_is_told_before_training(
    made: Made, tmp_path: Path, words: list[str], told: str
) -> None:
    ended = start(tmp_path, "run", *made.beside(tmp_path / "run", *words)).end()
    assert ended.code in (2, 3)
    assert told in the_error(ended)
    assert not (tmp_path / "run/training").exists()


def test_another_config_in_a_run_s_folder(made: Made, tmp_path: Path) -> None:
    words = made.words("whole", "training.learning_rate=0.5")
    ended = start(tmp_path, "run", *words).end()
    assert ended.code == 4
    told = "error: the checkpoint here was made of other settings or data"
    assert the_error(ended).startswith(told)
    assert "got: training.learning_rate: 0.002 -> 0.5 | do: choose another folder" in ended.err


@pytest.mark.parametrize(("key", "place"), [("run", "file/folder"), ("shards.path", "file")])
def test_a_folder_that_cannot_be_written(made: Made, tmp_path: Path, key: str, place: str) -> None:
    # below a file: what not even root can write to
    (tmp_path / "file").touch()
    words = made.beside(tmp_path / "run", f"{key}={tmp_path}/file/folder")
    ended = start(tmp_path, "run", *words).end()
    assert ended.code == 4
    assert the_error(ended) == (
        f"error: the folder cannot be written | at: {tmp_path / place} | got: Not a directory | "
        "do: choose another folder or mend its permissions and space"
    )


def test_two_runs_in_one_folder(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "run"
    log = run / "logs/rank-00000.jsonl"
    words = made.beside(run, "training.steps=100000", "training.workers=1")
    first = start(tmp_path, "run", *words)
    try:
        wait_for(lambda: log.is_file() and log.read_text().count("\n") > 1)
        second = start(tmp_path, "run", *words).end()
        assert second.code == 5
        assert the_error(second).startswith(
            f"error: the folder cannot be taken | at: {run} | got: in use by process "
            f"{first.pid} on "
        )
    finally:
        os.kill(first.pid, signal.SIGKILL)
    assert first.end().code == -signal.SIGKILL
    # at once: what the first one's loader worker still holds must not stand in the way
    third = start(tmp_path, "run", *words)
    told = log.read_text().count("\n")
    try:
        wait_for(lambda: log.read_text().count("\n") > told)
    finally:
        os.kill(third.pid, signal.SIGTERM)
    ended = third.end()
    assert ended.code == 75
    assert the_error(ended).startswith("error: asked to stop | got: step ")
