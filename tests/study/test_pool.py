"""Offers of visitors: kept as `ingest` reads them, once each, within limits."""

from pathlib import Path

import numpy as np
import pytest

import study.pool
from asuka_infer.holes import encode_hole_png
from asuka_infer.images import encode_png
from study.pool import Candidate, PoolError, keep_candidate


def candidate(*methods: str, seed: int = 0) -> Candidate:
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    hole = np.zeros((64, 64), dtype=bool)
    hole[20:40, 20:40] = True
    results = {
        method: (encode_png(np.where(hole[..., None], number, photo).astype(np.uint8)), "{}")
        for number, method in enumerate(methods)
    }
    return Candidate(encode_png(photo), encode_hole_png(hole), results)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_an_offer_lies_where_ingest_looks(tmp_path: Path) -> None:
    name = keep_candidate(tmp_path, candidate("telea", "fsr"))
    assert files(tmp_path) == {
        f"images/{name}.png",
        f"holes/{name}.png",
        *(f"results/{method}/{name}.{kind}" for method in ("telea", "fsr") for kind in ("png", "json")),
    }


def test_the_same_offer_is_there_once_and_more_methods_join_it(tmp_path: Path) -> None:
    first = keep_candidate(tmp_path, candidate("telea"))
    assert keep_candidate(tmp_path, candidate("telea")) == first
    assert keep_candidate(tmp_path, candidate("fsr")) == first
    assert len(list((tmp_path / "images").iterdir())) == 1
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"telea", "fsr"}


def test_a_method_cannot_name_another_folder(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"'\.\./elsewhere' is no method's key"):
        keep_candidate(tmp_path / "pool", candidate("../elsewhere"))
    assert files(tmp_path) == set()


def test_a_full_pool_takes_no_new_photo_but_further_methods_of_a_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study.pool, "MOST_CANDIDATES", 1)
    keep_candidate(tmp_path, candidate("telea"))
    keep_candidate(tmp_path, candidate("fsr"))
    with pytest.raises(PoolError, match="1 offers already"):
        keep_candidate(tmp_path, candidate("telea", seed=1))


def test_too_large_an_offer_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.pool, "LARGEST_CANDIDATE", 1000)
    with pytest.raises(PoolError, match="smaller picture"):
        keep_candidate(tmp_path, candidate("telea"))
    assert files(tmp_path) == set()
