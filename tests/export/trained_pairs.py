"""Two briefly trained members of each family that is read from ONNX, fused and loaded back.

    python tests/export/trained_pairs.py target/release/engraft [--install] [NAMES]

For each family two small networks learn ten synthetic classes for seconds. They are exported, by one of PyTorch's two exporters
each, and engraft's logits of each must be PyTorch's within 1e-4 of the largest (a reference). Then they are fused to their own
width with a few unlabelled inputs, and what is written must give onnxruntime and PyTorch the same logits: as ONNX, and in the
library's own module where its names and shapes fit, else as the source of one.

It needs torch, torchvision, timm, onnx, onnxscript, onnxruntime and safetensors; --install installs them with pip.
"""

import collections
import importlib.util
import json
import logging
import pathlib
import subprocess
import sys
import tempfile
import warnings

import common

PACKAGES = ["torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors"]
TOLERANCE = 1e-4
CLASSES = 10
TRAINED, MEASURED, REFERENCE = 640, 200, 16


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    options = common.arguments(__doc__, PACKAGES, names={"nargs": "*"})
    import pairs

    wrong = []
    print("| family | exporter | logits | members | ensemble | fused | ONNX | loaded back |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for index, (name, family) in enumerate(pairs.FAMILIES.items()):
        if options.names and name not in options.names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = Pair(options.engraft.resolve(), pathlib.Path(folder), family, index % 2 == 1 if family.dynamo is None else family.dynamo).row()
        print(f"| {name} | {' | '.join(row.cells())} |", flush=True)
        if not row.holds(family):
            wrong.append(name)
    if wrong:
        sys.exit(f"these failed: {', '.join(wrong)}")


class Row:
    """What became of one pair."""

    def __init__(self, exporter):
        self.exporter, self.refusal = exporter, None
        self.far, self.accuracies, self.onnx, self.back = [], None, None, None

    def holds(self, family):
        if family.refused or self.refusal:
            return bool(family.refused) and family.refused in (self.refusal or "")
        return max([*self.far, self.onnx, self.back[1]]) < TOLERANCE

    def cells(self):
        if self.refusal:
            return [self.exporter, f"refused: {self.refusal}", *[""] * 5]
        *members, ensemble, fused = (f"{100 * accuracy:.1f} %" for accuracy in self.accuracies)
        how, far = self.back
        return [
            self.exporter, f"{max(self.far):.1e}", ", ".join(members), ensemble, fused, f"{self.onnx:.1e}", f"{how}, {far:.1e}",
        ]


class Refused(Exception):
    """What engraft says to a pair that it does not take."""


class Pair:
    """Two members of one family."""

    def __init__(self, engraft, folder, family, dynamo):
        self.engraft, self.folder, self.family, self.dynamo = engraft, folder, family, dynamo

    def row(self):
        row = Row("dynamo" if self.dynamo else "script")
        try:
            self.prepare()
            row.far = [self.far_from_reference(index) for index in range(2)]
            row.accuracies = self.fuse()
            row.onnx, row.back = self.onnx(), self.back()
        except Refused as refusal:
            row.refusal = str(refusal)
        return row

    def prepare(self):
        import numpy as np
        import torch

        torch.set_num_threads(1)
        shape = self.family.shape
        inputs, labels = examples(shape, TRAINED + MEASURED)
        self.inputs = inputs[-MEASURED:]
        split = {"x": inputs[:TRAINED], "y": labels[:TRAINED], "x_test": self.inputs, "y_test": labels[-MEASURED:]}
        np.savez(self.folder / "data.npz", **{key: tensor.numpy() for key, tensor in split.items()})
        self.members = []
        for seed in range(2):
            torch.manual_seed(seed)
            member = self.family.build()
            if not self.family.refused:
                train(member, inputs[:TRAINED], labels[:TRAINED], self.family)
            self.members.append(member.eval())
            self.export(member, f"m{seed}.onnx")

    def export(self, member, name):
        import torch

        # Without what would fold a BatchNorm into the layer before it, tensors keep the names of the state_dict.
        script = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
        options = {"external_data": False, "optimize": False, "verbose": False} if self.dynamo else script
        torch.onnx.export(member, (self.inputs[:2],), self.folder / name, dynamo=self.dynamo, **options)

    def run(self, *arguments):
        done = subprocess.run([self.engraft, *map(str, arguments)], cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise Refused(done.stderr.strip().splitlines()[-1])
        return done.stdout + done.stderr

    def far_from_reference(self, index):
        """How far engraft's logits of a member lie from PyTorch's, as a part of the largest."""
        import safetensors.torch

        tensors = {"inputs": self.inputs[:REFERENCE].contiguous(), "logits": self.logits(self.members[index])[:REFERENCE]}
        safetensors.torch.save_file(tensors, self.folder / "reference.safetensors")
        options = ["--importance", "magnitude", "--compensate", "none", "--force", "--width", "0.9"]
        said = self.run("fuse", "--member", f"m{index}.onnx", "--reference", "reference.safetensors", "--out", "one.safetensors", *options)
        return float(said.split(" of the largest")[0].rsplit(" ", 1)[1])

    def fuse(self):
        calibration = {"calibration": {"samples": self.family.samples}, "ensemble": "mean_logits", "importance": "magnitude"}
        job = {"dataset": {"name": "data.npz", "validation_fraction": 0.1}, "method": calibration}
        (self.folder / "job.json").write_text(json.dumps({**job, "evaluate": ["members", "ensemble", "fused"]}))
        members = [flag for index in range(2) for flag in ("--member", f"m{index}.onnx")]
        self.run("fuse", *members, "--job", "job.json", "--out", "fused.safetensors", "--report", "report.json")
        for name in ("fused.onnx", "fused.pt", "fused.py"):
            self.run("convert", "fused.safetensors", name, "--force")
        rows = json.loads((self.folder / "report.json").read_text())["candidates"]
        kinds = ["member", "member", "ensemble", "fused"]
        of = lambda kind: [row["test"]["accuracy"] for row in rows if row["kind"] == kind]
        self.reported = of("fused")[0]
        return [*of("member"), of("ensemble")[0], self.reported]

    def logits(self, network):
        import torch

        with torch.no_grad():
            return torch.cat([network(batch) for batch in self.inputs.split(100)])

    def onnx(self):
        """How far onnxruntime lies from the module that is written; both must count as many right as the report says."""
        import onnxruntime
        import torch

        session = onnxruntime.InferenceSession(self.folder / "fused.onnx", providers=["CPUExecutionProvider"])
        self.fused = torch.from_numpy(session.run(["logits"], {"input": self.inputs.numpy()})[0])
        return difference(self.fused, self.from_source())

    def from_source(self):
        spec = importlib.util.spec_from_file_location("fused", self.folder / "fused.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return self.logits(module.load(self.folder / "fused.safetensors"))

    def back(self):
        import torch

        own = self.family.build().eval()
        state = collections.OrderedDict(torch.load(self.folder / "fused.pt", weights_only=True))
        # Versions of modules, which MNASNet asks for.
        state._metadata = own.state_dict()._metadata
        try:
            missing, unexpected = own.load_state_dict(state, strict=False)
        except RuntimeError as error:
            return self.into_source(str(error).splitlines()[1])
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            return self.into_source(f"`{[*unexpected, *missing][0]}` differs")
        return "state_dict", difference(self.fused, self.logits(own))

    def into_source(self, reason):
        return f"source ({reason.strip()})", difference(self.fused, self.from_source())


def examples(shape, count):
    """Smooth patterns, one for each class, at random places in noise."""
    import torch

    generator = torch.Generator().manual_seed(1)
    draw = lambda *size: torch.randn(*size, generator=generator)
    channels, *size = shape
    mode = "bilinear" if len(size) == 2 else "linear"
    patterns = torch.nn.functional.interpolate(draw(CLASSES, channels, *[5] * len(size)), size, mode=mode)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    shifts = torch.randint(-4, 5, (count, len(size)), generator=generator)
    axes = list(range(1, 1 + len(size)))
    shifted = [patterns[label].roll(shift.tolist(), axes) for label, shift in zip(labels.tolist(), shifts)]
    return torch.stack(shifted) + 1.5 * draw(count, *shape), labels


def train(network, inputs, labels, family):
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), family.rate)
    steps = family.epochs * (len(inputs) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, family.rate, total_steps=steps)
    network.train()
    for _ in range(family.epochs):
        for batch in torch.randperm(len(inputs)).split(64)[: len(inputs) // 64]:
            loss = torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def difference(expected, got):
    """Largest difference, as a part of the largest value."""
    if expected.shape != got.shape:
        return float("inf")
    return float((expected - got).abs().max() / expected.abs().max())


if __name__ == "__main__":
    main()
