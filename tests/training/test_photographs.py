"""Photographs decoded once, with their domains and tiers, and held out by name."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.photographs import DataError, Entry, Photographs, gather_photographs, held_out


def write_png(file: Path, pixels: NDArray[np.uint8]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    return np.full((*size, 3), colour, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "pictures"
    write_png(source / "indoor" / "a.png", plain((10, 20, 30)))
    write_png(source / "outdoor" / "b.png", plain((200, 100, 50)))
    write_png(source / "c.png", plain((1, 2, 3)))
    (source / "notes.txt").write_text("no picture")
    return source


def test_a_folder_is_decoded_once_and_its_first_level_names_the_domain(folder: Path, tmp_path: Path) -> None:
    photographs = gather_photographs(folder, tmp_path / "cache", side=32)

    assert {(entry.name, entry.domain) for entry in photographs.entries} == {
        ("indoor/a.png", "indoor"),
        ("outdoor/b.png", "outdoor"),
        ("c.png", "photographs"),
    }
    order = [entry.name for entry in photographs.entries]
    assert photographs.pixels[order.index("outdoor/b.png")].reshape(-1, 3).tolist() == [[200, 100, 50]] * 32 * 32

    (folder / "c.png").unlink()
    again = gather_photographs(folder, tmp_path / "cache", side=32)
    assert len(again) == 3
    assert np.array_equal(again.pixels, photographs.pixels)


def test_several_processes_decode_the_same(folder: Path, tmp_path: Path) -> None:
    alone = gather_photographs(folder, tmp_path / "one", side=32)
    together = gather_photographs(folder, tmp_path / "two", side=32, processes=2)

    assert together.entries == alone.entries
    assert np.array_equal(together.pixels, alone.pixels)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    source = tmp_path / "shards"
    source.mkdir()
    for name, colour in (("open_000.tar", (0, 255, 0)), ("research_000.tar", (255, 0, 0))):
        png = io.BytesIO()
        Image.fromarray(plain(colour)).save(png, "PNG")
        with tarfile.open(source / name, "w") as shard:
            member = tarfile.TarInfo(f"{name[:4]}.png")
            member.size = len(png.getvalue())
            shard.addfile(member, io.BytesIO(png.getvalue()))
    (source / "manifest.csv").write_text(
        "shard,file,px,tier,domain\nopen_000.tar,open.png,64,open,indoor/kitchen\n"
        "research_000.tar,rese.png,64,research,mixed\n"
    )
    return source


def test_shards_take_tier_and_large_domain_from_their_manifest(shards: Path, tmp_path: Path) -> None:
    photographs = gather_photographs(shards, tmp_path / "cache", side=32)

    assert photographs.entries == (Entry("open.png", "indoor", "open"), Entry("rese.png", "mixed", "research"))
    assert photographs.pixels[1, 5, 5].tolist() == [255, 0, 0]


def test_the_open_tier_leaves_every_other_licence_out(shards: Path, tmp_path: Path) -> None:
    gather_photographs(shards, tmp_path / "cache", side=32)
    photographs = gather_photographs(shards, tmp_path / "cache", side=32, tier="open")

    assert [entry.tier for entry in photographs.entries] == ["open"]
    assert photographs.pixels[0, 5, 5].tolist() == [0, 255, 0]


def test_a_picture_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    pixels = plain((0, 0, 0), (64, 64))
    pixels[:32] = 255
    rotated_by_90 = Image.Exif()
    rotated_by_90[274] = 6
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "turned.jpg", exif=rotated_by_90)

    upright = gather_photographs(tmp_path / "in", tmp_path / "cache", side=32).pixels[0]
    # What was the top is on the right when the camera says "turn me clockwise".
    assert upright[:, 20:].min() > 200
    assert upright[:, :12].max() < 50


@pytest.mark.parametrize("broken", [b"no picture at all", b"\x89PNG\r\n\x1a\n cut short"])
def test_a_file_that_cannot_be_decoded_is_named(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(broken)

    with pytest.raises(DataError, match=r"broken\.png.*cannot be decoded"):
        gather_photographs(tmp_path / "in", tmp_path / "cache")


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No photograph"):
        gather_photographs(tmp_path / "empty", tmp_path / "cache")
    with pytest.raises(DataError, match="no folder"):
        gather_photographs(tmp_path / "nowhere", tmp_path / "cache")


def test_one_photograph_in_fifty_is_held_out_whoever_else_is_there() -> None:
    names = [f"photograph_{number:05}.webp" for number in range(20_000)]
    share = sum(map(held_out, names)) / len(names)
    assert share == pytest.approx(1 / 50, abs=0.004)

    few = Photographs(np.zeros((3, 1, 1, 3), np.uint8), tuple(Entry(name, "d", "own") for name in names[40:43]))
    assert set(few.training) | set(few.evaluation) == {0, 1, 2}
    assert not set(few.training) & set(few.evaluation)
