"""Every shape written in asuka_infer.asuka is checked while these tests run; every test starts from the same seed."""

import importlib
import warnings

import pytest
import torch
from jaxtyping import install_import_hook

# Before the modules are first imported: annotations become checks. Not the modules with settings: those check their
# values themselves, with a sentence for whoever set them, and other tests in this process ask for that sentence.
WITH_SHAPES = ("alignment", "decoder", "family", "flux", "mae", "mini", "repaint", "scene", "schedule", "sd")
install_import_hook([f"asuka_infer.asuka.{module}" for module in WITH_SHAPES], "beartype.beartype")

with warnings.catch_warnings():
    # Imported once, here: diffusers and its neighbours warn about each other's deprecations while they load.
    warnings.simplefilter("ignore")
    for library in ("diffusers.models.unets.unet_2d_condition", "timm.models.vision_transformer", "transformers"):
        importlib.import_module(library)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
