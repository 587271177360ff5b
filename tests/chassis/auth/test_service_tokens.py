from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from chassis.auth.service_tokens import ServiceTokens
from chassis.settings import EMBEDDED_TOKEN
from tests.chassis.sample import Settings, create_app
from tests.client import Client, Serve, refused

PATH = "/counters/nonsense/internal"


def _settings(tmp_path: Path, **given: Any) -> Settings:
    return Settings(**{"data_dir": tmp_path, "synchronize": False, "service_token": "", **given})


def _file(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


async def _call(client: Client, token: str) -> int:
    """Call an internal operation; 400 says that the caller was let in, since the path is nonsense."""
    return (await client.get(PATH, headers={"Authorization": f"Bearer {token}"})).status


def test_of_several_tokens_the_first_is_sent_and_all_are_accepted(tmp_path: Path) -> None:
    tokens = ServiceTokens(_settings(tmp_path, service_token="new, old,"))

    assert tokens.current() == "new"
    assert [tokens.accepts(token) for token in ("new", "old", "new, old", "new,old", "", "other")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_tokens_of_files_come_before_those_of_the_environment(tmp_path: Path) -> None:
    lines, commas = _file(tmp_path, "a", "one\ntwo\n"), _file(tmp_path, "b", "three,four")
    given = {"service_token_file": f"{lines},{commas}", "service_token": "five"}

    tokens = ServiceTokens(_settings(tmp_path, **given))

    assert tokens.current() == "one"
    assert all(tokens.accepts(token) for token in ("one", "two", "three", "four", "five"))


def test_a_file_takes_the_place_of_the_token_that_everybody_knows(tmp_path: Path) -> None:
    tokens = ServiceTokens(_settings(tmp_path, service_token_file=str(_file(tmp_path, "a", "own"))))

    assert tokens.accepts("own")
    assert not tokens.accepts(EMBEDDED_TOKEN)
    assert ServiceTokens(_settings(tmp_path)).accepts(EMBEDDED_TOKEN)


@pytest.mark.parametrize("content", [None, "", " \n,\n", "t\x00ken", "t\tken", "tökén", b"\xff\xfe"])
def test_a_file_without_a_usable_token_is_refused_at_the_start(
    tmp_path: Path, content: str | bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(ValidationError) as refusal:
        _settings(tmp_path, service_token_file=f"{_file(tmp_path, 'good', 'good')},{path}")

    [error] = refusal.value.errors()
    assert error["loc"][0] == "service_token_file"
    assert "wants" in error["msg"]


@pytest.mark.parametrize("token", [",", " , ", "tökén", "a\nb\x7f"])
def test_an_environment_without_a_usable_token_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(ValidationError, match="wants"):
        _settings(tmp_path, service_token=token)


async def test_a_rotated_token_counts_from_the_next_request_on(tmp_path: Path, serve: Serve) -> None:
    file = _file(tmp_path, "token", "first")
    client = await serve(create_app(_settings(tmp_path, service_token_file=str(file))))

    seen = []
    for text in ("first", "first\nother", "other\nfirst", "other"):
        file.write_text(text)
        seen.append([await _call(client, token) for token in ("first", "other")])

    assert seen == [[400, 401], [400, 400], [400, 400], [401, 400]]


async def test_bytes_that_are_no_text_are_no_token(client: Client) -> None:
    reply = await client.send(
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ".encode() + b"\xff\xfe\xe2\x82\r\n\r\n"
    )

    refused(reply, 401, "auth.service_token_invalid")
