"""An `AsyncClient` that looks like a `Client`, so that one test is run with both."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

from engraft import AsyncClient, AsyncComparison, AsyncJob, Client


class Connect(Protocol):
    """Makes a client."""

    def __call__(self, url: str, **arguments: Any) -> Client: ...


class Bridge:
    """Something of an `AsyncClient`; whatever has to be awaited is, in the event loop of another thread."""

    def __init__(self, target: object, portal: BlockingPortal) -> None:
        self._target = target
        self._portal = portal

    @classmethod
    @contextmanager
    def portal(cls) -> Iterator[Clients]:
        with start_blocking_portal("asyncio") as portal:
            clients = Clients(portal)
            yield clients
            for client in clients.opened:
                portal.call(client.close)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if inspect.ismethod(value):
            return lambda *arguments, **named: self._settled(value(*arguments, **named))
        return self._settled(value)

    def __repr__(self) -> str:
        return repr(self._target)

    def _settled(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = self._portal.call(_awaited, value)
        if isinstance(value, AsyncIterator):
            return self._items(value)
        return Bridge(value, self._portal) if isinstance(value, AsyncJob | AsyncComparison) else value

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        while (item := self._portal.call(_next, items)) is not _END:
            yield self._settled(item)


class Clients:
    """The clients of one event loop."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self.opened: list[AsyncClient] = []

    def client(self, url: str, **arguments: Any) -> Client:
        self.opened.append(self._portal.call(lambda: AsyncClient(url, **arguments)))
        return cast(Client, Bridge(self.opened[-1], self._portal))


_END = object()


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items, _END)
