from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from sno_dist.config.load import load_config
from sno_dist.errors import ConfigError
from sno_dist.runtime.accelerator import check_launcher, start
from sno_dist.shards.build import build_shards

FSDP2 = Path(__file__).resolve().parents[3] / "launch/accelerate/fsdp2.yaml"


def launched(patch: pytest.MonkeyPatch, *options: str) -> None:
    """Put into the environment what `accelerate launch` would."""
    words = ["--config_file", str(FSDP2), "--num_processes", "2", *options, "program.py"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    for name, value in prepare_multi_gpu_env(arguments).items():
        patch.setenv(name, value)


def test_the_fully_sharded_launch_file_asks_for_what_the_engine_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched(monkeypatch)
    check_launcher("fp32")


@pytest.mark.parametrize(
    ("option", "asked", "done"),
    [
        ("version", "1", "2"),
        ("sharding_strategy", "HYBRID_SHARD", "full_shard"),
        ("reshard_after_forward", "false", "true"),
        ("forward_prefetch", "true", "false"),
        ("offload_params", "true", "false"),
        ("activation_checkpointing", "true", "false"),
        ("auto_wrap_policy", "TRANSFORMER_BASED_WRAP", "no_wrap"),
        ("state_dict_type", "SHARDED_STATE_DICT", "full_state_dict"),
    ],
)
def test_an_fsdp_option_that_the_engine_would_leave_out_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, option: str, asked: str, done: str
) -> None:
    launched(monkeypatch, f"--fsdp_{option}", asked)
    with pytest.raises(ConfigError) as caught:
        check_launcher("fp32")
    assert f"at: accelerate --fsdp_{option} | got: {asked} | expected: {done}" in str(caught.value)


@pytest.mark.parametrize("enabled", [True, "auto", False])
def test_a_deepspeed_file_is_read_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: object
) -> None:
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}, "bf16": {"enabled": enabled}}))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    if enabled is True:
        with pytest.raises(ConfigError, match="at: bf16 against training.precision"):
            check_launcher("fp32")
    else:
        check_launcher("fp32")


@pytest.mark.parametrize("key", ["train_batch_size", "train_micro_batch_size_per_gpu"])
@pytest.mark.parametrize("value", [64, "auto"])
def test_a_batch_size_of_deepspeed_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object
) -> None:
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}, key: value}))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    if value == "auto":
        check_launcher("fp32")
    else:
        with pytest.raises(ConfigError, match=rf"at: {key} against training\..* got: 64"):
            check_launcher("fp32")


def test_a_stage_that_python_calls_runs_in_any_thread_and_leaves_signals_alone(
    tmp_path: Path,
) -> None:
    start.cache_clear()
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)]
    config = load_config(
        None,
        [
            "shards.source={kind: gaussian_mixture, seen: 3, unseen: 1, model: 8, reference: 4}",
            f"shards.path={tmp_path / 'shards'}",
            "model.autoencoder={kind: identity}",
        ],
    )
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(build_shards, config).result().entries) == 4
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)] == before
