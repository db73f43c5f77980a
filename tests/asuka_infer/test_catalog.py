"""The table of methods."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from asuka_infer.catalog import METHODS, UnknownMethodError, find_method
from asuka_infer.inpainter import Inpainter
from asuka_infer.settings import HasWorkingSize, knobs

WITHOUT_WEIGHTS = {"telea", "navier-stokes", "shift-map", "fsr", "biharmonic", "nearest-neighbour"}


def test_the_weight_free_methods_are_ready_everywhere() -> None:
    assert set(METHODS) >= WITHOUT_WEIGHTS
    assert all(METHODS[key].readiness().ready for key in WITHOUT_WEIGHTS)


@pytest.mark.parametrize("key", METHODS)
def test_every_entry_says_what_it_is_and_what_makes_it_ready(key: str) -> None:
    method = METHODS[key]
    assert method.key == key
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key), "keys are folder names and parts of addresses"
    assert all((method.title, method.summary.endswith("."), method.citation, method.licence))
    readiness = method.readiness()
    assert readiness.ready == (readiness.how_to == "")
    assert readiness.ready or readiness.how_to.endswith(".")


@pytest.mark.parametrize("key", sorted(WITHOUT_WEIGHTS))
def test_a_method_loads_with_settings_and_a_working_size(key: str) -> None:
    method = find_method(key).load()
    assert isinstance(method, Inpainter)
    assert isinstance(method, HasWorkingSize)
    assert "largest_side" in {knob.name for knob in knobs(method.settings)}
    assert method.working_size.largest == method.settings.largest_side


def test_an_unknown_key_names_near_ones_and_all() -> None:
    with pytest.raises(UnknownMethodError) as caught:
        find_method("telia")
    assert str(caught.value).startswith("There is no method 'telia' (did you mean telea?); choose one of ")
    assert all(key in str(caught.value) for key in METHODS)


@pytest.mark.parametrize("module", ["catalog", "inpaint", "batch", "cli"])
def test_the_torch_free_rooms_do_not_load_torch(module: str) -> None:
    code = f"import asuka_infer.{module}, sys; sys.exit('torch' in sys.modules or 'skimage' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
