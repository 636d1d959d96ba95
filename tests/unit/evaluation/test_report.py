from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sno_dist.errors import DataError
from sno_dist.evaluation import figures, pictures
from sno_dist.evaluation.gallery import Gallery, Panel
from sno_dist.evaluation.notation import percent
from sno_dist.evaluation.reference import Comparison, reference
from sno_dist.evaluation.report import Embeddings, ReportPage, render
from sno_dist.evaluation.score import Contexts, score_distribution
from sno_dist.evaluation.summary import summarise
from sno_dist.evaluation.training_log import LearningCurve
from sno_dist.sampling.plan import Method

RNG = np.random.default_rng(0)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--enable-logging=stderr",
    "--dump-dom",
]


class Judge:
    """A judge of vectors: right for all but every tenth sample."""

    def judge(self, samples: np.ndarray) -> Any:
        labels = np.where(np.arange(len(samples)) % 10 == 0, 1, 0)
        return type("Verdict", (), {"features": samples, "labels": labels})


def summary(judge: Any, *methods: Method) -> dict[str, Any]:
    scores = []
    for index in range(6):
        real = reference(
            RNG.normal(size=(40, 2)),
            name=f"{index:02d}",
            split="unseen" if index < 3 else "seen",
            size=30,
            classifier=judge,
            label=0 if judge else None,
            comparison=Comparison(bandwidths=(1.0, 0.5), permutations=19),
        )
        for method, k in [(m, k) for m in ("operator", *methods) for k in (1, 10, None)]:
            scores.append(
                score_distribution(
                    RNG.normal(size=(30, 2)),
                    real,
                    Contexts(sets=[RNG.normal(size=(k or 50, 2))], groups=np.zeros(30, int)),
                    classifier=judge,
                    k=k,
                    method=method,
                )
            )
    return summarise(
        scores,
        population="p",
        guidance={"1": 1.2, "all": 1.2},
        acceptance=0.9,
        seconds=1,
        bootstrap=50,
        seed=0,
    )


def pictures_of(real: np.ndarray) -> list[Panel]:
    return [
        Panel(kind="context", title="context", samples=real[:1]),
        Panel(kind="operator", title="from K = 1", samples=real, note="90.0 % named rightly"),
        Panel(kind="operator", title="from all", samples=real),
        Panel(kind="real", title="real", samples=real),
    ]


def full_page() -> ReportPage:
    images = RNG.random((7, 1, 8, 16))
    vectors = RNG.normal(size=(50, 2))
    cloud = [
        Panel(kind="real", title="real", samples=vectors, note="floor 0.0007"),
        Panel(kind="operator", title="operator", samples=vectors + 1, note="MMD² 0.5"),
        Panel(kind="baseline", title="individual", samples=vectors - 1),
    ]
    error = {"levels": [0.1, 1.6], "seen": [0.2, 0.01], "seen_mean": 0.105}
    error |= {"unseen": [0.3, 0.02], "unseen_mean": 0.16}
    return ReportPage(
        title="pairs <of> digits",
        summary={**summary(Judge(), "resample"), "score_error": error},
        galleries=[
            Gallery(name="<b>42</b>", panels=pictures_of(images)),
            Gallery(name="law", panels=cloud, note="unseen"),
        ],
        accuracies={"unseen": {"$x_1$": 0.7, "01": 0.9}, "seen": {"02": 1.0}},
        embeddings=Embeddings(
            points=RNG.normal(size=(6, 4)), names=[*"abcde", "<i>"], splits=["seen"] * 6
        ),
        curves={"loss": ([1, 2, 3], [3.0, float("nan"), 0.1]), "one": ([1], [1.0])},
        learning=LearningCurve(
            steps=[10, 20],
            minutes=[0.5, 1.5],
            accuracies={"seen": [0.1, 0.6], "unseen": [0.1, 0.5], "unseen_one": [0.0, 0.2]},
        ),
        beside={
            "of <the> paper": LearningCurve(
                steps=[5, 30], minutes=[0.1, 2.0], accuracies={"seen": [0.1, 0.3]}
            )
        },
        spectrum={"eigenvalues": [1.0, 0.1, 1e-3, 1e-9], "components": 2, "noise": 1e-2},
        config="name: <script>alert(1)</script>",
        provenance={"commit": "abc & def"},
    )


