"""Published evaluation sets as they lie on disk: which files belong to them, what they are called, of which domain.

Nothing is downloaded. A layout is a way to look at a folder; `plain` looks at any.
"""

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif"})
"""File names that are looked at."""

MISATO_DOMAINS = ("landscape", "indoor", "building", "background")
MISATO_DOMAIN_SIZE = 500
"""MISATO numbers its images; 0-499 are landscape, then indoor, building (all at 512 and 1K) and, at 512 only, COCO
backgrounds (paper section 4; the release's README)."""


class LayoutError(ValueError):
    """A folder in which a layout finds nothing, or two pictures of one name; the message says what was looked for."""


@dataclass(frozen=True)
class Photograph:
    """One image of a set.

    Attributes:
        key: unique in the set: the file's name without its suffix.
        file: where it lies.
        domain: or empty.
    """

    key: str
    file: Path
    domain: str = ""


@dataclass(frozen=True)
class Layout:
    """How one set lies on disk.

    Attributes:
        title: of the set.
        pattern: what the path below the folder must match (regular expression; "/" between folders).
        expects: the same in words.
        domain: of a photograph by its path below the folder.
    """

    title: str
    pattern: str
    expects: str
    domain: Callable[[Path], str] = lambda _: ""


def _misato_domain(path: Path) -> str:
    return MISATO_DOMAINS[min(int(path.stem) // MISATO_DOMAIN_SIZE, len(MISATO_DOMAINS) - 1)]


def _first_folder(path: Path) -> str:
    return path.parts[0] if len(path.parts) > 1 else ""


LAYOUTS: Mapping[str, Layout] = {
    "plain": Layout("A folder of pictures", r".*", "pictures; folders in it name their domains", _first_folder),
    "misato": Layout(
        "MISATO at 512 or 1K (Wang et al.)",
        r"(.*/)?\d{4}\.(png|jpg|webp)",
        "0000.png to 1999.png (1K: to 1499.png), images alone without their holes",
        _misato_domain,
    ),
    "places2": Layout(
        "Places2, validation (Zhou et al., 2017)",
        r"(.*/)?Places365_val_\d{8}\.jpg",
        "Places365_val_00000001.jpg and so on (val_large or val_256)",
    ),
    "coco": Layout(
        "COCO 2014 or 2017 (Lin et al., 2014)",
        r"(.*/)?(COCO_(train|val|test)20\d\d_)?\d{12}\.jpg",
        "COCO_val2014_000000000042.jpg or 000000000139.jpg",
    ),
    "celeba-hq": Layout(
        "CelebA-HQ (Karras et al., 2018; CelebAMask-HQ's folder)",
        r"(CelebA-HQ-img/|data\d+x\d+/|(val|test)[^/]*/)?\d{1,6}\.(jpg|png)",
        "CelebA-HQ-img/0.jpg to 29999.jpg, or 00000.jpg and so on",
    ),
    "cityscapes": Layout(
        "Cityscapes, validation (Cordts et al., 2016)",
        r"(.*/)?val/[a-z]+/[a-z]+_\d{6}_\d{6}_leftImg8bit\.png",
        "leftImg8bit/val/CITY/CITY_000000_000019_leftImg8bit.png",
        lambda path: path.parent.name,
    ),
    "paris-streetview": Layout(
        "Paris StreetView (Doersch et al., 2012; Context Encoders' split)",
        r"(paris_eval(_gt)?/|.*/paris_eval(_gt)?/)?[^/]+\.(png|jpg|JPG)",
        "paris_eval_gt/001_im.png and so on",
    ),
}
"""Every set by the name the command line knows it under."""


def read_layout(name: str, folder: Path) -> tuple[Photograph, ...]:
    """The photographs of a set, ordered by number where they are numbered, else by name.

    Raises:
        LayoutError: for an unknown name, a folder in which nothing fits, or two photographs of one key.
    """
    layout = LAYOUTS.get(name)
    if layout is None:
        raise LayoutError(f"There is no layout {name!r}; choose one of {', '.join(LAYOUTS)}.")
    if not folder.is_dir():
        raise LayoutError(f"{folder} is no folder; give one that exists.")
    pattern = re.compile(layout.pattern)
    found: dict[str, Photograph] = {}
    for file in _pictures(folder):
        below = file.relative_to(folder)
        if pattern.fullmatch(below.as_posix()) is None:
            continue
        if file.stem in found:
            raise LayoutError(f"{found[file.stem].file} and {file} share the name {file.stem}; rename one of them.")
        found[file.stem] = Photograph(file.stem, file, layout.domain(below))
    if not found:
        raise LayoutError(f"{folder} holds nothing of {layout.title}; expected {layout.expects}.")
    return tuple(sorted(found.values(), key=lambda one: _in_order(one.key)))


def read_domains(table: Path) -> dict[str, str]:
    """Domains by photograph from a CSV with a column `domain` and one of `file`, `image` or `key`.

    Raises:
        LayoutError: when it cannot be read or a column is missing.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LayoutError(f"{table} cannot be read as CSV ({error}).") from error
    names = [name for name in ("file", "image", "key") if rows and name in rows[0]]
    if not names or "domain" not in rows[0]:
        raise LayoutError(f"{table} needs a column domain and one of file, image or key.")
    return {Path(row[names[0]]).stem: row["domain"] for row in rows}


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _in_order(key: str) -> tuple[int, str]:
    return (int(key), "") if key.isdecimal() else (-1, key)
