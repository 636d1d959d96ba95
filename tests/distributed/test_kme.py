"""On one, two, three and four ranks the fit is the same bytes, and so are the figures of MMD."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.distributed.forked import Ended, start, start_ranks
from tests.pipeline.small import contents, plain

FORMS = {
    "exact": ["embedding.kernel.kind=matern"],
    "fourier": ["embedding.form.kind=fourier"],
    "random": ["embedding.form.kind=random", "embedding.form.features=64"],
    "nystrom": ["embedding.form.kind=nystrom", "embedding.form.anchors=50"],
    "eigen": ["embedding.form.kind=eigen", "embedding.kernel={kind: heat, order: 12}"],
}
SMALL = [
    "embedding.form.kind=fourier",
    "model.autoencoder.kind=identity",
    "model.likelihood=gaussian",
    "model.network={kind: nomad, width: 16, depth: 1}",
    "training.steps=3",
    "training.distributions=4",
    "training.targets=2",
    "training.context=[1,1]",
    "training.workers=0",
    "sampling.guidance=1",
    "sampling.steps=2",
    "sampling.samples=12",
    "sampling.contexts=[2]",
    "sampling.baselines=[resample]",
    "evaluation.permutations=20",
    "evaluation.score_levels=[0.5]",
]
CASES = [("exact", 2), ("exact", 3), ("exact", 4), ("fourier", 2), ("fourier", 3), ("fourier", 4)]
CASES += [(form, size) for form in ("random", "nystrom", "eigen") for size in (2, 3, 4)]


def words(root: Path, command: str, run: str, *overrides: str) -> list[str]:
    return [
        command,
        f"shards.path={root}/shards",
        f"run={root}/{run}",
        "shards.source.kind=gaussian_mixture",
        "shards.source.seen=34",
        "shards.source.unseen=2",
        "shards.source.model=700",
        "shards.source.reference=12",
        "embedding.kind=kme",
        # so many samples in all that the Gram matrix has several tiles
        "embedding.samples=null",
        "embedding.components=9",
        "judge=null",
        *overrides,
    ]


def fit(root: Path, form: str, size: int) -> dict[str, bytes]:
    run = f"{form}-{size}"
    if not (root / run).exists():
        line = words(root, "fit-embedding", run, *FORMS[form])
        ranks = start_ranks(size, root / "streams", *line)
        ended: list[Ended] = [rank.end() for rank in ranks]
        assert [rank.code for rank in ended] == [0] * size, ended[0].err
    return contents(root / run / "embedding")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kme")
    ended = start(folder / "streams", *words(folder, "build-shards", "run")).end()
    assert ended.code == 0, ended.err
    return folder


@pytest.mark.parametrize(("form", "size"), CASES)
def test_the_fit_is_the_same_bytes_in_every_world(root: Path, form: str, size: int) -> None:
    alone = fit(root, form, 1)
    assert {"fitted.safetensors", "report.json"} <= alone.keys()
    assert fit(root, form, size) == alone


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_figures_are_the_same_to_the_last_digit_in_every_world(root: Path, size: int) -> None:
    if not (root / "alone").exists():
        ended = start(root / "streams", *words(root, "run", "alone", *SMALL)).end()
        assert ended.code == 0, ended.err
    run = f"figures-{size}"
    shutil.copytree(root / "alone", root / run, ignore=lambda *_: {"evaluation"})
    ranks = start_ranks(size, root / "streams", *words(root, "evaluate", run, *SMALL))
    ended = [rank.end() for rank in ranks]
    assert [rank.code for rank in ended] == [0] * size, ended[0].err
    own, alone = (plain(root / name / "evaluation/summary.json") for name in (run, "alone"))
    assert own == alone
    assert {"mmd", "mmd_by_bandwidth", "mmd_rejected"} <= alone["unseen"].keys()
    assert alone["score_error"]["unseen_mean"] > 0
