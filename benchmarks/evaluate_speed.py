"""Throughput and memory of `evaluate` on synthetic pairs: python benchmarks/evaluate_speed.py [--pairs 5000].

Pictures are noise over a gradient, PNG on disk, one method; SqueezeNet with random weights unless --weights names real
ones. Told are pairs per second of measuring everything, of a second run that finds everything measured, and the peak
memory of the process and of its workers.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: docs/decisions/0004
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torchvision.models import squeezenet1_0

from asuka_infer.holes import encode_hole_png
from asuka_infer.images import encode_png

ROOT = Path(__file__).resolve().parents[1]
SEED = 0


def main() -> None:
    """Write the pairs, run the command twice, print the figures."""
    said = argparse.ArgumentParser(description=__doc__)
    said.add_argument("--pairs", type=int, default=5000)
    said.add_argument("--size", type=int, default=256)
    said.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    said.add_argument("--weights", type=Path)
    given = said.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write_pairs(folder, given.pairs, given.size)
        weights = given.weights or _random_weights(folder)
        print(f"{given.pairs} pairs of {given.size} px, {given.workers} workers")
        for what in ("measuring", "finding everything measured"):
            seconds = _run(folder, weights, given.workers)
            print(f"{what}: {seconds:.0f} s, {given.pairs / seconds:.1f} pairs/s")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        store = (folder / "out/measured.sqlite").stat().st_size / 2**20
        print(f"peak memory of the largest process: {peak:.0f} MiB; store: {store:.0f} MiB")


def _write_pairs(folder: Path, pairs: int, size: int) -> None:
    for name in ("images", "holes", "results/method"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    slope = np.linspace(40, 215, size)[None, :, None]
    for number in range(pairs):
        truth = np.clip(slope + rng.normal(0, 12, (size, size, 3)), 0, 255).astype(np.uint8)
        hole = np.zeros((size, size), bool)
        top, left = rng.integers(0, size // 2, 2)
        hole[top : top + size // 3, left : left + size // 3] = True
        result = truth.copy()
        result[hole] = truth[hole].mean(0)
        for name, data in {
            "images": encode_png(truth),
            "holes": encode_hole_png(hole),
            "results/method": encode_png(result),
        }.items():
            (folder / name / f"{number:05d}.png").write_bytes(data)


def _random_weights(folder: Path) -> Path:
    torch.manual_seed(SEED)
    (folder / "weights").mkdir()
    torch.save(squeezenet1_0(weights=None).state_dict(), folder / "weights/squeezenet1_0_random.pth")
    return folder / "weights"


def _run(folder: Path, weights: Path, workers: int) -> float:
    words = [f"--{name}={folder / name}" for name in ("results", "images", "holes", "out")]
    words += ["--quiet", f"--weights={weights}", f"--workers={workers}"]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "asuka_infer", "evaluate", *words],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
