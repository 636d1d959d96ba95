"""The pipeline on a real Slurm: preempted, robbed of a node, and the same bits at the end."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.distributed.forked import start_ranks, wait_for
from tests.distributed.slurm_cluster import NODES, Cluster, cluster, why_not
from tests.distributed.test_training import after_steps, end_all, steps_told
from tests.pipeline.small import contents, plain, small_run

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    # the first test waits for the whole life of the jobs
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("build-shards", "fit-embedding", "train", "sample", "evaluate")
STEPS = 150
OVERRIDES = (
    f"training.steps={STEPS}",
    "training.save_every=40",
    "training.log_every=1",
    "training.workers=1",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lives:
    """A run in `whole` that nobody disturbed, and in `life` the same by way of Slurm.

    Args:
        root: Holds both.
        jobs: Stage -> what Slurm says of its job at the end.
        logs: Stage -> what its job printed.
    """

    root: Path
    jobs: dict[str, dict[str, str]]
    logs: dict[str, str]


def words(root: Path, name: str) -> list[str]:
    return small_run(root / name / "shards", root / name / "run", root / "judge", *OVERRIDES)


def checkout(root: Path) -> Path:
    """A folder that jobs can be submitted from, without this machine's own site."""
    folder = root / "checkout"
    shutil.copytree(ROOT / "launch", folder / "launch", ignore=lambda *_: {"site.env"})
    return folder


def disturb(slurm: Cluster, job: str, run: Path) -> None:
    """Ask a training job to stop; when it runs again, take one of its nodes away for a while."""
    wait_for(after_steps(run, 4), 240)
    slurm.call("scancel", "--signal=USR2", job)
    slurm.wait(job, 60, JobState="PENDING", Restarts="1")
    wait_for(after_steps(run, 4), 120)
    slurm.lose_node(NODES[1])
    slurm.wait(job, 90, JobState="PENDING", Restarts="2")
    slurm.start_node(NODES[1])


def printed(folder: Path) -> dict[str, str]:
    """Stage -> what its job printed."""
    files = {stage: list(folder.glob(f"slurm-{stage}-*.out")) for stage in STAGES}
    return {stage: found[0].read_text() for stage, found in files.items() if found}


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Lives:
    root = tmp_path_factory.mktemp("slurm")
    ended = end_all(start_ranks(2, root / "streams", "run", *words(root, "whole")), 240)
    assert [rank.code for rank in ended] == [0, 0], ended
    folder = checkout(root)
    with cluster(root / "cluster") as slurm:
        slurm.environment.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", PYTHONPATH=str(ROOT))
        pipeline = ("launch/slurm/pipeline.sh", "--nodes=2", "--time=30", "--")
        told = slurm.call(*pipeline, *words(root, "life"), cwd=folder)
        jobs = dict(line.split() for line in told.splitlines())
        try:
            disturb(slurm, jobs["train"], root / "life/run")
            done = {"JobState": "COMPLETED"}
            facts = {stage: slurm.wait(job, 240, **done) for stage, job in jobs.items()}
        finally:
            logs = printed(folder)
            print(*logs.values(), sep="\n")
    return Lives(root=root, jobs=facts, logs=logs)


def test_the_stages_run_one_after_the_other_over_both_nodes(lives: Lives) -> None:
    assert tuple(lives.jobs) == STAGES
    assert {job["NodeList"] for job in lives.jobs.values()} == {"node[0-1]"}
    for before, after in pairwise(lives.jobs.values()):
        assert before["EndTime"] <= after["StartTime"]
    provenance = json.loads((lives.root / "life/run/provenance.json").read_text())
    assert provenance["ranks"] == 2
    assert provenance["slurm"] == {
        "SLURM_JOB_ID": lives.jobs["train"]["JobId"],
        "SLURM_JOB_NAME": "train",
    }


def test_usr2_to_the_job_saves_a_step_and_puts_it_back_in_the_queue_once(lives: Lives) -> None:
    saved = re.findall(r"\[rank \d\] error: asked to stop \| got: step (\d+) saved", log(lives))
    assert len(saved) == 2
    assert len(set(saved)) == 1
    assert f"training goes on from step {saved[0]}\n" in log(lives)
    assert log(lives).count("back to the queue") == 1


def test_a_lost_node_puts_it_back_once_more(lives: Lives) -> None:
    assert "srun: error: Node failure on node1" in log(lives)
    restarts = {stage: job["Restarts"] for stage, job in lives.jobs.items()}
    assert restarts == {**dict.fromkeys(STAGES, "0"), "train": "2"}
    # the signal lost nothing, the node what came after the last checkpoint
    begins = [int(step) for step in re.findall(r"goes on from step (\d+)\n", log(lives))]
    assert len(begins) == 2
    assert begins[0] <= begins[1] < STEPS
    assert steps_told(lives.root / "life/run") == list(range(1, STEPS + 1))


def test_the_end_is_the_same_bits_as_of_a_run_that_nobody_disturbed(lives: Lives) -> None:
    whole, life = (lives.root / name for name in ("whole", "life"))
    for folder in ("shards", "run/embedding", f"run/training/step-{STEPS:08d}"):
        assert contents(life / folder) == contents(whole / folder), folder
    mine, theirs = (plain(root / "run/evaluation/summary.json") for root in (life, whole))
    assert mine == theirs


def log(lives: Lives) -> str:
    return lives.logs["train"]
