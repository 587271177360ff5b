"""A job before an orchestrator that wants to know who calls."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import orchestrator.app
import orchestrator.settings
from orchestrator.__main__ import cli
from tests.client import Serve
from tests.databases import MakeSettings
from tests.issuer import Issuer
from tests.orchestrator.job.rows import jsonl_of, order
from tests.orchestrator.job.system import System

only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def url(system: System, make_settings: MakeSettings, serve: Serve, issuer: Issuer) -> str:
    """An orchestrator that takes the issuer's tokens, before the customers and orders of the system."""
    bases = {"customers_api_base": system.customers.url, "orders_api_base": system.orders.url}
    told: dict[str, Any] = issuer.settings(**bases)
    secured = make_settings(orchestrator.settings.Settings, **told)
    return (await serve(orchestrator.app.create_app(secured))).url


@only_sqlite
async def test_a_job_calls_with_the_token_in_its_file(
    system: System, url: str, issuer: Issuer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(issuer.token("sagas:write") + "\n")

    done = await system.run(jsonl_of(tmp_path, order("A"), order("B")), url=url, token_file=token)

    assert (done.exit_code, done.statuses) == (0, ["succeeded"] * 2)


@only_sqlite
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "auth.token_missing"),
        ("of a reader", "auth.scope_missing"),
        ("expired", "auth.token_invalid"),
    ],
)
async def test_without_a_valid_token_orders_are_unfinished_and_a_new_run_goes_on(  # noqa: PLR0917 - cases and fixtures
    system: System, url: str, issuer: Issuer, tmp_path: Path, content: str | None, code: str
) -> None:
    token = tmp_path / "token"
    token.write_text(
        issuer.token("sagas:write", exp=1) if content == "expired" else issuer.token("sagas:read")
    )
    file = jsonl_of(tmp_path, order("A"))

    refused = await system.run(file, url=url, token_file=token if content else None)
    token.write_text(issuer.token("sagas:write"))
    again = await system.run(file, url=url, token_file=token)

    assert (refused.exit_code, refused.of("status", "code", "attempts")) == (1, [("unfinished", code, 1)])
    assert (again.exit_code, again.statuses) == (0, ["succeeded"])


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_file_without_a_token_is_no_option(tmp_path: Path, content: str | None) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)

    ended = CliRunner().invoke(cli, ["job", "-", "--token-file", str(token)])

    assert ended.exit_code == 2
    assert "--token-file" in ended.stderr
