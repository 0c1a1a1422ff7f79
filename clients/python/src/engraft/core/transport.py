"""What the core needs of the world: requests and answers, time, and work that blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

import httpx

T = TypeVar("T")

BLOCK = 1 << 18
"""Bytes of a file that are sent at once."""


class Lost(Exception):
    """The connection failed before the answer was there."""


@dataclass(frozen=True)
class FileRange:
    """The bytes `start` to `end` of a file, as the body of a request."""

    path: Path
    start: int
    end: int


Query = Mapping[str, "str | list[str]"]
"""Parameters of a request; one with a list is sent once for each of its values."""


@dataclass(frozen=True)
class Request:
    """A request; the same request may be sent several times."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileRange = b""
    hold: float = 0.0
    """Seconds for which the server may hold the answer back."""


@dataclass(frozen=True)
class Answer:
    """An answer with its whole body."""

    status: int
    headers: httpx.Headers
    body: bytes


class Stream(Protocol):
    """An answer whose body comes bit by bit."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> httpx.Headers:
        """The headers."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises `Lost` where it ends early."""

    async def whole(self) -> Answer:
        """The answer with its whole body."""


class Received:
    """What is there of a streamed answer before its body."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        """See `Stream`."""
        return self._response.status_code

    @property
    def headers(self) -> httpx.Headers:
        """See `Stream`."""
        return self._response.headers


class Transport(Protocol):
    """The way to the server, and to all else that takes time."""

    async def send(self, request: Request) -> Answer:
        """The answer to a request. Raises `Lost`."""

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """The answer to a request, as it arrives. Raises `Lost`."""

    async def sleep(self, seconds: float) -> None:
        """Waits."""

    async def work(self, function: Callable[..., T], *arguments: Any) -> T:
        """What `function` returns, which may block for a while."""

    async def close(self) -> None:
        """Gives the connections back."""


class Outgoing(TypedDict):
    """What a request hands to `build_request` of either of httpx's clients, beside its body."""

    method: str
    url: str
    params: Query | None
    headers: Mapping[str, str]
    timeout: httpx.Timeout


def outgoing(request: Request, patience: float) -> Outgoing:
    """A request in httpx's words; `patience` is how many seconds each step of it may take."""
    headers = dict(request.headers)
    if isinstance(request.body, FileRange):
        # Without a length, httpx would send the bytes of an iterator in chunks.
        headers["Content-Length"] = str(request.body.end - request.body.start)
    timeout = httpx.Timeout(patience, connect=min(patience, 10.0), read=patience + request.hold)
    return Outgoing(
        method=request.method, url=request.path, params=request.query or None, headers=headers, timeout=timeout
    )


@contextmanager
def losses(server: httpx.URL) -> Iterator[None]:
    """Raises httpx's faults of connections to `server` as `Lost`."""
    try:
        yield
    except httpx.LocalProtocolError:
        raise
    except httpx.TransportError as error:
        # What the layers below have raised on the way says no more.
        raise Lost(f"{server}: {type(error).__name__} {error}".rstrip()) from None


def check_url(url: str) -> str:
    """The address of a server, without a slash at its end."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"expected an address as http://127.0.0.1:8080, got {url!r}")
    return url.rstrip("/")
