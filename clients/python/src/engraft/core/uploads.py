"""Uploads that go on where they were cut."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import UnexpectedAnswer, api_error
from ..types import Checkpoint, Dataset
from .retry import Pauses
from .session import Session, connection_failed, listing, parsed, path_of, problem_of
from .transport import Answer, FileRange, Lost, Request

Stored = TypeVar("Stored", Checkpoint, Dataset)

FIRST = 1 << 18
"""Bytes of a file's first part."""


@dataclass(frozen=True)
class LocalFile:
    """A file that is to be uploaded."""

    path: Path
    bytes: int
    sha256: str
    """In hexadecimal."""


def local_file(path: Path) -> LocalFile:
    """Reads a file through."""
    digest, count = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            count += len(block)
    return LocalFile(path, count, digest.hexdigest())


@dataclass(frozen=True)
class _Standing:
    """What the server has of a name: nothing, the first `offset` bytes of an upload, or a whole file."""

    offset: int = 0
    sha256: str | None = None


async def store(
    session: Session, model: type[Stored], collection: str, name: str, file: LocalFile, labels: Mapping[str, str] | None
) -> Stored:
    """Uploads `file` to `name`, unless the server has it. Bytes that it has acknowledged are not sent again.

    Raises `Conflict` where the name belongs to another file.
    """
    path = path_of(collection, name)
    pauses, furthest, unsure = Pauses(session.retry), 0, False
    while True:
        standing = await _standing(session, path)
        if standing.sha256 == file.sha256:
            return await session.get(model, path)
        if standing.offset > furthest:
            furthest = standing.offset
            pauses.headway()
        begin, end = _next_part(file, standing, unsure)
        try:
            answer = await session.transport.send(_part(path, file, begin, end, labels))
        except Lost as lost:
            unsure = file.bytes > 1
            await session.pause(pauses, connection_failed(lost))
            continue
        if answer.status in (200, 201):
            return _checked(parsed(model, answer), file)
        if answer.status == 204:
            unsure = False
            continue
        problem = problem_of(answer)
        if problem.code == "upload_offset_mismatch" and unsure:
            # This is what was to be found out; HEAD says the same now.
            unsure = False
        elif problem.code in ("upload_in_progress", "upload_offset_mismatch"):
            await session.pause(pauses, api_error(problem))
        elif problem.code == "digest_mismatch" and begin > 0:
            # It went on another file's upload, which was left unfinished and which the server has discarded now.
            await session.pause(pauses, api_error(problem))
        else:
            await session.after_refusal(pauses, answer)


def _next_part(file: LocalFile, standing: _Standing, unsure: bool) -> tuple[int, int]:
    """Where the next part begins and ends."""
    if unsure and not standing.sha256:
        # The server may still be busy with what a lost connection brought, and say less than it is about to have.
        # Uploads to a name take turns, so the answer to a single byte is right; at 0 it would begin the upload anew.
        begin = min(max(standing.offset, 1), file.bytes - 1)
        return begin, begin + 1
    if standing.offset == 0 or standing.offset >= file.bytes or standing.sha256:
        # What is refused for what it is, or for its name, is refused before all of it is sent. An upload goes on only
        # with at least a byte: one that has all of them, or more, begins anew.
        return 0, min(FIRST, file.bytes)
    return standing.offset, file.bytes


async def _standing(session: Session, path: str) -> _Standing:
    """Asks how much of a name is there."""
    pauses = Pauses(session.retry)
    while True:
        try:
            answer = await session.transport.send(Request("HEAD", path))
        except Lost as lost:
            await session.pause(pauses, connection_failed(lost))
            continue
        if answer.status == 404:
            return _Standing()
        if answer.status < 400:
            return _read_standing(answer)
        # An answer to HEAD has no body that could say why; GET is refused for the same reason.
        await session.send(Request("GET", path))
        await session.pause(pauses, UnexpectedAnswer(f"HEAD {path} is answered with {answer.status}, GET is not"))


def _read_standing(answer: Answer) -> _Standing:
    complete, offset = answer.headers.get("Upload-Complete"), answer.headers.get("Upload-Offset", "")
    if complete not in ("?0", "?1") or not offset.isdecimal():
        raise UnexpectedAnswer("the answer does not say how much of the upload is there; is a server of engraft there?")
    sha256 = answer.headers.get("ETag", "").strip('"') if complete == "?1" else None
    return _Standing(int(offset), sha256)


def _part(path: str, file: LocalFile, begin: int, end: int, labels: Mapping[str, str] | None) -> Request:
    digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
    headers = {"Repr-Digest": f"sha-256=:{digest}:", "Content-Type": "application/octet-stream"}
    if (begin, end) != (0, file.bytes):
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.bytes}"
    # After the last byte the server reads the file through and syncs it.
    hold = 30.0 + file.bytes / 50e6
    body = FileRange(file.path, begin, end)
    return Request("PUT", path, query=listing(None, labels), headers=headers, body=body, hold=hold)


def _checked(stored: Stored, file: LocalFile) -> Stored:
    if stored.sha256 != file.sha256:
        raise UnexpectedAnswer(f"the server has stored SHA-256 {stored.sha256}; {file.path} has {file.sha256}")
    return stored
