"""Weight files: all of it or nothing, no code run, shards whole."""

import argparse
import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from asuka_infer.weights import (
    LARGEST_SHARD_BYTES,
    WeightsError,
    load_completely,
    read_json,
    read_shards,
    read_state,
    save_shards,
)


class Explosive:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("__import__('os').environ.__setitem__('EXPLODED', '1')",))


def test_every_misfit_is_named_at_once_and_nothing_is_loaded() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {**before, "0.weight": torch.zeros(9, 9), "extra": torch.zeros(1)}
    del state["1.bias"]
    with pytest.raises(WeightsError) as caught:
        load_completely(module, state, source="file.pt")
    told = str(caught.value)
    assert "1 missing: 1.bias" in told
    assert "1 unexpected: extra" in told
    assert "0.weight ((9, 9) instead of (3, 2))" in told
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_what_may_lack_keeps_its_value_and_nothing_else_may() -> None:
    module = nn.Linear(2, 2)
    bias = module.bias.clone()
    load_completely(module, {"weight": torch.ones(2, 2)}, source="f", may_lack=["bias"])
    assert torch.equal(module.bias, bias)
    assert torch.equal(module.weight, torch.ones(2, 2))
    with pytest.raises(WeightsError, match="1 missing: weight"):
        load_completely(module, {"bias": torch.ones(2)}, source="f", may_lack=["bias"])


def test_a_module_without_memory_takes_the_tensors_as_they_are() -> None:
    with torch.device("meta"):
        module = nn.Linear(2, 2)
    load_completely(module, {"weight": torch.ones(2, 2).half(), "bias": torch.ones(2).half()}, source="f")
    assert module.weight.dtype == torch.float16


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPLODED", raising=False)
    torch.save({"model": {"a": torch.zeros(1)}, "bomb": Explosive()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="without running code"):
        read_state(tmp_path / "bad.pth")
    import os  # noqa: PLC0415 - to look at what the bomb would have set

    assert "EXPLODED" not in os.environ


@pytest.mark.parametrize("entry", ["model", "state_dict", None])
def test_the_weights_are_found_where_training_scripts_put_them(entry: str | None, tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0)}
    content = state if entry is None else {entry: state, "epoch": 3, "args": argparse.Namespace(batch=2)}
    torch.save(content, tmp_path / "file.pth")
    assert torch.equal(read_state(tmp_path / "file.pth")["a"], state["a"])


def test_the_old_pickle_format_is_read_too(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_state(tmp_path / "old.pth")["a"], torch.ones(2))


@pytest.mark.parametrize("name", ["absent.pth", "text.pth", "text.safetensors", "list.pth", "number.pth"])
def test_what_is_no_weight_file_is_refused_in_one_sentence_naming_it(name: str, tmp_path: Path) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1")
    if name.startswith("list"):
        torch.save([torch.zeros(1)], tmp_path / name)
    if name.startswith("number"):
        (tmp_path / name).write_bytes(pickle.dumps(3))
    with pytest.raises(WeightsError, match=name):
        read_state(tmp_path / name)


def test_shards_stay_below_what_is_asked_and_come_back(tmp_path: Path) -> None:
    state = {f"layer.{i}": torch.randn(100, 70) for i in range(8)}
    told = save_shards(state, tmp_path, "unet", largest=60_000)
    assert len(told) == 4
    assert all((tmp_path / name).stat().st_size < 61_000 for name in told)
    assert LARGEST_SHARD_BYTES < 9 * 2**20
    again = read_shards(tmp_path, "unet")
    assert all(torch.equal(again[key], value) for key, value in state.items())
    assert told == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in told}


def test_a_second_save_leaves_no_shard_of_the_first(tmp_path: Path) -> None:
    save_shards({f"{i}": torch.zeros(100, 70) for i in range(8)}, tmp_path, "unet", largest=60_000)
    save_shards({"a": torch.zeros(1)}, tmp_path, "unet_other")
    save_shards({"a": torch.zeros(1)}, tmp_path, "unet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unet.safetensors", "unet_other.safetensors"]


def test_a_lost_shard_is_noticed(tmp_path: Path) -> None:
    told = save_shards({f"{i}": torch.zeros(100, 70) for i in range(8)}, tmp_path, "unet", largest=60_000)
    (tmp_path / max(told)).unlink()
    with pytest.raises(WeightsError, match="holds only"):
        read_shards(tmp_path, "unet")


def test_broken_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(WeightsError, match="list"):
        read_json(tmp_path / "a.json")
    with pytest.raises(WeightsError, match="cannot be read as JSON"):
        read_json(tmp_path / "b.json")
