import json
import re
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from dev import sbom


@pytest.fixture(scope="module")
def text() -> str:
    return sbom.text()


@pytest.fixture(scope="module")
def components(text: str) -> dict[str, Any]:
    return {component["name"]: component for component in json.loads(text)["components"]}


def test_it_is_valid(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_it_is_the_same_each_time(text: str) -> None:
    assert sbom.text() == text


def test_it_has_what_the_lock_of_the_image_has_on_linux(components: dict[str, Any]) -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", sbom.LOCK.read_text(), flags=re.MULTILINE))
    elsewhere = {"colorama", "tzdata"}  # only on Windows

    assert {name: one["version"] for name, one in components.items()} == {
        name: version for name, version in locked.items() if name not in elsewhere
    }


def test_every_package_has_a_licence_and_the_hashes_of_its_files(components: dict[str, Any]) -> None:
    for name, component in components.items():
        (licence,) = component["licenses"]
        (files,) = component["externalReferences"]

        assert "unknown" not in str(licence), name
        assert {one["alg"] for one in files["hashes"]} == {"SHA-256"}
        assert all(one["content"] in sbom.LOCK.read_text() for one in files["hashes"])
        assert component["purl"] == f"pkg:pypi/{name}@{component['version']}"


def test_it_says_what_needs_what(text: str) -> None:
    needs = {
        one["ref"].partition("==")[0]: one.get("dependsOn", []) for one in json.loads(text)["dependencies"]
    }

    assert {"aiohttp", "sqlalchemy", "pyjwt"} <= {ref.partition("==")[0] for ref in needs["b2b-orders"]}
    assert {"yarl", "multidict"} <= {ref.partition("==")[0] for ref in needs["aiohttp"]}
