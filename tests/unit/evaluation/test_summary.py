from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import ANY

import numpy as np
import pytest

from sno_dist.errors import DataError
from sno_dist.evaluation.catalogue import FIGURES
from sno_dist.evaluation.frechet import moments
from sno_dist.evaluation.intervals import wilson
from sno_dist.evaluation.reference import RealFigures
from sno_dist.evaluation.score import DistributionScores
from sno_dist.evaluation.summary import summarise
from sno_dist.evaluation.tables import by_k
from sno_dist.evaluation.terminal import table

RNG = np.random.default_rng(0)


def figures() -> RealFigures:
    features = RNG.normal(size=(40, 3))
    parts = moments(features[::2]), moments(features[1::2])
    return RealFigures(
        n=40,
        correct=39,
        mmd_floors={2.0: 0.002, 0.5: 0.001},
        p_value=0.5,
        recall_ceiling=0.9,
        moments=moments(features),
        parts=parts,
    )


def some() -> list[DistributionScores]:
    scores = []
    for index in range(8):
        real, split = figures(), "unseen" if index < 3 else "seen"
        for k in (10, 1, 100, None) if split == "unseen" else (None,):
            scores.append(
                DistributionScores(
                    name=f"{index:02d}",
                    split=split,
                    k=k,
                    n=50,
                    correct=50 - index - (20 if k == 1 else 0),
                    diversity=1 + index / 100,
                    diversity_within=0.9 + index / 100,
                    recall=0.8,
                    precision=0.7,
                    mmds={2.0: 0.01, 0.5: 0.02 + index / 1000},
                    p_value=0.01 if index < 2 else 0.3,
                    copying=0.02,
                    copying_chance=0.01,
                    moments=moments(RNG.normal(size=(50, 3))),
                    real=real,
                )
            )
    return scores


SCORES = some()
BASELINES = [
    replace(s, method=method, diversity=s.diversity / 2)
    for s in SCORES
    for method in ("resample", "individual")
    if s.k is None or method == "resample"
]
GUIDANCE = {"all": 1.25, "1": 1.5, "10": 1.3}
FIXED = {
    "population": "p",
    "guidance": GUIDANCE,
    "acceptance": 0.9,
    "seconds": 3.0,
    "bootstrap": 200,
    "seed": 0,
}


def test_the_figures_are_means_over_distributions_at_the_largest_k() -> None:
    summary = summarise(SCORES, **FIXED)
    seen, unseen = summary["seen"], summary["unseen"]
    assert seen["accuracy"] == pytest.approx(1 - np.mean([3, 4, 5, 6, 7]) / 50)
    assert unseen["accuracy"] == pytest.approx(1 - 1 / 50) == unseen["accuracy_by_k"]["all"]
    assert unseen["accuracy_by_k"]["1"] == pytest.approx(1 - 21 / 50)
    assert list(unseen["accuracy_by_k"]) == ["1", "10", "100", "all"]
    assert seen["diversity"] == pytest.approx(1.05)
    assert summary["classifier_ceiling"] == pytest.approx(39 / 40)
    assert unseen["worst"][0] == {"name": "02", "accuracy": pytest.approx(48 / 50)}
    assert seen["frechet"] > 0 < seen["frechet_floor"]


def test_every_interval_holds_its_figure() -> None:
    summary = summarise(SCORES, **FIXED)
    for split in ("seen", "unseen"):
        section = summary[split]
        intervals = [key for key in section if key.endswith("_interval") and "by_k" not in key]
        assert {"accuracy_interval", "frechet_interval", "diversity_interval"} <= set(intervals)
        for key in intervals:
            low, high = section[key]
            assert low <= section[key.removesuffix("_interval")] + 1e-12, key
            assert section[key.removesuffix("_interval")] <= high + 1e-12, key
        for figure in ("accuracy", "diversity_within"):
            bounds = section[f"{figure}_by_k_interval"]
            assert bounds.keys() == section[f"{figure}_by_k"].keys()
            for k, value in section[f"{figure}_by_k"].items():
                low, high = bounds[k]
                assert low < value < high, (figure, k)


