from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from sno_dist.config.load import (
    differences,
    dump,
    flatten,
    load_config,
    run_folder,
    shards_folder,
)
from sno_dist.config.schema import Config
from sno_dist.errors import ConfigError

OTHERS = {
    "vectors": """
name: lattice
shards: {source: {kind: gaussian_mixture, seen: 8, unseen: 4}}
embedding: {kind: kme, components: 12}
model:
  autoencoder: {kind: identity}
  network: {kind: nomad, branch: linear}
  schedule: {kind: ve, sigma: 30}
training: {objective: {weight: likelihood, times: uniform}}
sampling: {guidance: 1.5}
judge: null
""",
    "own data": """
name: own
shards: {path: "s3://bucket/own", source: {kind: folder, path: faces, size: [16, 12], mode: RGB}}
embedding: {kind: prototype}
model: {autoencoder: {kind: mlp}, network: {kind: scorenet}}
""",
}


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_file_means_the_defaults() -> None:
    assert load_config() == load_config(None, ["training.steps=3000"])
    assert load_config().training.steps == 3000


@pytest.mark.parametrize("text", ["", *OTHERS.values()], ids=["defaults", *OTHERS])
def test_a_dumped_config_loads_to_the_same(tmp_path: Path, text: str) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(text)
    config = load_config(first)
    second.write_text(dump(config))
    assert load_config(second) == config
    assert dump(load_config(second)) == dump(config)


def test_a_dump_spells_out_every_default() -> None:
    def keys(section: BaseModel) -> int:
        children = (getattr(section, name) for name in type(section).model_fields)
        return sum(keys(child) if isinstance(child, BaseModel) else 1 for child in children)

    assert len(dump(load_config()).splitlines()) > keys(load_config()) > 60


def test_the_last_override_wins_and_keeps_its_type() -> None:
    config = load_config(
        None,
        ["training.steps=5", "training.steps=7", "shards.path=null", "sampling.guidance=[1,2]"],
    )
    assert config.training.steps == 7
    assert config.shards.path is None
    assert config.sampling.guidance == (1.0, 2.0)


def test_an_override_can_choose_another_kind(tmp_path: Path) -> None:
    config = load_config(None, ["embedding.kind=kme", "embedding.components=9"])
    assert config.embedding.model_dump() == {
        "kind": "kme",
        "kernel": {"kind": "gaussian", "bandwidth": None},
        "form": {"kind": "exact"},
        "components": 9,
        "samples": 500,
        "scaling": "isometric",
        "fixed": True,
    }


def test_a_kind_left_out_is_the_default_of_the_chosen_member(tmp_path: Path) -> None:
    section = load_config(
        None,
        [
            "embedding.kind=kme",
            "embedding.kernel.bandwidth=0.3",
            "embedding.form={kind: fourier, error: 1.0e-4}",
        ],
    ).embedding.model_dump()
    assert section["kernel"] == {"kind": "gaussian", "bandwidth": 0.3}
    assert section["form"] == {"kind": "fourier", "error": 1e-4, "margin": 0.25}


def test_an_override_goes_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("training: {steps: 10, clip: 2.0}")
    training = load_config(path, ["training.steps=20"]).training
    assert (training.steps, training.clip) == (20, 2.0)


@pytest.mark.parametrize(
    ("text", "where", "nearest"),
    [
        ("trainin: {steps: 1}", "trainin", "training"),
        ("training: {stps: 1}", "training.stps", "steps"),
        ("training: {objective: {klwarmup: 1}}", "training.objective.klwarmup", "kl_warmup"),
        ("shards: {blok: 1}", "shards.blok", "block"),
        ("shards: {source: {kind: digits, modle: 1}}", "shards.source.digits.modle", "model"),
        ("model: {network: {kind: nomad, brunch: mlp}}", "model.network.nomad.brunch", "branch"),
        ("judge: {epoch: 3}", "judge.epoch", "epochs"),
        ("training: {learning-rate: 1}", "training.learning-rate", "learning_rate"),
        ("model: {auto-encoder: {kind: identity}}", "model.auto-encoder", "autoencoder"),
        (
            "embedding: {kind: kme, kernel: {kind: sum, terms: [{kind: gaussian, bandwith: 1}]}}",
            "embedding.kme.kernel.sum.terms.0.gaussian.bandwith",
            "bandwidth",
        ),
    ],
)
def test_an_unknown_key_is_told_with_its_path_and_the_nearest(
    tmp_path: Path, text: str, where: str, nearest: str
) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"unknown key | at: {where} in {tmp_path / 'bad.yaml'} | expected: ")
    assert message.endswith(f"do: did you mean {nearest}?")


def test_an_unknown_key_like_no_other_lists_the_valid_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, "shards: {split: {zzzz: 1}}")
    assert message.endswith("expected: one of unseen, seed")


