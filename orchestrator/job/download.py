"""A file of orders from an address.

It is copied to a temporary file before the first order is made: CSV is read twice, a job may take longer
than a server keeps a connection, and a file that breaks off must not be taken for a shorter one.
"""

import re
from http import HTTPStatus
from typing import BinaryIO

import aiohttp
from yarl import URL

from orchestrator.job.lines import CHUNK_BYTES, FileUnusable

MAX_FILE_BYTES = 64 * 1_048_576
MAX_REDIRECTS = 5
TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=10, sock_read=30)
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class FileUnreachable(Exception):  # noqa: N818 - an outcome, not an error
    """The file cannot be had now; that may be another time."""


def address_of(file: str) -> URL | None:
    """The address that this is; None if it is the path of a file.

    Raises:
        FileUnusable: it begins like an address and is none.

    """
    if not re.match("https?://", file, re.IGNORECASE):
        return None
    try:
        address = URL(file)
    except ValueError:
        address = URL()
    if not address.host:
        raise FileUnusable("this is no address")
    return address


async def download(address: URL, to: BinaryIO) -> None:
    """Copy all of the file at the address.

    Raises:
        FileUnreachable: the server cannot be reached, broke off, or is out of order.
        FileUnusable: the address is none, there is no such file, or it is too large.

    """
    try:
        async with (
            aiohttp.ClientSession(timeout=TIMEOUT, trust_env=True) as http,
            http.get(address, max_redirects=MAX_REDIRECTS) as response,
        ):
            _check(address, response)
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                if to.tell() + len(chunk) > MAX_FILE_BYTES:
                    raise _too_large(address)
                to.write(chunk)
    except aiohttp.TooManyRedirects:
        raise FileUnusable(f"{_shown(address)} redirects more than {MAX_REDIRECTS} times") from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError):  # the last one of a host's name
        raise FileUnusable(f"{_shown(address)} is no address, or redirects to one that is none") from None
    except TimeoutError:
        raise FileUnreachable(f"{_shown(address)} does not answer in time; try again later") from None
    except aiohttp.ClientError as error:
        raise FileUnreachable(
            f"{_shown(address)} cannot be fetched ({type(error).__name__}); try again later"
        ) from None
    except OSError as error:
        raise FileUnreachable(
            f"no room for a copy of the file: {error.strerror}; TMPDIR names a folder that has"
        ) from None


def _check(address: URL, response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _LATER:
        raise FileUnreachable(f"{_shown(address)} answered {status}; try again later")
    if status != HTTPStatus.OK:
        raise FileUnusable(
            f"{_shown(address)} answered {status}; the job wants an address that anybody may read"
        )
    if (response.content_length or 0) > MAX_FILE_BYTES:
        raise _too_large(address)


def _too_large(address: URL) -> FileUnusable:
    return FileUnusable(f"{_shown(address)} has more than {MAX_FILE_BYTES >> 20} MiB; split it")


def _shown(address: URL) -> str:
    """The address without what may be a secret: user, password, query."""
    return str(address.with_user(None).with_query(None).with_fragment(None))
