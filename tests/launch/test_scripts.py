"""The job scripts: nothing is lost on the way to the ranks, and who goes back to the queue."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest

from sno_dist.cli.main import commands
from tests.distributed.forked import wait_for
from tests.launch.stubs import ROOT, Checkout
from tests.rules import test_rules as rules

SCRIPTS = (
    *sorted((ROOT / "launch/slurm").iterdir()),
    *(ROOT / "launch/site.env.example", ROOT / ".ci/run"),
)
STAGES = ["build-shards", "fit-embedding", "train", "sample", "evaluate"]
WORDS = [
    "-c",
    "my configs/a b.yaml",
    "sampling.contexts=[1, 10]",
    'embedding={kind: kme, name: "it\'s"}',
    "name=$HOME`id`*?",
    "a=\\n\t",
    "",
    "--",
    "b=2",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout.make(tmp_path)


def options(words: list[str]) -> dict[str, str]:
    """`--name value` pairs of a launcher's call, up to the module."""
    before = words[1 : words.index("-m")]
    return dict(zip(before[::2], before[1::2], strict=True))


# ----------------------------------------------------------------------------- the text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_and_shellcheck_have_nothing_to_say(script: Path) -> None:
    checkers = [["bash", "-n"], ["shellcheck"]]
    for checker in checkers:
        if shutil.which(checker[0]):
            done = subprocess.run([*checker, script], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("document", ["README.md", "launch/README.md"])
def test_every_submission_that_a_document_shows_parses(document: str, tmp_path: Path) -> None:
    text = re.sub(r"\\\n\s*", " ", (ROOT / document).read_text())
    stages = re.findall(r"stage\.sbatch ([a-z][^`\n]*)", text)
    whole = [f"run {words}" for words in re.findall(r"pipeline\.sh [^`\n]*-- +(-[^`\n]*)", text)]
    assert stages
    assert whole
    shown = tmp_path / document.replace("/", "-")
    shown.write_text("".join(f"sno-dist {words}\n" for words in stages + whole))
    rules.test_every_command_that_a_document_shows_parses(shown)


# ------------------------------------------------------------------------------- a stage


def test_a_stages_words_arrive_as_they_were_given(checkout: Checkout) -> None:
    done = checkout.run("stage.sbatch", "train", *WORDS)
    assert (done.returncode, done.stderr) == (0, "")
    calls = checkout.calls("accelerate")
    assert len(calls) == 2
    for call in calls:
        assert call[call.index("-m") :] == ["-m", "sno_dist", "train", *WORDS]


def test_each_node_is_told_its_place_in_one_world(checkout: Checkout) -> None:
    checkout.run("stage.sbatch", "train", *WORDS)
    told = [options(call) for call in checkout.calls("accelerate")]
    same = {
        "--config_file": "launch/accelerate/n_nodes.yaml",
        "--num_machines": "2",
        "--num_processes": "2",
        "--main_process_ip": "10.0.0.7",
        "--main_process_port": str(12000 + 70001 % 20000),
    }
    assert told == [{**same, "--machine_rank": rank} for rank in ("0", "1")]


def test_a_site_may_name_another_engine(checkout: Checkout) -> None:
    zero = "launch/deepspeed/zero2.json"
    site = {"ACCELERATE_OPTIONS": f"--deepspeed_config_file {zero}"}
    site["ACCELERATE_CONFIG"] = "launch/accelerate/deepspeed.yaml"
    assert checkout.run("stage.sbatch", "train", *WORDS, **site).returncode == 0
    calls = checkout.calls("accelerate")
    assert len(calls) == 2
    for call in calls:
        told = options(call)
        assert told["--config_file"] == site["ACCELERATE_CONFIG"]
        assert told["--deepspeed_config_file"] == zero
        assert call[call.index("-m") :] == ["-m", "sno_dist", "train", *WORDS]


def test_a_node_whose_address_slurm_hides_is_met_by_its_name(checkout: Checkout) -> None:
    assert checkout.run("stage.sbatch", "train", PRIVATE="yes").returncode == 0
    assert options(checkout.calls("accelerate")[0])["--main_process_ip"] == "a7"


@pytest.mark.parametrize(
    ("given", "ranks"),
    [
        ({"SLURM_GPUS_ON_NODE": "8"}, "16"),
        ({"RANKS_PER_NODE": "3"}, "6"),
        ({"SLURM_GPUS_ON_NODE": "8", "RANKS_PER_NODE": "4"}, "8"),
    ],
)
def test_a_node_has_a_rank_for_each_gpu_or_as_many_as_the_site_says(
    checkout: Checkout, given: dict[str, str], ranks: str
) -> None:
    checkout.run("stage.sbatch", "train", **given)
    assert {options(call)["--num_processes"] for call in checkout.calls("accelerate")} == {ranks}


@pytest.mark.parametrize(("code", "requeued"), [("0", 0), ("1", 0), ("75", 1)])
def test_only_a_step_that_was_asked_to_stop_is_requeued_and_once(
    checkout: Checkout, code: str, requeued: int
) -> None:
    (checkout.root / "bin/srun").write_text(f"#!/usr/bin/env bash\nexit {code}\n")
    done = checkout.run("stage.sbatch", "train")
    assert done.returncode == int(code)
    assert checkout.calls("scontrol").count(["requeue", "70001"]) == requeued


def test_the_site_may_use_what_strict_bash_refuses(checkout: Checkout) -> None:
    site = 'false\nexport RANKS_PER_NODE=5 NOTHING="$NOT_SET"\n'
    (checkout.root / "launch/site.env").write_text(site)
    for script, words in (("stage.sbatch", ["train"]), ("pipeline.sh", ["--"])):
        assert checkout.run(script, *words).returncode == 0
    assert options(checkout.calls("accelerate")[0])["--num_processes"] == "10"


def test_what_a_submission_names_stands_against_the_sites_file(checkout: Checkout) -> None:
    example = (checkout.root / "launch/site.env.example").read_text()
    names = re.findall(r"^export (\w+)=", example, re.M)
    assert "ACCELERATE_CONFIG" in names
    (checkout.root / "launch/site.env").write_text(example)
    printenv = f"#!/usr/bin/env bash\nprintenv {' '.join(names)}\n"
    (checkout.root / "bin/srun").write_text(printenv)
    own = dict.fromkeys(names, "")
    assert "fsdp2.yaml" in checkout.run("stage.sbatch", "train", **own).stdout
    named = {name: f"named {name}" for name in names}
    told = checkout.run("stage.sbatch", "train", **named).stdout
    assert told.splitlines() == list(named.values())


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        ([], {}, "no stage is named | do: sbatch launch/slurm/stage.sbatch STAGE -c FILE ..."),
        (
            ["train"],
            {"SLURM_JOB_NODELIST": ""},
            "the job has no list of nodes | do: start this script with sbatch",
        ),
        (
            ["train"],
            {"END": (datetime.now() + timedelta(minutes=5)).isoformat(timespec="seconds")},
            "the time limit is too short to be told of its end | do: give --time=10 or more",
        ),
    ],
)
def test_a_stage_that_cannot_run_says_why_in_one_line(
    checkout: Checkout, words: list[str], given: dict[str, str], message: str
) -> None:
    done = checkout.run("stage.sbatch", *words, **given)
    assert (done.returncode, done.stderr) == (2, f"stage.sbatch: error: {message}\n")
    assert checkout.calls("srun") == []


