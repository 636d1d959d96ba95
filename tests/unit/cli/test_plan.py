"""`plan` before anything is built, and that it says the same afterwards."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from sno_dist.cli.unbuilt import _count, operator_of, population_of
from sno_dist.config.load import load_config
from sno_dist.embedding.fit import fit_embedding
from sno_dist.errors import DataError
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.pairs import PairSource
from sno_dist.shards.sources.source import Distribution, Domain, Role
from tests.unit.cli.run_cli import call

Capture = pytest.CaptureFixture[str]
IMAGES = ["shards.source.model=40", "shards.source.judge=4", "shards.source.reference=8"]
LATTICE = ["shards.source.kind=gaussian_mixture", "shards.source.seen=8", "shards.source.unseen=3"]
LATTICE += ["shards.source.model=130", "shards.source.reference=4", "judge=null"]
LATTICE += ["model.autoencoder.kind=identity", "model.likelihood=gaussian"]
LATTICE += ["model.network={kind: nomad, width: 16, depth: 1}"]
TRAINED = ["training.distributions=6", "training.targets=5", "training.context=[1,12]"]
TRAINED += ["sampling.contexts=[1,4]", "sampling.samples=8", "sampling.batch=80"]


def words(root: Path, *overrides: str) -> list[str]:
    return [f"shards.path={root}/shards", f"run={root}/run", *TRAINED, *overrides]


def tables(out: str) -> list[list[dict[str, str]]]:
    """The rows of each table, by column; a column's name may have one blank in it."""
    found = []
    for block in out.split("\n\n")[1:]:
        _, header, *rows = (re.split(r" {2,}", line.strip()) for line in block.splitlines())
        found.append([dict(zip(header, row, strict=True)) for row in rows if row[0].isdigit()])
    return found


def counts(manifest: Manifest) -> Mapping[str, tuple[str, int]]:
    return {entry.name: (entry.split, entry.count("model")) for entry in manifest.entries}


# -------------------------------------------------------------------------- population


@pytest.mark.parametrize("overrides", [IMAGES, LATTICE], ids=["digits", "lattice"])
def test_it_says_the_same_before_and_after_the_shards_are_built(
    capsys: Capture, tmp_path: Path, overrides: list[str]
) -> None:
    before = call(capsys, "plan", *words(tmp_path, *overrides))
    assert (before.code, before.err) == (0, "")
    assert ", not built yet\n" in before.out
    build_shards(load_config(None, words(tmp_path, *overrides)))
    after = call(capsys, "plan", *words(tmp_path, *overrides))
    assert f"distributions: {tmp_path}/shards\n" in after.out
    assert after.out.splitlines()[1:] == before.out.splitlines()[1:]


