"""A launched study version as it lies in the database, read once into memory: it never changes after launch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import models
from db.base import Base
from study.assignment import Place, williams_square
from study.definition import StudyDefinition, definition_from

_TABLES = Base.metadata.tables
STUDY = _TABLES["study"]
VERSION = _TABLES["study_version"]
CELL = _TABLES["cell"]
METHOD = _TABLES["method"]
IMAGE = _TABLES["image"]
RENDITION = _TABLES["rendition"]


class DesignError(RuntimeError):
    """The stored parts of a study do not fit together."""


@dataclass(frozen=True)
class StoredMethod:
    """A method under comparison."""

    id: int
    key: str
    alias: str
    role: str


@dataclass(frozen=True)
class StoredImage:
    """An image and the renditions that a trial on it shows."""

    id: int
    key: str
    stratum: str
    width: int
    height: int
    input_id: int
    output_ids: Mapping[int, int]
    """method id -> rendition id"""


@dataclass(frozen=True)
class Design:
    """Everything about a version that no answer changes.

    Attributes:
        seed: 32 secret bytes, the key of every draw and token of this version.
        methods: in the order of their ids; the target, if there is one, comes first.
        images: in the order of the grid.
        pairs: the compared pairs of method ids, each with the lower id first, in the order of the grid; empty for
            best-of-n.
        orders: for best-of-n, the rows of the Williams square as method ids; empty for pairwise.
        first_cell: the id of cell (0, 0, 0); the others follow in the order of the grid.
        cell_target: answers wanted per cell.
    """

    version_id: int
    version: int
    slug: str
    definition: StudyDefinition
    sha256: str
    seed: bytes
    methods: tuple[StoredMethod, ...]
    images: tuple[StoredImage, ...]
    pairs: tuple[tuple[int, int], ...]
    orders: tuple[tuple[int, ...], ...]
    first_cell: int
    cell_target: int

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(images, pairs, sides) of the grid of cells."""
        return grid_shape(self.definition, len(self.images))

    @property
    def last_cell(self) -> int:
        """The id of the grid's last cell."""
        images, pairs, sides = self.shape
        return self.first_cell + images * pairs * sides - 1

    def cell_id(self, place: Place) -> int:
        """The id of the cell at a place."""
        _, pairs, sides = self.shape
        return self.first_cell + (place.image * pairs + place.pair) * sides + place.side

    def place(self, cell_id: int) -> Place:
        """The place of a cell."""
        _, pairs, sides = self.shape
        rest, side = divmod(cell_id - self.first_cell, sides)
        image, pair = divmod(rest, pairs)
        return Place(image, pair, side)

    def shown(self, place: Place) -> tuple[int, ...]:
        """Method ids in position order, as a trial of this cell shows them."""
        if self.orders:
            return self.orders[place.side]
        low, high = self.pairs[place.pair]
        return (low, high) if place.side == 0 else (high, low)


def grid_shape(definition: StudyDefinition, images: int) -> tuple[int, int, int]:
    """(images, pairs, sides) of the grid of cells that a definition asks for."""
    if definition.protocol == "best_of_n":
        return images, 1, len(williams_square(definition.candidates))
    return images, len(definition.pairs), definition.candidates


def load_design(db: Session, version_id: int) -> Design:
    """Read a version.

    Raises:
        DesignError: when its cells are not the grid that its definition asks for.
    """
    version = db.execute(
        select(VERSION.c.version, VERSION.c.spec_json, VERSION.c.spec_sha256, VERSION.c.design_seed, STUDY.c.slug)
        .join(STUDY, STUDY.c.id == VERSION.c.study_id)
        .where(VERSION.c.id == version_id)
    ).one()
    definition = definition_from(json.loads(version.spec_json))
    methods = _methods(db, version_id)
    images = _images(db, version_id)
    by_key = {method.key: method.id for method in methods}
    ids = sorted(by_key.values())
    square = williams_square(len(ids)) if definition.protocol == "best_of_n" else ()
    first, last, target = db.execute(
        select(func.min(CELL.c.id), func.max(CELL.c.id), func.max(CELL.c.target)).where(CELL.c.version_id == version_id)
    ).one()
    design = Design(
        version_id=version_id,
        version=version.version,
        slug=version.slug,
        definition=definition,
        sha256=version.spec_sha256,
        seed=bytes.fromhex(version.design_seed),
        methods=methods,
        images=images,
        pairs=tuple(sorted((min(by_key[a], by_key[b]), max(by_key[a], by_key[b])) for a, b in definition.pairs)),
        orders=tuple(tuple(ids[at] for at in row) for row in square),
        first_cell=first or 0,
        cell_target=target or 0,
    )
    if last is None or last != design.last_cell:
        raise DesignError(
            f"The cells of {version.slug} version {version.version} are not the grid its definition asks for "
            f"(ids {first} to {last}, expected up to {design.last_cell}); ingest the study again."
        )
    return design


class Designs:
    """What one process remembers of versions; safe to share between threads.

    Designs never change. When leases were last looked after is only a matter of not doing it too often.
    """

    def __init__(self) -> None:
        self._by_version: dict[int, Design] = {}
        self._tidied_at: dict[int, int] = {}

    def of(self, db: Session, version_id: int) -> Design:
        """The design of a version that is no draft any more."""
        if version_id not in self._by_version:
            self._by_version[version_id] = load_design(db, version_id)
        return self._by_version[version_id]

    def tidying_is_due(self, version_id: int, now: int, every: int) -> bool:
        """Whether `every` microseconds have passed since this last said yes (a clock set back counts as passed)."""
        last = self._tidied_at.get(version_id)
        if last is not None and last <= now < last + every:
            return False
        self._tidied_at[version_id] = now
        return True


def _methods(db: Session, version_id: int) -> tuple[StoredMethod, ...]:
    rows = db.execute(
        select(METHOD.c.id, METHOD.c.key, METHOD.c.alias, METHOD.c.role)
        .where(METHOD.c.version_id == version_id)
        .order_by(METHOD.c.id)
    )
    return tuple(StoredMethod(row.id, row.key, row.alias, str(row.role)) for row in rows)


def _images(db: Session, version_id: int) -> tuple[StoredImage, ...]:
    outputs: dict[int, dict[int, int]] = {}
    inputs: dict[int, tuple[int, int, int]] = {}
    for row in db.execute(
        select(
            RENDITION.c.id,
            RENDITION.c.image_id,
            RENDITION.c.method_id,
            RENDITION.c.kind,
            RENDITION.c.width,
            RENDITION.c.height,
        ).where(RENDITION.c.version_id == version_id)
    ):
        if row.kind == models.RenditionKind.OUTPUT:
            outputs.setdefault(row.image_id, {})[row.method_id] = row.id
        elif row.kind == models.RenditionKind.INPUT:
            inputs[row.image_id] = (row.id, row.width, row.height)
    rows = db.execute(
        select(IMAGE.c.id, IMAGE.c.key, IMAGE.c.stratum).where(IMAGE.c.version_id == version_id).order_by(IMAGE.c.id)
    )
    return tuple(
        StoredImage(
            row.id, row.key, row.stratum,
            width=inputs[row.id][1], height=inputs[row.id][2], input_id=inputs[row.id][0],
            output_ids=outputs[row.id],
        )
        for row in rows
    )  # fmt: skip
