"""Milliseconds that `import asuka_infer` costs beyond numpy: python benchmarks/import_cost.py."""

import statistics
import subprocess
import sys
from pathlib import Path

RUNS = 15
PROGRAM = "import numpy, time; began = time.perf_counter(); import asuka_infer; print(time.perf_counter() - began)"


def main() -> None:
    """Print the fastest, the median and the slowest of fresh processes."""
    root = Path(__file__).resolve().parents[1]
    seconds = sorted(
        float(
            subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True).stdout
        )
        for _ in range(RUNS)
    )
    low, middle, high = (1000 * value for value in (seconds[0], statistics.median(seconds), seconds[-1]))
    print(f"import asuka_infer beyond numpy, {RUNS} runs: min {low:.1f} ms, median {middle:.1f} ms, max {high:.1f} ms")


if __name__ == "__main__":
    main()
