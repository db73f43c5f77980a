"""Where the embedded family's files lie and what they say of themselves. No torch here: looking must cost nothing."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMITTED = Path(__file__).parent / "mini"
"""The committed weights."""

FOLDER_VARIABLE = "ASUKA_MINI_WEIGHTS"
"""The environment variable that names another folder of the family's weights: one's own, say, after fine-tuning."""

MANIFEST = "mini.json"
"""The file beside the shards: sizes, sha256 of every file, and what the training wants to say."""

PROMPT = "prompt.safetensors"
"""Learned tokens (the paper's SD-prompt); their file names the UNet that they were learned for."""

TENSOR = "tokens"
"""The name of its one tensor."""

LEARNED_FOR = "learned_for"
"""The entry of its metadata that names the UNet."""


def embedded_folder() -> Path:
    """The folder of weights that the embedded family runs on here."""
    return Path(os.environ.get(FOLDER_VARIABLE) or COMMITTED)


def prompt_of(folder: Path) -> Path | None:
    """The learned tokens that fit the model in a folder: its own, or the committed ones where its UNet is theirs."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return None
    unet = unet_of(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    files = [place / PROMPT for place in (folder, COMMITTED) if (place / PROMPT).is_file()]
    return next((file for file in files if told_in(file).get(LEARNED_FOR) == unet), None)


def told_in(path: Path) -> Mapping[str, str]:
    """What a safetensors file says of itself; nothing where it says nothing. Reads its first lines alone."""
    with path.open("rb") as file:
        header: Mapping[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header.get("__metadata__", {})


def unet_of(files: Mapping[str, str]) -> str:
    """One digest of the UNet's shards among a model's files (sha256 by name)."""
    shards = sorted(f"{name} {digest}" for name, digest in files.items() if name.startswith("unet"))
    return hashlib.sha256("\n".join(shards).encode()).hexdigest()
