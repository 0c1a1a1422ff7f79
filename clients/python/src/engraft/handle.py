"""What the jobs and comparisons of both clients know without asking the server."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from .core.session import Session, path_of
from .types import ComparisonDetails, JobDetails

Details = TypeVar("Details", JobDetails, ComparisonDetails)


class Handle(Generic[Details]):
    """A job or a comparison on the server."""

    _place: ClassVar[str]
    _kind: type[Details]

    def __init__(self, session: Session, details: Details) -> None:
        self._session = session
        self.details: Details = details
        """As it was last seen."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.details.id

    @property
    def _path(self) -> str:
        return path_of(self._place, self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.details.state}>"


class OfJob(Handle[JobDetails]):
    """What makes a handle one of a job."""

    _place = "jobs"
    _kind = JobDetails

    @property
    def name(self) -> str | None:
        """What lists and reports call it."""
        return self.details.name

    @property
    def labels(self) -> dict[str, str]:
        """Your own marks."""
        return self.details.labels


class OfComparison(Handle[ComparisonDetails]):
    """What makes a handle one of a comparison."""

    _place = "comparisons"
    _kind = ComparisonDetails
