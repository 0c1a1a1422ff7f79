"""Training beside PyTorch's, from the same weights and in the same order of examples.

    python benches/accuracy.py losses      # the first 50 losses of an MLP, LeNet and two residual networks on CIFAR-10
    python benches/accuracy.py accuracy    # an MLP on MNIST and LeNet on CIFAR-10, trained to the end from three seeds

Needs torch, safetensors and pillow, and the data sets of ../shared/data. What engraft draws from a seed, draws.py draws again,
so that PyTorch gets the same first weights and the same batches; `--own` lets PyTorch draw for itself as well. Both measure the
validation and the test examples after every epoch; kept is the first epoch with the best validation accuracy. Ours and PyTorch
take turns, on two threads; times are of everything, once by the clock and once by the processor time of all threads.
"""

import argparse
import gzip
import io
import json
import math
import pathlib
import re
import resource
import subprocess
import tempfile
import time
import zipfile

import draws
import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import nn

THREADS, STEPS, CLASSES, BATCH = 2, 50, 10, 256
SHARED = pathlib.Path(__file__).parent.parent.parent / "shared" / "data"


class Mlp(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, 512), nn.Linear(512, 512)
        self.fc3, self.fc4 = nn.Linear(512, 512), nn.Linear(512, CLASSES)

    def forward(self, x):
        x = torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1)))))
        return self.fc4(torch.relu(self.fc3(x)))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, CLASSES)

    def forward(self, x):
        pool, relu = nn.functional.max_pool2d, torch.relu
        x = pool(relu(self.conv2(pool(relu(self.conv1(x)), 2))), 2).flatten(1)
        return self.fc3(relu(self.fc2(relu(self.fc1(x)))))


