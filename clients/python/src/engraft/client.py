"""The client of a program that waits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import httpx
from typing_extensions import Self, Unpack

from .core import files, jobs
from .core.blocking import SyncTransport, iterate, run
from .core.retry import Retry
from .core.session import Session, listing, path_of
from .fields import JobFields
from .job import Comparison, Job
from .settings import connection
from .types import Checkpoint, ComparisonDetails, Dataset, JobDetails, Plan


class Client:
    """A server of engraft. Requests are repeated while that may help; uploads and downloads go on where they were cut.

    Args:
        url: The server; unless given that of `ENGRAFT_URL`, else http://127.0.0.1:8080.
        api_key: The key; unless given that of `ENGRAFT_API_KEY`, else none.
        retry: How often, and how long, the server is waited for.
        timeout: Seconds that each step of a request may take.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, retry: Retry | None = None, timeout: float = 60.0
    ) -> None:
        transport = SyncTransport(httpx.Client(**connection(url, api_key)), timeout)
        self._session = Session(transport, retry or Retry())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connections back."""
        run(self._session.transport.close())

    def upload(
        self, source: str | os.PathLike[str] | Any, name: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Checkpoint:
        """Uploads a member, unless the server has it.

        Args:
            source: A file that the server reads (safetensors, of `torch.save`, ONNX, npz), a `state_dict` of tensors or
                arrays, or a module.
            name: Its name there; unless given that of the file, or one that follows from the bytes.
            labels: Marks of your own.

        Raises:
            Conflict: The name belongs to another file.
            Invalid: The file is no checkpoint.
        """
        return run(files.upload_checkpoint(self._session, source, name, labels))

    def upload_dataset(
        self,
        source: str | os.PathLike[str] | Any,
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Dataset:
        """Uploads examples, unless the server has them, and waits until it has read them.

        Args:
            source: A file that the server reads, arrays by name (`{"x_train": …, "y_train": …, "x_test": …, …}`), a
                `Dataset` of torch or of Hugging Face, or a mapping of such by split (`{"train": …, "test": …}`).
            name: Its name there; unless given that of the file, or one that follows from the bytes.
            labels: Marks of your own.
            wait: Whether to wait.

        Raises:
            DatasetInvalid: The server cannot use it.
            Conflict: The name belongs to another file.
        """
        return run(files.upload_dataset(self._session, source, name, labels, wait))

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint with this name or id, with its tensors."""
        return run(self._session.get(Checkpoint, path_of("checkpoints", name)))

    def dataset(self, name: str) -> Dataset:
        """The dataset with this name or id."""
        return run(self._session.get(Dataset, path_of("datasets", name)))

    def checkpoints(self, *, labels: Mapping[str, str] | None = None) -> Iterator[Checkpoint]:
        """All checkpoints, or those with these labels; the newest first."""
        return iterate(self._session.pages(Checkpoint, "/v1/checkpoints", listing(None, labels)))

    def datasets(self, *, state: str | None = None, labels: Mapping[str, str] | None = None) -> Iterator[Dataset]:
        """All datasets, or those in a state or with these labels; the newest first."""
        return iterate(self._session.pages(Dataset, "/v1/datasets", listing(state, labels)))

    def delete(self, file: Checkpoint | Dataset) -> None:
        """Deletes a checkpoint or a dataset. Raises `Conflict` while a job reads it."""
        collection = "checkpoints" if isinstance(file, Checkpoint) else "datasets"
        run(self._session.delete(path_of(collection, file.id)))

    def fuse(
        self,
        members: Sequence[Checkpoint | str],
        dataset: Dataset | str | Mapping[str, Any] | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Queues a fusion.

        Args:
            members: Checkpoints, or their names.
            dataset: A dataset, its name, or `{"name": …, "normalize": …}`.
            **fields: Everything else that a job may say, as `finetune={"epochs": 3}`.

        Raises:
            Invalid: `errors` names everything that is wrong.
        """
        return self.submit(jobs.description(members, dataset, fields))

    def submit(self, job: Mapping[str, Any]) -> Job:
        """Queues a job as the API describes it."""
        return Job(self._session, run(jobs.submit(self._session, "/v1/jobs", JobDetails, job)))

    def plan(
        self,
        members: Sequence[Checkpoint | str],
        dataset: Dataset | str | Mapping[str, Any] | None = None,
        **fields: Unpack[JobFields],
    ) -> Plan:
        """What `fuse` would do with the same arguments; nothing is queued."""
        return run(jobs.plan(self._session, jobs.description(members, dataset, fields)))

    def job(self, id: str) -> Job:
        """The job with this id."""
        return Job(self._session, run(self._session.get(JobDetails, path_of("jobs", id))))

    def jobs(self, *, state: str | None = None, labels: Mapping[str, str] | None = None) -> Iterator[Job]:
        """All jobs, or those in a state or with these labels; the newest first."""
        for details in iterate(self._session.pages(JobDetails, "/v1/jobs", listing(state, labels))):
            yield Job(self._session, details)

    def compare(self, plan: Mapping[str, Any], *, quick: bool = False) -> Comparison:
        """Queues a grid of jobs with one report; `quick` takes the short form of the plan."""
        query = {"quick": "true"} if quick else {}
        details = run(jobs.submit(self._session, "/v1/comparisons", ComparisonDetails, plan, **query))
        return Comparison(self._session, details)

    def comparison(self, id: str) -> Comparison:
        """The comparison with this id."""
        return Comparison(self._session, run(self._session.get(ComparisonDetails, path_of("comparisons", id))))

    def comparisons(self) -> Iterator[Comparison]:
        """All comparisons; the newest first."""
        for details in iterate(self._session.pages(ComparisonDetails, "/v1/comparisons", {})):
            yield Comparison(self._session, details)
