"""A version of a study on one page for the researcher, before anybody is asked: its words and its pictures, blind."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from sqlalchemy import select
from sqlalchemy.orm import Session

from study.design import RENDITION, Design, StoredImage, load_design
from study.publication import newest_version
from study.trials import BLOB

MOST_IMAGES = 12
"""Enough to see that the pictures are the right ones, and as many trials with a known answer; hundreds open slowly."""

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1b1b;
background: #fff }}
figure {{ display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top }} img {{ max-width: 16rem; height: auto }}
section {{ background: #7f7f7f1f; padding: 1rem; margin: 1rem 0 }} dt {{ font-weight: 600 }}
</style></head><body>
"""


def preview_page(db: Session, slug: str, *, images: int = MOST_IMAGES) -> str:
    """A page that needs no other file; methods wear their aliases, so that looking at it unblinds nobody.

    Args:
        db: to read from.
        slug: of the study; its newest version is shown, launched or not.
        images: how many of its images are shown.

    Raises:
        study.publication.PublicationError: for an unknown study.
    """
    row = newest_version(db, slug)
    design = load_design(db, row.id)
    parts = [
        _HEAD.format(title=escape(f"{slug} version {design.version}")),
        f"<main><h1>{escape(slug)}, version {design.version} ({escape(row.status.value)})</h1>",
        f"<p>Definition <code>{design.sha256}</code>.",
        f" {len(design.images)} images, {len(design.methods)} methods, {design.definition.plan.real} trials each,",
        f" {design.cell_target} answers wanted per cell.</p>",
        _words(design),
    ]
    parts += [_image(db, design, at) for at in range(min(images, len(design.images)))]
    parts += [_test(db, design, name) for name in sorted(design.golds)[:images]]
    return "".join([*parts, "</main></body></html>\n"])


def _words(design: Design) -> str:
    definition = design.definition
    texts: list[tuple[str, Mapping[str, str]]] = [("Title", definition.title)]
    if definition.introduction:
        texts.append(("Introduction", definition.introduction))
    texts += [(f"Question {criterion.key}", criterion.question) for criterion in definition.criteria]
    texts.append(("Consent", definition.consent.text))
    texts += [(f"Box {key}", text) for key, text in definition.consent.boxes.items()]
    said = "".join(
        f"<dt>{escape(name)}</dt>"
        + "".join(f'<dd lang="{escape(locale)}">{escape(text)}</dd>' for locale, text in by_locale.items())
        for name, by_locale in texts
    )
    return f"<dl>{said}</dl>"


def _image(db: Session, design: Design, at: int) -> str:
    image = design.images[at]
    aliases = {method.id: method.alias for method in design.methods}
    shown = [("input", image.input_id)]
    shown += sorted((aliases[method], rendition) for method, rendition in image.output_ids.items())
    return _section(db, image, image.key, shown)


def _test(db: Session, design: Design, name: tuple[str, int, int]) -> str:
    """A trial with a known right answer: practice, gold or attention."""
    kind, criterion, item = name
    gold = design.golds[name]
    image = design.images[gold.image]
    shown = [("input", image.input_id), ("right", gold.right_id), *(("wrong", wrong) for wrong in gold.wrong_ids)]
    asked = "" if kind == "attention" else f" of {design.definition.gold_criteria[criterion].key}"
    return _section(db, image, f"{kind.capitalize()} trial {item + 1}{asked}, on {image.key}", shown)


def _section(db: Session, image: StoredImage, title: str, shown: Sequence[tuple[str, int]]) -> str:
    query = select(RENDITION.c.id, BLOB.c.content).join(BLOB, BLOB.c.id == RENDITION.c.blob_id)
    found = db.execute(query.where(RENDITION.c.id.in_([rendition for _, rendition in shown])))
    pictures = {row.id: base64.b64encode(row.content).decode() for row in found}
    figures = "".join(
        f'<figure><img alt="{escape(name)} of {escape(image.key)}" width="{image.width}" height="{image.height}" '
        f'src="data:image/png;base64,{pictures[rendition]}"><figcaption>{escape(name)}</figcaption></figure>'
        for name, rendition in shown
    )
    return f"<section><h2>{escape(title)}</h2>{figures}</section>"
