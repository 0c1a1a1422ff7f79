"""Whole ways of six networks of torchvision and timm, of random weights and ten classes: in as PyTorch's files and as ONNX, fused, out as ONNX, as a
state_dict and, at half the width, as the source of a module. Each way's logits must be PyTorch's within 1e-4 of the largest.

    python tests/export/round_trips.py target/release/engraft [--install] [NAMES]

It needs torch, torchvision, timm, onnx, onnxscript, onnxruntime and safetensors; --install installs them with pip.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

import common

PACKAGES = ["torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors"]
TOLERANCE = 1e-4
SIZE = 64
EXAMPLES = 16
#: How each is built, and the settings that names and shapes leave open.
NETWORKS = {
    "resnet18": lambda torchvision, timm: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v2": lambda torchvision, timm: torchvision.models.mobilenet_v2(num_classes=10),
    "densenet121": lambda torchvision, timm: torchvision.models.densenet121(num_classes=10),
    "efficientnet_b0": lambda torchvision, timm: torchvision.models.efficientnet_b0(num_classes=10),
    "convnext_tiny": lambda torchvision, timm: torchvision.models.convnext_tiny(num_classes=10),
    "vit_tiny": lambda torchvision, timm: timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=SIZE),
}


def main():
    options = common.arguments(__doc__, PACKAGES, names={"nargs": "*", "choices": [*NETWORKS, []]})
    wrong = []
    for name in options.names or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            for way, far in Trip(options.engraft.resolve(), pathlib.Path(folder), name).ways():
                print(f"{name:16} {way:70} {far:.1e}", flush=True)
                if not far < TOLERANCE:
                    wrong.append(f"{name}: {way}")
    if wrong:
        sys.exit("\n".join(["these differ by more than the tolerance:", *wrong]))


class Trip:
    """The ways of one network."""

    def __init__(self, engraft, folder, name):
        import timm
        import torch
        import torchvision

        self.engraft, self.folder, self.torch = engraft, folder, torch
        torch.manual_seed(7)
        self.inputs = torch.randn(EXAMPLES, 3, SIZE, SIZE)
        self.build = lambda: NETWORKS[name](torchvision, timm)
        self.members = [self.varied(self.build()) for _ in range(2)]
        for index, member in enumerate(self.members):
            torch.save(member.state_dict(), folder / f"m{index}.pt")

    def varied(self, network):
        """Weights and statistics that are not those of the start. Statistics are near those of the inputs: of any others so little
        comes through a deep network that all inputs have the same logits, and nothing is compared."""
        for name, tensor in network.named_parameters():
            if name.endswith("bias"):
                tensor.data.normal_(0, 0.1)
            elif name.endswith(("layer_scale", "gamma")):
                tensor.data.uniform_(0.5, 1.5)
        network.eval()
        norms = [module for module in network.modules() if isinstance(module, self.torch.nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        self.logits(network)
        for norm in norms:
            norm.running_mean.add_(0.1 * self.torch.randn_like(norm.running_mean) * norm.running_var.sqrt())
            norm.running_var.mul_(self.torch.empty_like(norm.running_var).uniform_(0.5, 2.0))
        network.eval()
        logits = self.logits(network)
        assert (logits.std(0).max() / abs(logits).max()) > 0.01, "the logits of all inputs are nearly the same"
        return network

    def ways(self):
        yield "pt -> engraft -> pt, into the library's module", self.as_state_dict()
        yield "pt -> engraft -> onnx, in onnxruntime", self.as_onnx()
        yield "pt -> engraft at half the width -> source, against onnxruntime", self.at_half_width()
        yield "the same, against engraft itself (a reference)", self.against_engraft()
        for dynamo in (False, True):
            yield f"onnx (dynamo={dynamo}) -> engraft -> onnx, one member alone", self.alone(dynamo)
            yield f"onnx (dynamo={dynamo}) -> engraft -> pt and source, against onnxruntime", self.from_onnx(dynamo)

    def run(self, *arguments):
        done = subprocess.run([self.engraft, *map(str, arguments)], cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"engraft {' '.join(map(str, arguments))}:\n{done.stderr}")
        return done.stdout + done.stderr

    def fuse(self, members, out, *options, **job):
        path = self.folder / "job.json"
        path.write_text(json.dumps({"input_shape": [3, SIZE, SIZE], "method": {"importance": "magnitude"}, **job}))
        flags = [flag for member in members for flag in ("--member", member)]
        return self.run("fuse", *flags, "--job", path, "--out", out, "--force", *options)

    def logits(self, network):
        with self.torch.no_grad():
            return network(self.inputs).numpy()

    def in_onnxruntime(self, name):
        import onnxruntime

        session = onnxruntime.InferenceSession(self.folder / name, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: self.inputs.numpy()})[0]

    def from_source(self, name):
        spec = importlib.util.spec_from_file_location("network", self.folder / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return self.logits(module.load((self.folder / name).with_suffix(".safetensors")))

    def as_state_dict(self):
        self.fuse(["m0.pt", "m1.pt"], "fused.pt", "--assume")
        self.fused = self.build().eval()
        self.fused.load_state_dict(self.torch.load(self.folder / "fused.pt", weights_only=True))
        self.fuse(["m0.pt", "m1.pt"], "fused.py", "--assume")
        return difference(self.logits(self.fused), self.from_source("fused.py"))

    def as_onnx(self):
        self.fuse(["m0.pt", "m1.pt"], "fused.onnx", "--assume")
        return difference(self.logits(self.fused), self.in_onnxruntime("fused.onnx"))

    def at_half_width(self):
        half = {"target": {"width": 0.5}}
        self.fuse(["m0.pt", "m1.pt"], "half.py", "--assume", **half)
        self.fuse(["m0.pt", "m1.pt"], "half.onnx", "--assume", **half)
        self.half = self.from_source("half.py")
        return difference(self.half, self.in_onnxruntime("half.onnx"))

    def against_engraft(self):
        """The logits of the source as a reference of the fused network: its distance from what engraft computes."""
        import safetensors.torch

        tensors = {"inputs": self.inputs, "logits": self.torch.from_numpy(self.half)}
        safetensors.torch.save_file(tensors, self.folder / "reference.safetensors")
        said = self.fuse(["half.onnx"], "again.safetensors", "--reference", "reference.safetensors", target={"width": 0.9})
        return float(said.split(" of the largest")[0].rsplit(" ", 1)[1])

    def alone(self, dynamo):
        exported = []
        for index, member in enumerate(self.members):
            name = f"m{index}_{dynamo}.onnx"
            self.torch.onnx.export(
                member, (self.inputs[:2],), self.folder / name, dynamo=dynamo, verbose=False, external_data=False,
                **({} if dynamo else {"dynamic_axes": {"input": {0: "N"}}, "input_names": ["input"]}),
                **({"dynamic_shapes": ({0: self.torch.export.Dim.AUTO},)} if dynamo else {}),
            )
            exported.append(name)
        self.exported = exported
        self.run("convert", exported[0], "back.onnx", "--force")
        return difference(self.logits(self.members[0]), self.in_onnxruntime("back.onnx"))

    def from_onnx(self, dynamo):
        self.fuse(self.exported, "both.pt")
        self.fuse(self.exported, "both.py")
        self.fuse(self.exported, "both.onnx")
        weights = self.torch.load(self.folder / "both.pt", weights_only=True)
        import safetensors.torch

        same = safetensors.torch.load_file(self.folder / "both.safetensors")
        assert weights.keys() == same.keys() and all(self.torch.equal(weights[name], same[name]) for name in same)
        return difference(self.from_source("both.py"), self.in_onnxruntime("both.onnx"))


def difference(expected, got):
    """Largest difference, as a part of the largest value."""
    if expected.shape != got.shape:
        return float("inf")
    return float(abs(expected - got).max() / abs(expected).max())


if __name__ == "__main__":
    main()
