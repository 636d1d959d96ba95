"""What a run leaves, opened by the programs that its readers use: tar, WebDataset, TensorBoard
with its server, and a browser.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from accelerate.state import AcceleratorState
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sno_dist.config.schema import Config
from sno_dist.embedding.fit import fit_embedding
from sno_dist.evaluation.evaluate import evaluate
from sno_dist.sampling.sample import sample
from sno_dist.sampling.sample_set import SampleSet, open_samples
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import open_manifest
from sno_dist.training.train import train
from tests.unit.shards.small import small_config

STEPS = 4
TINY = (
    "shards.source.judge=2",
    "embedding.width=16",
    "embedding.features=4",
    "model.autoencoder.width=8",
    "model.autoencoder.channels=2",
    "model.network.width=32",
    "model.network.hidden=32",
    "model.network.blocks=1",
    f"training.steps={STEPS}",
    "training.log_every=2",
    "training.picture_every=2",
    "training.workers=0",
    "training.precision=fp32",
    "sampling.steps=2",
    "sampling.guidance=1.0",
    "sampling.contexts=[1,10]",
    "sampling.samples=4",
    "sampling.per_context=2",
    "judge.width=4",
    "judge.epochs=1",
    "judge.min_updates=1",
    "evaluation.bootstrap=20",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A finished run: all five stages, made once."""
    config = small_config(tmp_path_factory.mktemp("clients"), *TINY)
    # Work this small is slower on two threads, and far slower where others use the cores too.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    manifest = build_shards(config)
    checkpoint = train(config, manifest, fit_embedding(config, manifest))
    evaluate(config, manifest, sample(config, manifest, checkpoint))
    torch.set_num_threads(threads)
    yield config
    # accelerate keeps the precision of a process's first run
    AcceleratorState._reset_state()


@pytest.fixture(scope="module")
def run(config: Config) -> Path:
    assert config.run is not None
    return Path(config.run)


def tars(root: Path) -> list[Path]:
    found = sorted(root.rglob("*.tar"))
    assert found
    return found


# ------------------------------------------------------------------------------ shards


def test_tar_lists_every_shard(config: Config, run: Path) -> None:
    assert config.shards.path is not None
    for path in (*tars(Path(config.shards.path))[:5], *tars(run / "sampling")[:5]):
        told = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
        assert told.stderr == ""
        names = told.stdout.split()
        assert names == [f"{index:06d}.npy" for index in range(len(names))]


# the library leaves the last tar of a list open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_generated_samples(config: Config) -> None:
    samples = open_samples(config, open_manifest(config))
    for key in list(samples.shards)[:6]:
        np.testing.assert_array_equal(with_library(samples, key), samples.samples(key))


def with_library(samples: SampleSet, key: str) -> np.ndarray:
    url = str(samples.path / samples.shards[key].file)
    data = webdataset.WebDataset(url, shardshuffle=False).decode(
        webdataset.handle_extension("npy", lambda b: np.load(io.BytesIO(b), allow_pickle=False))
    )
    return np.concatenate([record["npy"] for record in data])


# ------------------------------------------------------------------------- tensorboard


def test_tensorboards_own_reader_finds_everything(run: Path) -> None:
    curves = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in curves.Scalars("loss/total")] == [2, 4]
    assert {"optimizer/gradient_norm", "speed/data_wait"} <= set(curves.Tags()["scalars"])
    for tag in ("pictures/reconstruction", "pictures/seen", "pictures/unseen"):
        picture = curves.Images(tag)[-1]
        assert Image.open(io.BytesIO(picture.encoded_image_string)).size == (
            picture.width,
            picture.height,
        )
    settings = EventAccumulator(str(run / "tensorboard/hparams")).Reload()
    assert "unseen/accuracy" in settings.Tags()["scalars"]
    assert "_hparams_/session_start_info" in settings.summary_metadata


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run / "tensorboard")]
    # The loader in Python: the fast one is a binary that not every platform has.
    command += ["--port", str(port), "--host", "127.0.0.1", "--load_fast=false"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(f"http://127.0.0.1:{port}/data/plugin/scalars/tags", server)
            yield f"http://127.0.0.1:{port}/data/plugin"
        finally:
            server.terminate()
            server.wait(20)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    """Until the server has loaded the run: before that it answers, but with nothing."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert server.poll() is None, f"the server ended with {server.returncode}"
        try:
            if "." in get(url) and "hparams" in get(url):
                return
        except urllib.error.URLError:
            pass
        time.sleep(0.2)
    raise TimeoutError("TensorBoard served no run within 60 s")


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.loads(answer.read())


def test_the_server_serves_curves_and_pictures(address: str) -> None:
    assert "loss/score" in get(f"{address}/scalars/tags")["."]
    points = get(f"{address}/scalars/scalars?run=.&tag=loss%2Fscore")
    assert [step for _, step, _ in points] == [2, 4]
    assert "pictures/unseen" in get(f"{address}/images/tags")["."]
    pictures = get(f"{address}/images/images?run=.&tag=pictures%2Funseen&sample=0")
    with urllib.request.urlopen(f"{address}/images/individualImage?{pictures[-1]['query']}") as png:
        assert Image.open(png).format == "PNG"


def test_the_server_serves_the_projector(address: str) -> None:
    runs = get(f"{address}/projector/runs")
    assert len(runs) == 1
    (embedding,) = get(f"{address}/projector/info?run={runs[0]}")["embeddings"]
    name, shape = embedding["tensorName"], embedding["tensorShape"]
    assert name.startswith("u:")
    assert shape[0] == 100
    query = f"run={runs[0]}&name={name}"
    with urllib.request.urlopen(f"{address}/projector/tensor?{query}") as answer:
        assert len(answer.read()) == 4 * shape[0] * shape[1]
    with urllib.request.urlopen(f"{address}/projector/metadata?{query}") as answer:
        rows = answer.read().decode().splitlines()
    assert rows[0] == "name\tsplit"
    assert len(rows) == 101


# ----------------------------------------------------------------------------- browser


def test_a_browser_shows_the_real_report(run: Path, tmp_path: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser on PATH: looked for {', '.join(BROWSERS)}")
    picture = tmp_path / "report.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-sync", "--disable-background-networking"]
    command += ["--disable-component-update", "--enable-logging=stderr", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path}/profile", "--window-size=1200,2400"]
    command += [f"--screenshot={picture}", (run / "evaluation/report.html").as_uri()]
    told = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert [line for line in told.stderr.splitlines() if "CONSOLE" in line] == []
    shown = np.asarray(Image.open(picture).convert("RGB"))
    assert shown.shape == (2400, 1200, 3)
    # Cards, text and charts all the way down; a blank page would be one colour and a few kB.
    assert picture.stat().st_size > 100_000
    for band in np.array_split(shown, 6):
        assert len(np.unique(band.reshape(-1, 3), axis=0)) > 20


def test_the_reports_charts_run_from_one_sample_to_all(run: Path) -> None:
    page = (run / "evaluation/report.html").read_text()
    chart = page[page.index('aria-label="Accuracy by number of context samples"') :]
    labels = re.findall(r">(1|10|all)</text>", chart[: chart.index("</svg>")])
    assert labels == ["1", "10", "all"]
