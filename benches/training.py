"""Speed of whole networks beside PyTorch's, on two threads of the CPU.

    python benches/training.py            # needs torch; builds and starts `cargo bench --bench training` itself

Ours and PyTorch's variants (default layout, channels last, torch.compile) take turns, so that other load on the machine
meets all of them alike. For each the fastest turn counts, once by the clock and once by the processor time of all
threads; the ratios are PyTorch's fastest variant over ours, so more than 1 means that we are faster.
"""

import argparse
import os
import subprocess
import sys
import time

import torch
from torch import nn

THREADS = 2
REPETITIONS = {"mlp": 20, "lenet": 20, "vgg11": 2, "resnet18": 1, "mobilenet_v2": 1, "vit_tiny": 1}


def conv(i, o, k, s=1, p=0, bias=True):
    return nn.Conv2d(i, o, k, s, p, bias=bias)


def mlp():
    return nn.Sequential(
        nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
        nn.Linear(512, 10),
    )


def lenet():
    return nn.Sequential(
        conv(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), conv(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )


def vgg11():
    layers, channels = [], 3
    for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [conv(channels, width, 3, 1, 1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


class Block(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.conv1, self.bn1 = conv(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = conv(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        same = s == 1 and i == o
        self.short = nn.Identity() if same else nn.Sequential(conv(i, o, 1, s, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.short(x))


def resnet18():
    layers, channels = [conv(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()], 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(channels, width, stride), Block(width, width, 1)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Inverted(nn.Module):
    """A block of MobileNetV2."""

    def __init__(self, i, o, s, expansion):
        super().__init__()
        inner = expansion * i
        layers = [] if expansion == 1 else [conv(i, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()]
        layers += [nn.Conv2d(inner, inner, 3, s, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()]
        self.layers = nn.Sequential(*layers, conv(inner, o, 1, bias=False), nn.BatchNorm2d(o))
        self.same = s == 1 and i == o

    def forward(self, x):
        return self.layers(x) + x if self.same else self.layers(x)


def mobilenet_v2():
    layers, channels = [conv(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()], 32
    for expansion, width, blocks, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):
        for block in range(blocks):
            layers.append(Inverted(channels, width, stride if block == 0 else 1, expansion))
            channels = width
    layers += [conv(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10))


class VitTiny(nn.Module):
    def __init__(self, width=192):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 65, width))
        layers = [
            nn.TransformerEncoderLayer(width, 3, 4 * width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
            for _ in range(12)
        ]
        self.layers, self.norm, self.head = nn.Sequential(*layers), nn.LayerNorm(width, 1e-6), nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.layers(x))[:, 0])


NETWORKS = {
    "mlp": (mlp, 256), "lenet": (lenet, 256), "vgg11": (vgg11, 128), "resnet18": (resnet18, 64),
    "mobilenet_v2": (mobilenet_v2, 32), "vit_tiny": (VitTiny, 64),
}
SIDES = {"mobilenet_v2": 64}


class Torch:
    """One variant of PyTorch."""

    def __init__(self, name, layout, compiled):
        make, batch = NETWORKS[name]
        self.model = make()
        side = SIDES.get(name, 32)
        shape = (batch, 3072) if name == "mlp" else (batch, 3, side, side)
        self.images = torch.randn(shape)
        if layout is not None and name != "mlp":
            self.model = self.model.to(memory_format=layout)
            self.images = self.images.to(memory_format=layout)
        self.labels = torch.arange(batch) % 10
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        self.loss = nn.CrossEntropyLoss()
        self.run = torch.compile(self.model) if compiled else self.model

    def once(self, which):
        if which == "forward":
            self.model.eval()
            with torch.no_grad():
                self.run(self.images)
        else:
            self.model.train()
            self.optimizer.zero_grad()
            self.loss(self.run(self.images), self.labels).backward()
            self.optimizer.step()

    def turn(self, which, repetitions):
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(repetitions):
            self.once(which)
        return time.perf_counter() - start, time.process_time() - cpu


class Ours:
    """Our program, asked line by line."""

    def __init__(self, program):
        self.child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self, name, which, repetitions):
        print(name, which, repetitions, file=self.child.stdin, flush=True)
        return tuple(float(number) for number in self.child.stdout.readline().split())


def variants(name, compile_too):
    found = {"default": Torch(name, None, False), "channels last": Torch(name, torch.channels_last, False)}
    if compile_too:
        found["compiled"] = Torch(name, torch.channels_last, True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"some of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--program", default="cargo bench --bench training", help="what to start as ours")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(f"torch {torch.__version__}, {THREADS} threads, load {os.getloadavg()[0]:.1f}")
    program = options.program.split()
    ours = Ours(program if program[0] == "cargo" else [*program, "--bench"])
    for name in options.networks or NETWORKS:
        batch = NETWORKS[name][1]
        others = variants(name, not options.no_compile)
        for which in ("forward", "step"):
            repetitions = REPETITIONS[name]
            times = {"ours": [], **{other: [] for other in others}}
            ours.turn(name, which, 1)
            for other, torchs in list(others.items()):
                try:
                    torchs.turn(which, 2)
                except Exception as error:  # torch.compile does not work everywhere
                    print(f"{name}: {other} left out: {type(error).__name__}", file=sys.stderr)
                    del others[other], times[other]
            for _ in range(options.turns):
                times["ours"].append(ours.turn(name, which, repetitions))
                for other, torchs in others.items():
                    times[other].append(torchs.turn(which, repetitions))
            best = {key: [min(column) for column in zip(*value)] for key, value in times.items()}
            report(name, which, batch * repetitions, best)


def report(name, which, images, best):
    ratio = [min(best[key][i] for key in best if key != "ours") / best["ours"][i] for i in (0, 1)]
    speeds = ", ".join(f"{key} {images / clock:,.0f}" for key, (clock, _) in best.items())
    print(f"{name} {which}: {speeds} images/s; ratio {ratio[0]:.2f} by the clock, {ratio[1]:.2f} by processor time", flush=True)


if __name__ == "__main__":
    main()
