"""What checks in Python share: a server of its own on loopback, and waiting that ends."""

import contextlib
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

PATIENCE_S = 60
T = TypeVar("T")


def until(what: str, holds: Callable[[], T]) -> T:
    """What `holds` returns once that is true; the program ends where that takes longer than a minute."""
    for _ in range(PATIENCE_S * 20):
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"FAILED: not within {PATIENCE_S} s: {what}")


@contextlib.contextmanager
def serving(binary: str, folder: str, *flags: str) -> Iterator[str]:
    """The address of `engraft serve` without workers on an empty folder, which ends with the block."""
    log = pathlib.Path(folder, "log")
    command = [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", f"{folder}/data", "--workers", "0", *flags]
    with log.open("wb") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as server:
        try:
            yield until("the server", lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text())).group()
        finally:
            server.terminate()
