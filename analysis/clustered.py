"""Standard errors of answers that share people and images: the cluster-robust sandwich, one- and two-way."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from analysis.votes import Integers

Floats = NDArray[np.floating]

Clustering = Literal["naive", "participant", "image", "two-way"]
CLUSTERINGS: tuple[Clustering, ...] = ("naive", "participant", "image", "two-way")

FEWEST_CLUSTERS = 2
"""One cluster says nothing about how clusters vary."""

NEGATIVE_TWO_WAY = "the two-way variance came out negative; the larger one-way variance stands in"


@dataclass(frozen=True)
class Spread:
    """How far summed scores vary.

    Attributes:
        variance: (d,) of each sum, or (d, d) of all together; None when there are too few clusters to tell.
        degrees_of_freedom: clusters - 1; for two-way clustering of the smaller side.
        clusters: how many people, images or, naive, votes.
        note: what had to be done or cannot be known, empty when nothing.
    """

    variance: Floats | None
    degrees_of_freedom: int
    clusters: int
    note: str = ""


class Clusters:
    """Which rows share a person, an image, or both; made once and asked for many sums of scores.

    Each cluster's scores are summed, and G/(G-1) times the sum of squares is taken (no further small-sample factor).
    Two-way: V_participant + V_image - V_both (Cameron, Gelbach and Miller 2011). That difference can come out
    negative; then the larger one-way variance stands in, and the note says so.
    """

    def __init__(self, participant: Integers, image: Integers) -> None:
        self._participant = participant
        self._image = image

    def variances(self, scores: Floats, clustering: Clustering) -> Spread:
        """The (d,) variances of the column sums of (n, d) scores that average zero."""
        return self._spread(scores, clustering, together=False)

    def covariance(self, scores: Floats, clustering: Clustering) -> Spread:
        """The (d, d) covariance of the column sums of (n, d) scores that average zero."""
        return self._spread(scores, clustering, together=True)

    def count(self, clustering: Clustering) -> int:
        """How many clusters there are; for two-way clustering the smaller of people and images."""
        people, images = _groups(self._people), _groups(self._images)
        counts = {"naive": self._participant.size, "participant": people, "image": images}
        return counts.get(clustering, min(people, images))

    @cached_property
    def _people(self) -> sparse.csr_array:
        return _indicator(self._participant)

    @cached_property
    def _images(self) -> sparse.csr_array:
        return _indicator(self._image)

    @cached_property
    def _both(self) -> sparse.csr_array:
        return _indicator(self._participant.astype(np.int64) * (int(self._image.max(initial=0)) + 1) + self._image)

    def _spread(self, scores: Floats, clustering: Clustering, *, together: bool) -> Spread:
        clusters = self.count(clustering)
        if clusters < FEWEST_CLUSTERS:
            return Spread(None, 0, clusters, self._too_few(clustering))
        if clustering == "naive":
            variance, note = _scaled(scores, together=together), ""
        elif clustering == "two-way":
            variance, note = self._two_way(scores, together=together)
        else:
            groups = self._people if clustering == "participant" else self._images
            variance, note = _scaled(groups @ scores, together=together), ""
        return Spread(variance, clusters - 1, clusters, note)

    def _two_way(self, scores: Floats, *, together: bool) -> tuple[Floats, str]:
        by_person, by_image, by_both = (
            _scaled(groups @ scores, together=together) for groups in (self._people, self._images, self._both)
        )
        variance = by_person + by_image - by_both
        if together:
            if (np.diag(variance) >= 0).all():
                return variance, ""
            return max(by_person, by_image, key=lambda matrix: float(np.trace(matrix))), NEGATIVE_TWO_WAY
        larger = np.maximum(by_person, by_image)
        impossible = (variance <= 0) & (larger > 0)
        return np.where(impossible, larger, variance), NEGATIVE_TWO_WAY if impossible.any() else ""

    def _too_few(self, clustering: Clustering) -> str:
        if clustering == "naive":
            return f"{self._participant.size} votes are too few for an interval"
        unit = "participants" if clustering == "participant" or _groups(self._people) < FEWEST_CLUSTERS else "images"
        return f"fewer than {FEWEST_CLUSTERS} {unit}: how much {unit} differ cannot be estimated"


def _groups(indicator: sparse.csr_array) -> int:
    return int(indicator.indptr.size) - 1


def _indicator(codes: Integers) -> sparse.csr_array:
    """(clusters, n) with a one where a row belongs to a cluster; empty clusters are left out."""
    _, dense = np.unique(codes, return_inverse=True)
    clusters = int(dense.max(initial=-1)) + 1
    return sparse.csr_array((np.ones(codes.size), (dense, np.arange(codes.size))), (clusters, codes.size))


def _scaled(sums: Floats, *, together: bool) -> Floats:
    groups = sums.shape[0]
    factor = groups / (groups - 1)
    return factor * (sums.T @ sums) if together else factor * np.square(sums).sum(axis=0)
