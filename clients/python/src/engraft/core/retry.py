"""What is tried again, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx

PASSING = frozenset({408, 429, 502, 503, 504})
"""Statuses of what may go well a little later: the server or a proxy had no time, and has changed nothing."""

LONGEST_WISH = 120.0
"""Seconds; a server that asks for a longer pause gets none, and its answer is raised."""


@dataclass(frozen=True)
class Retry:
    """How often something is tried in a row without headway, and how long the pauses in between are.

    They are drawn at random, from the upper half of what is twice as long each time.
    """

    attempts: int = 10
    first: float = 0.5
    """Seconds that the first pause takes at most."""
    longest: float = 20.0
    """Seconds that any pause takes at most, unless the server asks for more."""


class Pauses:
    """Counts the failures since the last headway."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self.failures = 0

    def headway(self) -> None:
        """Something has gone well: the count begins anew."""
        self.failures = 0

    def next(self, wish: float | None = None) -> float | None:
        """Seconds until the next attempt, at least what the server wishes; none if there is none."""
        self.failures += 1
        if self.failures >= self._retry.attempts or (wish or 0.0) > LONGEST_WISH:
            return None
        bound = min(self._retry.longest, self._retry.first * 2.0 ** (self.failures - 1))
        return max(wish or 0.0, 0.0) + random.uniform(bound / 2, bound)


def wish(headers: httpx.Headers) -> float | None:
    """The seconds of `Retry-After`; dates are not read."""
    try:
        return float(headers.get("Retry-After", ""))
    except ValueError:
        return None