def test_the_order_of_scores_changes_not_one_bit() -> None:
    shuffled = random.Random(0).sample(SCORES, len(SCORES))
    assert json.dumps(summarise(shuffled, **FIXED)) == json.dumps(summarise(SCORES, **FIXED))


def test_it_is_json_without_nan() -> None:
    text = json.dumps(summarise(SCORES, **FIXED), allow_nan=False)
    assert json.loads(text) == summarise(SCORES, **FIXED)


def test_without_a_classifier_or_contexts_their_figures_are_none() -> None:
    scores = [
        replace(
            s,
            correct=None,
            copying=None,
            copying_chance=None,
            diversity_within=None,
            real=replace(s.real, correct=None),
        )
        for s in SCORES
    ]
    summary = summarise(scores, **FIXED)
    assert summary["classifier_ceiling"] is None
    for figure in ("accuracy", "accuracy_interval", "copying", "copying_interval", "worst"):
        assert summary["unseen"][figure] is None
    assert summary["unseen"]["accuracy_by_k"] == dict.fromkeys(("1", "10", "100", "all"))
    text = table(summary)
    assert "accuracy" not in text
    assert "within a context set" not in text
    assert "diversity" in text


def test_one_split_and_one_distribution_are_enough() -> None:
    summary = summarise([s for s in SCORES if s.name == "05"], **FIXED)
    assert summary["unseen"] is None
    for figure in ("frechet", "diversity", "mmd"):
        # one says nothing of others
        assert summary["seen"][f"{figure}_interval"] is None
    assert "unseen" not in table(summary)


