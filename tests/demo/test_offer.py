"""What visitors offer lies where a study takes its pictures from."""

from pathlib import Path

import numpy as np
import pytest

from asuka_infer.batch import pair_up
from asuka_infer.holes import read_hole
from asuka_infer.images import encode_png, pixel_sha256, read_image
from asuka_infer.run_record import RunRecord
from demo.engine import DemoEngine, Finished, Job, Painted
from demo.offer import Offer, OfferedResult, keep_offers
from tests.demo.painting import photo, save


def offer_of(folder: Path, *keys: str, seed: int = 3) -> Offer:
    engine = DemoEngine()
    picture = engine.open_photo(Painted(photo=save(photo(80, 60), folder / "holiday in Rome.png")))
    hole = np.zeros((60, 80), np.bool_)
    hole[10:30, 20:50] = True
    events = engine.run("me", picture, hole, [Job(key, seed) for key in keys])
    results = tuple(OfferedResult(event.png, event.record) for event in events if isinstance(event, Finished))
    return Offer(encode_png(picture.pixels), hole, results)


def test_an_offer_is_kept_as_a_study_takes_pictures_in(tmp_path: Path) -> None:
    offer = offer_of(tmp_path, "telea", "navier-stokes")
    pool = tmp_path / "pool"
    assert "Thank you" in keep_offers(pool)(offer)
    [pair] = pair_up(pool / "images", pool / "holes").pairs
    assert "Rome" not in pair.stem
    assert np.array_equal(read_hole(pool / "holes" / f"{pair.stem}.png", (60, 80)), offer.hole)
    for key in ("telea", "navier-stokes"):
        result = pool / "results" / key / f"{pair.stem}.png"
        record = RunRecord.from_json(result.with_suffix(".json").read_text(encoding="utf-8"))
        assert (record.method, record.seed) == (key, 3)
        assert pixel_sha256(read_image(result).pixels) == record.result_sha256
        assert pixel_sha256(read_image(pool / "images" / f"{pair.stem}.png").pixels) == record.image_sha256


def test_the_same_offer_twice_is_one_and_another_seed_is_another(tmp_path: Path) -> None:
    keep = keep_offers(tmp_path / "pool")
    for seed in (3, 3, 4):
        keep(offer_of(tmp_path, "telea", "navier-stokes", seed=seed))
    assert len(list((tmp_path / "pool" / "images").iterdir())) == 2


@pytest.mark.parametrize("keys", [("telea",), ("telea", "telea")])
def test_one_method_alone_is_no_offer(tmp_path: Path, keys: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="run two or more"):
        keep_offers(tmp_path / "pool")(offer_of(tmp_path, *keys))
    assert not (tmp_path / "pool").exists()


def test_a_full_pool_takes_nothing_new_and_loses_nothing(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    keep = keep_offers(pool, most_offers=2)
    offers = [offer_of(tmp_path, "telea", "navier-stokes", seed=seed) for seed in (1, 2, 3)]
    keep(offers[0])
    keep(offers[1])
    before = sorted(path.name for path in pool.rglob("*.png"))
    with pytest.raises(ValueError, match=r"2 offers .* wait to be looked through, and at most 2 .*another day"):
        keep(offers[2])
    assert sorted(path.name for path in pool.rglob("*.png")) == before
    assert "Thank you" in keep(offers[1])  # the same again takes no room
    (pool / "images" / before[0]).unlink()  # the operator has looked at it
    assert "Thank you" in keep(offers[2])


def test_a_pool_takes_no_more_disk_than_it_may(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    first, second = (offer_of(tmp_path, "telea", "navier-stokes", seed=seed) for seed in (1, 2))
    keep_offers(pool)(first)
    taken = sum(path.stat().st_size for path in pool.rglob("*") if path.is_file())
    with pytest.raises(ValueError, match="The pool is full: 1 offers"):
        keep_offers(pool, most_bytes=2 * taken - 1000)(second)
    assert "Thank you" in keep_offers(pool, most_bytes=2 * taken + 1000)(second)
