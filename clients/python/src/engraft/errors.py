"""Everything that the client raises by itself."""

from __future__ import annotations

from .types import Fault, JobDetails, Problem


class EngraftError(Exception):
    """Something that went wrong between this program and the server, or in a job."""


class ApiError(EngraftError):
    """The server has refused a request; the attributes are the fields of its problem details."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)

    @property
    def code(self) -> str:
        """Stable name of the kind of problem."""
        return self.problem.code

    @property
    def title(self) -> str:
        """The kind of problem in words."""
        return self.problem.title

    @property
    def detail(self) -> str:
        """What happened, what was expected and what to do."""
        return self.problem.detail

    @property
    def errors(self) -> list[Fault]:
        """Every value that is at fault, each with a pointer to it."""
        return self.problem.errors

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def request_id(self) -> str | None:
        """The request's id in the server's log."""
        return self.problem.request_id


class Unauthorized(ApiError):
    """There is no valid key (401)."""


class Forbidden(ApiError):
    """The key's scope does not cover the request (403)."""


class NotFound(ApiError):
    """There is no such thing, or it is another tenant's (404)."""


class Conflict(ApiError):
    """What is there does not allow the request: a name that is taken, a job that has not ended (409)."""


class Invalid(ApiError):
    """The request or the file is not valid (422)."""


class Unavailable(ApiError):
    """The server had no time for the request, however often it was repeated (429, 503)."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: Unavailable,
    503: Unavailable,
}


def api_error(problem: Problem) -> ApiError:
    """The error of the problem's status."""
    return _BY_STATUS.get(problem.status, ApiError)(problem)


class ConnectionFailed(EngraftError):
    """The server could not be reached, or went away, however often the request was repeated."""


class UnexpectedAnswer(EngraftError):
    """The answer is none of engraft's API: the address is perhaps that of another program."""


class DigestMismatch(EngraftError):
    """What was downloaded is not what the server has."""


class WaitTimeout(EngraftError, TimeoutError):
    """The time that a caller would wait is over."""


class JobFailed(EngraftError):
    """The job has failed; `problem` says why."""

    def __init__(self, details: JobDetails) -> None:
        super().__init__(details)
        self.details = details
        self.problem = details.error or Problem(code=details.state, title=f"The job was {details.state}")

    def __str__(self) -> str:
        return f"{self.details.id}: {self.problem}"


class JobCancelled(JobFailed):
    """The job was cancelled."""


class DatasetInvalid(EngraftError):
    """The server cannot use the dataset; `problem` says why."""

    def __init__(self, name: str, problem: Problem) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class ShapeMismatch(EngraftError):
    """The fused network does not fit into the module."""


class MissingExtra(EngraftError, ImportError):
    """A package that this needs is not installed."""
