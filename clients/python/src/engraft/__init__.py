"""Fuses an ensemble of trained networks into one, on a server of engraft.

`Client` waits for the server, `AsyncClient` is the same in an event loop.
"""

from .async_client import AsyncClient
from .async_job import AsyncComparison, AsyncJob
from .client import Client
from .core.retry import Retry
from .errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    DatasetInvalid,
    DigestMismatch,
    EngraftError,
    Forbidden,
    Invalid,
    JobCancelled,
    JobFailed,
    MissingExtra,
    NotFound,
    ShapeMismatch,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    WaitTimeout,
)
from .fields import JobFields
from .job import Comparison, Job
from .types import Checkpoint, Dataset, Event, JobDetails, Plan, Problem, Progress, Report

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncComparison",
    "AsyncJob",
    "Checkpoint",
    "Client",
    "Comparison",
    "Conflict",
    "ConnectionFailed",
    "Dataset",
    "DatasetInvalid",
    "DigestMismatch",
    "EngraftError",
    "Event",
    "Forbidden",
    "Invalid",
    "Job",
    "JobCancelled",
    "JobDetails",
    "JobFailed",
    "JobFields",
    "MissingExtra",
    "NotFound",
    "Plan",
    "Problem",
    "Progress",
    "Report",
    "Retry",
    "ShapeMismatch",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "WaitTimeout",
]