def perfect(references: Sequence[int], generated: int) -> list[DistributionScores]:
    """Scores of a perfect model, each distribution N(4 i, I) in six dimensions."""
    source, scores = np.random.default_rng(1), []
    for index, count in enumerate(references):
        real = source.normal(size=(count, 6)) + 4 * index
        own = figures()
        own = replace(
            own,
            n=count,
            correct=count if index else 0,
            moments=moments(real),
            parts=(moments(real[: min(generated, count // 2)]), moments(real[count // 2 :])),
        )
        drawn = moments(source.normal(size=(generated, 6)) + 4 * index)
        scores.append(
            replace(SCORES[-1], name=f"{index}", n=generated, correct=9, moments=drawn, real=own)
        )
    return scores


def test_distributions_weigh_the_same_however_many_are_held_out() -> None:
    uneven = summarise(perfect([20, 400, 20, 400], 50), **FIXED)["seen"]
    even = summarise(perfect([200] * 4, 50), **FIXED)["seen"]
    # pooled by their counts, the real ones would be another mixture: a distance of more than 5
    assert uneven["frechet"] < 1
    assert even["frechet"] < 1
    assert uneven["ceiling"] == even["ceiling"] == pytest.approx(3 / 4)


@pytest.mark.parametrize("held_out", [40, 400, 4000])
def test_a_perfect_model_is_near_the_frechet_floor(held_out: int) -> None:
    ratios = []
    for _ in range(3):
        seen = summarise(perfect([held_out] * 8, 100), **FIXED)["seen"]
        ratios.append(seen["frechet"] / seen["frechet_floor"])
    assert np.mean(ratios) == pytest.approx(1, abs=0.5)


def test_the_table_is_aligned_and_holds_the_figures() -> None:
    lines = table(summarise(SCORES, **FIXED)).splitlines()
    told = "guidance 1.5 (K = 1), 1.3 (K = 10), 1.25 (K = all), acceptance 0.9"
    assert lines[0] == f"p, {told}, sampled and scored in 3 s"
    accuracy = next(line for line in lines if line.startswith("accuracy"))
    assert "90.0 % [" in accuracy
    assert "98.0 % [" in accuracy
    head = next(line for line in lines if "seen (K = all)" in line)
    assert len(head) == len(accuracy)
    assert any(line.startswith("unseen, K =") and line.endswith("all") for line in lines)
    assert max(map(len, lines)) <= 100


def test_a_figure_that_is_shown_is_one_of_the_summary_s() -> None:
    section = summarise(SCORES, **FIXED)["unseen"]
    asked = {key for shown in FIGURES for key in (shown.key, shown.bound) if key}
    assert asked <= section.keys()


def test_nothing_to_summarise_is_told() -> None:
    with pytest.raises(DataError, match="nothing to summarise"):
        summarise([], **FIXED)


def test_no_bandwidth_can_be_picked() -> None:
    summary = summarise(SCORES, **FIXED)
    assert summary["mmd_bandwidth"] == 2.0
    section = summary["unseen"]
    assert section["mmd_by_bandwidth"] == {
        "2": {"mmd": pytest.approx(0.01), "floor": 0.002, "interval": section["mmd_interval"]},
        "0.5": {"mmd": pytest.approx(0.021), "floor": 0.001, "interval": ANY},
    }
    low, high = section["mmd_by_bandwidth"]["0.5"]["interval"]
    assert 0.0199 <= low <= 0.021 <= high <= 0.0221
    assert section["mmd_worst_ratio"] == pytest.approx(21)
    assert section["mmd_worst_bandwidth"] == 0.5


def test_a_floor_of_nothing_has_no_ratio() -> None:
    flat = [replace(s, real=replace(s.real, mmd_floors={2.0: 0.0, 0.5: 0.0})) for s in SCORES]
    assert summarise(flat, **FIXED)["seen"]["mmd_worst_ratio"] is None


def test_the_share_told_from_real_is_counted_over_distributions() -> None:
    summary = summarise(SCORES, **FIXED)
    assert summary["unseen"]["mmd_rejected"] == pytest.approx(2 / 3)
    assert summary["unseen"]["mmd_rejected_by_k"]["1"] == pytest.approx(2 / 3)
    assert summary["seen"]["mmd_rejected"] == 0
    assert summary["seen"]["mmd_rejected_floor"] == 0
    assert summary["unseen"]["mmd_rejected_interval"] == list(wilson(2, 3))
    untested = [replace(s, p_value=None, real=replace(s.real, p_value=None)) for s in SCORES]
    assert summarise(untested, **FIXED)["unseen"]["mmd_rejected"] is None
    assert "told from real" not in table(summarise(untested, **FIXED))


def test_baselines_have_the_figures_of_a_split_and_leave_the_operator_s_alone() -> None:
    alone, summary = summarise(SCORES, **FIXED), summarise([*BASELINES, *SCORES], **FIXED)
    baselines = summary.pop("baselines")
    assert summary == alone
    assert list(baselines) == ["individual", "resample"]
    for method, sections in baselines.items():
        for split in ("seen", "unseen"):
            assert sections[split].keys() == alone[split].keys()
            assert sections[split]["diversity"] == pytest.approx(alone[split]["diversity"] / 2)
        ks = ["all"] if method == "individual" else ["1", "10", "100", "all"]
        assert list(sections["unseen"]["mmd_by_k"]) == ks


def test_the_table_sets_baselines_beside_the_operator() -> None:
    text = table(summarise([*SCORES, *BASELINES], **FIXED))
    block = text.split("\n\n")[-1].splitlines()
    assert [line.split()[0] for line in block] == ["seen", "operator", "individual", "resample"]
    assert "90.0 % / 98.0 %" in block[1]
    assert "0.525 / 0.505" in block[2]
    assert "seen / unseen" not in table(summarise(SCORES, **FIXED))
    assert max(map(len, text.splitlines())) <= 100


def test_the_error_of_the_score_is_a_row_of_the_table() -> None:
    summary = summarise(SCORES, **FIXED)
    summary["score_error"] = {"levels": [1.0], "seen": [0.02], "seen_mean": 0.02}
    summary["score_error"] |= {"unseen": None, "unseen_mean": None}
    row = next(line for line in table(summary).splitlines() if "error of the score" in line)
    assert row.split()[-3:] == ["2.0", "%", "-"]


def test_k_is_in_order_in_a_summary_that_was_read_from_a_file() -> None:
    read = json.loads(json.dumps(summarise(SCORES, **FIXED), sort_keys=True))
    head = next(line for line in table(read).splitlines() if line.startswith("unseen, K ="))
    assert head.split()[3:] == ["1", "10", "100", "all"]
    assert by_k(read)[0]["ks"] == ["1", "10", "100", "all"]
