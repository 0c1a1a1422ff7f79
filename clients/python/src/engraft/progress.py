"""What a person sees of a job while waiting for it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .types import ComparisonDetails, JobDetails

Watcher = Callable[[Any], None]
"""Gets the details of what is waited for, each time they are seen."""


def shown(progress: bool | Watcher) -> AbstractContextManager[Watcher] | None:
    """What shows progress: the caller's function, a bar where tqdm is installed, or lines; none where nothing does."""
    if callable(progress):
        return nullcontext(progress)
    if not progress:
        return None
    return _bar() if importlib.util.find_spec("tqdm") else _lines()


def _place(seen: JobDetails | ComparisonDetails) -> tuple[str, float]:
    """What is being done, and how much of the whole is, in [0, 1]."""
    if isinstance(seen, ComparisonDetails):
        counts = seen.counts
        done = counts.total - counts.queued - counts.running
        return f"{done} of {counts.total} runs", done / max(counts.total, 1)
    if seen.ended or seen.progress is None:
        return seen.state, 1.0 if seen.state == "succeeded" else 0.0
    epoch = "" if seen.progress.epoch is None else f", epoch {seen.progress.epoch}"
    return f"{seen.progress.phase}{epoch}", seen.progress.job_fraction or 0.0


@contextmanager
def _bar() -> Iterator[Watcher]:
    from tqdm import tqdm

    with tqdm(desc="waiting", total=1.0, bar_format="{desc} |{bar}| {percentage:3.0f} % [{elapsed}]") as bar:

        def watch(seen: JobDetails | ComparisonDetails) -> None:
            what, bar.n = _place(seen)
            bar.set_description_str(f"{seen.id}: {what}")

        yield watch


@contextmanager
def _lines() -> Iterator[Watcher]:
    last: tuple[str, int] | None = None

    def watch(seen: JobDetails | ComparisonDetails) -> None:
        nonlocal last
        what, done = _place(seen)
        tenths = (what, int(done * 10))
        if tenths != last:
            last = tenths
            print(f"{seen.id}: {what}, {done:.0%}", file=sys.stderr)  # noqa: T201 - what it is for

    yield watch
