"""Keeps Gradio from writing into our source folder."""

from collections.abc import Generator
from contextlib import contextmanager

from gradio import component_meta


@contextmanager
def no_stub_file() -> Generator[None, None, None]:
    """Define a component class in this block.

    Gradio writes a .pyi file beside every module that subclasses a component, as an aid to editors. It is a copy of the
    whole module, type checkers believe it instead of the module, and it goes stale. There is no switch for it.
    """
    write = component_meta.create_or_modify_pyi
    component_meta.create_or_modify_pyi = lambda component_class, class_name, events: None  # noqa: ARG005 - Gradio's own parameter names
    try:
        yield
    finally:
        component_meta.create_or_modify_pyi = write
