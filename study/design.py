"""A launched study version as it lies in the database, read once into memory: it never changes after launch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import models
from db.base import Base
from study.assignment import Place, PlanRules, Step, session_plan, williams_square
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
class GoldPictures:
    """A prepared trial with a known right answer.

    Attributes:
        image: index among the design's images.
        right_id: rendition of the right answer.
        wrong_ids: renditions of the others, one per further candidate.
    """

    image: int
    right_id: int
    wrong_ids: tuple[int, ...]

    def shown(self, right: int) -> tuple[int, ...]:
        """Renditions in position order, with the right answer at a position."""
        return (*self.wrong_ids[:right], self.right_id, *self.wrong_ids[right:])


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
        golds: prepared trials by (kind, criterion among those with gold pictures, item), as `Step` names them.
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
    golds: Mapping[tuple[str, int, int], GoldPictures]

    @cached_property
    def plan_rules(self) -> PlanRules:
        """What a session of this version is made of."""
        return plan_rules(self.definition)

    @cached_property
    def images_by_id(self) -> Mapping[int, StoredImage]:
        """The images by their row ids."""
        return {image.id: image for image in self.images}

    @property
    def practice(self) -> int:
        """Practice trials of a session, before those that are counted."""
        return self.definition.plan.practice

    def steps(self, plan_key: bytes) -> tuple[Step, ...]:
        """The plan of a session: practice first, then everything else."""
        return session_plan(self.plan_rules, plan_key)

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

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The places of the cells, in the order of their ids."""
        images, pairs, sides = self.shape
        return tuple(Place(*place) for place in product(range(images), range(pairs), range(sides)))

    def place(self, cell_id: int) -> Place:
        """The place of a cell."""
        return self.places[cell_id - self.first_cell]

    def shown(self, place: Place) -> tuple[int, ...]:
        """Method ids in position order, as a trial of this cell shows them."""
        if self.orders:
            return self.orders[place.side]
        low, high = self.pairs[place.pair]
        return (low, high) if place.side == 0 else (high, low)

    def swapped(self, place: Place) -> Place:
        """The cell of the same question with its candidates in reverse order."""
        if not self.orders:
            return place._replace(side=1 - place.side)
        return place._replace(side=self.orders.index(self.orders[place.side][::-1]))


def plan_rules(definition: StudyDefinition) -> PlanRules:
    """What a session is made of, as a definition says."""
    plan = definition.plan
    return PlanRules(
        practice=plan.practice,
        real=plan.real,
        gold_criteria=len(definition.gold_criteria),
        golds=plan.gold.per_criterion,
        first_after=plan.gold.first_after,
        min_gap=plan.gold.min_gap,
        repeats=plan.repeats,
        repeat_gap=plan.repeat_gap,
        candidates=definition.candidates,
        attention=plan.attention,
    )


def gold_variant(kind: str, criterion: int, item: int, place: str) -> str:
    """The name of a gold picture among the renditions of its image; `place` is "right" or "wrong" and a number."""
    return f"{kind}/{criterion}/{item}/{place}"


EVERY_QUESTION = "*"
"""Stands for the tested criterion where the right answer is that to all of them; no key of a criterion begins so."""


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
        golds=_golds(db, version_id, images),
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


def _golds(
    db: Session, version_id: int, images: tuple[StoredImage, ...]
) -> Mapping[tuple[str, int, int], GoldPictures]:
    index = {image.id: at for at, image in enumerate(images)}
    found: dict[tuple[str, int, int], dict[str, int]] = {}
    image_of: dict[tuple[str, int, int], int] = {}
    rows = db.execute(
        select(RENDITION.c.id, RENDITION.c.image_id, RENDITION.c.variant)
        .where(RENDITION.c.version_id == version_id, RENDITION.c.kind == models.RenditionKind.GOLD)
        .order_by(RENDITION.c.id)
    )
    for row in rows:
        kind, criterion, item, place = row.variant.split("/")
        name = (kind, int(criterion), int(item))
        found.setdefault(name, {})[place] = row.id
        image_of[name] = index[row.image_id]
    return {
        name: GoldPictures(image_of[name], places["right"], tuple(id_ for at, id_ in places.items() if at != "right"))
        for name, places in found.items()
    }


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
