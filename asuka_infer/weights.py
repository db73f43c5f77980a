"""Weight files: read without running code, put into a module completely or not at all, written in small shards."""

import argparse
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LARGEST_SHARD_BYTES = 8_900_000
"""Tensors per shard: with its header a file stays below 9 MiB, so that plain git and a Space take it."""

State = Mapping[str, Tensor]
"""Tensors by parameter name."""


class WeightsError(ValueError):
    """Weights that are missing, damaged or made for another module; the message names every misfit."""


def load_completely(module: nn.Module, state: State, *, source: str, may_lack: Collection[str] = ()) -> None:
    """Put `state` into `module`, every tensor of both used and of the right shape, or change nothing.

    Args:
        module: what is filled; tensors take its types and devices (one on "meta" takes the tensors as they are).
        state: tensors by the module's own parameter names.
        source: where they come from, for the message.
        may_lack: names that may be absent because their initial value means the same.

    Raises:
        WeightsError: naming every missing, unexpected and mis-shaped key.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state and key not in may_lack]
    unexpected = [key for key in state if key not in own]
    misshaped = [
        f"{key} ({tuple(state[key].shape)} instead of {tuple(own[key].shape)})"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "mis-shaped": misshaped}
    told = "; ".join(f"{len(keys)} {what}: {', '.join(keys)}" for what, keys in problems.items() if keys)
    if told:
        raise WeightsError(
            f"{source} does not fit {type(module).__name__}: {told}. Use the file made for this module and its sizes."
        )
    kept = {key: own[key] for key in may_lack if key in own}
    module.load_state_dict({**kept, **state}, assign=any(tensor.is_meta for tensor in own.values()))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file or of a folder of shards, without running anything that the file contains.

    Reads safetensors, folders holding `*.safetensors` shards of one state, and PyTorch pickles (weights only; what
    training scripts add, an optimizer's state and their arguments, is left out).

    Raises:
        WeightsError: when there is no such file or it cannot be read safely.
    """
    if path.is_dir():
        return _read_shards(sorted(path.glob("*.safetensors")), path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}; check the path or fetch it first.")
    if path.suffix == ".safetensors":
        return _read_shards([path], path)
    return _tensors_of(_unpickle(path), path)


def read_tensor(path: Path) -> Tensor:
    """The one tensor that a PyTorch file holds.

    Raises:
        WeightsError: when there is no such file or it holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}; check the path or fetch it first.")
    content = _unpickle(path)
    if not isinstance(content, Tensor):
        raise WeightsError(f"{path} holds {type(content).__name__}, but one tensor is needed.")
    return content


def save_shards(state: State, folder: Path, stem: str, *, largest: int = LARGEST_SHARD_BYTES) -> dict[str, str]:
    """Write `state` as safetensors `stem.safetensors`, or `stem-00001-of-0000N.safetensors`; returns name -> sha256.

    Earlier shards of the same stem are removed, so that a folder never holds two versions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in shard_files(folder, stem):
        old.unlink()
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    split = split_torch_state_dict_into_shards(
        tensors, filename_pattern=f"{stem}{{suffix}}.safetensors", max_shard_size=largest
    )
    for name, keys in split.filename_to_tensors.items():
        save_file({key: tensors[key] for key in keys}, folder / name, metadata={"format": "pt"})
    return {name: sha256_of(folder / name) for name in split.filename_to_tensors}


def shard_files(folder: Path, stem: str) -> list[Path]:
    """The files that `save_shards` wrote for `stem`, in order."""
    return sorted([*folder.glob(f"{stem}.safetensors"), *folder.glob(f"{stem}-?????-of-?????.safetensors")])


def read_shards(folder: Path, stem: str) -> dict[str, Tensor]:
    """The state that `save_shards` wrote.

    Raises:
        WeightsError: when there is none, or a shard is missing.
    """
    files = shard_files(folder, stem)
    if files and "-of-" in files[0].stem and len(files) != int(files[0].stem.rsplit("-", 1)[1]):
        raise WeightsError(f"{folder} holds only {len(files)} shards of {files[0].name}; copy the folder again.")
    return _read_shards(files, folder / stem)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WeightsError: when there is no such file or it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON ({error}); copy the folder again.") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds {type(value).__name__}, but an object is needed; copy the folder again.")
    return cast("dict[str, Any]", value)


def _read_shards(files: list[Path], source: Path) -> dict[str, Tensor]:
    if not files:
        raise WeightsError(f"There are no safetensors files for {source}; check the path or fetch them first.")
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            part = load_file(file)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file} is not readable as safetensors ({error}); fetch it again.") from error
        twice = state.keys() & part.keys()
        if twice:
            raise WeightsError(f"{source} holds these tensors twice: {', '.join(sorted(twice))}; fetch it again.")
        state |= part
    return state


def _unpickle(path: Path) -> object:
    try:
        # MAE's training scripts store their argparse.Namespace beside the weights; it holds plain values only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read without running code from it ({type(error).__name__}: {str(error)[:200]}); "
            "convert it to safetensors on a machine you can spare."
        ) from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint: itself, or its entry "model" (MAE) or "state_dict" (Lightning)."""
    if isinstance(content, Mapping):
        content = cast("Mapping[str, object]", content)
        for entry in ("model", "state_dict"):
            if isinstance(content.get(entry), Mapping):
                content = cast("Mapping[str, object]", content[entry])
                break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return dict(cast("Mapping[str, Tensor]", content))
    raise WeightsError(f"{path} holds no state dict; expected tensors by name, or such under 'model' or 'state_dict'.")
