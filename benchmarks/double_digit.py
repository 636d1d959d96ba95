"""The paper's main experiment on pairs of MNIST digits: its rows, ours, and what ours rests on.

    python -m benchmarks.double_digit --mnist data/mnist --out benchmarks/results/double_digit.json

Every row is trained by the command that a user types, on one thread, for about half an hour of one
core. Ours has several splits and seeds, and its interval is over splits, since runs of one split
share their data. Ablations change one thing of it at a time. The other populations change nothing
but the data. Runs made elsewhere, such as the full one on two processes, join the table by
`--finished`. All of it takes many hours: rows that are in the file already stay there, each with
the machine and commit it was gathered on and the commit its training began on, until they are made
again by `--only`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import finish, machine
from benchmarks.campaign import Run, carry_out, finished, interval
from benchmarks.populations import POPULATIONS, write_population
from sno_dist.evaluation.training_log import read_log

OURS = "configs/double_digit.yaml"
PAPER: Mapping[str, Mapping[str, Any]] = {
    "latent_prototype": {
        "seen": 0.895,
        "unseen": 0.842,
        "unseen_by_k": {"1": 0.7398, "10": 0.8186, "100": 0.8434, "all": 0.8505},
    },
    "latent_kme": {"seen": 0.880, "unseen": 0.800},
    "latent_conditional": {"seen": 0.872, "unseen": 0.009},
    "pixel_kme": {"seen": 0.948, "unseen": 0.611},
    "pixel_prototype": {"seen": 0.952, "unseen": 0.601},
}
"""What the paper prints: Table 1 and Figure 6."""

SPLITS = ("seen", "unseen")
FIGURES = (
    "accuracy",
    "ceiling",
    "diversity",
    "recall",
    "recall_ceiling",
    "frechet",
    "frechet_floor",
)
BY_K = ("accuracy", "diversity", "diversity_within", "copying", "frechet")
STEPS = {"ours": 1500, "paper": 6000}
"""Updates for about half an hour of one core."""
SHORT = (
    f"training.steps={STEPS['ours']}",
    # three tenths of so few would leave the autoencoder unfinished
    "training.autoencoder_end=0.5",
    "training.distributions=32",
    "training.probe.every=0",
    "sampling.steps=16",
    "sampling.samples=50",
)
"""What makes our configuration a run of about half an hour."""

ALL = "sampling.acceptance=1"
"""Acceptance hides what it mends: some changes are looked at without it."""
CHANGES: Mapping[str, Sequence[str]] = {
    "nothing": (),
    "all samples accepted": (ALL,),
    "all samples accepted, no guidance": (ALL, "sampling.guidance=1.0"),
    "all samples accepted, probability flow": (ALL, "sampling.eta=0"),
    "all samples accepted, prototype for u": (ALL, "embedding={kind: prototype}"),
    "four blocks": ("model.network.blocks=4",),
    "context sizes by 1 / K": ("training.context_exponent=1",),
    "context sets of at most 16, by 1 / K": (
        "training.context=[1,16]",
        "training.context_exponent=1",
    ),
    "wider autoencoder": ("model.autoencoder.width=48",),
    "4 x 4 x 12 latent": ("model.autoencoder.channels=12",),
    "KL weight 0.01": ("training.objective.kl=0.01",),
    "score's gradient into the autoencoder (eq. 18)": ("training.objective.score_gradient=1.0",),
    "autoencoder never at rest": ("training.autoencoder_end=1.0",),
    "context sets of 32 alone": ("training.context=[32,32]",),
    "fewer distributions, more targets": ("training.distributions=16", "training.targets=16"),
    "mean pooling alone": ("embedding.attention=0",),
    "4 x 4 x 4 latent": ("model.autoencoder.channels=4",),
    "KL weight 0.1": ("training.objective.kl=0.1",),
    "perceptron for the score": ("model.network={kind: scorenet, width: 512, levels: 3}",),
    "uniform times": ("training.objective.times=uniform",),
    "Gaussian base": ("model.base=gaussian",),
}
BASELINES = (
    "sampling.baselines=[nearest, pooled, resample, jitter, kernel, individual]",
    # as many samples are seen as by the operator
    "sampling.individual.steps=171",
    "sampling.individual.batch=32",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Args:
        name: Its name.
        config: The file.
        overrides: What differs from it.
        splits: Seeds of the split into seen and unseen.
        seeds: Of its runs, for each split.
        population: The data: "mnist", or one of `POPULATIONS`, whose split is that of seed 0.
    """

    name: str
    config: str = OURS
    overrides: Sequence[str] = ()
    splits: Sequence[int] = (0,)
    seeds: Sequence[int] = (0,)
    population: str = "mnist"


