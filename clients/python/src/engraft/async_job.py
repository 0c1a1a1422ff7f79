"""Jobs and comparisons of `AsyncClient`."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

from .core import jobs
from .core.events import follow
from .handle import Details, Handle, OfComparison, OfJob
from .progress import shown
from .tensors import State, load_into
from .types import ComparisonDetails, Epoch, Event, JobDetails, LogLine, Progress, Report


class _Awaited(Handle[Details]):
    """What jobs and comparisons have in common."""

    async def refresh(self) -> Details:
        """As it is now."""
        self.details = await self._session.get(self._kind, self._path)
        return self.details

    @property
    def status(self) -> Awaitable[str]:
        """See `Job.status`."""
        return self._status()

    async def _status(self) -> str:
        return self.details.state if self.details.ended else (await self.refresh()).state

    async def cancel(self) -> None:
        """Ends what still runs: a running job stops after its batch."""
        self.details = await jobs.cancel(self._session, self._kind, self._path)

    async def delete(self) -> None:
        """Deletes it with all that belongs to it. Raises `Conflict` before its end."""
        await self._session.delete(self._path)


class AsyncJob(OfJob, _Awaited[JobDetails]):
    """A fusion, from the queue to its results. What is a property of `Job` is awaited: `await job.report`."""

    @property
    def progress(self) -> Awaitable[Progress | None]:
        """How far it has come. Asks the server until it has ended."""
        return self._progress()

    async def _progress(self) -> Progress | None:
        return self.details.progress if self.details.ended else (await self.refresh()).progress

    async def wait(
        self, progress: bool | Callable[[JobDetails], None] = True, timeout: float | None = None
    ) -> AsyncJob:
        """Waits for its success. See `Job.wait`."""
        self.details = await jobs.wait(self._session, JobDetails, self._path, shown(progress), timeout)
        jobs.succeeded(self.details)
        return self

    @property
    def report(self) -> Awaitable[Report]:
        """The comparison of the fused network with the members."""
        return self._session.get(Report, f"{self._path}/report")

    @property
    def epochs(self) -> Awaitable[list[Epoch]]:
        """The finished epochs of its training."""
        return jobs.epochs(self._session, self._path)

    def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """What happens to it, from the event behind `after` to its end."""
        return follow(self._session, self.id, after)

    def logs(self, tail: int | None = None) -> AsyncGenerator[LogLine, None]:
        """The lines of its log so far, or the last ones."""
        return jobs.logs(self._session, self.id, tail)

    async def retry(self, *, from_start: bool = False) -> AsyncJob:
        """Queues a new job like this one, which goes on from its last checkpoint."""
        return AsyncJob(self._session, await jobs.retry(self._session, self.id, from_start))

    async def download(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,
        *,
        shards: int | None = None,
        normalize: bool = False,
    ) -> Path:
        """Writes the fused model to a file and checks its digest. See `Job.download`."""
        return await jobs.download(self._session, self.id, Path(path), format, shards, normalize)

    async def model(self) -> State:
        """The fused model as a `state_dict`: tensors of torch if that is installed, else arrays of numpy."""
        return await jobs.model(self._session, self.id)

    async def load_into(self, module: Any) -> None:
        """Loads the fused model into a module of torch. Raises `ShapeMismatch`."""
        load_into(module, await self.model())


class AsyncComparison(OfComparison, _Awaited[ComparisonDetails]):
    """A group of jobs with one report. What is a property of `Comparison` is awaited."""

    async def wait(
        self, progress: bool | Callable[[ComparisonDetails], None] = True, timeout: float | None = None
    ) -> AsyncComparison:
        """Waits until all its runs have ended, whatever their ends. Raises `WaitTimeout`."""
        self.details = await jobs.wait(self._session, ComparisonDetails, self._path, shown(progress), timeout)
        return self

    @property
    def report(self) -> Awaitable[dict[str, Any]]:
        """The reports of the runs that have ended."""
        return jobs.comparison_report(self._session, self._path)

    async def download(self, path: str | os.PathLike[str]) -> Path:
        """Writes the report to a file, as a page."""
        return await jobs.comparison_page(self._session, self._path, Path(path))
