"""From folders of pictures to a study in the database: every picture checked, brought to one form, stored once.

This is the one door between the study and inference: it reads what `python -m asuka_infer batch` writes.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from asuka_infer.compositing import changed_outside, exact
from asuka_infer.holes import HoleError, hole_sha256, read_hole, shrink
from asuka_infer.images import ImageError, encode_png, pixel_sha256, read_image
from asuka_infer.run_record import RecordError, RunRecord, record_path
from db import models
from db.engine import Database
from study.assignment import AssignmentError, refuse_impossible_plan
from study.attention import marked
from study.blinding import level_lengths, telling_chunks
from study.definition import StudyDefinition
from study.design import CELL, IMAGE, METHOD, RENDITION, VERSION, gold_variant, grid_shape
from study.golds import cleanest, colour_shifts, foreign_objects

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")
MOST_PROBLEMS_TOLD = 40
"""Lines of complaint that can still be read; the rest is counted."""

HATCH_PERIOD = 12
HATCH_LEVELS = (118, 146)
"""Two greys, 12 % apart around the page's neutral surround: a hole is recognised in bright and in dark pictures."""

OUTLINE_PX = 2
"""White and black, half each, so that the border is seen on any background; drawn inside the hole alone."""

MARKED = "marked"
"""How the pictures of an attention trial are made."""

GOLD_DONORS = 4
"""Other photographs from which the foreign objects of one gold trial are taken; our choice: enough to find odd ones."""

Pixels = NDArray[np.uint8]
Hole = NDArray[np.bool_]


