"""Where the server is, and who asks."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TypedDict

from .core.transport import check_url

DEFAULT_URL = "http://127.0.0.1:8080"
"""Where a server listens unless its settings say otherwise."""


class Connection(TypedDict):
    """What both of httpx's clients are made with."""

    base_url: str
    headers: dict[str, str]


def connection(url: str | None, api_key: str | None) -> Connection:
    """The server and the key that are given, or those of `ENGRAFT_URL` and `ENGRAFT_API_KEY`."""
    key = (api_key or os.environ.get("ENGRAFT_API_KEY", "")).strip()
    headers = {"User-Agent": f"engraft-python/{version('engraft')}"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return Connection(base_url=check_url(url or os.environ.get("ENGRAFT_URL") or DEFAULT_URL), headers=headers)
