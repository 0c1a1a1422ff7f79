"""Both clients have the same methods with the same arguments."""

from __future__ import annotations

import inspect

import pytest

from engraft import AsyncClient, AsyncComparison, AsyncJob, Client, Comparison, Job


@pytest.mark.parametrize(("waiting", "async_"), [(Client, AsyncClient), (Job, AsyncJob), (Comparison, AsyncComparison)])
def test_parity(waiting: type, async_: type) -> None:
    def members(kind: type) -> dict[str, object]:
        public = {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}
        return {
            name: list(inspect.signature(member).parameters.values()) if inspect.isfunction(member) else type(member)
            for name, member in public.items()
        }

    assert members(waiting) == members(async_)
    for name in members(waiting):
        assert getattr(waiting, name).__doc__, f"{name} has no words"
        assert getattr(async_, name).__doc__, f"{name} has no words"
