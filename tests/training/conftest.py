"""A tiny bench: drawn photographs, one drawn silhouette, the smallest model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data import Supply, gather_holes
from training.masks import Silhouettes
from training.photographs import gather_photographs
from training.presets import MODELS, Bench

HOLE_SIZES = (32, 64)


@pytest.fixture(scope="session")
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of two colours each, split at a slanted line."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64] / 64
    for number in range(12):
        side = (rows * rng.normal() + columns * rng.normal() > rng.normal() / 4)[..., None]
        colours = rng.integers(0, 256, (2, 3))
        Image.fromarray(np.where(side, *colours).astype(np.uint8)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def silhouettes() -> Silhouettes:
    """One ellipse."""
    rows, columns = np.mgrid[:64, :64] - 32
    return Silhouettes(np.packbits(rows**2 + 3 * columns**2 < 600)[None], 64)


@pytest.fixture(scope="session")
def bench(pictures_folder: Path, silhouettes: Silhouettes, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """What the tiny preset's stages are made from, without a perceptual network."""
    torch.set_num_threads(2)
    cache = tmp_path_factory.mktemp("cache")
    photographs = gather_photographs(pictures_folder, cache, side=64)
    holes = {size: gather_holes(cache, silhouettes, count=32, seed=0, size=size) for size in HOLE_SIZES}
    return Bench(MODELS["tiny"], Supply(photographs, holes, torch.device("cpu")), None)
