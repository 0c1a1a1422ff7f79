"""Downloads that go on where they were cut, also by another process."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import DigestMismatch, UnexpectedAnswer
from .retry import Pauses
from .session import Session, connection_failed
from .transport import Lost, Request
from .uploads import local_file


@dataclass(frozen=True)
class _Remote:
    """A file as its headers describe it."""

    bytes: int
    sha256: str
    name: str


async def fetch(session: Session, path: str, query: Mapping[str, str], target: Path) -> Path:
    """Writes what is at `path` to `target`, or into it under its own name where it is a folder; returns where it is.

    Bytes that are there go to `NAME.SHA256.part` beside it, where a later call finds them. Raises `DigestMismatch`.
    """
    remote = await _remote(session, path, query)
    folder = await session.transport.work(target.is_dir)
    target = target / remote.name if folder else target
    part = target.with_name(f"{target.name}.{remote.sha256[:16]}.part")
    await _receive(session, path, query, remote, part)
    got = await session.transport.work(local_file, part)
    if got.sha256 != remote.sha256:
        part.unlink()
        raise DigestMismatch(
            f"{target.name}: expected SHA-256 {remote.sha256}, the bytes that arrived have {got.sha256}"
        )
    part.replace(target)
    return target


async def _remote(session: Session, path: str, query: Mapping[str, str]) -> _Remote:
    # One byte instead of HEAD, whose refusals would not say why. The server may have to make the file first.
    answer = await session.send(Request("GET", path, query=query, headers={"Range": "bytes=0-0"}, hold=300.0))
    length = re.search(r"/(\d+)$", answer.headers.get("Content-Range", f"/{len(answer.body)}"))
    digest = re.search(r"sha-256=:([^:]*):", answer.headers.get("Repr-Digest", ""))
    name = re.search(r'filename="([A-Za-z0-9._-]+)"', answer.headers.get("Content-Disposition", ""))
    if length is None or digest is None:
        raise UnexpectedAnswer(f"the server does not say how long {path} is, or what its digest is")
    try:
        sha256 = base64.b64decode(digest[1], validate=True).hex()
    except binascii.Error as error:
        raise UnexpectedAnswer(f"{digest[1]!r} is no digest") from error
    return _Remote(int(length[1]), sha256, name[1] if name else path.rsplit("/", 1)[-1])


async def _receive(session: Session, path: str, query: Mapping[str, str], remote: _Remote, part: Path) -> None:
    """Brings `part` to its whole length."""
    pauses = Pauses(session.retry)
    with part.open("ab") as file:
        while (have := file.tell()) < remote.bytes:
            headers = {"Range": f"bytes={have}-", "If-Range": f'"{remote.sha256}"', "Accept-Encoding": "identity"}
            try:
                await _append(session, Request("GET", path, query=query, headers=headers), file, pauses)
            except Lost as lost:
                if file.tell() > have:
                    pauses.headway()
                await session.pause(pauses, connection_failed(lost))


async def _append(session: Session, request: Request, file: IO[bytes], pauses: Pauses) -> None:
    async with session.transport.stream(request) as answer:
        if answer.status >= 400:
            await session.after_refusal(pauses, await answer.whole())
            return
        if answer.status == 200:
            # The file is another one by now: what is there of the old one is no use.
            file.truncate(0)
        async for chunk in answer.chunks():
            await session.transport.work(file.write, chunk)
