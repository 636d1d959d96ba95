"""Who puts a job back in the queue: a real Slurm, the real scripts, and a launcher that waits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.distributed.forked import wait_for
from tests.distributed.slurm_cluster import Cluster, cluster, why_not
from tests.launch.stubs import Checkout

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

SAID = "stage.sbatch: asked to stop before the stage was done; back to the queue\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """Where jobs are submitted that wait until they are told to end."""

    slurm: Cluster
    checkout: Checkout

    def submit(self, *options: str) -> str:
        """Submit a job over both nodes, and wait until its launchers run."""
        calls = self.checkout.root / "calls"
        shutil.rmtree(calls)
        calls.mkdir()
        words = ("--parsable", "--nodes=2", *options, "launch/slurm/stage.sbatch", "train")
        job = self.slurm.call("sbatch", *words, cwd=self.checkout.root).strip()
        wait_for(lambda: len(list(calls.glob("lingers.*"))) == 2, 60)
        return job

    def said(self, job: str) -> str:
        """What a job printed."""
        return (self.checkout.root / f"slurm-stage.sbatch-{job}.out").read_text()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("requeue")
    checkout = Checkout.make(root / "checkout", stubs=["accelerate"])
    with cluster(root / "cluster") as slurm:
        slurm.environment.update(
            PATH=f"{checkout.root / 'bin'}:{slurm.environment['PATH']}",
            CALLS=str(checkout.root / "calls"),
            LINGER="yes",
        )
        yield Desk(slurm=slurm, checkout=checkout)


@pytest.mark.parametrize(
    ("partition", "itself"), [("usual", True), ("graceless", False)], ids=["grace", "no grace"]
)
def test_a_preempted_job_is_requeued_once_by_itself_or_by_slurm(
    desk: Desk, partition: str, itself: bool
) -> None:
    job = desk.submit(f"--partition={partition}")
    urgent = desk.slurm.call("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--wrap=:")
    desk.slurm.wait(urgent.strip(), 60, JobState="COMPLETED")
    assert desk.slurm.job(job)["Restarts"] == "1"
    # without grace Slurm kills the tasks and the script: if the script sees the one before the
    # other comes, it asks too, and Slurm answers that the job is pending already
    assert SAID in desk.said(job) or not itself
    desk.slurm.call("scancel", job)


def test_a_job_near_its_time_limit_is_told_and_requeues_itself(desk: Desk) -> None:
    job = desk.submit("--time=10", "--signal=USR2@590")
    desk.slurm.wait(job, 90, JobState="PENDING", Restarts="1")
    assert SAID in desk.said(job)
    desk.slurm.call("scancel", job)


def test_a_cancelled_job_stays_cancelled(desk: Desk) -> None:
    job = desk.submit()
    desk.slurm.call("scancel", job)
    desk.slurm.wait(job, 60, JobState="CANCELLED", Restarts="0")
    assert SAID not in desk.said(job)
    wait_for(desk.slurm.is_up)
    assert desk.slurm.job(job)["JobState"] == "CANCELLED"
