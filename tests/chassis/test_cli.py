import pytest
from typer.testing import CliRunner

import customers.__main__
import customers.app


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(customers.__main__.cli, list(arguments))
    return result.exit_code, result.output


def test_help_names_the_commands_and_says_what_they_do() -> None:
    code, output = _run("--help")

    assert code == 0
    assert customers.app.DESCRIPTION in output
    assert "Serve HTTP until SIGTERM." in output
    assert "Bring the database schema up to date." in output
    assert "--check" in _run("migrate", "--help")[1]


def test_without_a_command_there_is_help() -> None:
    _, output = _run()

    assert "Usage: python -m customers" in output


@pytest.mark.parametrize("arguments", [["srve"], ["serve", "--port", "1"], ["migrate", "now"]])
def test_a_command_that_is_none_is_refused(arguments: list[str]) -> None:
    code, output = _run(*arguments)

    assert code == 2
    assert "Traceback" not in output
