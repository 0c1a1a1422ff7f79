"""Models in several files, in and out: shards that huggingface_hub and transformers load, ONNX models of more than 2 GiB in onnxruntime, and what PyTorch's exporter
leaves in a file beside.

    python tests/export/several_files.py target/release/engraft [--install] [--large]

It needs torch, onnx, onnxscript, onnxruntime, safetensors and huggingface_hub; --install installs them with pip. --large writes, reads and runs a network of 2.4
GB: it takes 5 GB of disk and 8 GB of memory.
"""

import pathlib
import subprocess
import sys
import tarfile
import tempfile

import common

PACKAGES = ["torch", "onnx", "onnxscript", "onnxruntime", "safetensors", "huggingface_hub"]
TOLERANCE = 1e-4


def main():
    options = common.arguments(__doc__, PACKAGES, **{"--large": {"action": "store_true"}})
    ways = [shards, beside] + ([large] if options.large else [])
    wrong = []
    for way in ways:
        with tempfile.TemporaryDirectory() as folder:
            for name, far in way(Engraft(options.engraft.resolve(), pathlib.Path(folder))):
                print(f"{name:72} {far:.1e}", flush=True)
                if not far < TOLERANCE:
                    wrong.append(name)
    if wrong:
        sys.exit("\n".join(["these differ by more than the tolerance:", *wrong]))


class Engraft:
    """The command in a folder of its own."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def __call__(self, *arguments):
        run = subprocess.run([self.program, *arguments], cwd=self.folder, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr

    def onnx(self, name, inputs):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(self.folder / name), providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]


def mlp(*widths):
    import torch

    torch.manual_seed(7)
    layers = [torch.nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
    parts = [part for layer in layers for part in (layer, torch.nn.ReLU())][:-1]
    return torch.nn.Sequential(*parts).eval()


def distance(got, expected):
    import torch

    expected = expected.detach()
    return float((torch.as_tensor(got) - expected).abs().max() / expected.abs().max())


def shards(engraft):
    """Out as shards, into the module by its folder; in again by the index, by the tar, and as shards of the Hub's own writer."""
    import huggingface_hub
    import torch

    network, inputs = mlp(64, 300, 200, 10), torch.randn(16, 64)
    torch.save(network, engraft.folder / "m.pt")
    engraft("convert", "m.pt", "m.tar", "--shards", "3")
    folder = engraft.folder / "sharded"
    with tarfile.open(engraft.folder / "m.tar") as archive:
        names = sorted(archive.getnames())
        archive.extractall(folder, filter="data")
    assert names == [f"model-0000{index}-of-00003.safetensors" for index in (1, 2, 3)] + ["model.safetensors.index.json"], names
    loaded = mlp(64, 300, 200, 10)
    for parameter in loaded.parameters():
        parameter.data.zero_()
    huggingface_hub.load_torch_model(loaded, folder, strict=True)
    yield "pt -> engraft -> shards -> huggingface_hub", distance(loaded(inputs).detach(), network(inputs))
    engraft("convert", "sharded/model.safetensors.index.json", "index.onnx")
    yield "the same -> index -> engraft -> onnx, in onnxruntime", distance(engraft.onnx("index.onnx", inputs), network(inputs))
    engraft("convert", "m.tar", "tar.onnx")
    yield "the same -> tar -> engraft -> onnx, in onnxruntime", distance(engraft.onnx("tar.onnx", inputs), network(inputs))
    engraft("fuse", "--member", "m.tar", "--member", "sharded/model.safetensors.index.json", "--width", "member", "--out", "fused.tar")
    with tarfile.open(engraft.folder / "fused.tar") as archive:
        assert len(archive.getnames()) == 4, archive.getnames()
    (engraft.folder / "hub").mkdir()
    huggingface_hub.save_torch_state_dict(network.state_dict(), engraft.folder / "hub", max_shard_size=100_000)
    count = len(list((engraft.folder / "hub").glob("*.safetensors")))
    assert count > 1, count
    engraft("convert", "hub/model.safetensors.index.json", "hub.pt")
    state = torch.load(engraft.folder / "hub.pt", weights_only=True)
    loaded.load_state_dict(state)
    yield f"{count} shards of huggingface_hub -> engraft -> pt", distance(loaded(inputs).detach(), network(inputs))


def beside(engraft):
    """As PyTorch's exporter writes by default: the weights in a file beside."""
    import torch

    network, inputs = mlp(64, 300, 200, 10), torch.randn(16, 64)
    torch.onnx.export(network, (inputs,), engraft.folder / "m.onnx", dynamo=True, verbose=False)
    assert (engraft.folder / "m.onnx.data").exists(), "PyTorch keeps them in the one file now"
    engraft("convert", "m.onnx", "again.onnx")
    yield "onnx and its data -> engraft -> onnx, in onnxruntime", distance(engraft.onnx("again.onnx", inputs), network(inputs))
    with tarfile.open(engraft.folder / "m.tar", "w") as archive:
        for name in ("m.onnx", "m.onnx.data"):
            archive.add(engraft.folder / name, name)
    engraft("convert", "m.tar", "tar.onnx")
    yield "the same as one tar", distance(engraft.onnx("tar.onnx", inputs), network(inputs))


def large(engraft):
    """More than 2 GiB: the weights lie beside, in and out."""
    import torch

    with torch.no_grad():
        network, inputs = mlp(64, 24_000, 24_000, 10), torch.randn(4, 64)
        expected = network(inputs)
    torch.save(network, engraft.folder / "m.pt")
    del network
    engraft("convert", "m.pt", "m.onnx")
    (engraft.folder / "m.pt").unlink()
    sizes = [(engraft.folder / name).stat().st_size for name in ("m.onnx", "m.onnx.data")]
    assert sizes[0] < 1 << 20 and sizes[1] > 2 << 30, sizes
    yield f"{sum(sizes)} bytes of pt -> engraft -> onnx and its data, in onnxruntime", distance(engraft.onnx("m.onnx", inputs), expected)
    engraft("convert", "m.onnx", "again.tar")
    with tarfile.open(engraft.folder / "again.tar") as archive:
        names = archive.getnames()
        archive.extractall(engraft.folder / "again", filter="data")
    (engraft.folder / "again.tar").unlink()
    loaded = mlp(64, 24_000, 24_000, 10)
    import huggingface_hub

    huggingface_hub.load_torch_model(loaded, engraft.folder / "again", strict=True)
    with torch.no_grad():
        yield f"the same -> engraft -> {names} -> huggingface_hub", distance(loaded(inputs), expected)


if __name__ == "__main__":
    main()