def test_a_folder_of_arrays_is_counted_without_its_shards(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, size in (("a", 40), ("b", 60), ("c", 80)):
        np.save(tmp_path / f"data/{name}.npy", np.zeros((size, 5), np.float32))
    source = ["shards.source.kind=folder", f"shards.source.path={tmp_path}/data"]
    config = load_config(None, words(tmp_path, *source))
    manifest, _ = population_of(config)
    assert (manifest.domain, manifest.shape) == ("vector", (5,))
    built = build_shards(config)
    assert counts(manifest) == counts(built)
    assert len(manifest.shift) == len(built.shift)


def test_mnist_is_planned_without_its_files(tmp_path: Path) -> None:
    """As its source has it, whose files are made up here: ten blank images of each digit."""
    source = ["shards.source={kind: mnist_pairs, model: 9, judge: 4, reference: 5}"]
    planned, _ = population_of(load_config(None, words(tmp_path, *source)))
    for half in ("train", "t10k"):
        images, labels = np.zeros((100, 28, 28), np.uint8), np.arange(100, dtype=np.uint8) % 10
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (tmp_path / f"{half}-{name}-ubyte").write_bytes(head + array.tobytes())
    shards = load_config(None, [*source, f"shards.source.path={tmp_path}"]).shards
    made = make_source(shards.source, shards.split)
    assert isinstance(made, PairSource)
    assert (planned.domain, planned.shape) == (made.domain, made.shape)
    splits = {d.name: (d.split, len(made.draw(d.name, "model"))) for d in made.distributions()}
    assert counts(planned) == splits


def test_missing_data_is_told(capsys: Capture, tmp_path: Path) -> None:
    source = ["shards.source.kind=folder", f"shards.source.path={tmp_path}/nowhere"]
    told = call(capsys, "plan", *words(tmp_path, *source))
    assert told.code == 3
    assert told.err.startswith("error: no such file or folder | at: ")


def test_a_distribution_that_training_would_refuse_is_told(capsys: Capture, tmp_path: Path) -> None:
    told = call(capsys, "plan", *words(tmp_path, *IMAGES, "training.targets=40"))
    assert told.code == 3
    assert told.err.startswith("error: a distribution is smaller than its context set and targets")


def test_a_form_that_the_fit_would_refuse_is_told(capsys: Capture, tmp_path: Path) -> None:
    asked = ["embedding.kind=kme", "embedding.form.kind=eigen"]
    told = call(capsys, "plan", *words(tmp_path, *asked))
    assert told.code == 2
    assert told.err.startswith("error: eigenfunctions are those of the heat kernel")


# --------------------------------------------------------------------------- embedding


@pytest.mark.parametrize(
    "form", [["form.kind=exact"], ["form.kind=random", "form.features=64"], ["form.kind=nystrom"]]
)
def test_a_fit_has_the_sizes_that_were_planned(tmp_path: Path, form: list[str]) -> None:
    section = ["embedding.kind=kme", "embedding.components=5", "embedding.samples=100"]
    section += [f"embedding.{setting}" for setting in form]
    if "form.kind=nystrom" in form:
        section.append("embedding.form.anchors=20")
    config = load_config(None, words(tmp_path, *LATTICE, *section))
    planned, assumed = operator_of(config, population_of(config)[0])
    assert assumed is None
    table = fit_embedding(config, build_shards(config))
    fitted, _ = operator_of(config, population_of(config)[0])
    shapes = {name: (b.shape, b.dtype) for name, b in planned.named_buffers()}
    assert shapes == {name: (b.shape, b.dtype) for name, b in fitted.named_buffers()}
    weights = {name: p.shape for name, p in planned.named_parameters()}
    assert weights == {name: p.shape for name, p in fitted.named_parameters()}
    for name, tensor in table.tensors.items():
        assert shapes[f"embedder.{name}"][0] == tensor.shape, name


def test_what_only_the_fit_can_tell_is_called_an_assumption(
    capsys: Capture, tmp_path: Path
) -> None:
    told = call(capsys, "plan", *words(tmp_path, *LATTICE, "embedding.kind=kme"))
    assert "assumed     7 components, the most there can be; the fit drops" in told.out
    fourier = ["embedding.kind=kme", "embedding.components=3", "embedding.form.kind=fourier"]
    told = call(capsys, "plan", *words(tmp_path, *LATTICE, *fourier))
    assert "assumed     the fit's own buffers left out\n" in told.out


def test_tiles_are_those_of_the_exact_fit(capsys: Capture, tmp_path: Path) -> None:
    """Two dimensions allow sqrt(6e10 / 122) = 22,176 samples a panel: a set of 20,000 fills one."""
    exact = ["embedding.kind=kme", "embedding.samples=null", "shards.source.model=20000"]
    told = call(capsys, "plan", *words(tmp_path, *LATTICE, *exact), "--ranks", 4, "--ranks", 64)
    assert [row["Gram tiles"] for row in tables(told.out)[2]] == ["9", "1"]
    assert "wall: the Gram matrix has 36 tiles, and further ranks fill none\n" in told.out


# ------------------------------------------------------------------------------- table


def test_each_engine_and_number_of_ranks_has_a_line(capsys: Capture, tmp_path: Path) -> None:
    told = call(capsys, "plan", *words(tmp_path, *IMAGES), "--ranks", 2, "--ranks", 3)
    memory, sent, work = tables(told.out)
    engines = ["data_parallel", "zero1", "zero2", "zero2_offload", "zero3", "fsdp"]
    cases = [(ranks, engine) for ranks in ("2", "3") for engine in engines]
    assert [(row["ranks"], row["engine"]) for row in memory] == cases
    assert [(row["ranks"], row["engine"]) for row in sent] == cases
    # six distributions; 7 units of 70 seen ones, and three times 3 of 30 unseen ones
    assert [(row["distributions"], row["sampling units"]) for row in work] == [
        ("3", "8"),
        ("2", "6"),
    ]
    assert "wall" not in told.out


def test_memory_and_traffic_add_up(capsys: Capture, tmp_path: Path) -> None:
    told = call(capsys, "plan", *words(tmp_path, *IMAGES), "--ranks", 2)
    weights = re.search(r"operator +([\d,]+) weights in \d+ tensors, ([\d.]+) MiB", told.out)
    assert weights is not None
    entries, mib = int(weights[1].replace(",", "")), float(weights[2])
    assert mib == pytest.approx(4 * entries / 2**20, abs=0.05)
    memory, sent, _ = tables(told.out)
    alone = memory[0]
    held = ("weights", "gradients", "moments", "averages", "spare")
    assert float(alone["step"]) == pytest.approx(sum(float(alone[name]) for name in held), abs=0.3)
    assert float(alone["moments"]) == pytest.approx(2 * mib, abs=0.1)
    # two ranks send each number of the gradient once
    assert float(sent[0]["all-reduce"]) == pytest.approx(4 * entries / 2**20, abs=0.006)


def test_the_wall_of_training_is_named(capsys: Capture, tmp_path: Path) -> None:
    told = call(capsys, "plan", *words(tmp_path, *IMAGES), "--ranks", 6, "--ranks", 8)
    assert [row["distributions"] for row in tables(told.out)[2]] == ["1", "refused"]
    assert (
        "wall: training refuses more than 6 ranks, since each takes at least one of a batch's "
        "distributions; for 8 set training.distributions=8 or more\n"
    ) in told.out


def test_steps_per_hour_follow_from_a_measured_step(capsys: Capture, tmp_path: Path) -> None:
    line = words(tmp_path, *IMAGES)
    timing = ("--ranks", 3, "--ranks", 8, "--engine", "data_parallel", "--step-seconds", 0.36)
    shown = tables(call(capsys, "plan", *timing, *line).out)[1]
    # a third of the batch takes 0.12 s; eight ranks are refused
    assert [row["steps/h"] for row in shown] == ["30,000", "-"]
    shown = tables(call(capsys, "plan", *timing, "--bandwidth", 0.1, *line).out)[1]
    seconds = 0.12 + float(shown[0]["sum"]) * 2**20 / 1e8
    assert float(shown[0]["steps/h"].replace(",", "")) == pytest.approx(3600 / seconds, rel=1e-3)


def test_a_bandwidth_alone_is_refused(capsys: Capture) -> None:
    told = call(capsys, "plan", "--bandwidth", 10)
    assert told.code == 2
    assert told.err.startswith("error: --bandwidth says nothing without --step-seconds")


def test_passes_of_a_step_are_paid_for(capsys: Capture, tmp_path: Path) -> None:
    line = [*words(tmp_path, *IMAGES), "--ranks", "2", "--engine", "zero2"]
    once = tables(call(capsys, "plan", *line).out)[1][0]
    # three distributions a rank, one at a time
    often = tables(call(capsys, "plan", *line, "training.micro=1").out)[1][0]
    assert float(often["all-reduce"]) == pytest.approx(3 * float(once["all-reduce"]), abs=0.02)
    assert often["all-gather"] == once["all-gather"]


def test_a_source_that_cannot_count_asks_for_its_shards() -> None:
    class Drawn:
        """A source that knows its samples by drawing alone."""

        domain: Domain = "vector"
        shape = (2,)
        roles: Sequence[Role] = ("model",)

        def distributions(self) -> Sequence[Distribution]:
            return [Distribution(name="a", split="seen")]

        def draw(self, name: str, role: Role) -> np.ndarray:
            del name, role
            return np.zeros((3, 2), np.float32)

        def audit(self) -> Mapping[str, object]:
            return {}

    with pytest.raises(DataError, match=r"only by drawing.*do: run `sno-dist build-shards`"):
        _count(Drawn(), "a")
