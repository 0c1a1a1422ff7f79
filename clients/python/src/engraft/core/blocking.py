"""The core without an event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any, TypeVar

import httpx

from .transport import BLOCK, Answer, FileRange, Received, Request, Stream, losses, outgoing

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine of the core has suspended without an event loop")


def iterate(items: AsyncGenerator[T, None]) -> Iterator[T]:
    """The items of an asynchronous generator that never suspends."""
    try:
        while True:
            try:
                yield run(_next(items))
            except StopAsyncIteration:
                return
    finally:
        run(items.aclose())


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await items.__anext__()


class SyncTransport:
    """Requests by `httpx.Client`, and a thread that waits."""

    def __init__(self, client: httpx.Client, patience: float) -> None:
        self._client = client
        self._patience = patience

    def _built(self, request: Request, content: bytes | Iterator[bytes]) -> httpx.Request:
        return self._client.build_request(**outgoing(request, self._patience), content=content or None)

    async def send(self, request: Request) -> Answer:
        """See `Transport`."""
        with _content(request.body) as content, losses(self._client.base_url):
            response = self._client.send(self._built(request, content))
        return Answer(response.status_code, response.headers, response.content)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        """See `Transport`."""
        with losses(self._client.base_url):
            response = self._client.send(self._built(request, b""), stream=True)
        try:
            yield _Stream(response)
        finally:
            response.close()

    async def sleep(self, seconds: float) -> None:
        """See `Transport`."""
        time.sleep(seconds)  # noqa: ASYNC251 - nobody else shares this thread

    async def work(self, function: Callable[..., T], *arguments: Any) -> T:
        """See `Transport`."""
        return function(*arguments)

    async def close(self) -> None:
        """See `Transport`."""
        self._client.close()


class _Stream(Received):
    async def chunks(self) -> AsyncIterator[bytes]:
        with losses(self._response.url):
            for chunk in self._response.iter_raw():
                yield chunk

    async def whole(self) -> Answer:
        with losses(self._response.url):
            body = self._response.read()
        return Answer(self.status, self.headers, body)


@contextmanager
def _content(body: bytes | FileRange) -> Iterator[bytes | Iterator[bytes]]:
    """A body as httpx takes it; a file is closed even if nobody reads it to its end."""
    if isinstance(body, bytes):
        yield body
        return
    with closing(_blocks(body)) as blocks:
        yield blocks


def _blocks(part: FileRange) -> Generator[bytes, None, None]:
    with part.path.open("rb") as file:
        file.seek(part.start)
        left = part.end - part.start
        while left and (block := file.read(min(BLOCK, left))):
            left -= len(block)
            yield block