def rows(splits: Sequence[int], seeds: Sequence[int]) -> list[Row]:
    """The table: the paper's rows, ours over splits and seeds, changes, other populations."""
    ours = (*SHORT, "sampling.contexts=[1, 10]")
    changes = [
        Row(name=f"change: {name}", overrides=(*SHORT, "sampling.contexts=[1]", *changed))
        for name, changed in CHANGES.items()
    ]
    return [
        *(_of_the_paper(name) for name in PAPER),
        Row(name="ours", overrides=ours, splits=splits, seeds=seeds),
        Row(name="ours with baselines", overrides=(*ours, *BASELINES)),
        *changes,
        *(Row(name=f"ours on {name}", overrides=ours, population=name) for name in POPULATIONS),
    ]


def _of_the_paper(name: str) -> Row:
    settings = [f"training.steps={STEPS['paper']}", "training.probe.every=1000"]
    if name == "latent_conditional":
        # it cannot embed what it has not met, and so is trained on (figure 2)
        settings.append("sampling.baselines=[finetuned]")
    elif "unseen_by_k" not in PAPER[name]:
        # figure 6 is of one row, and samples of 500 steps are dear
        settings.append("sampling.contexts=[]")
    return Row(name=name, config=f"configs/mnist_{name}.yaml", overrides=settings)


def run_of(row: Row, work: Path, mnist: Path | None, split: int, seed: int) -> Run:
    """One run of a row."""
    words = "".join(c if c.isalnum() else " " for c in row.name).split()
    source: dict[str, Any] = {}
    if row.population == "mnist":
        source = {"kind": "mnist_pairs"} | ({"path": str(mnist)} if mnist else {})
    else:
        folder = write_population(row.population, work / row.population)
        source = {"kind": "folder", "path": str(folder), "size": [32, 32]}
    return Run(
        name=f"{'-'.join(words)}-{split}-{seed}",
        config=row.config,
        overrides=(
            f"shards.source={json.dumps(source)}",
            f"seed={seed}",
            f"shards.split.seed={split}",
            "training.save_every=250",
            "training.picture_every=1000000",
            *row.overrides,
        ),
        shared={
            "shards.path": f"shards-{row.population}-{split}",
            "judge.path": f"judge-{row.population}",
        },
    )


def figures(summaries: Sequence[dict[str, Any]], splits: Sequence[int]) -> dict[str, Any]:
    """A row of the table, from the summaries of its runs and the split of each."""
    logs = [read_log(summary["folder"]) for summary in summaries]
    told = [json.loads((s["folder"] / "provenance.json").read_text()) for s in summaries]
    # the attempt that began the training, and the last one
    begun = [[*provenance.get("earlier", []), provenance][0] for provenance in told]
    found: dict[str, Any] = {
        "begun_on_commit": [provenance["git"] for provenance in begun],
        "training_seconds": [round(log.seconds) for log in logs],
        "sampling_and_scoring_seconds": [summary["seconds"] for summary in summaries],
        "guidance": [summary["guidance"] for summary in summaries],
        **_sections(summaries, splits),
    }
    if (learning := logs[0].learning) is not None:
        found["curve"] = {
            "steps": list(learning.steps),
            "minutes": [round(minutes, 2) for minutes in learning.minutes],
            **{name: list(values) for name, values in learning.accuracies.items()},
        }
    for method in summaries[0].get("baselines", {}):
        own = [summary["baselines"][method] for summary in summaries]
        found.setdefault("baselines", {})[method] = _sections(own, splits)
    return found


