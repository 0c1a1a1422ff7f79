"""What the jobs and comparisons of both clients know without asking the server."""

from __future__ import annotations

from .core.session import Session, path_of
from .types import ComparisonDetails, JobDetails


class JobHandle:
    """A job on the server."""

    def __init__(self, session: Session, details: JobDetails) -> None:
        self._session = session
        self.details = details
        """The job as it was last seen."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.details.id

    @property
    def labels(self) -> dict[str, str]:
        """Your own marks."""
        return self.details.labels

    @property
    def _path(self) -> str:
        return path_of("jobs", self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.details.state}>"


class ComparisonHandle:
    """A comparison on the server."""

    def __init__(self, session: Session, details: ComparisonDetails) -> None:
        self._session = session
        self.details = details
        """The comparison as it was last seen."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.details.id

    @property
    def _path(self) -> str:
        return path_of("comparisons", self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.details.state}>"