class IngestError(ValueError):
    """Pictures that cannot become a study; the message names every missing or odd file."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        told = self.problems[:MOST_PROBLEMS_TOLD]
        more = len(self.problems) - len(told)
        lines = "\n".join(f"  - {problem}" for problem in told) + (f"\n  - and {more} more" if more else "")
        count = len(self.problems)
        super().__init__(f"{count} problem{'' if count == 1 else 's'}; nothing was stored:\n{lines}")


@dataclass(frozen=True)
class Ingested:
    """Where a study lies now.

    Attributes:
        created: False when exactly this study was there already.
    """

    slug: str
    version: int
    version_id: int
    images: int
    methods: int
    created: bool


def ingest_study(
    database: Database,
    definition: StudyDefinition,
    images_dir: Path,
    holes_dir: Path,
    results_dir: Path,
    *,
    now: int,
    random_bytes: Callable[[int], bytes],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Ingested:
    """Check all pictures of a study and store them as a new version in draft, or find that they are there already.

    Args:
        database: to be written to.
        definition: the study.
        images_dir: the photographs, `<key>.<png, jpg, ...>`.
        holes_dir: one hole per photograph, `<key>.<png, ...>`, white = missing.
        results_dir: `<method folder>/<key>.png` with the run record `<key>.json` beside it, as `asuka_infer batch`
            writes them; results of other programs come without a record.
        now: UTC microseconds.
        random_bytes: source of the version's secret seed and of the aliases.
        progress: told (pictures done, pictures in all).

    Raises:
        IngestError: naming every missing or odd file; nothing of the study is stored then.
    """
    sources = _find_sources(definition, images_dir, holes_dir, results_dir)
    steps = _Steps(2 * len(sources), progress)
    checked = _check_all(definition, sources, steps)
    found = database.write(lambda db: _same_version(db, definition, checked))
    if found:
        return found
    wanted = _gold_trials(definition, sources)
    stored = _Stored()
    for source in sources:
        _store_pictures(database, definition, source, wanted.get(source.key, ()), stored)
        steps.step()
    return database.write(
        lambda db: _store_version(db, definition, checked, stored, now=now, random_bytes=random_bytes)
    )


@dataclass(frozen=True)
class _Source:
    """The files of one image."""

    key: str
    image: Path
    hole: Path
    results: Mapping[str, Path]


@dataclass(frozen=True)
class _Checked:
    """What pass one established about one image; pass two must find the same."""

    key: str
    width: int
    height: int
    source_sha256: str
    hole_sha256: str
    outputs: Mapping[str, str]
    """method key -> pixel hash of what will be shown"""

    input_sha256: str


@dataclass(frozen=True)
class _GoldTrial:
    """A trial with a known right answer, to be made from one image."""

    kind: str
    criterion: int
    """among those that have gold pictures"""

    item: int
    how: str
    donors: tuple[Path, ...]
    """other photographs, for foreign objects"""


@dataclass
class _Stored:
    """What pass two put into the database."""

    blob_ids: dict[str, int] = field(default_factory=dict)
    """pixel hash -> blob"""

    golds: dict[str, dict[str, str]] = field(default_factory=dict)
    """image key -> variant of a gold picture -> pixel hash"""


@dataclass
class _Steps:
    total: int
    tell: Callable[[int, int], None]
    done: int = field(default=0)

    def step(self) -> None:
        self.done += 1
        self.tell(self.done, self.total)


# ------------------------------------------------------------------------------------------------- finding files


def _find_sources(definition: StudyDefinition, images_dir: Path, holes_dir: Path, results_dir: Path) -> list[_Source]:
    problems: list[str] = []
    images = _pictures(images_dir, "images", problems)
    holes = _pictures(holes_dir, "holes", problems)
    results = {
        method.key: _pictures(results_dir / method.folder, f"results of {method.key}", problems)
        for method in definition.methods
    }
    if not images and not problems:
        problems.append(f"{images_dir}: there is no picture in this folder ({', '.join(sorted(PICTURE_SUFFIXES))})")
    problems += _left_over(definition, images, holes, results, images_dir)
    if problems and not images:
        raise IngestError(problems)
    keys = _chosen_keys(definition, sorted(images), images_dir, problems)
    for key in keys:
        if key not in holes:
            problems.append(f"{holes_dir / key}.png: the hole of image {key} is missing")
        problems += [
            f"{results_dir / method.folder / key}.png: the result of {method.key} for image {key} is missing"
            for method in definition.methods
            if key not in results[method.key] and (results_dir / method.folder).is_dir()
        ]
    try:
        refuse_impossible_plan(images=len(keys), trials=definition.plan.real)
    except AssignmentError as error:
        problems.append(str(error).removesuffix("."))
    if definition.plan.gold.per_criterion > len(keys) or (len(keys) == 1 and definition.gold_criteria):
        problems.append(
            f"{images_dir}: {definition.plan.gold.per_criterion} gold trials per criterion need as many images and at "
            f"least 2, there are {len(keys)}"
        )
    if problems:
        raise IngestError(problems)
    return [
        _Source(key, images[key], holes[key], {method: files[key] for method, files in results.items()}) for key in keys
    ]


def _left_over(
    definition: StudyDefinition,
    images: Mapping[str, Path],
    holes: Mapping[str, Path],
    results: Mapping[str, Mapping[str, Path]],
    images_dir: Path,
) -> list[str]:
    """Photographs that are missing though all that belongs to them is there, unless the definition names its images."""
    if definition.images.list is not None or definition.images.sample is not None:
        return []
    complete = [key for key in holes if key not in images and all(key in files for files in results.values())]
    return [
        f"{images_dir / key}.png: the photograph is missing, though its hole and every method's result are there; add "
        "it, or name the images that are meant in `images: {list: [...]}`"
        for key in complete
    ]


def _pictures(folder: Path, what: str, problems: list[str]) -> dict[str, Path]:
    if not folder.is_dir():
        problems.append(f"{folder}: the folder of the {what} does not exist")
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in PICTURE_SUFFIXES or not path.is_file():
            continue
        if path.stem in found:
            problems.append(f"{path}: {found[path.stem].name} has the same name; keep one of them")
        found[path.stem] = path
    return found


def _chosen_keys(
    definition: StudyDefinition, available: Sequence[str], images_dir: Path, problems: list[str]
) -> list[str]:
    choice = definition.images
    if choice.list is not None:
        problems += [
            f"{images_dir / key}: this image of the list is missing" for key in choice.list if key not in available
        ]
        return [key for key in choice.list if key in available]
    if choice.sample is None:
        return list(available)
    if choice.sample.n > len(available):
        problems.append(f"{images_dir}: a sample of {choice.sample.n} images is asked for, there are {len(available)}")
        return list(available)
    # A hash order instead of a library's generator: the same sample on every machine and under every version of numpy.
    seed = choice.sample.seed
    ranked = sorted(available, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    return sorted(ranked[: choice.sample.n])


# ------------------------------------------------------------------------------------------------- checking pixels


def _check_all(definition: StudyDefinition, sources: Sequence[_Source], steps: _Steps) -> list[_Checked]:
    problems: list[str] = []
    checked: list[_Checked] = []
    for source in sources:
        renditions = _read(definition, source, problems)
        if renditions:
            checked.append(renditions.summary(source.key))
        steps.step()
    if problems:
        raise IngestError(problems)
    return checked


@dataclass(frozen=True)
class _Renditions:
    original: Pixels
    hole: Hole
    outputs: Mapping[str, Pixels]

    @property
    def input(self) -> Pixels:
        return show_hole(self.original, self.hole)

    def summary(self, key: str) -> _Checked:
        return _Checked(
            key=key,
            width=self.original.shape[1],
            height=self.original.shape[0],
            source_sha256=pixel_sha256(self.original),
            hole_sha256=hole_sha256(self.hole),
            outputs={method: pixel_sha256(pixels) for method, pixels in self.outputs.items()},
            input_sha256=pixel_sha256(self.input),
        )


def _read(definition: StudyDefinition, source: _Source, problems: list[str]) -> _Renditions | None:
    try:
        original = read_image(source.image).pixels
        hole = read_hole(source.hole, original.shape[:2])
    except (ImageError, HoleError) as error:
        problems.append(f"{source.key}: {error}")
        return None
    outputs: dict[str, Pixels] = {}
    for method, path in source.results.items():
        pixels = _read_result(path, method, original, hole, problems)
        if pixels is None:
            continue
        outside = changed_outside(original, pixels, hole)
        if outside and definition.outside_hole == "refuse":
            problems.append(
                f"{path}: {method} changed {outside} pixels outside the hole; make it with exact compositing, or write "
                "`outside_hole: composite` to put the known pixels back for all methods"
            )
        outputs[method] = exact(original, pixels, hole)
    problems += _twins(source, outputs)
    return _Renditions(original, hole, outputs)


def _read_result(path: Path, method: str, original: Pixels, hole: Hole, problems: list[str]) -> Pixels | None:
    try:
        pixels = read_image(path).pixels
    except ImageError as error:
        problems.append(f"{path}: {error}")
        return None
    if pixels.shape != original.shape:
        height, width = pixels.shape[:2]
        problems.append(
            f"{path}: the result is {width}x{height} but the image is {original.shape[1]}x{original.shape[0]}; "
            "make it at the image's size"
        )
        return None
    record = record_path(path)
    if record.exists():
        problems += _misfits(record, method, original, hole, pixels)
    return pixels


def _misfits(path: Path, method: str, original: Pixels, hole: Hole, result: Pixels) -> list[str]:
    """What a run record says that the pictures beside it do not."""
    try:
        record = RunRecord.from_json(path.read_text(encoding="utf-8"))
    except (RecordError, OSError, UnicodeDecodeError) as error:
        return [f"{path}: {error}"]
    claims = (
        ("method", record.method, method),
        ("image", record.image_sha256, pixel_sha256(original)),
        ("hole", record.hole_sha256, hole_sha256(hole)),
        ("result", record.result_sha256, pixel_sha256(result)),
    )
    return [
        f"{path}: it speaks of the {what} {claimed} but here is {found}; make the result again from these files"
        for what, claimed, found in claims
        if claimed != found
    ]


def _twins(source: _Source, outputs: Mapping[str, Pixels]) -> list[str]:
    """Methods whose results cannot be told apart by anybody: usually one folder copied over another."""
    seen: dict[str, str] = {}
    problems: list[str] = []
    for method, pixels in outputs.items():
        twin = seen.setdefault(pixel_sha256(pixels), method)
        if twin != method:
            problems.append(f"{source.results[method]}: the same pixels as the result of {twin}; check both folders")
    return problems


def show_hole(original: Pixels, hole: Hole) -> Pixels:
    """The photograph with its hole: hatched in two greys, outlined within, every known pixel as it was."""
    rows, columns = np.indices(hole.shape)
    stripes = ((rows + columns) // (HATCH_PERIOD // 2)) % 2
    shown = original.copy()
    shown[hole] = np.where(stripes == 0, *HATCH_LEVELS)[hole][:, None]
    white = hole & ~shrink(hole, OUTLINE_PX / 2)
    black = hole & ~shrink(hole, OUTLINE_PX) & ~white
    shown[white] = 255
    shown[black] = 0
    return shown


# ------------------------------------------------------------------------------------------------- storing


def _store_pictures(
    database: Database, definition: StudyDefinition, source: _Source, golds: Sequence[_GoldTrial], stored: _Stored
) -> None:
    """Store every picture of an image, those of its gold trials too; a blob that is there already stays as it is."""
    problems: list[str] = []
    renditions = _read(definition, source, problems)
    if renditions is None or problems:
        raise IngestError([f"{source.image}: the files changed while they were read", *problems])
    made = {
        variant: pixels
        for gold in golds
        for variant, pixels in _gold_pictures(definition, source.key, renditions, gold).items()
    }
    stored.golds[source.key] = {variant: pixel_sha256(pixels) for variant, pixels in made.items()}
    shown = (*renditions.outputs.values(), renditions.input, *made.values())
    encoded = {pixel_sha256(pixels): _encode(pixels) for pixels in shown}
    pictures = dict(zip(encoded, level_lengths([*encoded.values()]), strict=True))
    stored.blob_ids |= database.write(lambda db: _blob_ids(db, pictures))


def _gold_trials(definition: StudyDefinition, sources: Sequence[_Source]) -> dict[str, list[_GoldTrial]]:
    """Which image every gold and practice trial is made from: a seeded order, so that few images serve twice."""
    plan, criteria = definition.plan, definition.gold_criteria
    wanted = [("gold", of, item) for item in range(plan.gold.per_criterion) for of in range(len(criteria))]
    wanted += [("practice", item % len(criteria), item) for item in range(plan.practice)]
    wanted += [("attention", 0, item) for item in range(plan.attention)]
    order = sorted(
        sources, key=lambda source: hashlib.sha256(f"gold {definition.study} {source.key}".encode()).digest()
    )
    trials: dict[str, list[_GoldTrial]] = {}
    for at, (kind, of, item) in enumerate(wanted):
        source = order[at % len(order)]
        donors = [order[(at + step) % len(order)].image for step in range(1, GOLD_DONORS + 1)]
        others = tuple(dict.fromkeys(path for path in donors if path != source.image))
        how = MARKED if kind == "attention" else criteria[of].gold or ""
        trials.setdefault(source.key, []).append(_GoldTrial(kind, of, item, how, others))
    return trials


def _gold_pictures(
    definition: StudyDefinition, image: str, renditions: _Renditions, gold: _GoldTrial
) -> dict[str, Pixels]:
    """Variant -> picture: the cleanest result as the right answer, and as many worse copies as a trial has room for."""
    right = renditions.outputs[cleanest(renditions.outputs, renditions.hole)]
    seed = f"{definition.study} {image} {gold.kind} {gold.criterion} {gold.item}"
    ways = definition.candidates - 1
    if gold.how == MARKED:
        right, wrong = marked(right, choose=True), [marked(right, choose=False)] * ways
    elif gold.how == "colour_shift":
        wrong = colour_shifts(right, renditions.hole, ways, seed=seed)
    else:
        photographs = [read_image(path).pixels for path in gold.donors]
        wrong = foreign_objects(right, renditions.hole, photographs, ways, seed=seed)
    pictures = {"right": right} | {f"wrong{at}": picture for at, picture in enumerate(wrong)}
    return {gold_variant(gold.kind, gold.criterion, gold.item, place): each for place, each in pictures.items()}


def _encode(pixels: Pixels) -> bytes:
    png = encode_png(pixels)
    if telling := telling_chunks(png):
        raise IngestError([f"the encoder wrote the PNG chunks {', '.join(telling)}, which tell more than pixels"])
    return png


def _blob_ids(db: Session, pictures: Mapping[str, bytes]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for pixels, png in pictures.items():
        sha256 = hashlib.sha256(png).hexdigest()
        known = db.execute(select(models.Blob.id).where(models.Blob.sha256 == sha256)).scalar_one_or_none()
        if known is None:
            blob = models.Blob(sha256=sha256, length=len(png), content=png, path=None)
            db.add(blob)
            db.flush()
            known = blob.id
        ids[pixels] = known
    return ids


def _same_version(db: Session, definition: StudyDefinition, checked: Sequence[_Checked]) -> Ingested | None:
    """The newest version of the study, when its definition and all its pixels are these."""
    newest = db.execute(
        select(VERSION.c.id, VERSION.c.version, VERSION.c.spec_sha256)
        .join(models.Study, models.Study.id == VERSION.c.study_id)
        .where(models.Study.slug == definition.study)
        .order_by(VERSION.c.version.desc())
        .limit(1)
    ).one_or_none()
    if newest is None or newest.spec_sha256 != definition.sha256:
        return None
    stored_images = {
        (row.key, row.source_sha256, row.hole_sha256)
        for row in db.execute(
            select(IMAGE.c.key, IMAGE.c.source_sha256, IMAGE.c.hole_sha256).where(IMAGE.c.version_id == newest.id)
        )
    }
    stored_outputs = {
        (row.image, row.method, row.pixel_sha256)
        for row in db.execute(
            select(IMAGE.c.key.label("image"), METHOD.c.key.label("method"), RENDITION.c.pixel_sha256)
            .join(IMAGE, IMAGE.c.id == RENDITION.c.image_id)
            .join(METHOD, METHOD.c.id == RENDITION.c.method_id)
            .where(RENDITION.c.version_id == newest.id, RENDITION.c.kind == models.RenditionKind.OUTPUT)
        )
    }
    same = stored_images == {(image.key, image.source_sha256, image.hole_sha256) for image in checked}
    same &= stored_outputs == {(image.key, key, sha) for image in checked for key, sha in image.outputs.items()}
    if not same:
        return None
    return Ingested(definition.study, newest.version, newest.id, len(checked), len(definition.methods), created=False)


def _store_version(
    db: Session,
    definition: StudyDefinition,
    checked: Sequence[_Checked],
    stored: _Stored,
    *,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> Ingested:
    study = db.execute(select(models.Study).where(models.Study.slug == definition.study)).scalar_one_or_none()
    if study is None:
        study = models.Study(slug=definition.study, created_at=now)
        db.add(study)
        db.flush()
    last = db.execute(select(func.max(VERSION.c.version)).where(VERSION.c.study_id == study.id)).scalar_one()
    version = models.StudyVersion(
        study_id=study.id,
        version=(last or 0) + 1,
        spec_json=definition.canonical,
        spec_sha256=definition.sha256,
        design_seed=random_bytes(32).hex(),
        status=models.VersionStatus.DRAFT,
        created_at=now,
    )
    db.add(version)
    db.flush()
    methods = _store_methods(db, definition, version.id, random_bytes)
    images = _store_images(db, version.id, checked)
    _store_renditions(db, version.id, checked, methods=methods, images=images, stored=stored)
    _store_cells(db, definition, version.id, methods, [images[image.key] for image in checked])
    return Ingested(definition.study, version.version, version.id, len(checked), len(methods), created=True)


def _store_methods(
    db: Session, definition: StudyDefinition, version_id: int, random_bytes: Callable[[int], bytes]
) -> dict[str, int]:
    """Method key -> id. The target comes first, so that in each of its pairs side 0 puts it left."""
    entries = sorted(definition.methods, key=lambda method: (method.role != "target", method.key))
    shuffled = sorted(range(len(entries)), key=lambda _: random_bytes(8))
    for entry, number in zip(entries, shuffled, strict=True):
        db.execute(insert(METHOD).values(version_id=version_id, key=entry.key, alias=f"M{number + 1}", role=entry.role))
    rows = db.execute(select(METHOD.c.key, METHOD.c.id).where(METHOD.c.version_id == version_id))
    return {row.key: row.id for row in rows}


def _store_images(db: Session, version_id: int, checked: Sequence[_Checked]) -> dict[str, int]:
    for image in checked:
        values = {"source_sha256": image.source_sha256, "hole_sha256": image.hole_sha256, "stratum": ""}
        db.execute(insert(IMAGE).values(version_id=version_id, key=image.key, **values))
    rows = db.execute(select(IMAGE.c.key, IMAGE.c.id).where(IMAGE.c.version_id == version_id))
    return {row.key: row.id for row in rows}


def _store_renditions(
    db: Session,
    version_id: int,
    checked: Sequence[_Checked],
    *,
    methods: Mapping[str, int],
    images: Mapping[str, int],
    stored: _Stored,
) -> None:
    rows: list[dict[str, Any]] = []
    for image in checked:
        shared = {
            "version_id": version_id,
            "image_id": images[image.key],
            "width": image.width,
            "height": image.height,
        }
        kinds = models.RenditionKind
        pictures = [(kinds.INPUT, None, "", image.input_sha256)]
        pictures += [(kinds.OUTPUT, methods[key], "", pixels) for key, pixels in image.outputs.items()]
        pictures += [(kinds.GOLD, None, variant, pixels) for variant, pixels in stored.golds[image.key].items()]
        rows += [
            shared
            | {"kind": kind, "method_id": method, "variant": variant}
            | {"pixel_sha256": pixels, "blob_id": stored.blob_ids[pixels]}
            for kind, method, variant, pixels in pictures
        ]
    db.execute(insert(RENDITION), rows)


def _store_cells(
    db: Session, definition: StudyDefinition, version_id: int, methods: Mapping[str, int], images: Sequence[int]
) -> None:
    """All cells with ids in the order of the grid (image, pair, side)."""
    _, _, sides = grid_shape(definition, len(images))
    target = -(-definition.target.per_cell // (sides if definition.protocol == "pairwise" else 1))
    empty = {"method_lo_id": None, "method_hi_id": None, "side": None, "rotation": None}
    if definition.protocol == "best_of_n":
        kinds = [empty | {"rotation": rotation} for rotation in range(sides)]
    else:
        pairs = sorted((min(methods[a], methods[b]), max(methods[a], methods[b])) for a, b in definition.pairs)
        kinds = [
            empty | {"method_lo_id": low, "method_hi_id": high, "side": side}
            for low, high in pairs
            for side in range(sides)
        ]
    shared = {"version_id": version_id, "target": target, "n_valid": 0, "n_live": 0, "n_partial": 0}
    first = (db.execute(select(func.max(CELL.c.id))).scalar_one() or 0) + 1
    rows = [shared | kind | {"image_id": image} for image in images for kind in kinds]
    db.execute(insert(CELL), [row | {"id": first + at} for at, row in enumerate(rows)])
