"""Results of other programs: refused with every reason at once, or brought to exactly the form of a batch."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asuka_infer.cli import main
from asuka_infer.holes import hole_sha256
from asuka_infer.images import pixel_sha256, read_image
from asuka_infer.imported import ResultsError, import_results, read_manifest
from asuka_infer.request import RgbImage
from asuka_infer.run_record import RunRecord

MANIFEST = """
key = "co-mod"
title = "Co-Mod-GAN"
citation = "S. Zhao et al., ICLR 2021"
licence = "research"
made_with = "the authors' code and weights"
"""
SIZE = (40, 60)


def draw(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def photo(number: int) -> RgbImage:
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two photographs, one hole for both, results that shifted every known pixel by two levels."""
    hole = np.zeros(SIZE, np.uint8)
    hole[10:20, 20:40] = 255
    draw(tmp_path / "hole.png", hole)
    for number, stem in enumerate("ab"):
        draw(tmp_path / "images" / f"{stem}.png", photo(number))
        result = np.clip(photo(number).astype(int) + 2, 0, 255).astype(np.uint8)
        result[hole > 0] = 77
        draw(tmp_path / "results" / f"{stem}.png", result)
    (tmp_path / "results" / "imported.toml").write_text(MANIFEST)
    return tmp_path


def bring(folder: Path) -> list[str]:
    done = import_results(folder / "results", folder / "images", folder / "hole.png", folder / "out")
    return [each.stem for each in done]


def test_results_get_known_pixels_back_and_records_that_tell_where_they_came_from(folders: Path) -> None:
    assert bring(folders) == ["a", "b"]
    original, hole = photo(0), read_image(folders / "hole.png").pixels[..., 0] > 0
    image = read_image(folders / "out" / "co-mod" / "a.png").pixels
    assert np.array_equal(image[~hole], original[~hole])
    assert (image[hole] == 77).all()
    record = RunRecord.from_json((folders / "out" / "co-mod" / "a.json").read_text())
    assert (record.method, record.image_sha256, record.hole_sha256) == (
        "co-mod", pixel_sha256(original), hole_sha256(hole),
    )  # fmt: skip
    assert record.result_sha256 == pixel_sha256(image)
    said = record.settings["imported"]
    assert said["made_with"] == "the authors' code and weights"
    differing = (np.clip(original.astype(int) + 2, 0, 255) != original).any(axis=2) & ~hole
    assert said["changed_outside_before"] == differing.sum()


def test_other_names_by_pattern_weights_and_settings_are_kept(folders: Path) -> None:
    for path in (folders / "results").glob("*.png"):
        path.rename(path.with_name(f"{path.stem}_out.png"))
    more = 'name = "{stem}_out.png"\nseed = 7\n[weights]\n"g.pth" = "ab"\n[settings]\ntruncation = 0.5\n'
    (folders / "results" / "imported.toml").write_text(MANIFEST + more)
    assert bring(folders) == ["a", "b"]
    record = RunRecord.from_json((folders / "out" / "co-mod" / "b.json").read_text())
    assert (record.seed, dict(record.weights), record.settings["truncation"]) == (7, {"g.pth": "ab"}, 0.5)


def test_every_misfit_is_named_at_once_and_nothing_is_written(folders: Path) -> None:
    for number, stem in ((2, "c"), (3, "d"), (4, "e")):
        draw(folders / "images" / f"{stem}.png", photo(number))
    draw(folders / "results" / "c.png", photo(2)[:, ::-1])  # mirrored
    draw(folders / "results" / "d.png", photo(3)[:20])  # half of it
    with pytest.raises(ResultsError) as caught:
        bring(folders)
    said = str(caught.value)
    assert "the result of e is missing" in said
    assert "d.png is 60x20 but d.png is 60x40" in said
    assert "c.png differs from c.png by" in said
    assert said.endswith("Nothing was written.")
    assert len(caught.value.problems) == 3
    assert not (folders / "out").exists()


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("", "has no key"),
        (MANIFEST.replace("co-mod", "telea"), "is a method of the catalog; choose another, such as telea-authors"),
        (MANIFEST.replace("co-mod", "Co Mod"), "small letters"),
        (MANIFEST + "titel = 'x'\n", "unknown entry 'titel'"),
        (MANIFEST + "name = 'result.png'\n", "{stem}"),
        (MANIFEST + "name = '../{stem}.png'\n", "a file name with"),
        (MANIFEST + "seed = -1\n", "seed is -1"),
        (MANIFEST + "seed = 4294967296\n", "seed is 4294967296"),
        (MANIFEST + "[weights]\na = 1\n", "SHA-256"),
        ("key = ", "cannot be read"),
        (MANIFEST.replace('"research"', "3"), "licence is 3"),
        (MANIFEST + "[settings]\nday = 2020-01-01\n", "settings"),
    ],
)
def test_a_manifest_that_says_too_little_or_nonsense_is_refused(folders: Path, manifest: str, said: str) -> None:
    (folders / "results" / "imported.toml").write_text(manifest)
    with pytest.raises(ResultsError, match=said.replace("{", r"\{").replace("}", r"\}")):
        read_manifest(folders / "results")


def test_the_command_imports_and_a_second_run_says_the_same(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import-results", "--results", folders / "results", "--images", folders / "images"]
    words += ["--holes", folders / "hole.png", "--out", folders / "out"]
    for _ in range(2):
        assert main([str(word) for word in words]) == 0
        assert "2 results imported; 2 had changed known pixels" in capsys.readouterr().out
    assert sorted(path.name for path in (folders / "out" / "co-mod").iterdir()) == [
        "a.json",
        "a.png",
        "b.json",
        "b.png",
    ]
    (folders / "results" / "a.png").unlink()
    assert main([str(word) for word in words]) == 2
    assert "the result of a is missing" in capsys.readouterr().err


def test_seamless_compositing_is_done_and_said(folders: Path) -> None:
    list(
        import_results(
            folders / "results", folders / "images", folders / "hole.png", folders / "out", compositing="seamless"
        )
    )
    said = json.loads((folders / "out" / "co-mod" / "a.json").read_text())
    assert said["compositing"] == "seamless"
    image = read_image(folders / "out" / "co-mod" / "a.png").pixels
    far = np.ones(SIZE, np.bool_)
    far[1:29, 11:49] = False  # the hole and nine pixels around it
    assert np.array_equal(image[far], photo(0)[far])
    assert not np.array_equal(image[9, 20:40], photo(0)[9, 20:40])
