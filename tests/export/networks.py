"""Takes networks of torchvision and timm at their real widths through engraft, and compares logits with PyTorch's.

    python tests/export/networks.py target/debug/engraft [--install]

Each network has ten classes, random weights and random statistics of its BatchNorms. It goes in as a `state_dict` (.pt), whose network
is recognised by its names, and as what both exporters of PyTorch write (.onnx), and comes out as ONNX, which onnxruntime runs. It needs
torch, torchvision, timm, onnx, onnxscript and onnxruntime; --install installs them with pip.
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

PACKAGES = ["torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime"]
TOLERANCE = 1e-4
BATCH = 3


def networks():
    """(name, network, family, shape of an example)"""
    import timm
    from torchvision import models

    image = (3, 64, 64)
    yield "ResNet18", models.resnet18(num_classes=10), "resnet", image
    yield "MobileNetV2", models.mobilenet_v2(num_classes=10), "mobilenet_v2", image
    yield "DenseNet-121", models.densenet121(num_classes=10), "densenet", image
    yield "EfficientNet-B0", models.efficientnet_b0(num_classes=10), "efficientnet", image
    yield "ConvNeXt-Tiny", models.convnext_tiny(num_classes=10), "convnext", image
    yield "ViT-Tiny", timm.create_model("vit_tiny_patch16_224", num_classes=10), "vit", (3, 224, 224)


def randomised(network):
    """The network with weights that keep its activations in range, and nothing that is one or zero all over."""
    import torch

    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            noise = torch.randn(value.shape, generator=random)
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var"):
                value.copy_(1 + 0.5 * noise.tanh())
            elif name.endswith(("bias", "running_mean")):
                value.copy_(0.1 * noise)
            elif value.dim() == 1 or "layer_scale" in name:
                value.copy_(1 + 0.1 * noise)
            elif value.dim() == 3:
                value.copy_(0.3 * noise)
            else:
                value.copy_(noise * (2 / value[0].numel()) ** 0.5)
    return network.eval()


def export(network, examples, path, dynamo):
    import torch

    if dynamo:
        sizes = ({0: torch.export.Dim("N", min=1)},)
        torch.onnx.export(
            network, (examples,), path, dynamo=True, dynamic_shapes=sizes, external_data=False, verbose=False
        )
    else:
        axes = {"dynamic_axes": {"input": {0: "N"}}, "input_names": ["input"], "opset_version": 17}
        torch.onnx.export(network, (examples,), path, dynamo=False, **axes)


def logits(path, examples):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: examples.numpy()})[0]


def engraft(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"engraft {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def rows(program, folder):
    """(network, way in, tensors, tensors with their own names, difference of logits as a part of the largest)"""
    import torch

    for name, network, family, shape in networks():
        network = randomised(network)
        examples = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            expected = network(examples).numpy()
        names = {key for key in network.state_dict() if not key.endswith("num_batches_tracked")}
        architecture = folder / "architecture.json"
        architecture.write_text(json.dumps({"family": family, "assume": True}))
        sizes = ",".join(map(str, shape))
        for way in ("state_dict", "dynamo=False", "dynamo=True"):
            source, target = folder / ("in.pt" if way == "state_dict" else "in.onnx"), folder / "out.onnx"
            options = []
            if way == "state_dict":
                torch.save(network.state_dict(), source)
                options = ["--architecture", architecture, "--input-shape", sizes]
            else:
                export(network, examples, source, way == "dynamo=True")
            engraft(program, "convert", source, target, "--force", *options)
            own = {tensor["name"] for tensor in json.loads(engraft(program, "inspect", "--json", target))["tensors"]}
            difference = abs(logits(target, examples) - expected).max() / max(1.0, abs(expected).max())
            yield name, way, len(own), len(own & names), float(difference)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("engraft", type=pathlib.Path)
    arguments.add_argument("--install", action="store_true")
    options = arguments.parse_args()
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing and options.install:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
        importlib.invalidate_caches()
    elif missing:
        sys.exit(f"NOT RUN: {', '.join(missing)} missing; say --install to install them")
    warnings.filterwarnings("ignore")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'network':16} {'way in':14} {'tensors':>8} {'own names':>10} {'difference':>11}", flush=True)
        for name, way, tensors, own, difference in rows(options.engraft.resolve(), pathlib.Path(folder)):
            print(f"{name:16} {way:14} {tensors:8} {own:10} {difference:11.1e}", flush=True)
            wrong += not difference < TOLERANCE
    if wrong:
        sys.exit(f"{wrong} differ by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
