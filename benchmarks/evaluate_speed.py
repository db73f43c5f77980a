"""Throughput and memory of `evaluate` on synthetic pairs: python benchmarks/evaluate_speed.py [--pairs 500,5000].

Pictures are noise over a gradient, PNG on disk, one method; SqueezeNet with random weights unless --weights names real
ones (the time is the same). Told are pairs per second of measuring everything and of a second run that finds everything
measured, and the most memory that the command and its workers held together, sampled: all of it, and what is theirs
alone (anonymous), without the files that are mapped. With --folder the pictures stay for the next time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: docs/decisions/0004
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from asuka_infer.holes import encode_hole_png
from asuka_infer.images import encode_png

ROOT = Path(__file__).resolve().parents[1]
SEED = 0

SAMPLED_EVERY = 0.2
"""Seconds between two looks at the memory."""

PLACES2 = 36_500
"""Pictures of the largest set that published tables use: what the last line extrapolates to."""


@dataclass
class Memory:
    """The most that was held at once, in MiB."""

    everything: float = 0.0
    anonymous: float = 0.0


def main() -> None:
    """Write the pairs, run the command twice for each number of them, print the figures."""
    said = argparse.ArgumentParser(description=__doc__)
    said.add_argument("--pairs", default="500,5000", help="how many, several with commas")
    said.add_argument("--size", type=int, default=256)
    said.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    said.add_argument("--weights", type=Path)
    said.add_argument("--folder", type=Path, help="where pictures are kept (default: a temporary one)")
    said.add_argument("--write-only", action="store_true", help="make the pictures and stop")
    given = said.parse_args()
    counts = [int(word) for word in given.pairs.split(",")]
    with tempfile.TemporaryDirectory() as place:
        folder = given.folder or Path(place)
        written = folder / f"pairs-{given.size}"
        _write_pairs(written, max(counts), given.size)
        if given.write_only:
            return
        weights = given.weights or _random_weights(Path(place))
        for pairs in counts:
            _measure(written, pairs, weights, given.workers, given.size)


def _measure(written: Path, pairs: int, weights: Path, workers: int, size: int) -> None:
    print(f"{pairs} pairs of {size} px, {workers} workers", flush=True)
    with tempfile.TemporaryDirectory(dir=written) as place:
        folder = _first(written, pairs, Path(place))
        for what in ("measuring", "finding everything measured"):
            seconds, memory = _run(folder, weights, workers)
            print(f"  {what}: {seconds:.1f} s, {pairs / seconds:.1f} pairs/s", end="; ")
            print(f"{PLACES2 / pairs * seconds / 60:.0f} min for {PLACES2}", end="; ")
            print(f"{memory.everything:.0f} MiB in all processes, {memory.anonymous:.0f} theirs alone", flush=True)
        print(f"  store: {(folder / 'out/measured.sqlite').stat().st_size / 2**20:.1f} MiB", flush=True)


def _write_pairs(folder: Path, pairs: int, size: int) -> None:
    """Pictures that are not there yet."""
    for name in ("images", "holes", "results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(pairs) if not (folder / f"results/{number:05d}.png").is_file()]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(partial(_write_pair, folder, size), missing, chunksize=50))


def _write_pair(folder: Path, size: int, number: int) -> None:
    """One truth, its hole and a result; they depend on the number alone."""
    rng = np.random.default_rng([SEED, number])
    slope = np.linspace(40, 215, size)[None, :, None]
    truth = np.clip(slope + rng.normal(0, 12, (size, size, 3)), 0, 255).astype(np.uint8)
    hole = np.zeros((size, size), bool)
    top, left = rng.integers(0, size // 2, 2)
    hole[top : top + size // 3, left : left + size // 3] = True
    result = truth.copy()
    result[hole] = truth[hole].mean(0)
    pictures = {"images": encode_png(truth), "holes": encode_hole_png(hole), "results": encode_png(result)}
    for name, data in pictures.items():
        (folder / name / f"{number:05d}.png").write_bytes(data)


def _first(written: Path, pairs: int, folder: Path) -> Path:
    """Links to the first pairs, laid out as the command reads them."""
    for name, place in {"images": "images", "holes": "holes", "results": "results/method"}.items():
        (folder / place).mkdir(parents=True)
        for number in range(pairs):
            (folder / place / f"{number:05d}.png").hardlink_to(written / name / f"{number:05d}.png")
    return folder


def _random_weights(folder: Path) -> Path:
    import torch  # noqa: PLC0415 - not needed to write pictures
    from torchvision.models import squeezenet1_0  # noqa: PLC0415 - same

    torch.manual_seed(SEED)
    (folder / "weights").mkdir()
    torch.save(squeezenet1_0(weights=None).state_dict(), folder / "weights/squeezenet1_0_random.pth")
    return folder / "weights"


def _run(folder: Path, weights: Path, workers: int) -> tuple[float, Memory]:
    words = [f"--{name}={folder / name}" for name in ("results", "images", "holes", "out")]
    words += ["--quiet", f"--weights={weights}", f"--workers={workers}"]
    memory, over = Memory(), Event()
    began = time.perf_counter()
    command = subprocess.Popen(
        [sys.executable, "-m", "asuka_infer", "evaluate", *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watcher = Thread(target=_watch, args=(command.pid, memory, over))
    watcher.start()
    code = command.wait()
    seconds = time.perf_counter() - began
    over.set()
    watcher.join()
    if code != 0:
        raise SystemExit(f"evaluate ended with {code}; run it by hand in {folder} to see why.")
    return seconds, memory


def _watch(pid: int, memory: Memory, over: Event) -> None:
    while not over.wait(SAMPLED_EVERY):
        held = [_held(each) for each in _family(pid)]
        memory.everything = max(memory.everything, sum(everything for everything, _ in held))
        memory.anonymous = max(memory.anonymous, sum(anonymous for _, anonymous in held))


def _family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:  # it has just ended
        return []
    return [pid, *(each for child in children for each in _family(int(child)))]


def _held(pid: int) -> tuple[float, float]:
    """MiB in memory, and those of it that are no file's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:  # it has just ended
        return 0.0, 0.0
    told = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    # A process that is just ending has neither.
    everything, anonymous = (int(told[name][0]) / 1024 if name in told else 0.0 for name in ("VmRSS", "RssAnon"))
    return everything, anonymous


if __name__ == "__main__":
    main()
