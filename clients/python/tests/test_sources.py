"""What a program has, as files; what needs torch or datasets is tested where they are installed."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engraft import Checkpoint, Client, Dataset, MissingExtra, ShapeMismatch
from engraft.arrays import write_dataset
from engraft.progress import shown
from engraft.tensors import load_into, load_state, needed, save_state, state_of
from engraft.types import JobDetails


def test_nothing_optional_is_imported() -> None:
    program = "import sys, engraft; print({'torch', 'numpy', 'datasets', 'tqdm', 'safetensors'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"x": np.arange(12.0).reshape(4, 3), "y": [0, 1, 2, 3]}
    first = write_dataset(arrays, tmp_path).read_bytes()
    assert write_dataset(arrays, tmp_path).read_bytes() == first
    with np.load(tmp_path / "arrays.npz") as written:
        assert written["y"].tolist() == [0, 1, 2, 3]
        assert (written["x"] == arrays["x"]).all()


class Pairs:
    """A dataset as torch's are: examples by their positions."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return np.full((1, 2, 2), index, "float32"), index % 3


def test_pairs_are_drawn_once(tmp_path: Path, client: Client) -> None:
    (tmp_path / "out").mkdir()
    with np.load(write_dataset({"train": Pairs(5), "validation": Pairs(2)}, tmp_path / "out")) as written:
        assert {name: written[name].shape for name in written} == {
            "x_train": (5, 1, 2, 2),
            "y_train": (5,),
            "x_val": (2, 1, 2, 2),
            "y_val": (2,),
        }
    dataset = client.upload_dataset({"train": Pairs(9), "test": Pairs(6)})
    assert dataset.facts is not None
    assert {name: split.examples for name, split in dataset.facts.splits.items()} == {"train": 9, "test": 6}
    assert dataset.facts.example_shape == [1, 2, 2]


class Picture:
    """A picture as Pillow's: rows of pixels of channels."""

    def getbands(self) -> tuple[str, ...]:
        return ("R", "G", "B")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.zeros((4, 5, 3), "uint8")


def test_pictures_get_their_channels_first(tmp_path: Path) -> None:
    class Pictures(Pairs):
        def __getitem__(self, index: int) -> tuple[Any, int]:
            return Picture(), index

    with np.load(write_dataset(Pictures(2), tmp_path)) as written:
        assert (written["x_train"].shape, written["x_train"].dtype) == ((2, 3, 4, 5), np.uint8)


@pytest.mark.parametrize("source", [3, [1, 2], np.zeros(3), {"dev": Pairs(2)}])
def test_what_is_no_dataset_is_refused(source: object, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected"):
        write_dataset(source, tmp_path)
    with pytest.raises(ValueError, match="no examples"):
        write_dataset(Pairs(0), tmp_path)


def test_states_are_written_and_read(tmp_path: Path) -> None:
    state = {"a.weight": np.arange(6, dtype="float32").reshape(2, 3).T, "a.count": np.int64(3)}
    save_state(state, tmp_path / "state")
    loaded = {name: np.asarray(value) for name, value in load_state(tmp_path / "state").items()}
    assert loaded["a.weight"].tolist() == state["a.weight"].tolist()
    assert loaded["a.count"] == 3
    with pytest.raises(TypeError, match=r"'a\.weight' is a list, not an array"):
        save_state({"a.weight": [1.0]}, tmp_path / "state")
    assert state_of(3) is None


def test_a_state_of_other_sizes_is_refused_with_both() -> None:
    class Module:
        def state_dict(self) -> dict[str, np.ndarray]:
            return {"fc.weight": np.zeros((4, 3)), "fc.bias": np.zeros(4)}

    with pytest.raises(ShapeMismatch) as refused:
        load_into(Module(), {"fc.weight": np.zeros((2, 3)), "fc.bias": np.zeros(4), "more": np.zeros(())})
    text = str(refused.value)
    assert "  fc.weight: the fused network has 2 x 3, the module 4 x 3\n" in text
    assert "  more: the fused network has a number, the module none\n" in text
    assert "fc.bias" not in text
    assert "model.py" in text


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"engraft\[torch\]"):
        needed("no_such_package", "torch")


