"""The first 50 losses of networks on CIFAR-10 beside PyTorch's, from the same weights and on the same batches.

    python benches/losses.py        # an MLP, LeNet and two residual networks; starts `cargo bench --bench training` itself

Needs torch, safetensors and pillow, and CIFAR-10 in ../shared/data. SGD with momentum 0.9 and weight decay 5e-4, BatchNorm in
training mode. What is told are largest relative differences; PyTorch's two layouts, which only round differently, show how far
rounding alone drives two runs apart. `--each-step` compares single steps too, from all weights that PyTorch comes through.
"""

import argparse
import subprocess
import tempfile

import numpy as np
import torch
from beside import LeNet, Mlp, ResNet, cifar, normalised
from safetensors.numpy import save_file
from torch import nn

THREADS, STEPS = 2, 50
NETWORKS = {
    "mlp": (lambda: Mlp(3072), 256, (0.01, 0.1)),
    "lenet": (LeNet, 256, (0.01, 0.1)),
    "resnet8-16": (lambda: ResNet(16, 3, 1), 128, (0.001, 0.01)),
    "resnet18-16": (lambda: ResNet(16, 4, 2), 128, (0.0001, 0.001, 0.01)),
}


def train(start, make, lr, batches, layout=torch.contiguous_format, before_each=None):
    """PyTorch's losses of a step on each batch."""
    model = make()
    model.load_state_dict(start)
    model = model.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    losses = []
    for images, labels in zip(*batches):
        if before_each is not None:
            before_each(model)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images.contiguous(memory_format=layout)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


class Bench:
    """Our program that trains on given batches."""

    def __init__(self, command, folder):
        self.child = subprocess.Popen([*command.split(), "--bench"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.weights, self.batches = f"{folder}/weights.safetensors", f"{folder}/batches.safetensors"

    def train(self, start, lr, batches):
        save_file({name: value.numpy() for name, value in start.items()}, self.weights)
        save_file({"x": batches[0].numpy(), "y": batches[1].float().numpy()}, self.batches)
        print(f"losses {self.weights} {self.batches} {lr}", file=self.child.stdin, flush=True)
        return np.array([float(loss) for loss in self.child.stdout.readline().split()])


def each_step(bench, make, start, lr, batches):
    """How far ours and PyTorch are apart after one step from each of the weights that PyTorch comes through, seen by the loss
    of the next batch."""
    states, apart = [], []
    train(start, make, lr, batches, before_each=lambda model: states.append(
        {name: value.clone() for name, value in model.state_dict().items()}
    ))
    for step, state in enumerate(states[:-1]):
        two = [part[step : step + 2] for part in batches]
        apart.append(np.abs(bench.train(state, lr, two) / train(state, make, lr, two) - 1))
    return np.max(apart, axis=0)


def compare(name, options, bench, data):
    images, labels = data
    make, size, rates = NETWORKS[name]
    places = np.random.default_rng(1).permutation(len(labels))[: STEPS * size]
    x, y = normalised((images[places], labels[places]), 0.5, 0.5)
    batches = (x.reshape(STEPS, size, *x.shape[1:]), y.reshape(STEPS, size))
    torch.manual_seed(0)
    start = make().state_dict()
    for lr in options.rates or rates:
        found, first = bench.train(start, lr, batches), train(start, make, lr, batches)
        second = train(start, make, lr, batches, layout=torch.channels_last)
        apart, own = (np.abs(other / first - 1) for other in (found, second))
        told = (f"{name}, batch {size}, rate {lr}: loss {first[0]:.4f} to {first[-1]:.4f}; apart by {apart.max():.1e}, "
                f"in 10 steps {apart[:10].max():.1e}; PyTorch's two layouts by {own.max():.1e}, in 10 steps {own[:10].max():.1e}")
        if options.each_step:
            before, after = each_step(bench, make, start, lr, batches)
            told += f"; from PyTorch's weights {before:.1e}, a step later {after:.1e}"
        print(told, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"some of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--rates", type=float, nargs="+", help="learning rates")
    parser.add_argument("--each-step", action="store_true", help="also compare single steps")
    parser.add_argument("--program", default="cargo bench --bench training --", help="what to start as ours")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    data = cifar()[0]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.program, folder)
        for name in options.networks or NETWORKS:
            compare(name, options, bench, data)


if __name__ == "__main__":
    main()
