from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sno_dist.config.schema import Judge as Settings
from sno_dist.errors import ArtifactError, DataError, RunError
from sno_dist.judge.classifier import Classifier, load_classifier
from sno_dist.judge.network import Form, ResNet18
from sno_dist.judge.train import augment, train_classifier, updates_of

SETTINGS = Settings(width=4, epochs=6, min_updates=1, batch=30, learning_rate=5e-3, seed=3)


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three easy classes: horizontal stripes, vertical stripes, noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, size=count)
    images = rng.integers(0, 80, size=(count, 1, 8, 12)).astype(np.uint8)
    images[labels == 0, :, ::2] += 150
    images[labels == 1, :, :, ::2] += 150
    return images, labels


@pytest.fixture(scope="module")
def judge() -> Classifier:
    return train_classifier(*stripes(240, 0), SETTINGS, classes=3)


def accuracy(judge: Classifier, seed: int) -> float:
    images, labels = stripes(150, seed)
    return float((judge.judge(images).labels == labels).mean())


def test_easy_classes_are_learned(judge: Classifier) -> None:
    assert accuracy(judge, 1) > 0.95


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(judge: Classifier) -> None:
    state = torch.random.get_rng_state()
    again = train_classifier(*stripes(240, 0), SETTINGS, classes=3)
    assert torch.equal(state, torch.random.get_rng_state())
    images, _ = stripes(40, 2)
    assert np.array_equal(judge.judge(images).logits, again.judge(images).logits)
    weights = again.network.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in judge.network.state_dict().items())
    other = train_classifier(
        *stripes(240, 0), SETTINGS.model_copy(update={"epochs": 1, "seed": 4}), classes=3
    )
    assert not np.array_equal(judge.judge(images).logits, other.judge(images).logits)


def test_a_saved_judge_says_the_same(judge: Classifier, tmp_path: Path) -> None:
    judge.save(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}
    images, _ = stripes(40, 5)
    said, repeated = judge.judge(images), load_classifier(tmp_path).judge(images)
    assert np.array_equal(said.logits, repeated.logits)
    assert np.array_equal(said.features, repeated.features)


def test_features_are_pooled_and_lead_to_the_logits(judge: Classifier) -> None:
    images, _ = stripes(10, 6)
    verdict = judge.judge(images)
    assert verdict.features.shape == (10, judge.form.features) == (10, 32)
    head = judge.network.net.classifier[1]
    logits = verdict.features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(verdict.logits, logits, atol=1e-4)
    assert np.array_equal(verdict.labels, verdict.logits.argmax(1))
    assert np.array_equal(judge.features(images), verdict.features)


def test_neither_the_batch_nor_the_scale_of_bytes_matters(judge: Classifier) -> None:
    images, _ = stripes(23, 7)
    whole = judge.judge(images).logits
    np.testing.assert_allclose(judge.judge(images, batch=5).logits, whole, atol=1e-4)
    np.testing.assert_allclose(judge.judge(images / 255).logits, whole, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "cells"), [(8, 1), (16, 2), (31, 4), (32, 2), (63, 4), (64, 2), (96, 3)]
)
def test_the_stem_suits_the_size(side: int, cells: int) -> None:
    network = ResNet18(Form(shape=(3, side, side), classes=5, width=2)).eval()
    encoded = network.net.resnet(torch.zeros(2, 3, side, side)).last_hidden_state
    assert encoded.shape == (2, 16, cells, cells)


def test_augmentation_shifts_by_at_most_a_pixel_and_keeps_the_shape() -> None:
    dots = torch.zeros(400, 1, 8, 16)
    dots[:, :, 4, 8] = 1
    moved = augment(dots, torch.Generator().manual_seed(0))
    assert moved.shape == dots.shape
    rest = moved.clone()
    rest[:, :, 3:6, 7:10] = 0
    assert rest.abs().max() < 0.4
    assert moved[:, 0, 3:6, 7:10].sum((1, 2)).mean() == pytest.approx(1, abs=0.03)


def test_progress_is_told_of_every_step() -> None:
    told: list[float] = []
    settings = SETTINGS.model_copy(update={"epochs": 2})
    train_classifier(*stripes(70, 8), settings, classes=3, progress=told.append)
    assert len(told) == updates_of(settings, 70) == 4
    assert all(map(math.isfinite, told))


def test_few_images_are_gone_through_until_they_are_learned() -> None:
    told: list[float] = []
    settings = SETTINGS.model_copy(update={"epochs": 1, "batch": 500, "min_updates": 60})
    judge = train_classifier(
        *stripes(60, 9),
        settings,
        classes=3,
        progress=told.append,
    )
    assert len(told) == 60
    assert accuracy(judge, 10) > 0.95


def test_wrong_data_are_told(judge: Classifier) -> None:
    images, labels = stripes(20, 10)
    with pytest.raises(DataError, match=r"label is out of range.*expected: 0\.\.1"):
        train_classifier(images, labels, SETTINGS, classes=2)
    with pytest.raises(DataError, match=r"float64 images.*expected: uint8"):
        train_classifier(images / 255, labels, SETTINGS, classes=3)
    with pytest.raises(DataError, match=r"trained on other images.*\(1, 8, 8\)"):
        judge.judge(images[..., :8])


def test_a_diverging_run_is_told() -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(RunError, match="learning_rate"):
        train_classifier(*stripes(90, 11), settings, classes=3)


def test_a_damaged_judge_is_told(judge: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_classifier(tmp_path)
    judge.save(tmp_path)
    weights = tmp_path / "classifier.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_classifier(tmp_path)
    head = tmp_path / "classifier.json"
    head.write_text(json.dumps(json.loads(head.read_text()) | {"format": 99}))
    with pytest.raises(ArtifactError, match="another format"):
        load_classifier(tmp_path)
