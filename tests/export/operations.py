"""Runs networks that engraft has written as ONNX in onnxruntime: every operation of tests/fixtures/ops and every family of
tests/fixtures/families must give PyTorch's values within 1e-4.

    python tests/export/operations.py target/debug/engraft [--install]

It needs numpy, safetensors and onnxruntime; --install installs them with pip.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import common

TOLERANCE = 1e-4
ROOT = pathlib.Path(__file__).parent.parent
FAMILIES = ROOT / "fixtures" / "families"


def main(exporter, about, packages):
    options = common.arguments(about, packages)
    with tempfile.TemporaryDirectory() as folder:
        wrong = exporter(options.engraft.resolve(), pathlib.Path(folder)).all()
    if wrong:
        sys.exit("\n".join(["these differ by more than the tolerance:", *wrong]))


class Exporter:
    """Networks that leave as ONNX."""

    def __init__(self, engraft, folder):
        self.engraft, self.folder = engraft, folder

    def all(self):
        rows = [*self.operations(), *self.families(), *self.halves(), self.normalised()]
        for name, difference in rows:
            print(f"{name:70} {difference:.1e}")
        print(f"{len(rows)} networks, largest difference {max(difference for _, difference in rows):.1e}")
        return [name for name, difference in rows if not difference < TOLERANCE]

    def convert(self, tensors, name, metadata, options):
        """Writes a network with these weights in another format; returns the file."""
        import safetensors.numpy

        source, target = self.folder / "network.safetensors", self.folder / name
        safetensors.numpy.save_file(tensors, source, metadata)
        command = [self.engraft, "convert", source, target, "--force", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
        return target

    def run(self, tensors, inputs, metadata=None, options=()):
        """Logits in onnxruntime of a network with these weights, by way of the command."""
        import onnxruntime

        target = self.convert(tensors, "network.onnx", metadata, options)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(target, settings, providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape[0] == "N" and session.get_outputs()[0].name == "logits"
        return session.run(["logits"], {"input": inputs})[0]

    def operations(self):
        import numpy as np

        for case in json.loads((ROOT / "fixtures" / "ops" / "ops.json").read_text())["cases"]:
            tensors = {
                name: np.array(tensor["values"], np.float32).reshape(tensor["shape"])
                for name, tensor in case["tensors"].items()
            } or {"unused": np.zeros(1, np.float32)}
            shape = case["graph"]["nodes"][0]["shape"]
            inputs = np.array(case["inputs"], np.float32).reshape(case["batch"], *shape)
            graph = self.folder / "graph.json"
            graph.write_text(json.dumps({"graph": case["graph"], "ignore": [] if case["tensors"] else ["unused"]}))
            logits = self.run(tensors, inputs, options=["--architecture", graph])
            yield case["name"], difference(np.array(case["outputs"]), logits.flatten())

    def family(self, name, convert=lambda values: values):
        import numpy as np

        sys.path.append(str(FAMILIES))
        import weights

        fixture = json.loads((FAMILIES / f"{name}.json").read_text())
        tensors = {
            tensor: np.zeros(shape, np.int64) if tensor.endswith("num_batches_tracked")
            else convert(weights.tensor(tensor, shape, fixture["seed"]))
            for tensor, shape in unfolded(fixture["tensors"])
        }
        architecture = self.folder / "architecture.json"
        architecture.write_text(json.dumps({"family": fixture["family"], "assume": True}))
        options = ["--architecture", architecture, "--input-shape", ",".join(map(str, fixture["input"][1:]))]
        return fixture, tensors, weights.inputs(fixture["input"], fixture["seed"]), options

    def families(self):
        import numpy as np

        for path in sorted(FAMILIES.glob("*.json")):
            fixture, tensors, inputs, options = self.family(path.stem)
            yield path.stem, difference(np.array(fixture["logits"]), self.run(tensors, inputs, options=options))

    def halves(self):
        """16-bit weights are computed with in 32 bits."""
        import numpy as np

        for name in ("resnet18_cifar", "vit_timm"):
            _, half, inputs, options = self.family(name, lambda values: values.astype(np.float16))
            wide = {key: value.astype(np.float32) if value.dtype == np.float16 else value for key, value in half.items()}
            expected = self.run(wide, inputs, options=options)
            yield f"{name} in 16 bits", difference(expected, self.run(half, inputs, options=options))

    def normalised(self):
        import numpy as np

        fixture, tensors, inputs, options = self.family("resnet18_cifar")
        mean, std = np.array([0.4914, -0.25, 0.4465]), np.array([0.247, 0.2435, 2.0])
        shown = [",".join(map(str, values)) for values in (mean, std)]
        raw = inputs * std.reshape(3, 1, 1) + mean.reshape(3, 1, 1)
        logits = self.run(tensors, raw.astype(np.float32), options=[*options, "--mean", shown[0], "--std", shown[1]])
        return "resnet18_cifar with normalisation", difference(np.array(fixture["logits"]), logits)


def unfolded(tree, prefix=""):
    for name, child in tree.items():
        if isinstance(child, dict):
            yield from unfolded(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def difference(expected, got):
    """Largest difference, as a part of the largest value or of 1."""
    import numpy as np

    if expected.shape != got.shape:
        return float("inf")
    return float(np.abs(expected - got).max() / max(1.0, np.abs(expected).max()))


if __name__ == "__main__":
    main(Exporter, __doc__, ["numpy", "safetensors", "onnxruntime"])
