"""Coverage of the four 95 % intervals over simulated studies with known truth, printed as a Markdown table.

`python benchmarks/analysis_coverage.py [--studies 4000]`: 100 people, 40 images, best of nine, the share of one method.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from analysis.clustered import CLUSTERINGS
from analysis.rates import rate_interval
from analysis.simulate import PAPER_COUNTS, Truth, expected_share

PEOPLE, IMAGES = 100, 40
SPREADS = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0))
DRAWS = 400_000


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=4000)
    studies = parser.parse_args().studies
    print(
        f"{studies} studies per line; standard error of a coverage {100 * np.sqrt(0.05 * 0.95 / studies):.2f} points\n"
    )
    print("| spread people / images | true share | SD of the estimate | naive | participant | image | two-way |")
    print("|---|---|---|---|---|---|---|")
    for people, images in SPREADS:
        share, deviation, covered = coverage(people, images, studies)
        cells = " | ".join(f"{100 * covered[name]:.1f}" for name in CLUSTERINGS)
        print(f"| {people} / {images} | {100 * share:.2f} | {100 * deviation:.2f} | {cells} |", flush=True)


def coverage(people_sd: float, image_sd: float, studies: int) -> tuple[float, float, dict[str, float]]:
    """The true share, the spread of its estimate, and how often each interval held the truth."""
    counts = PAPER_COUNTS["context_stability"]
    worth = np.log(np.array(list(counts.values()), dtype=float))
    methods = list(counts)
    truth = Truth(dict(zip(methods, worth.tolist(), strict=True)), people_sd, image_sd)
    share = expected_share(truth, "ASUKA", [name for name in methods if name != "ASUKA"], DRAWS, seed=1)
    participant, image = np.repeat(np.arange(PEOPLE), IMAGES), np.tile(np.arange(IMAGES), PEOPLE)
    covered, estimates = dict.fromkeys(CLUSTERINGS, 0), np.zeros(studies)
    for number in range(studies):
        rng = np.random.default_rng([number, int(10 * people_sd), int(10 * image_sd)])
        taste = worth + rng.normal(0, people_sd, (PEOPLE, 1, 9)) + rng.normal(0, image_sd, (1, IMAGES, 9))
        won = ((taste + rng.gumbel(size=(PEOPLE, IMAGES, 9))).argmax(axis=2) == methods.index("ASUKA")).ravel()
        estimates[number] = won.mean()
        for name in CLUSTERINGS:
            interval = rate_interval(won.astype(float), participant, image, name)
            covered[name] += (interval.low or 0.0) <= share <= (interval.high or 1.0)
    return share, float(estimates.std()), {name: hits / studies for name, hits in covered.items()}


if __name__ == "__main__":
    main()
