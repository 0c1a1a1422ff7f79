"""The core in an event loop, of asyncio or trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import httpx

from .transport import BLOCK, Answer, FileRange, Received, Request, Stream, losses, outgoing

T = TypeVar("T")


class AsyncTransport:
    """Requests by `httpx.AsyncClient`; what blocks runs in other threads."""

    def __init__(self, client: httpx.AsyncClient, patience: float) -> None:
        self._client = client
        self._patience = patience

    def _built(self, request: Request, content: bytes | AsyncIterator[bytes]) -> httpx.Request:
        return self._client.build_request(**outgoing(request, self._patience), content=content or None)

    async def send(self, request: Request) -> Answer:
        """See `Transport`."""
        async with _content(request.body) as content:
            with losses(self._client.base_url):
                response = await self._client.send(self._built(request, content))
        return Answer(response.status_code, response.headers, response.content)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        """See `Transport`."""
        with losses(self._client.base_url):
            response = await self._client.send(self._built(request, b""), stream=True)
        try:
            yield _Stream(response)
        finally:
            await response.aclose()

    async def sleep(self, seconds: float) -> None:
        """See `Transport`."""
        await anyio.sleep(seconds)

    async def work(self, function: Callable[..., T], *arguments: Any) -> T:
        """See `Transport`."""
        return await anyio.to_thread.run_sync(partial(function, *arguments))

    async def close(self) -> None:
        """See `Transport`."""
        await self._client.aclose()


class _Stream(Received):
    async def chunks(self) -> AsyncIterator[bytes]:
        with losses(self._response.url):
            async for chunk in self._response.aiter_raw():
                yield chunk

    async def whole(self) -> Answer:
        with losses(self._response.url):
            body = await self._response.aread()
        return Answer(self.status, self.headers, body)


@asynccontextmanager
async def _content(body: bytes | FileRange) -> AsyncIterator[bytes | AsyncIterator[bytes]]:
    """A body as httpx takes it; a file is closed even if nobody reads it to its end."""
    if isinstance(body, bytes):
        yield body
        return
    async with aclosing(_blocks(body)) as blocks:
        yield blocks


async def _blocks(part: FileRange) -> AsyncGenerator[bytes, None]:
    async with await anyio.open_file(part.path, "rb") as file:
        await file.seek(part.start)
        left = part.end - part.start
        while left and (block := await file.read(min(BLOCK, left))):
            left -= len(block)
            yield block
