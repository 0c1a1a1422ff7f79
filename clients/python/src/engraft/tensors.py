"""`state_dict`s in files of safetensors; torch and numpy are looked for only when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import MissingExtra, ShapeMismatch

if TYPE_CHECKING:
    from types import ModuleType

State: TypeAlias = Mapping[str, Any]
"""Tensors of torch, or arrays of numpy, by name."""


def needed(package: str, extra: str) -> ModuleType:
    """The module of an optional package. Raises `MissingExtra`."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra(f"this needs {package}: pip install 'engraft[{extra}]'") from error


def state_of(source: object) -> State | None:
    """The `state_dict` that something is, or that a module has; none where it is neither."""
    if isinstance(source, Mapping):
        return source
    state_dict = getattr(source, "state_dict", None)
    return state_dict() if callable(state_dict) else None


def save_state(state: State, path: Path) -> None:
    """Writes a `state_dict` as safetensors. Raises `TypeError` for values that are no tensors."""
    torch = sys.modules.get("torch")
    if torch is not None and any(isinstance(value, torch.Tensor) for value in state.values()):
        tensors = _apart(torch, {name: _tensor(torch, name, value) for name, value in state.items()})
        needed("safetensors.torch", "safetensors").save_file(tensors, path)
        return
    numpy = needed("numpy", "safetensors")
    arrays = {name: numpy.ascontiguousarray(_array(numpy, name, value)) for name, value in state.items()}
    needed("safetensors.numpy", "safetensors").save_file(arrays, path)


def _tensor(torch: Any, name: str, value: object) -> Any:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name!r} is a {type(value).__name__}, not a tensor")
    return value.detach().cpu().contiguous()


def _apart(torch: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors with no memory in common: the format has no tied weights."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            tensors[name] = torch.clone(tensor)
        seen.add(place)
    return tensors


def _array(numpy: Any, name: str, value: object) -> Any:
    if not isinstance(value, numpy.ndarray | numpy.generic):
        raise TypeError(f"{name!r} is a {type(value).__name__}, not an array")
    return value


def load_state(path: Path) -> State:
    """Reads a file of safetensors: tensors of torch if that is installed, else arrays of numpy."""
    framework = "torch" if importlib.util.find_spec("torch") else "numpy"
    state: State = needed(f"safetensors.{framework}", "safetensors").load_file(path)
    return state


def load_into(module: Any, state: State) -> None:
    """Loads a `state_dict` into a module of torch. Raises `ShapeMismatch` with the sizes of both."""
    own = module.state_dict()
    lines = []
    for name in sorted(own.keys() | state.keys()):
        fused, has = _size(state.get(name)), _size(own.get(name))
        if fused != has:
            lines.append(f"  {name}: the fused network has {fused}, the module {has}")
    if lines:
        listed = "\n".join(lines[:20] + [f"  and {len(lines) - 20} more"] * (len(lines) > 20))
        raise ShapeMismatch(
            f"the fused network does not fit into {type(module).__name__}:\n{listed}\n"
            "job.download('model.py') writes a module of its sizes (the format `py`)."
        )
    torch = needed("torch", "torch")
    module.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()}, strict=True)


def _size(tensor: Any) -> str:
    if tensor is None:
        return "none"
    return " x ".join(map(str, tensor.shape)) or "a number"
