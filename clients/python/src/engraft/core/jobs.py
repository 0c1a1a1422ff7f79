"""What can be done with jobs and comparisons."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from ..errors import JobCancelled, JobFailed, WaitTimeout
from ..fields import JobFields
from ..progress import Watcher
from ..tensors import State, load_state
from ..types import Checkpoint, ComparisonDetails, Dataset, Epoch, JobDetails, LogLine, Model, Plan
from .downloads import fetch
from .session import HOLD, Session, parsed, path_of
from .transport import Request

Watched = TypeVar("Watched", JobDetails, ComparisonDetails, Dataset)
FORMATS = {".safetensors": "safetensors", ".pt": "pt", ".onnx": "onnx", ".py": "py", ".json": "json", ".tar": "tar"}
"""The format of a model by the end of a file's name."""

LOOK = 1
"""Seconds between two looks at what somebody watches."""


def description(
    members: Sequence[Checkpoint | str], dataset: Dataset | str | Mapping[str, Any] | None, fields: JobFields
) -> dict[str, Any]:
    """The body of a job."""
    # Names, not ids: the report calls the members as the job does.
    names = [member.name if isinstance(member, Checkpoint) else member for member in members]
    job: dict[str, Any] = {"members": names, **fields}
    if isinstance(dataset, Mapping):
        named = {field: value.name if isinstance(value, Dataset) else value for field, value in dataset.items()}
        return {**job, "dataset": named}
    if dataset is None:
        return job
    return {**job, "dataset": dataset.name if isinstance(dataset, Dataset) else dataset}


async def submit(session: Session, path: str, model: type[Watched], body: Mapping[str, Any], **query: str) -> Watched:
    """Queues a job or a comparison, once however often the request has to be repeated."""
    return parsed(model, await session.post(path, body, query=query, key=str(uuid.uuid4())))


async def plan(session: Session, body: Mapping[str, Any]) -> Plan:
    """What a job would do."""
    return parsed(Plan, await session.post("/v1/jobs", body, query={"validate_only": "true"}))


async def wait(
    session: Session,
    model: type[Watched],
    path: str,
    shown: AbstractContextManager[Watcher] | None,
    timeout: float | None,
) -> Watched:
    """Waits for the end of a job or a comparison, or until a dataset is read. Raises `WaitTimeout`."""
    if shown is None:
        return await _watch(session, model, path, lambda _: None, HOLD, timeout)
    with shown as watcher:
        return await _watch(session, model, path, watcher, LOOK, timeout)


async def _watch(
    session: Session, model: type[Watched], path: str, watcher: Watcher, hold: int, timeout: float | None
) -> Watched:
    end = math.inf if timeout is None else time.monotonic() + timeout
    state = ""
    while True:
        asked = time.monotonic()
        # A second is the least that the server can be asked to wait.
        seen = await session.get(model, path, hold=max(0, int(min(hold, end - asked))))
        watcher(seen)
        if seen.ended:
            return seen
        now = time.monotonic()
        if now >= end:
            raise WaitTimeout(f"{seen.id} is {seen.state} after {timeout} s")
        if seen.state == state:
            # Where the server has not held the answer back for long enough, it is not asked again at once.
            await session.transport.sleep(max(0.0, min(LOOK - (now - asked), end - now)))
        state = seen.state


def succeeded(details: JobDetails) -> JobDetails:
    """The job, if it has succeeded. Raises `JobFailed` or `JobCancelled`."""
    if details.state == "succeeded":
        return details
    raise JobCancelled(details) if details.state == "cancelled" else JobFailed(details)


async def logs(session: Session, job: str, tail: int | None) -> AsyncGenerator[LogLine, None]:
    """The lines of a job's log so far, all of them or the last ones."""
    query = {"after": "0"} if tail is None else {"tail": str(tail)}
    async for line in session.pages(LogLine, f"{path_of('jobs', job)}/logs", query):
        yield line


class _Curve(Model):
    data: list[Epoch]


async def epochs(session: Session, path: str) -> list[Epoch]:
    """The finished epochs of a job's training."""
    return (await session.get(_Curve, f"{path}/metrics")).data


async def retry(session: Session, job: str, from_start: bool) -> JobDetails:
    """Queues a job that repeats one."""
    query = {"from": "start"} if from_start else {}
    return parsed(JobDetails, await session.post(f"{path_of('jobs', job)}/retry", query=query, key=str(uuid.uuid4())))


async def download(
    session: Session, job: str, path: Path, format: str | None, shards: int | None, normalize: bool
) -> Path:
    """Writes the fused model to a file."""
    format = format or FORMATS.get(path.suffix)
    query = {} if format is None else {"format": format}
    if shards is not None:
        query["shards"] = str(shards)
    if normalize:
        query["normalize"] = "true"
    return await fetch(session, f"{path_of('jobs', job)}/model", query, path)


async def model(session: Session, job: str) -> State:
    """The fused model as a `state_dict`."""
    with TemporaryDirectory(prefix="engraft-", ignore_cleanup_errors=True) as folder:
        path = await fetch(session, f"{path_of('jobs', job)}/model", {"format": "safetensors"}, Path(folder))
        return await session.transport.work(load_state, path)


async def cancel(session: Session, model: type[Watched], path: str) -> Watched:
    """Asks for the end of a job, or of all of a comparison."""
    return parsed(model, await session.post(f"{path}/cancel"))


async def comparison_report(session: Session, path: str) -> dict[str, Any]:
    """The report of a comparison."""
    report: dict[str, Any] = json.loads((await session.send(Request("GET", f"{path}/report"))).body)
    return report


async def comparison_page(session: Session, path: str, target: Path) -> Path:
    """Writes the report of a comparison to a file, as a page."""
    page = await session.send(Request("GET", f"{path}/report.html"))
    await session.transport.work(target.write_bytes, page.body)
    return target
