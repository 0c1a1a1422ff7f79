"""The client of a program with an event loop, of asyncio or trio."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any

import httpx
from typing_extensions import Self, Unpack

from .async_job import AsyncComparison, AsyncJob
from .core import files, jobs
from .core.retry import Retry
from .core.session import Session, listing, path_of
from .core.waiting import AsyncTransport
from .fields import JobFields
from .settings import connection
from .types import Checkpoint, ComparisonDetails, Dataset, JobDetails, Plan


class AsyncClient:
    """`Client` in an event loop: the same methods and arguments, and everything that asks the server is awaited."""

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, retry: Retry | None = None, timeout: float = 60.0
    ) -> None:
        transport = AsyncTransport(httpx.AsyncClient(**connection(url, api_key)), timeout)
        self._session = Session(transport, retry or Retry())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Gives the connections back."""
        await self._session.transport.close()

    async def upload(
        self, source: str | os.PathLike[str] | Any, name: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Checkpoint:
        """Uploads a member, unless the server has it. See `Client.upload`."""
        return await files.upload_checkpoint(self._session, source, name, labels)

    async def upload_dataset(
        self,
        source: str | os.PathLike[str] | Any,
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Dataset:
        """Uploads examples, and waits until the server has read them. See `Client.upload_dataset`."""
        return await files.upload_dataset(self._session, source, name, labels, wait)

    async def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint with this name or id, with its tensors."""
        return await self._session.get(Checkpoint, path_of("checkpoints", name))

    async def dataset(self, name: str) -> Dataset:
        """The dataset with this name or id."""
        return await self._session.get(Dataset, path_of("datasets", name))

    def checkpoints(self, *, labels: Mapping[str, str] | None = None) -> AsyncGenerator[Checkpoint, None]:
        """All checkpoints, or those with these labels; the newest first."""
        return self._session.pages(Checkpoint, "/v1/checkpoints", listing(None, labels))

    def datasets(
        self, *, state: str | None = None, labels: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Dataset, None]:
        """All datasets, or those in a state or with these labels; the newest first."""
        return self._session.pages(Dataset, "/v1/datasets", listing(state, labels))

    async def delete(self, file: Checkpoint | Dataset) -> None:
        """Deletes a checkpoint or a dataset. Raises `Conflict` while a job reads it."""
        collection = "checkpoints" if isinstance(file, Checkpoint) else "datasets"
        await self._session.delete(path_of(collection, file.id))

    async def fuse(
        self,
        members: Sequence[Checkpoint | str],
        dataset: Dataset | str | Mapping[str, Any] | None = None,
        **fields: Unpack[JobFields],
    ) -> AsyncJob:
        """Queues a fusion. See `Client.fuse`."""
        return await self.submit(jobs.description(members, dataset, fields))

    async def submit(self, job: Mapping[str, Any]) -> AsyncJob:
        """Queues a job as the API describes it."""
        return AsyncJob(self._session, await jobs.submit(self._session, "/v1/jobs", JobDetails, job))

    async def plan(
        self,
        members: Sequence[Checkpoint | str],
        dataset: Dataset | str | Mapping[str, Any] | None = None,
        **fields: Unpack[JobFields],
    ) -> Plan:
        """What `fuse` would do with the same arguments; nothing is queued."""
        return await jobs.plan(self._session, jobs.description(members, dataset, fields))

    async def job(self, id: str) -> AsyncJob:
        """The job with this id."""
        return AsyncJob(self._session, await self._session.get(JobDetails, path_of("jobs", id)))

    async def jobs(
        self, *, state: str | None = None, labels: Mapping[str, str] | None = None
    ) -> AsyncGenerator[AsyncJob, None]:
        """All jobs, or those in a state or with these labels; the newest first."""
        async for details in self._session.pages(JobDetails, "/v1/jobs", listing(state, labels)):
            yield AsyncJob(self._session, details)

    async def compare(self, plan: Mapping[str, Any], *, quick: bool = False) -> AsyncComparison:
        """Queues a grid of jobs with one report; `quick` takes the short form of the plan."""
        query = {"quick": "true"} if quick else {}
        details = await jobs.submit(self._session, "/v1/comparisons", ComparisonDetails, plan, **query)
        return AsyncComparison(self._session, details)

    async def comparison(self, id: str) -> AsyncComparison:
        """The comparison with this id."""
        details = await self._session.get(ComparisonDetails, path_of("comparisons", id))
        return AsyncComparison(self._session, details)

    async def comparisons(self) -> AsyncGenerator[AsyncComparison, None]:
        """All comparisons; the newest first."""
        async for details in self._session.pages(ComparisonDetails, "/v1/comparisons", {}):
            yield AsyncComparison(self._session, details)
