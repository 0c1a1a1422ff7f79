"""Jobs and comparisons of `Client`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .core import jobs
from .core.blocking import iterate, run
from .core.events import follow
from .handle import Details, Handle, OfComparison, OfJob
from .progress import shown
from .tensors import State, load_into
from .types import ComparisonDetails, Epoch, Event, JobDetails, LogLine, Progress, Report


class _Waiting(Handle[Details]):
    """What jobs and comparisons have in common."""

    def refresh(self) -> Details:
        """As it is now."""
        self.details = run(self._session.get(self._kind, self._path))
        return self.details

    @property
    def status(self) -> str:
        """`queued`, `running` or `cancelling`; at the end `succeeded`, `failed` or `cancelled`.

        Asks the server until then.
        """
        return self.details.state if self.details.ended else self.refresh().state

    def cancel(self) -> None:
        """Ends what still runs: a running job stops after its batch."""
        self.details = run(jobs.cancel(self._session, self._kind, self._path))

    def delete(self) -> None:
        """Deletes it with all that belongs to it. Raises `Conflict` before its end."""
        run(self._session.delete(self._path))


class Job(OfJob, _Waiting[JobDetails]):
    """A fusion, from the queue to its results."""

    @property
    def progress(self) -> Progress | None:
        """How far it has come. Asks the server until it has ended."""
        return self.details.progress if self.details.ended else self.refresh().progress

    def wait(self, progress: bool | Callable[[JobDetails], None] = True, timeout: float | None = None) -> Job:
        """Waits for its success.

        Args:
            progress: Whether to show how far it is: as a bar where tqdm is installed, else as lines on stderr. A
                function gets its `JobDetails` instead.
            timeout: Seconds to wait at most.

        Raises:
            JobFailed: It has failed; `problem` says why.
            JobCancelled: It was cancelled.
            WaitTimeout: The time is over; the job goes on.
        """
        self.details = run(jobs.wait(self._session, JobDetails, self._path, shown(progress), timeout))
        jobs.succeeded(self.details)
        return self

    @property
    def report(self) -> Report:
        """The comparison of the fused network with the members."""
        return run(self._session.get(Report, f"{self._path}/report"))

    @property
    def epochs(self) -> list[Epoch]:
        """The finished epochs of its training."""
        return run(jobs.epochs(self._session, self._path))

    def events(self, after: int = 0) -> Iterator[Event]:
        """What happens to it, from the event behind `after` to its end."""
        return iterate(follow(self._session, self.id, after))

    def logs(self, tail: int | None = None) -> Iterator[LogLine]:
        """The lines of its log so far, or the last ones."""
        return iterate(jobs.logs(self._session, self.id, tail))

    def retry(self, *, from_start: bool = False) -> Job:
        """Queues a new job like this one, which goes on from its last checkpoint."""
        return Job(self._session, run(jobs.retry(self._session, self.id, from_start)))

    def download(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,
        *,
        shards: int | None = None,
        normalize: bool = False,
    ) -> Path:
        """Writes the fused model to a file and checks its digest.

        Args:
            path: The file, or a folder.
            format: `safetensors`, `pt`, `onnx`, `py`, `json` or `tar`; unless given by the end of the name.
            shards: In how many files it comes at most, in a tar.
            normalize: Whether an ONNX model takes its inputs before normalisation.
        """
        return run(jobs.download(self._session, self.id, Path(path), format, shards, normalize))

    def model(self) -> State:
        """The fused model as a `state_dict`: tensors of torch if that is installed, else arrays of numpy."""
        return run(jobs.model(self._session, self.id))

    def load_into(self, module: Any) -> None:
        """Loads the fused model into a module of torch. Raises `ShapeMismatch`."""
        load_into(module, self.model())


class Comparison(OfComparison, _Waiting[ComparisonDetails]):
    """A group of jobs with one report."""

    def wait(
        self, progress: bool | Callable[[ComparisonDetails], None] = True, timeout: float | None = None
    ) -> Comparison:
        """Waits until all its runs have ended, whatever their ends. Raises `WaitTimeout`."""
        self.details = run(jobs.wait(self._session, ComparisonDetails, self._path, shown(progress), timeout))
        return self

    @property
    def report(self) -> dict[str, Any]:
        """The reports of the runs that have ended."""
        return run(jobs.comparison_report(self._session, self._path))

    def download(self, path: str | os.PathLike[str]) -> Path:
        """Writes the report to a file, as a page."""
        return run(jobs.comparison_page(self._session, self._path, Path(path)))