class Block(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        short = [] if s == 1 and i == o else [nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o)]
        self.shortcut = nn.Sequential(*short)

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Stages of twice the width each, of `blocks` blocks."""

    def __init__(self, width, stages, blocks):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stages, channels = [f"layer{stage}" for stage in range(1, stages + 1)], width
        for stage, name in enumerate(self.stages):
            first = Block(channels, width << stage, 1 if stage == 0 else 2)
            channels = width << stage
            setattr(self, name, nn.Sequential(first, *[Block(channels, channels, 1) for _ in range(blocks - 1)]))
        self.linear = nn.Linear(channels, CLASSES)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.linear(x.mean((2, 3)))


def mnist():
    """Train and test: bytes, N x 1 x 28 x 28, and labels."""
    def read(name, skip):
        packed = (SHARED / "mnist" / f"{name}-ubyte.gz").read_bytes()
        return np.frombuffer(bytearray(gzip.decompress(packed)), np.uint8, offset=skip)

    parts = ("train", "t10k")
    return [(read(f"{part}-images-idx3", 16).reshape(-1, 1, 28, 28), read(f"{part}-labels-idx1", 8)) for part in parts]


def cifar():
    """Train and test: bytes, N x 3 x 32 x 32, and labels."""
    archive, parts = zipfile.ZipFile(SHARED / "cifar10-jpeg.zip"), []
    names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
    classes = sorted({name.split("/")[-2] for name in names})
    for part in ("train", "test"):
        found = [name for name in names if name.split("/")[-3] == part]
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in found]
        labels = [classes.index(name.split("/")[-2]) for name in found]
        parts.append((np.stack(images).transpose(0, 3, 1, 2).copy(), np.array(labels, np.uint8)))
    return parts


TASKS = {
    "mnist-mlp": (mnist, lambda: Mlp(784), "mlp:512,512,512", (0.1307, 0.3081), 10),
    "cifar-lenet": (cifar, LeNet, "lenet", (0.5, 0.5), 15),
}
LR, MOMENTUM = 0.01, 0.9


def split(parts):
    """Nine tenths to train on, a tenth to validate on, and the test examples."""
    (images, labels), test = parts
    places = np.random.default_rng(0).permutation(len(labels))
    held_out, kept = np.sort(places[: len(labels) // 10]), np.sort(places[len(labels) // 10 :])
    return {"train": (images[kept], labels[kept]), "validation": (images[held_out], labels[held_out]), "test": test}


def normalised(part, mean, std):
    images, labels = part
    return (torch.from_numpy(images).float() / 255 - mean) / std, torch.from_numpy(labels.astype(np.int64))


class Run:
    """A finished training: accuracies in percent, one for each epoch from 0 on."""

    def __init__(self, losses, validation, test, seconds):
        best = max(range(len(validation)), key=lambda epoch: validation[epoch])
        self.losses, self.final, self.kept, self.seconds = losses, test[-1], test[best], seconds

    def __str__(self):
        clock, cpu = self.seconds
        losses = " ".join(f"{loss:.4f}" for loss in self.losses)
        return (f"test {self.final:.2f} % at the end, {self.kept:.2f} % of the epoch that is kept; "
                f"{clock:.1f} s, processor {cpu:.1f} s; losses {losses}")


def ours(program, folder, network, seed, epochs, normalize):
    mean, std = ([value] for value in normalize)
    files = {"name": "train.npz", "validation": "validation.npz", "test": "test.npz"}
    recipe = {
        "network": network, "seeds": [seed],
        "dataset": {**files, "normalize": {"mean": mean, "std": std}},
        "train": {
            "epochs": epochs, "batch_size": BATCH, "schedule": "cosine",
            "optimizer": {"name": "sgd", "lr": LR, "momentum": MOMENTUM},
        },
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    command = [program, "train", "--recipe", "recipe.json", "--out", "members", "--threads", str(THREADS)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=True).stderr
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    losses = [float(loss) for loss in re.findall(r"epoch +\d+ +loss ([\d.]+)", told)]
    scores = [[float(score) for score in re.findall(rf"{part} ([\d.]+) %", told)] for part in ("validation", "test")]
    assert len(losses) == epochs and len(scores[1]) == epochs + 1, told
    return Run(losses, *scores, (clock, cpu))


def torchs(make, data, seed, epochs, normalize, own):
    start, cpu = time.perf_counter(), time.process_time()
    torch.manual_seed(seed)
    model, parts = make(), {name: normalised(part, *normalize) for name, part in data.items()}
    if not own:
        drawn = draws.weights([(name, tuple(value.shape)) for name, value in model.named_parameters()], seed)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in drawn.items()})
    images, labels = parts["train"]
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    steps = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps / epochs)) / 2)
    losses, scores = [], {name: [accuracy(model, *parts[name])] for name in ("validation", "test")}
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(labels)) if own else torch.from_numpy(draws.order(len(labels), seed, epoch))
        total = 0.0
        for batch in order[: steps * BATCH].reshape(steps, BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        losses.append(total / steps)
        for name, values in scores.items():
            values.append(accuracy(model, *parts[name]))
    return Run(losses, *scores.values(), (time.perf_counter() - start, time.process_time() - cpu))


def accuracy(model, images, labels):
    with torch.no_grad():
        guesses = torch.cat([model(part).argmax(1) for part in images.split(BATCH)])
    return 100 * (guesses == labels).double().mean().item()


def spread(values):
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def accuracies(options):
    for task in options.names or TASKS:
        load, make, network, normalize, epochs = TASKS[task]
        epochs = options.epochs or epochs
        data = split(load())
        runs = {"engraft": [], "PyTorch": [], **({"PyTorch, own draws": []} if options.own else {})}
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for name, (images, labels) in data.items():
                np.savez(folder / f"{name}.npz", x=images, y=labels)
            for seed in options.seeds:
                for who, finished in runs.items():
                    if who == "engraft":
                        run = ours(options.program.resolve(), folder, network, seed, epochs, normalize)
                    else:
                        run = torchs(make, data, seed, epochs, normalize, who != "PyTorch")
                    finished.append(run)
                    print(f"{task} seed {seed}, {who}: {run}", flush=True)
        for who, finished in runs.items():
            final, kept, seconds = zip(*((run.final, run.kept, run.seconds) for run in finished))
            fastest = " | ".join(f"{min(column):.1f} s" for column in zip(*seconds))
            print(f"| {task} | {who} | {spread(final)} | {spread(kept)} | {fastest} |", flush=True)


NETWORKS = {
    "mlp": (lambda: Mlp(3072), 256, (0.01, 0.1)),
    "lenet": (LeNet, 256, (0.01, 0.1)),
    "resnet8-16": (lambda: ResNet(16, 3, 1), 128, (0.001, 0.01)),
    "resnet18-16": (lambda: ResNet(16, 4, 2), 128, (0.0001, 0.001, 0.01)),
}


def fifty(make, start, lr, batches, layout):
    model = make()
    model.load_state_dict(start)
    model = model.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    losses = []
    for images, labels in zip(*batches):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images.contiguous(memory_format=layout)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def losses(options):
    images, labels = cifar()[0]
    program = subprocess.Popen([*options.bench.split(), "--bench"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for name in options.names or NETWORKS:
        make, size, rates = NETWORKS[name]
        places = np.random.default_rng(1).permutation(len(labels))[: STEPS * size]
        x, y = normalised((images[places], labels[places]), 0.5, 0.5)
        batches = (x.reshape(STEPS, size, *x.shape[1:]), y.reshape(STEPS, size))
        torch.manual_seed(0)
        start = make().state_dict()
        with tempfile.TemporaryDirectory() as folder:
            save_file({key: value.numpy() for key, value in start.items()}, f"{folder}/weights.safetensors")
            save_file({"x": batches[0].numpy(), "y": batches[1].float().numpy()}, f"{folder}/batches.safetensors")
            for lr in rates:
                print(f"losses {folder}/weights.safetensors {folder}/batches.safetensors {lr}", file=program.stdin, flush=True)
                found = np.array([float(loss) for loss in program.stdout.readline().split()])
                layouts = (torch.contiguous_format, torch.channels_last)
                first, second = (fifty(make, start, lr, batches, layout) for layout in layouts)
                apart, own = (np.abs(other / first - 1) for other in (found, second))
                print(f"{name}, batch {size}, rate {lr}: loss {first[0]:.4f} to {first[-1]:.4f}; apart by {apart.max():.1e} "
                      f"at most (PyTorch's two layouts by {own.max():.1e}), in the first 10 steps {apart[:10].max():.1e} "
                      f"({own[:10].max():.1e})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("losses", "accuracy"))
    parser.add_argument("names", nargs="*", help=f"some of {', '.join([*NETWORKS, *TASKS])}; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="fewer or more than by default")
    parser.add_argument("--own", action="store_true", help="also let PyTorch draw for itself")
    parser.add_argument("--program", type=pathlib.Path, default="target/release/engraft", help="our command line")
    parser.add_argument("--bench", default="cargo bench --bench training --", help="what to start for the losses")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    losses(options) if options.what == "losses" else accuracies(options)


if __name__ == "__main__":
    main()
