"""A folder of tiny random weights in the form of the published ones, and methods loaded from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def built_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, made once."""
    from tests.asuka_infer.baselines import tiny_weights as tiny  # noqa: PLC0415 - the classical tests need no torch

    folder = tmp_path_factory.mktemp("weights")
    tiny.save_sd(folder / "sd15")
    tiny.save_sd(folder / "sd2", prediction="v_prediction", variant="fp16")
    tiny.save_asymmetric(folder / "sd15-asymmetric")
    tiny.save_asuka_sd(folder / "asuka-sd15")
    tiny.save_asuka_flux(folder / "asuka-flux")
    tiny.save_sdxl(folder / "sdxl")
    tiny.save_flux(folder / "flux-fill")
    for name in ("sd15-prompt", "mae"):
        (folder / name).mkdir()
    tiny.save_prompt(folder / "sd15-prompt" / "tokens.safetensors")
    tiny.save_mae(folder / "mae" / "mae_300.pth")
    return folder


@pytest.fixture(scope="module")
def tiny_folder(built_weights: Path) -> Iterator[Path]:
    """What `ASUKA_WEIGHTS` names while a module runs, in single precision, on the CPU; other modules find nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASUKA_WEIGHTS", str(built_weights))
        patch.setenv("ASUKA_DEVICE", "cpu")
        patch.setenv("ASUKA_PRECISION", "float32")
        yield built_weights