class Links(HTMLParser):
    """Collects what a page would load or run, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    html = render(full_page())
    links = Links()
    links.feed(html)
    assert [link[:30] for link in links.loads if not link.startswith(("data:", "#"))] == []
    assert "script" not in links.tags
    assert not re.search(r"@import|url\((?!#)", html)
    assert links.tags.count("svg") == 7


def test_the_page_holds_every_figure_and_escapes_every_name() -> None:
    html = render(full_page())
    for text in (
        "Accuracy",
        "Frechet distance",
        "Diversity",
        "Recall",
        "MMD²",
        "Nearest is context",
    ):
        assert text in html
    for text in ("Told from real", "Error of the score", "Beside the baselines", "floor 0.0007"):
        assert text in html
    assert html.count("MMD² by bandwidth") == 1
    for raw in ("<of>", "<b>42</b>", "<script>", "<i>"):
        assert raw not in html
    assert "$x_1$ 70" in html
    assert "abc &amp; def" in html
    assert "90.0 %" in html


def test_a_split_that_a_baseline_alone_has_is_compared() -> None:
    told = summary(Judge(), "finetuned")
    html = render(ReportPage(title="t", summary=told | {"unseen": None}))
    table = html[html.index("Beside the baselines") :]
    row = table[table.index("Finetuned".lower()) :].partition("</tr>")[0]
    assert row.count('<span class="unseen">') > 0
    assert f">{percent(told['baselines']['finetuned']['unseen']['accuracy'])}<" in row


def test_what_is_missing_is_said() -> None:
    html = render(ReportPage(title="t", summary=summary(None)))
    assert html.count("Not shown:") == 4
    assert "There is no classifier" in html
    assert "No samples were given." in html
    for rare in ("Spectrum of the embedding", "Error of the score", "Beside the baselines"):
        assert rare not in html
    assert "nan" not in html.lower().replace("provenance", "")


def test_the_same_page_is_the_same_bytes() -> None:
    page = full_page()
    assert render(page) == render(page)


def test_an_image_grid_keeps_every_pixel() -> None:
    images = RNG.integers(0, 256, size=(5, 3, 4, 6)).astype(np.uint8)
    uri = pictures.image_grid(images)
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert sheet.shape == (14, 13, 4)
    np.testing.assert_array_equal(sheet[5:9, 7:13, :3], images[3].transpose(1, 2, 0))
    assert (sheet[4] == 0).all()
    with pytest.raises(DataError, match="image grid"):
        pictures.image_grid(images[:, :2])


def test_the_map_is_drawn_for_few_and_for_many_and_for_one_dimension() -> None:
    for count, size in ((3, 1), (5, 7), (400, 3)):
        names = [f"{i}" for i in range(count)]
        svg = figures.embedding_map(RNG.normal(size=(count, size)), names, ["unseen"] * count)
        assert svg
        assert "currentColor" in svg
        assert "NaN" not in svg
    assert figures.embedding_map(np.zeros((2, 3)), ["a", "b"], ["seen"] * 2) is None


def test_neighbours_stay_neighbours() -> None:
    centres = 20 * RNG.normal(size=(4, 6))
    rows = np.repeat(centres, 10, 0) + RNG.normal(size=(40, 6))
    plane, labels = figures.nearness(rows)
    distances = np.linalg.norm(plane[:, None] - plane, axis=2) + 1e9 * np.eye(40)
    assert (distances.argmin(1) // 10 == np.arange(40) // 10).all()
    assert labels[0] == "t-SNE, perplexity 13"
    names, splits = [f"{i}" for i in range(40)], ["seen", "unseen"] * 20
    assert "t-SNE" in (figures.embedding_map(rows, names, splits, neighbours=True) or "")
    assert figures.embedding_map(rows[:9], names[:9], splits[:9], neighbours=True) is None


@pytest.mark.parametrize("rows", [RNG.normal(size=(20, 1)), np.ones((20, 4))])
def test_a_line_and_a_point_have_no_map_of_neighbours(rows: np.ndarray) -> None:
    names, splits = [f"{i}" for i in range(20)], ["seen", "unseen"] * 10
    assert figures.embedding_map(rows, names, splits, neighbours=True) is None


def test_the_spectrum_marks_what_is_kept_and_is_cut_where_it_is_long() -> None:
    svg = figures.spectrum([2.0**-k for k in range(5000)], 3, 0.01)
    assert "kept (3)" in svg
    assert "component, of 5000" in svg
    assert svg.count("<use") < 200
    assert "dropped" not in figures.spectrum([1.0, 0.5], 2, 0.0)


def test_another_run_s_learning_is_drawn_beside() -> None:
    own = LearningCurve(steps=[1, 2], minutes=[1, 2], accuracies={"unseen_one": [0.1, 0.2]})
    other = LearningCurve(
        steps=[1, 2], minutes=[1, 2], accuracies={"seen": [0.1, 0.2], "unseen_one": [0.1, 0.2]}
    )
    svg = figures.learning_curve(own, {"paper": other})
    assert [svg.count(f">{label}<") for label in ("unseen, K = 1", "seen, paper")] == [1, 1]
    assert svg.count(", paper<") == 1


def test_one_split_alone_has_an_error_of_the_score() -> None:
    svg = figures.score_errors({"levels": [0.1, 0.2], "seen": [0.5, 0.4], "unseen": None})
    assert ">seen<" in svg
    assert ">unseen<" not in svg


def test_samples_of_a_single_number_are_drawn_too() -> None:
    values = RNG.normal(size=(30, 1))
    left, right, bottom, top = pictures.frame_of(values)
    assert left < values.min() < values.max() < right
    assert (bottom, top) == (left, right)
    assert pictures.scatter(values, (left, right, bottom, top), "#000000").startswith("data:")


def browse(path: Path, profile: Path) -> tuple[str, str]:
    found = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on PATH: looked for {', '.join(BROWSERS)}")
    command = [found, *FLAGS, f"--user-data-dir={profile}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return done.stdout, done.stderr


def test_a_browser_opens_the_page_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(full_page()), encoding="utf-8")
    dom, log = browse(path, tmp_path / "profile")
    assert "Real next to generated" in dom
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []


def test_the_browser_test_would_notice_a_word(tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    page = render(full_page()).replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>')
    path.write_text(page, encoding="utf-8")
    _, log = browse(path, tmp_path / "profile")
    assert "CONSOLE" in log