def _sections(parts: Sequence[Mapping[str, Any]], splits: Sequence[int]) -> dict[str, Any]:
    return {
        name: _section([part[name] for part in parts], splits)
        for name in SPLITS
        if parts[0][name] is not None
    }


def _section(sections: Sequence[Mapping[str, Any]], splits: Sequence[int]) -> dict[str, Any]:
    """The figures of seen or unseen distributions over runs."""
    found: dict[str, Any] = {
        name: _over((section[name] for section in sections), splits) for name in FIGURES
    }
    for name in BY_K:
        values = [section.get(f"{name}_by_k", {}) for section in sections]
        found[f"{name}_by_k"] = {k: _over((v[k] for v in values), splits) for k in values[0]}
    if len(sections) == 1:
        # of one run: over distributions
        for name in ("accuracy", "diversity_within"):
            found[f"{name}_by_k_interval"] = sections[0].get(f"{name}_by_k_interval")
    found["worst"] = [(section["worst"] or [])[:3] for section in sections]
    return found


def _over(values: Iterable[float | None], splits: Sequence[int]) -> Any:
    """One value as it is; of more the interval over splits, or over the seeds of one split."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return known[0] if known else None
    groups: defaultdict[int, list[float]] = defaultdict(list)
    for value, split in zip(known, splits, strict=True):
        groups[split].append(value)
    own = [float(np.mean(group)) for group in groups.values()] if len(groups) > 1 else known
    return interval(own) | {"runs": known}


def main() -> None:
    """Run what is missing, and gather the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/double-digit-campaign"))
    parser.add_argument("--mnist", type=Path, help="folder of the four IDX files; none: fetch them")
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--only", nargs="+", default=["*"], help="rows, as patterns, or none; not given: all"
    )
    parser.add_argument("--finished", nargs="+", default=[], metavar="NAME=RUN")
    options = parser.parse_args()
    pairs = [text.partition("=") for text in options.finished]
    if bad := [name + sign + folder for name, sign, folder in pairs if not (name and folder)]:
        parser.error(f"--finished takes NAME=RUN, not {', '.join(bad)}")
    table = [
        row
        for row in rows(options.splits, options.seeds)
        if any(fnmatch(row.name, pattern) for pattern in options.only)
    ]
    if not table and options.only != ["none"]:
        parser.error(f"no row is named {' or '.join(options.only)}")
    # split after split within a seed, so that while one waits for data another trains
    jobs = [(row, split, seed) for row in table for seed in row.seeds for split in row.splits]
    done = carry_out(
        options.work,
        [run_of(row, options.work, options.mnist, split, seed) for row, split, seed in jobs],
    )
    result = _known(options.out) | {"benchmark": "double_digit", "paper": PAPER}
    for name, _, folder in pairs:
        own = figures([finished(Path(folder))], [0])
        result["finished"][name] = {"machine": machine(), **own}
    for row in table:
        own = [(run, split) for (r, split, _), run in zip(jobs, done, strict=True) if r is row]
        result["rows"][row.name] = {
            "machine": machine(),
            "config": row.config,
            "overrides": list(row.overrides),
            **figures([run for run, _ in own], [split for _, split in own]),
        }
    finish(result, options.out)


def _known(out: Path | None) -> dict[str, Any]:
    known = json.loads(out.read_text()) if out is not None and out.is_file() else {}
    return {"finished": known.get("finished", {}), "rows": known.get("rows", {})}


if __name__ == "__main__":
    main()
