"""A started server, small members, and both clients behind one face."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bridge import Bridge, Connect
from proxy import Proxy

from engraft import Checkpoint, Client, Dataset, Retry

QUICK = Retry(attempts=6, first=0.1, longest=0.5)
"""Pauses that a test can wait for."""


@pytest.fixture(scope="session")
def binary() -> Path:
    """The program that serves."""
    path = os.environ.get("ENGRAFT_BINARY")
    if not path:
        pytest.skip("NOT TESTED: ENGRAFT_BINARY names no engraft, so there is no server to test against")
    return Path(path)


def serve(binary: Path, folder: Path, *flags: str, key: str = "") -> Iterator[str]:
    """The address of a server on a free port, which ends with the iterator."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("ENGRAFT_")}
    if key:
        settings["ENGRAFT_API_KEY"] = key
    # A worker looks for cancellations with each heartbeat.
    command = f"{binary} serve --listen 127.0.0.1:0 --threads 1 --heartbeat 1 --data-dir".split()
    with (
        (folder.parent / f"{folder.name}.log").open("wb") as log,
        subprocess.Popen(
            [*command, folder, *flags], stdout=subprocess.PIPE, stderr=log, env=settings, text=True
        ) as process,
    ):
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address is not None, "the server does not say where it listens"
        try:
            yield address[0]
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def server(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server without keys."""
    yield from serve(binary, tmp_path_factory.mktemp("server") / "data")


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    """A way to the server that fails as a test wants it."""
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture(params=["waiting", "in an event loop"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients, one test with each of the two kinds; those of an event loop look like the others."""
    if request.param == "waiting":
        opened: list[Client] = []

        def waiting(url: str, **arguments: object) -> Client:
            opened.append(Client(url, **{"retry": QUICK, **arguments}))  # type: ignore[arg-type]
            return opened[-1]

        yield waiting
        for client in opened:
            client.close()
        return
    with Bridge.portal() as portal:
        yield lambda url, **arguments: portal.client(url, **{"retry": QUICK, **arguments})


@pytest.fixture
def client(connect: Connect, server: str) -> Client:
    """A client of the server."""
    return connect(server)


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    """Four clouds of points."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 12)) * 1.5

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = random.integers(0, 4, count)
        return (centres[labels] + random.normal(size=(count, 12))).astype("float32"), labels

    (x_train, y_train), (x_test, y_test) = draw(800), draw(200)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture(scope="session")
def trained(binary: Path, arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three members in files."""
    folder = tmp_path_factory.mktemp("members")
    np.savez(folder / "points.npz", **arrays)  # type: ignore[arg-type]
    command = f"{binary} train --network mlp:64,64 --seeds 0,1,2 --epochs 3 --threads 1".split()
    command += ["--dataset", str(folder / "points.npz"), "--out", str(folder / "out")]
    subprocess.run(command, check=True, capture_output=True)
    return [folder / "out" / f"m{seed}.safetensors" for seed in range(3)]


@pytest.fixture
def members(client: Client, trained: list[Path]) -> list[Checkpoint]:
    """The members on the server."""
    return [client.upload(path) for path in trained]


@pytest.fixture
def points(client: Client, arrays: dict[str, np.ndarray]) -> Dataset:
    """The examples on the server."""
    return client.upload_dataset(arrays)
