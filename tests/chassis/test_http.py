import json
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from chassis import http
from chassis.errors import VersionMismatch
from chassis.http import Answer, One, Timestamp, View


class Moments(View):
    at: Timestamp
    ended_at: Timestamp | None


def test_timestamps_are_utc_with_microseconds_even_when_they_are_zero() -> None:
    view = Moments(at=datetime(2026, 1, 31, 12, 0, 0, 0, UTC), ended_at=None)

    answer = Answer.of(One[Moments](data=view))

    assert json.loads(answer.body) == {"data": {"at": "2026-01-31T12:00:00.000000Z", "ended_at": None}}


def test_a_timestamp_is_described_as_one() -> None:
    schema = Moments.model_json_schema(mode="serialization")

    assert schema["properties"]["at"] == {"title": "At", "type": "string", "format": "date-time"}


def test_an_answer_carries_its_location_and_its_version() -> None:
    view = Moments(at=datetime(2026, 1, 31, tzinfo=UTC), ended_at=None)

    response = Answer.of(view, 201, location="/moments/1", version=3).response()

    assert response.status == 201
    assert response.headers["Location"] == "/moments/1"
    assert response.headers["ETag"] == '"3"'
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("header", "versions"),
    [
        (None, None),
        ("*", None),
        ('"1"', {1}),
        ('"1", "22"', {1, 22}),
        ('W/"1", "2"', {2}),
        ('"abc", "3"', {3}),
    ],
)
def test_if_match_names_the_versions_that_may_be_changed(
    header: str | None, versions: set[int] | None
) -> None:
    request = _request({} if header is None else {"If-Match": header})

    expected = http.expected_versions(request)

    assert expected == versions


@pytest.mark.parametrize("header", ["", "1", '"abc"', 'W/"1"', "nonsense", '"-1"', '"' + "9" * 30 + '"'])
def test_an_if_match_that_names_no_version_of_ours_matches_nothing(header: str) -> None:
    request = _request({"If-Match": header})

    with pytest.raises(VersionMismatch):
        http.expected_versions(request)


@pytest.mark.parametrize("header", ['"7"', 'W/"7"', '"1", "7"', "*"])
def test_if_none_match_of_the_current_version_is_answered_without_a_body(header: str) -> None:
    answer = Answer(200, b"{}", {"ETag": '"7"'})

    unchanged = http.not_modified(_request({"If-None-Match": header}), answer)

    assert (unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", '"7"')


@pytest.mark.parametrize("headers", [{}, {"If-None-Match": '"6"'}, {"If-None-Match": "7"}])
def test_if_none_match_of_another_version_changes_nothing(headers: dict[str, str]) -> None:
    answer = Answer(200, b"{}", {"ETag": '"7"'})

    assert http.not_modified(_request(headers), answer) is answer


@pytest.mark.parametrize(
    ("header", "wait"),
    [("", 10), ("wait=3", 3), ("respond-async, wait=2", 2), ("wait=99", 10), ("wait=x", 10)],
)
def test_a_client_may_prefer_to_wait_less_but_not_longer(header: str, wait: float) -> None:
    request = _request({"Prefer": header})

    assert http.preferred_wait(request, longest=10) == wait


@pytest.mark.parametrize(
    ("header", "preferred"),
    [
        ("respond-async", True),
        ("wait=1, respond-async", True),
        ("", False),
        ("respond-asynchronously", False),
    ],
)
def test_a_client_may_prefer_not_to_wait_at_all(header: str, preferred: bool) -> None:  # noqa: FBT001 - a case
    request = _request({"Prefer": header})

    assert http.prefers_async(request) is preferred


def _request(headers: dict[str, str]) -> web.Request:
    return make_mocked_request("GET", "/moments/1", headers=headers)
