"""The fields of a job beside its members and its dataset, for editors; the server's documentation describes each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict


class JobFields(TypedDict, total=False):
    """What `fuse` and `plan` take as keywords. The server fills in what is left out."""

    name: str
    """What lists and reports call it."""
    architecture: str | Mapping[str, Any]
    """What network the members are: `auto`, a family with its settings, or a graph."""
    reference: str | Mapping[str, Any]
    """Inputs with a member's own logits, which prove the network."""
    accuracy: float | Sequence[float]
    """Known accuracies of the members on the test split, which prove it, too."""
    input_shape: Sequence[int]
    method: Mapping[str, Any]
    """How the members become one network."""
    target: Mapping[str, Any]
    """The size, as `{"width": 0.5}` or `{"params": 500_000}`."""
    finetune: Mapping[str, Any] | None
    """The training afterwards, as `{"epochs": 3}`."""
    evaluate: Sequence[str]
    """What the report compares."""
    device: str
    """`auto`, `cpu`, `cuda` (any GPU of a worker) or `cuda:N`."""
    precision: Literal["f32", "tf32", "bf16"]
    """How exactly a GPU multiplies."""
    deterministic: bool
    """Whether a GPU computes the same bits each time."""
    seed: int
    max_runtime_s: int
    priority: int
    labels: Mapping[str, str]
