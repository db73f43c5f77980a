"""Published sets as they lie on disk, and seeded holes for them."""

import json
from pathlib import Path

import numpy as np
import pytest

from asuka_infer.cli import main
from asuka_infer.datasets.hole_sets import HoleSet, HoleSetError, draw_hole, write_hole_set
from asuka_infer.datasets.layouts import LAYOUTS, LayoutError, Photograph, read_domains, read_layout
from asuka_infer.holes import hole_sha256, read_hole
from asuka_infer.images import encode_png


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("layout", "files", "expected"),
    [
        (
            "misato",
            ["0000.png", "0499.png", "0500.png", "1000.png", "1999.png", "notes.txt", "cover.png"],
            {"0000": "landscape", "0499": "landscape", "0500": "indoor", "1000": "building", "1999": "background"},
        ),
        (
            "places2",
            ["val_large/Places365_val_00000002.jpg", "val_large/Places365_val_00000001.jpg", "val_large/x.jpg"],
            {"Places365_val_00000001": "", "Places365_val_00000002": ""},
        ),
        (
            "coco",
            ["val2014/COCO_val2014_000000000042.jpg", "val2017/000000000139.jpg", "val2017/139.jpg"],
            {"COCO_val2014_000000000042": "", "000000000139": ""},
        ),
        ("celeba-hq", ["CelebA-HQ-img/10.jpg", "CelebA-HQ-img/9.jpg", "mask/0.png.txt"], {"9": "", "10": ""}),
        (
            "cityscapes",
            [
                "leftImg8bit/val/munster/munster_000001_000019_leftImg8bit.png",
                "leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png",
                "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
            ],
            {"frankfurt_000000_000294_leftImg8bit": "frankfurt", "munster_000001_000019_leftImg8bit": "munster"},
        ),
        (
            "paris-streetview",
            ["paris_eval/paris_eval_gt/001_im.png", "paris_eval/paris_eval_corrupted/002_im.png"],
            {"001_im": ""},
        ),
        ("plain", ["b.webp", "indoor/a.jpg", ".hidden.png"], {"a": "indoor", "b": ""}),
    ],
)
def test_a_layout_finds_its_files_their_domains_and_their_order(
    tmp_path: Path, layout: str, files: list[str], expected: dict[str, str]
) -> None:
    found = read_layout(layout, touch(tmp_path, *files))

    assert {one.key: one.domain for one in found} == expected
    if layout == "celeba-hq":
        assert [one.key for one in found] == ["9", "10"]


def test_folders_without_the_set_are_refused_saying_what_was_looked_for(tmp_path: Path) -> None:
    for name in set(LAYOUTS) - {"plain", "paris-streetview"}:
        with pytest.raises(LayoutError, match="expected "):
            read_layout(name, touch(tmp_path, "holiday.jpg"))
    with pytest.raises(LayoutError, match="no layout 'imagenet'"):
        read_layout("imagenet", tmp_path)
    with pytest.raises(LayoutError, match="no folder"):
        read_layout("plain", tmp_path / "none")
    with pytest.raises(LayoutError, match="share the name holiday"):
        read_layout("plain", touch(tmp_path, "more/holiday.png"))


def test_domains_come_from_a_table_too(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("file,domain,source\na.webp,indoor,x\nb.webp,outdoor,y\n")
    (tmp_path / "wrong.csv").write_text("file,source\na.webp,x\n")

    assert read_domains(tmp_path / "images.csv") == {"a": "indoor", "b": "outdoor"}
    for name in ("wrong.csv", "none.csv"):
        with pytest.raises(LayoutError, match=name):
            read_domains(tmp_path / name)


@pytest.mark.parametrize("shapes", ["brush", "rectangle", "frame", "mixed"])
def test_holes_are_of_the_asked_share_and_depend_on_seed_and_name_alone(shapes: str) -> None:
    plan = HoleSet(seed=3, shapes=shapes, smallest=0.2, largest=0.5)
    holes = [draw_hole(plan, f"{number}", (60, 80)) for number in range(20)]

    assert all(0.2 <= hole.mean() <= 0.5 for hole in holes)
    assert np.array_equal(holes[7], draw_hole(plan, "7", (60, 80)))
    assert not np.array_equal(holes[7], draw_hole(HoleSet(4, shapes, 0.2, 0.5), "7", (60, 80)))
    if shapes == "frame":
        assert all(~hole[np.ix_((~hole).any(1), (~hole).any(0))].any() for hole in holes)


def test_a_foreground_is_never_in_a_hole() -> None:
    clear = np.zeros((64, 64), bool)
    clear[:, 20:50] = True
    for number in range(20):
        hole = draw_hole(HoleSet(), f"{number}", (64, 64), clear)
        assert hole.any()
        assert not (hole & clear).any()
    with pytest.raises(HoleSetError, match="no room"):
        draw_hole(HoleSet(), "x", (64, 64), np.ones((64, 64), bool))


def test_a_hole_set_is_written_once_with_a_manifest_and_mended(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a", "b"):
        (images / f"{name}.png").write_bytes(encode_png(np.zeros((40, 30, 3), np.uint8)))
    photographs = read_layout("plain", images)
    plan, out = HoleSet(seed=1), tmp_path / "holes"

    assert write_hole_set(photographs, plan, out) == 2
    told = json.loads((out / "holes.json").read_text())
    assert told["made_with"] == {"seed": 1, "shapes": "mixed", "smallest": 0.1, "largest": 0.6}
    assert [row["sha256"] for row in told["holes"]] == [hole_sha256(read_hole(out / f"{n}.png")) for n in "ab"]
    before = (out / "b.png").read_bytes()
    (out / "b.png").unlink()
    assert write_hole_set(photographs, plan, out) == 1
    assert (out / "b.png").read_bytes() == before
    with pytest.raises(HoleSetError, match="write to another folder"):
        write_hole_set([Photograph("a", images / "a.png")], HoleSet(seed=2), out)


@pytest.mark.parametrize("wrong", [{"shapes": "star"}, {"smallest": 0.5, "largest": 0.5}, {"smallest": 0.0}])
def test_holes_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(HoleSetError):
        HoleSet(**wrong)  # pyright: ignore[reportArgumentType]


def test_the_command_draws_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(encode_png(np.zeros((40, 30, 3), np.uint8)))
    words = ["holes", f"--images={tmp_path / 'images'}", f"--out={tmp_path / 'holes'}"]

    assert main(words) == 0
    assert "1 holes, 1 of them new" in capsys.readouterr().out
    assert main([*words, "--seed=2"]) == 2
    assert "write to another folder" in capsys.readouterr().err