def test_progress_is_a_bar_or_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {
        "id": "job_1",
        "state": "running",
        "progress": {"phase": "finetune", "fraction": 0.9, "epoch": 2, "job_fraction": 0.42},
    }
    job = JobDetails.model_validate(seen)
    assert shown(False) is None
    for has_tqdm in (True, False):
        if not has_tqdm:
            monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        watcher = shown(True)
        assert watcher is not None
        with watcher as watch:
            watch(job)
            watch(job)
        text = capsys.readouterr().err
        assert "job_1: finetune, epoch 2" in text
        assert "42" in text
        assert has_tqdm or text.count("finetune") == 1


def test_modules_of_torch(client: Client, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="NOT TESTED: torch is not installed")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).to(torch.bfloat16)
    checkpoint = client.upload(module)
    assert [tensor.dtype for tensor in checkpoint.tensors] == ["bf16"] * 4
    assert client.upload(module.state_dict()) == checkpoint
    tied = {"a": module[0].weight, "b": module[0].weight, "c": module[0].weight.T}
    save_state(tied, tmp_path / "tied")
    loaded = load_state(tmp_path / "tied")
    assert torch.equal(loaded["b"], module[0].weight)
    assert torch.equal(loaded["c"], module[0].weight.T)
    load_into(module, {name: value * 0 for name, value in module.state_dict().items()})
    assert all(not value.any() for value in module.state_dict().values())
    wider = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with pytest.raises(ShapeMismatch, match=r"0.weight: the fused network has 4 x 3, the module 8 x 3"):
        load_into(wider, module.state_dict())


def test_a_fused_network_goes_into_a_module(client: Client, members: list[Checkpoint], points: Dataset) -> None:
    torch = pytest.importorskip("torch", reason="NOT TESTED: torch is not installed")
    sizes = {"fc1": (12, 64), "fc2": (64, 64), "fc3": (64, 4)}
    module = torch.nn.Sequential(OrderedDict((name, torch.nn.Linear(*size)) for name, size in sizes.items()))
    job = client.fuse(members, points).wait(progress=False)
    job.load_into(module)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in job.model().items())
    narrower = client.fuse(members, points, target={"width": 0.5}).wait(progress=False)
    with pytest.raises(ShapeMismatch, match=r"fc2.weight: the fused network has 32 x 32, the module 64 x 64"):
        narrower.load_into(module)


def test_datasets_of_torch(client: Client) -> None:
    torch = pytest.importorskip("torch", reason="NOT TESTED: torch is not installed")
    pairs = torch.utils.data.TensorDataset(torch.randn(10, 3, 4, 4), torch.arange(10) % 3)
    dataset = client.upload_dataset(torch.utils.data.Subset(pairs, range(8)))
    assert dataset.facts is not None
    assert dataset.facts.splits["train"].per_class == [3, 3, 2]
    assert client.upload_dataset({"x": pairs.tensors[0], "y": pairs.tensors[1]}).facts is not None


def test_datasets_of_the_hub(client: Client) -> None:
    datasets = pytest.importorskip("datasets", reason="NOT TESTED: datasets is not installed")
    pillow = pytest.importorskip("PIL.Image", reason="NOT TESTED: pillow is not installed")
    columns = {"image": [pillow.new("L", (6, 6), grey) for grey in (0, 100, 200)], "label": [0, 1, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "bright"])})
    train = datasets.Dataset.from_dict(columns, features=features)
    dataset = client.upload_dataset(train)
    assert dataset.facts is not None
    assert (dataset.facts.format, dataset.facts.class_names) == ("parquet", ["dark", "bright"])
    both = client.upload_dataset(datasets.DatasetDict(train=train, test=train.select([0])))
    assert both.facts is not None
    assert {name: split.examples for name, split in both.facts.splits.items()} == {"train": 3, "test": 1}
