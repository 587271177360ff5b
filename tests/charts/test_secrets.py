"""Secrets: they are made by somebody else, named in the values, and never stand in them."""

from typing import Any

import pytest
from pydantic import SecretStr

from dev.docs import SERVICES as DECLARED
from tests.charts.examples import EXAMPLES, NEEDED, OF_OPERATORS
from tests.charts.rendering import SERVICES, Object, Release, merged, refusal, render
from tests.charts.test_pods import containers, every_pod, releases

SECRET = {
    name.upper()
    for settings, _ in DECLARED.values()
    for name, field in settings.model_fields.items()
    if field.annotation is SecretStr or name == "database_url"
}


def secrets_of(pod: Object) -> set[tuple[str, str | None]]:
    """The Secrets that a pod names, with the key; None stands for all keys."""
    named = {
        (variable["valueFrom"]["secretKeyRef"]["name"], variable["valueFrom"]["secretKeyRef"]["key"])
        for container in containers(pod)
        for variable in container["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    for volume in pod["spec"].get("volumes", ()):
        if "secret" in volume:
            keys = [item["key"] for item in volume["secret"].get("items", ())] or [None]
            named |= {(volume["secret"]["secretName"], key) for key in keys}
    return named


def test_the_charts_make_no_secret() -> None:
    for release in releases():
        assert release.all("Secret") == []


def test_what_is_secret_stands_in_no_object() -> None:
    assert {"DATABASE_URL", "DB_PASSWORD", "SERVICE_TOKEN"} == SECRET
    for release in releases():
        for one in release.all("ConfigMap"):
            assert not SECRET & set(one["data"])
    for where, pod in every_pod():
        for container in containers(pod):
            literal = {variable["name"] for variable in container["env"] if "value" in variable}
            assert not SECRET & literal, where


@pytest.mark.parametrize("name", sorted(SECRET))
@pytest.mark.parametrize("block", ["global", "orders"])
def test_a_secret_among_the_values_is_refused(block: str, name: str) -> None:
    assert name in refusal(merged(NEEDED, {block: {"config": {name: "s3cret"}}}))


def test_one_secret_is_enough() -> None:
    named = {found for _, pod in render(NEEDED).pods() for found in secrets_of(pod)}

    assert named == {("b2b-orders", "DATABASE_URL"), ("b2b-orders", "SERVICE_TOKEN")}


def test_each_secret_can_be_one_of_its_own() -> None:
    named = {found for _, pod in render(OF_OPERATORS).pods() for found in secrets_of(pod)}

    assert named == {
        ("database", "DB_USERNAME"),
        ("database", "DB_PASSWORD"),
        ("service-token", "tokens"),
        ("job-token", "token"),
        ("smoke-token", "token"),
    }


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_service_token_is_a_file_that_is_followed_without_a_restart(service: str, example: str) -> None:
    release = render(EXAMPLES[example])
    pod = release.one("Deployment", f"b2b-{service}")["spec"]["template"]
    file = release.one("ConfigMap", f"b2b-{service}")["data"]["SERVICE_TOKEN_FILE"]
    (mount,) = (
        one for one in pod["spec"]["containers"][0]["volumeMounts"] if file.startswith(one["mountPath"])
    )
    (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == mount["name"])

    assert file == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
    assert "subPath" not in mount  # Kubernetes does not write those again
    assert volume["secret"]["defaultMode"] == 0o440  # for the group of the pod, nobody else


def test_an_upgrade_makes_nothing_up_anew() -> None:
    def plain(release: Release) -> Any:
        return sorted((one["kind"], one["metadata"]["name"], str(one)) for one in release.objects)

    # With another name of its file of values, so that it is rendered twice.
    again = merged(NEEDED, {"global": {"db": {"port": 3306}}})
    assert plain(render(NEEDED)) == plain(render(again)) == plain(render(NEEDED, upgrade=True))