@pytest.mark.parametrize(
    ("text", "where", "got", "expected"),
    [
        ("training: {steps: many}", "training.steps", "'many'", "valid integer"),
        ("training: {steps: 0}", "training.steps", "0", "greater than 0"),
        (
            "training: {precision: fp8}",
            "training.precision",
            "'fp8'",
            "'auto', 'fp32', 'bf16' or 'fp16'",
        ),
        ("shards: {split: {unseen: 1.5}}", "shards.split.unseen", "1.5", "less than or equal to 1"),
        ("embedding: {kind: magic}", "embedding", "{'kind': 'magic'}", "'set_encoder'"),
        ("name: a/b", "name", "'a/b'", "pattern"),
        ("sampling: {guidance: -1}", "sampling.guidance", "-1", "greater than or equal to 0"),
        ("sampling: {guidance: []}", "sampling.guidance", "[]", "at least 1 item"),
        ("sampling: {guidance: off}", "sampling.guidance", "False", "no boolean"),
        ("sampling: {guidance: [1, yes]}", "sampling.guidance", "[1, True]", "no boolean"),
        ("seed: true", "seed", "True", "no boolean"),
        (
            "embedding: {kind: kme, form: {kind: random, features: on}}",
            "embedding.form.features",
            "True",
            "no boolean",
        ),
        ("training: {learning_rate: .inf}", "training.learning_rate", "inf", "finite number"),
        ("sampling: {guidance: [1, .nan]}", "sampling.guidance.1", "nan", "finite number"),
        ("sampling: {solver: heun, eta: 1}", "sampling.eta", "1", "0, or solver=dpmpp_2m or ddim"),
        ("training: {context: [9, 1]}", "training.context", "[9, 1]", "the smaller first"),
        (
            "shards: {source: {kind: dirichlet, concentration: [9, 3]}}",
            "shards.source.dirichlet.concentration",
            "[9, 3]",
            "the smaller first",
        ),
        ("sampling: {contexts: [1, 1]}", "sampling.contexts", "[1, 1]", "each value once"),
        ("embedding: {width: 50}", "embedding.set_encoder.width", "50", "multiple of 4"),
        ("model: {network: {width: 190}}", "model.network.tokens.groups", "4", "divisor of the"),
        (
            "embedding: {kind: kme, kernel: {kind: sum, terms: [{kind: laplace}], "
            "weights: [1, 2]}}",
            "embedding.kme.kernel.sum.weights",
            "[1, 2]",
            "as many as there are terms",
        ),
        ("evaluation: {permutations: 5}", "evaluation.permutations", "5", "19 or more"),
        ("training: 3", "training", "3", "valid dictionary"),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected(
    tmp_path: Path, text: str, where: str, got: str, expected: str
) -> None:
    message = refusal(tmp_path, text)
    assert re.match(rf"a setting is wrong \| at: {re.escape(where)} (in|\|) ", message)
    assert f"got: {got}" in message
    assert expected in message.partition("expected: ")[2]


@pytest.mark.parametrize("override", ["training.steps", "=3", "steps"])
def test_an_override_of_another_form_is_told(tmp_path: Path, override: str) -> None:
    message = refusal(tmp_path, "", override)
    assert message.startswith("an override is not of the form section.key=value")
    assert f"got: {override}" in message
    assert message.endswith("for example training.steps=500")


@pytest.mark.parametrize("text", ["sampling:", "sampling: null", ""])
def test_an_override_fills_a_section_that_is_left_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert load_config(path, ["sampling.steps=3"]).sampling.steps == 3


def test_an_override_below_a_plain_value_is_told(tmp_path: Path) -> None:
    message = refusal(tmp_path, "seed: 3", "seed.more=1")
    assert message == "an override goes below a plain value | at: seed.more | got: 3"


def test_an_override_that_is_not_yaml_is_told(tmp_path: Path) -> None:
    message = refusal(tmp_path, "", "sampling.contexts=[1,")
    assert message == "an override's value is not YAML | at: sampling.contexts | got: [1,"


def test_a_switch_takes_what_yaml_has_for_one() -> None:
    asked = ["embedding={kind: kme, form: {kind: random, orthogonal: off}}"]
    assert load_config(None, asked).embedding.model_dump()["form"]["orthogonal"] is False


def test_home_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config = load_config(None, ["run=~/runs/one", "shards.path=~/shards"])
    assert run_folder(config) == Path("/home/ada/runs/one")
    assert shards_folder(config) == "/home/ada/shards"


def test_a_config_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("shards: {source: {kind: folder, path: größe}}", encoding="utf-8")
    words = "import sys; from sno_dist import load_config; load_config(sys.argv[1])"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", words, path], env=os.environ | plain, check=True)


def test_a_wrong_override_is_told_by_its_path_without_a_file() -> None:
    with pytest.raises(ConfigError, match=r"^a setting is wrong \| at: training\.steps \| got: -1"):
        load_config(None, ["training.steps=-1"])


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(
        caught.value
    ) == f"the config cannot be read | at: {path} | got: No such file or " + ("directory")


def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the config cannot be read .* got: Is a directory"):
        load_config(tmp_path)


def test_a_file_that_is_not_yaml_is_told_with_the_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, "training: {steps: [1\nseed: 2")
    assert message.startswith("the config is not YAML")
    assert "line 2" in message


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match="the config is not YAML"):
        load_config(tmp_path / "bad.yaml")


def test_a_file_without_sections_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path, "- 1\n- 2").startswith("the config is not a mapping of sections")


def test_folders_follow_the_name_unless_given() -> None:
    config = load_config(None, ["name=abc"])
    assert (run_folder(config), shards_folder(config)) == (Path("runs/abc"), "data_shards/abc")
    config = load_config(None, ["run=/r", "shards.path=https://host/s"])
    assert (run_folder(config), shards_folder(config)) == (Path("/r"), "https://host/s")


def test_differences_name_what_changed_appeared_and_went() -> None:
    before, after = load_config(None, ["seed=1"]), load_config(None, ["embedding.kind=prototype"])
    lines = differences(flatten(before), flatten(after))
    assert "seed: 1 -> 0" in lines
    assert "embedding.kind: set_encoder -> prototype" in lines
    assert "embedding.width: 96 -> (none)" in lines
    assert differences(flatten(before), flatten(before)) == []


def test_the_config_loads_without_torch() -> None:
    code = (
        "import sys; from sno_dist.config.load import load_config, dump; dump(load_config());"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_config_cannot_be_changed() -> None:
    config = load_config()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(config, Config)
