"""A transport that plays a script: the core's decisions without a server, a clock or a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from engraft.core.transport import Answer, FileRange, Lost, Request, Stream

T = TypeVar("T")


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer; `_` in the names of headers stands for `-`."""
    return Answer(status, httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()}), body)


class Scripted:
    """Gives the answers of a script, one after another."""

    def __init__(self, *script: Answer | Lost | list[bytes | Lost]) -> None:
        self._script = list(script)
        self.requests: list[Request] = []
        self.slept: list[float] = []

    @property
    def is_over(self) -> bool:
        return not self._script

    def parts(self) -> list[tuple[int, int]]:
        """The byte ranges that were sent."""
        bodies = [request.body for request in self.requests]
        return [(body.start, body.end) for body in bodies if isinstance(body, FileRange)]

    async def send(self, request: Request) -> Answer:
        self.requests.append(request)
        match self._script.pop(0):
            case Lost() as lost:
                raise lost
            case Answer() as given:
                return given
            case _:
                raise AssertionError("the script has a stream here")

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        self.requests.append(request)
        match self._script.pop(0):
            case Lost() as lost:
                raise lost
            case Answer() as given:
                yield _Played(given, [given.body])
            case chunks:
                yield _Played(answer(200), chunks)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def work(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments)

    async def close(self) -> None:
        raise AssertionError("nobody closes it")


class _Played:
    def __init__(self, given: Answer, chunks: list[bytes | Lost] | list[bytes]) -> None:
        self._given = given
        self._chunks = chunks

    @property
    def status(self) -> int:
        return self._given.status

    @property
    def headers(self) -> httpx.Headers:
        return self._given.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, Lost):
                raise chunk
            yield chunk

    async def whole(self) -> Answer:
        return self._given
