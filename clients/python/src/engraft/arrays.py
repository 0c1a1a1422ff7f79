"""Datasets of a program as files that the server reads, written without ever being in memory as a whole."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .tensors import needed

SPLITS = {"train": "train", "validation": "val", "val": "val", "valid": "val", "test": "test"}
"""What arrays of a split are called, by the split's name."""


def write_dataset(source: object, folder: Path) -> Path:
    """Writes a dataset to a file in `folder`.

    Takes arrays by name (`x_train`, `y_train`, …), a dataset of pairs as torch's (with `len` and `[index]`), one of
    Hugging Face's `datasets`, or a mapping of such datasets by split. Raises `TypeError` for anything else.
    """
    if isinstance(source, Mapping):
        if source and all(_is_hub_dataset(part) for part in source.values()):
            return _write_parquet({str(name): part for name, part in source.items()}, folder)
        if source and all(_is_indexed(part) for part in source.values()):
            return _write_splits({str(name): part for name, part in source.items()}, folder)
        return _write_npz({str(name): value for name, value in source.items()}, folder)
    if _is_hub_dataset(source):
        return _write_parquet({"train": source}, folder)
    if _is_indexed(source):
        return _write_splits({"train": source}, folder)
    raise TypeError(
        "expected a path, arrays by name (x_train, y_train, …), a torch Dataset or a datasets.Dataset, "
        f"got a {type(source).__name__}"
    )


def _is_hub_dataset(source: object) -> bool:
    return callable(getattr(source, "to_parquet", None))


def _is_indexed(source: object) -> bool:
    is_array = hasattr(source, "dtype") or isinstance(source, list | tuple | str | bytes)
    return hasattr(source, "__len__") and hasattr(source, "__getitem__") and not is_array


def _write_npz(arrays: Mapping[str, Any], folder: Path) -> Path:
    """Writes arrays; the same arrays give the same bytes."""
    numpy = needed("numpy", "safetensors")
    path = folder / "arrays.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            # An entry by its name alone would bear the time of writing.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as file:
                numpy.lib.format.write_array(file, numpy.asarray(array), allow_pickle=False)
    return path


def _write_splits(splits: Mapping[str, Any], folder: Path) -> Path:
    """Draws every pair of the datasets once, into files that are mapped."""
    unknown = splits.keys() - SPLITS.keys()
    if unknown:
        raise TypeError(f"expected splits called train, validation and test, got {', '.join(sorted(unknown))}")
    arrays = {}
    for name, dataset in splits.items():
        arrays[f"x_{SPLITS[name]}"], arrays[f"y_{SPLITS[name]}"] = _drawn(dataset, folder / name)
    return _write_npz(arrays, folder)


def _drawn(dataset: Any, stem: Path) -> tuple[Any, Any]:
    """Inputs and labels of a dataset of pairs."""
    numpy = needed("numpy", "safetensors")
    if len(dataset) == 0:
        raise ValueError("the dataset has no examples")
    first = _input(numpy, dataset[0][0])
    shape = (len(dataset), *first.shape)
    inputs = numpy.lib.format.open_memmap(stem.with_suffix(".x"), mode="w+", dtype=first.dtype, shape=shape)
    labels = numpy.zeros(len(dataset), dtype="int64")
    for index in range(len(dataset)):
        example, label = dataset[index]
        inputs[index] = _input(numpy, example)
        labels[index] = int(label)
    return inputs, labels


def _input(numpy: Any, example: Any) -> Any:
    """One input as an array; pictures get their channels first."""
    array = numpy.asarray(example)
    is_picture = hasattr(example, "getbands") and array.ndim == 3
    return array.transpose(2, 0, 1) if is_picture else array


def _write_parquet(splits: Mapping[str, Any], folder: Path) -> Path:
    """Writes one Parquet file, or a tar of one for each split, named as on the hub."""
    files = {name: folder / f"{name}-00000-of-00001.parquet" for name in splits}
    for name, dataset in splits.items():
        dataset.to_parquet(str(files[name]))
    if len(files) == 1:
        return next(iter(files.values()))
    path = folder / "splits.tar"
    with tarfile.open(path, "w") as archive:
        for file in files.values():
            entry = tarfile.TarInfo(file.name)
            entry.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(entry, content)
    return path
