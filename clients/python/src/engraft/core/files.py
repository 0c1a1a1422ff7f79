"""What a program has, as an upload: a file as it is, anything else by way of a file of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..arrays import write_dataset
from ..errors import DatasetInvalid
from ..tensors import save_state, state_of
from ..types import Checkpoint, Dataset, Problem
from .jobs import wait as wait_for
from .session import Session, path_of
from .uploads import Stored, local_file, store

Labels = Mapping[str, str] | None


async def upload_checkpoint(session: Session, source: Any, name: str | None, labels: Labels) -> Checkpoint:
    """Uploads a file, a `state_dict` or that of a module."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return await _send(session, Checkpoint, "checkpoints", path, name or path.name, labels)
    state = state_of(source)
    if state is None:
        raise TypeError(f"expected a path, a state_dict or a module, got a {type(source).__name__}")
    with TemporaryDirectory(prefix="engraft-") as folder:
        path = Path(folder) / "state.safetensors"
        await session.transport.work(save_state, state, path)
        return await _send(session, Checkpoint, "checkpoints", path, name, labels)


async def upload_dataset(session: Session, source: Any, name: str | None, labels: Labels, wait: bool) -> Dataset:
    """Uploads a file, or examples, and with `wait` waits until they are read. Raises `DatasetInvalid`."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        dataset = await _send(session, Dataset, "datasets", path, name or path.name, labels)
    else:
        with TemporaryDirectory(prefix="engraft-") as folder:
            path = await session.transport.work(write_dataset, source, Path(folder))
            dataset = await _send(session, Dataset, "datasets", path, name, labels)
    if not wait:
        return dataset
    dataset = await wait_for(session, Dataset, path_of("datasets", dataset.id), None, None)
    if dataset.state == "ready":
        return dataset
    raise DatasetInvalid(dataset.name, dataset.error or Problem(code="dataset_invalid", title=dataset.state))


async def _send(
    session: Session, model: type[Stored], collection: str, path: Path, name: str | None, labels: Labels
) -> Stored:
    """Uploads a file to a name, or to one that follows from its bytes."""
    file = await session.transport.work(local_file, path)
    return await store(session, model, collection, name or f"{file.sha256[:16]}{path.suffix}", file, labels)