@pytest.mark.parametrize("program", ["scontrol", "srun", "accelerate"])
def test_a_program_that_is_missing_is_named(checkout: Checkout, program: str) -> None:
    (checkout.root / "bin" / program).unlink()
    tools = checkout.root / "tools"
    tools.mkdir()
    for name in ("bash", "env", "sed", "date", "ls", "wc", "basename"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = checkout.run("stage.sbatch", "train", PATH=f"{checkout.root / 'bin'}:{tools}")
    assert done.returncode == 2
    assert done.stderr == (
        f"stage.sbatch: error: {program} is not on PATH"
        " | do: set up the environment in launch/site.env\n"
    )


def test_a_job_from_elsewhere_says_where_to_submit(checkout: Checkout) -> None:
    shutil.move(checkout.root / "launch/slurm/node.sh", checkout.root / "node.sh")
    done = checkout.run("stage.sbatch", "train")
    assert done.returncode == 2
    assert done.stderr.endswith("| do: submit from the root of the checkout\n")


# -------------------------------------------------------------------------------- a node


@pytest.mark.parametrize("code", [0, 1, 5])
def test_a_node_ends_as_its_launcher_does(checkout: Checkout, code: int) -> None:
    done = checkout.run("node.sh", "h", "1", "train", SLURM_NODEID="0", CODE=str(code))
    assert done.returncode == code


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
@pytest.mark.parametrize(("after", "code"), [(1, 75), (0, 0)])
def test_a_node_that_is_asked_to_stop_hands_it_on_and_ends_with_75_unless_it_is_done(
    checkout: Checkout, number: signal.Signals, after: int, code: int
) -> None:
    given = {"SLURM_NODEID": "0", "LINGER": "yes", "CODE_AFTER_TERM": str(after)}
    node = checkout.start("node.sh", "h", "1", "train", **given)
    wait_for((checkout.root / "calls/lingers.0").exists)
    node.send_signal(number)
    out, err = node.communicate(timeout=30)
    assert (node.returncode, out, err) == (code, "heard TERM\n", "")


def test_the_demos_launcher_is_told_of_signals_what_a_nodes_is(checkout: Checkout) -> None:
    launcher = checkout.root / "bin/accelerate"
    launcher.write_text(
        "#!/usr/bin/env bash\nprintenv PET_SIGNALS_TO_HANDLE PET_SHUTDOWN_TIMEOUT\n"
    )
    node = checkout.run("node.sh", "h", "1", "train", SLURM_NODEID="0")
    assert "SIGUSR2" in node.stdout
    (checkout.root / "ready").touch()  # newer than what the environment is built from
    demo = subprocess.run(
        [
            "make",
            "--no-print-directory",
            "demo",
            f"BIN={launcher.parent}",
            f"READY={checkout.root / 'ready'}",
            "RANKS=2",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert demo.stdout == node.stdout


# ---------------------------------------------------------------------------- a pipeline


def test_a_pipeline_is_five_jobs_each_after_the_one_before(checkout: Checkout) -> None:
    done = checkout.run("pipeline.sh", "--nodes=2", "--comment=a b", "--", *WORDS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [w for i, s in enumerate(STAGES) for w in (s, str(101 + i))]
    calls = checkout.calls("sbatch")
    assert len(calls) == len(STAGES)
    for index, (stage, call) in enumerate(zip(STAGES, calls, strict=True)):
        before = [f"--dependency=afterok:{100 + index}"] if index else []
        assert call == [
            *("--parsable", "--kill-on-invalid-dep=yes", "--nodes=2", "--comment=a b"),
            *(f"--job-name={stage}", *before, "launch/slurm/stage.sbatch", stage, *WORDS),
        ]


def test_a_pipeline_whose_words_are_not_told_apart_submits_nothing(checkout: Checkout) -> None:
    done = checkout.run("pipeline.sh", "--nodes=2", "-c", "a.yaml")
    message = "pipeline.sh: error: no -- | do: pipeline.sh [SBATCH OPTIONS] -- -c FILE ...\n"
    assert (done.returncode, done.stderr) == (2, message)
    assert checkout.calls("sbatch") == []


def test_the_stages_of_a_pipeline_are_the_commands() -> None:
    stages = [name for name in click.Context(commands).command.commands if name in STAGES]
    assert stages == STAGES
