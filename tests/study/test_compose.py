"""The compose file for many replicas says only what the app and the images understand, looked at without Docker."""

import re
from typing import Any

import pytest
import yaml

from tests.serving import ROOT

APP = (ROOT / "app.py").read_text()
SETTINGS = set(re.findall(r"^    (\w+): [^=\n]+ = ", APP, re.MULTILINE))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docs" / "compose.yaml").read_text())


def test_both_copies_of_the_app_are_alike(compose: dict[str, Any]) -> None:
    assert compose["services"]["app-1"] == compose["services"]["app-2"]


def test_every_variable_is_a_setting_of_the_app(compose: dict[str, Any]) -> None:
    named = {name.removeprefix("ASUKA_").lower() for name in compose["services"]["app-1"]["environment"]}
    assert {"database_url", "proxies", "payment_keys"} <= named, "what replicas behind a proxy cannot do without"
    assert named <= SETTINGS


def test_every_option_of_the_command_is_one_of_the_app(compose: dict[str, Any]) -> None:
    command = compose["services"]["app-1"]["command"]
    options = {word for word in command if word.startswith("--")}
    assert command[:2] == ["python", "app.py"]
    assert all(f'"{option}"' in APP for option in options)


def test_every_volume_and_config_is_declared_and_the_image_copies_what_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"].values()
    assert {volume.partition(":")[0] for each in services for volume in each.get("volumes", ())} == set(
        compose["volumes"]
    )
    assert {config["source"] for each in services for config in each.get("configs", ())} == set(compose["configs"])
    recipe = compose["services"]["app-1"]["build"]["dockerfile_inline"]
    for line in re.findall(r"^COPY (.+) \./$", recipe, re.MULTILINE):
        assert all((ROOT / name).is_file() for name in line.split())


def test_the_proxy_shares_visitors_between_the_copies_on_the_port_they_listen_on(compose: dict[str, Any]) -> None:
    port = compose["services"]["app-1"]["command"][-1]
    upstreams = re.findall(r"(app-\d):(\d+)", compose["configs"]["caddyfile"]["content"])
    assert upstreams == [("app-1", port), ("app-2", port)]
