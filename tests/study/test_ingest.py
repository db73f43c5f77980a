"""Folders of pictures become a study exactly, or every missing and odd file is named."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from asuka_infer.holes import read_hole, write_hole_png
from asuka_infer.images import encode_png, pixel_sha256, read_image, write_atomically
from db import models
from db.engine import Database
from study.blinding import telling_chunks
from study.definition import StudyDefinition
from study.ingest import Ingested, IngestError, ingest_study, show_hole
from tests.study.stage import METHODS, START, Folders, definition, draw_study, save_result, seeded_bytes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    draw_study(root, images=6, size=24)
    return root


@pytest.fixture
def fresh(tmp_path: Path, drawn: Path) -> Folders:
    root = shutil.copytree(drawn, tmp_path / "fresh")
    return Folders(root / "images", root / "holes", root / "results")


def bring(database: Database, folders: Folders, study: StudyDefinition | None = None) -> Ingested:
    return ingest_study(
        database,
        study or definition(),
        folders.images,
        folders.holes,
        folders.results,
        now=START,
        random_bytes=seeded_bytes(),
    )


def count(database: Database, model: type[models.Base]) -> int:
    with database.read() as db:
        return db.execute(select(func.count()).select_from(model)).scalar_one()


def problems(database: Database, folders: Folders, study: StudyDefinition | None = None) -> str:
    with pytest.raises(IngestError) as caught:
        bring(database, folders, study)
    assert count(database, models.StudyVersion) == count(database, models.Blob) == 0
    return str(caught.value)


def test_every_picture_is_stored_once_lossless_and_without_metadata(database: Database, fresh: Folders) -> None:
    stored = bring(database, fresh)
    assert (stored.images, stored.methods, stored.version, stored.created) == (6, 3, 1, True)
    with database.read() as db:
        renditions = db.execute(
            select(models.Image.key, models.Method.key, models.Rendition.pixel_sha256, models.Blob.content)
            .select_from(models.Rendition)
            .join(models.Image, models.Image.id == models.Rendition.image_id)
            .join(models.Method, models.Method.id == models.Rendition.method_id, isouter=True)
            .join(models.Blob, models.Blob.id == models.Rendition.blob_id)
        ).all()
    assert len(renditions) == 6 * (3 + 1)
    for image, method, hash_, png in renditions:
        assert png is not None
        assert telling_chunks(png) == []
        assert b"Software" not in png
        pixels = np.asarray(Image.open(io.BytesIO(png)))
        assert pixel_sha256(pixels) == hash_
        if method:
            on_disk = np.asarray(Image.open(fresh.results / method / f"{image}.png").convert("RGB"))
            assert np.array_equal(pixels, on_disk)


def test_the_input_shows_the_hole_and_nothing_of_what_it_hides(database: Database, fresh: Folders) -> None:
    bring(database, fresh)
    original = read_image(fresh.images / "scene00.png").pixels
    hole = read_hole(fresh.holes / "scene00.png", original.shape[:2])
    elsewhere = original.copy()
    elsewhere[hole] = 255 - elsewhere[hole]
    assert np.array_equal(show_hole(original, hole), show_hole(elsewhere, hole))
    assert np.array_equal(show_hole(original, hole)[~hole], original[~hole])
    with database.read() as db:
        stored = db.execute(
            select(models.Rendition.pixel_sha256)
            .join(models.Image, models.Image.id == models.Rendition.image_id)
            .where(models.Rendition.kind == models.RenditionKind.INPUT, models.Image.key == "scene00")
        ).scalar_one()
    assert stored == pixel_sha256(show_hole(original, hole))


def test_cells_cover_every_image_pair_and_side_and_the_target_stands_left_on_side_zero(
    database: Database, fresh: Folders
) -> None:
    study = definition(
        contrasts="target_vs_each",
        methods=[{"key": METHODS[0]}, {"key": METHODS[1], "role": "target"}, {"key": METHODS[2]}],
    )
    bring(database, fresh, study)
    with database.read() as db:
        cells = db.execute(select(models.Cell)).scalars().all()
        target = db.execute(select(models.Method).where(models.Method.role == models.MethodRole.TARGET)).scalar_one()
        aliases = set(db.execute(select(models.Method.alias)).scalars())
    assert len(cells) == len({(c.image_id, c.method_lo_id, c.method_hi_id, c.side) for c in cells}) == 6 * 2 * 2
    assert {cell.method_lo_id for cell in cells} == {target.id}
    assert target.key == METHODS[1]
    assert {cell.target for cell in cells} == {6}
    assert aliases == {"M1", "M2", "M3"}


def test_the_same_study_again_changes_nothing_and_a_changed_one_is_a_new_version(
    database: Database, fresh: Folders
) -> None:
    first = bring(database, fresh)
    again = bring(database, fresh)
    assert (again.version_id, again.created) == (first.version_id, False)
    blobs = count(database, models.Blob)
    second = bring(database, fresh, definition(plan={"real": 5}))
    assert (second.version, second.created) == (2, True)
    assert count(database, models.Blob) == blobs
    repaint(fresh, METHODS[0], "scene00", 7)
    third = bring(database, fresh, definition(plan={"real": 5}))
    assert (third.version, third.created) == (3, True)
    assert count(database, models.Blob) == blobs + 1


def repaint(folders: Folders, method: str, key: str, level: int, *, outside: bool = False) -> None:
    original = read_image(folders.images / f"{key}.png").pixels
    hole = read_hole(folders.holes / f"{key}.png", original.shape[:2])
    result = original.copy()
    result[hole] = level
    if outside:
        result[0, 0] ^= 1
    save_result(folders, method, key, result, original=original, hole=hole)


def test_every_missing_and_odd_file_is_named_at_once_and_nothing_is_stored(database: Database, fresh: Folders) -> None:
    (fresh.results / METHODS[0] / "scene01.png").unlink()
    (fresh.results / METHODS[2] / "scene04.png").unlink()
    (fresh.holes / "scene03.png").unlink()
    told = problems(database, fresh)
    assert "3 problems; nothing was stored" in told
    assert str(fresh.results / METHODS[0] / "scene01.png") in told
    assert str(fresh.results / METHODS[2] / "scene04.png") in told
    assert f"{fresh.holes / 'scene03.png'}: the hole of image scene03 is missing" in told


def test_a_photograph_whose_hole_and_results_are_there_is_missed_unless_images_are_named(
    database: Database, fresh: Folders
) -> None:
    (fresh.images / "scene00.png").unlink()
    with pytest.raises(IngestError, match=r"scene00.png: the photograph is missing"):
        bring(database, fresh)
    assert count(database, models.Blob) == 0
    named = bring(database, fresh, definition(images={"list": ["scene01", "scene02"]}, plan={"real": 2}))
    assert named.images == 2
    for file in fresh.images.iterdir():
        file.unlink()
    with pytest.raises(IngestError, match=r"there is no picture in this folder"):
        bring(database, fresh)


def test_every_file_that_is_no_picture_or_has_another_size_is_named(database: Database, fresh: Folders) -> None:
    (fresh.results / METHODS[0] / "scene01.png").write_bytes(b"not a picture")
    whole = (fresh.results / METHODS[1] / "scene02.png").read_bytes()
    (fresh.results / METHODS[1] / "scene02.png").write_bytes(whole[: len(whole) // 2])
    write_atomically(fresh.results / METHODS[2] / "scene03.png", encode_png(np.zeros((5, 9, 3), dtype=np.uint8)))
    write_hole_png(fresh.holes / "scene05.png", np.eye(3, dtype=np.bool_))
    told = problems(database, fresh)
    assert "4 problems" in told
    assert "scene01.png" in told
    assert "scene02.png" in told
    assert "the result is 9x5 but the image is 32x24" in told
    assert "scene05" in told


def test_empty_and_full_holes_are_refused(database: Database, fresh: Folders) -> None:
    write_hole_png(fresh.holes / "scene00.png", np.zeros((24, 32), dtype=np.bool_))
    write_hole_png(fresh.holes / "scene01.png", np.ones((24, 32), dtype=np.bool_))
    told = problems(database, fresh)
    assert "2 problems" in told
    assert "scene00.png marks nothing as missing" in told
    assert "scene01.png marks every pixel as missing" in told


def test_a_method_that_touched_known_pixels_is_refused(database: Database, fresh: Folders) -> None:
    repaint(fresh, METHODS[0], "scene02", 9, outside=True)
    told = problems(database, fresh)
    assert "changed 1 pixels outside the hole" in told
    assert "outside_hole: composite" in told


def test_or_has_the_known_pixels_put_back_when_the_definition_says_so(database: Database, fresh: Folders) -> None:
    repaint(fresh, METHODS[0], "scene02", 9, outside=True)
    bring(database, fresh, definition(outside_hole="composite"))
    repaint(fresh, METHODS[0], "scene02", 9)
    with database.read() as db:
        hashes = set(db.execute(select(models.Rendition.pixel_sha256)).scalars())
    assert pixel_sha256(read_image(fresh.results / METHODS[0] / "scene02.png").pixels) in hashes


def test_a_record_that_speaks_of_other_pictures_is_refused(database: Database, fresh: Folders) -> None:
    folder = fresh.results / METHODS[0]
    (folder / "scene00.json").write_text((folder / "scene01.json").read_text())
    (fresh.results / METHODS[1] / "scene02.json").write_text("{}")
    told = problems(database, fresh)
    assert "it speaks of the image" in told
    assert "it speaks of the result" in told
    assert "scene02.json" in told


def test_results_of_other_programs_come_without_a_record(database: Database, fresh: Folders) -> None:
    for record in fresh.results.glob("*/*.json"):
        record.unlink()
    assert bring(database, fresh).created


def test_one_folder_copied_over_another_is_noticed(database: Database, fresh: Folders) -> None:
    for record in fresh.results.glob("*/scene00.json"):
        record.unlink()
    (fresh.results / METHODS[1] / "scene00.png").write_bytes((fresh.results / METHODS[0] / "scene00.png").read_bytes())
    assert f"the same pixels as the result of {METHODS[0]}" in problems(database, fresh)


def test_missing_folders_and_too_few_images_are_told_together(database: Database, fresh: Folders) -> None:
    study = definition(methods=[*({"key": key} for key in METHODS), {"key": "absent"}], plan={"real": 7})
    told = problems(database, fresh, study)
    assert f"{fresh.results / 'absent'}: the folder of the results of absent does not exist" in told
    assert "asked 7 trials but there are 6 images" in told


def test_a_seeded_sample_is_the_same_wherever_it_is_drawn(database: Database, fresh: Folders) -> None:
    study = definition(images={"sample": {"n": 3, "seed": 4}}, plan={"real": 3})
    bring(database, fresh, study)
    with database.read() as db:
        keys = sorted(db.execute(select(models.Image.key)).scalars())
    assert len(keys) == 3
    # Frozen on purpose: a study that is ingested again years later must draw the same photographs.
    assert keys == ["scene00", "scene01", "scene05"]


def test_listed_images_are_taken_and_missing_ones_named(database: Database, fresh: Folders) -> None:
    study = definition(images={"list": ["scene01", "scene09"]}, plan={"real": 1})
    assert "scene09: this image of the list is missing" in problems(database, fresh, study)
    assert bring(database, fresh, definition(images={"list": ["scene01"]}, plan={"real": 1})).images == 1


def test_progress_is_told_to_the_end(database: Database, fresh: Folders) -> None:
    heard: list[tuple[int, int]] = []
    ingest_study(
        database,
        definition(),
        fresh.images,
        fresh.holes,
        fresh.results,
        now=START,
        random_bytes=seeded_bytes(),
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard == [(done, 12) for done in range(1, 13)]
