"""What losses.py and accuracy.py share: networks under the names of engraft's families, and the data sets of ../shared/data."""

import gzip
import io
import pathlib
import zipfile

import numpy as np
import torch
from PIL import Image
from torch import nn

CLASSES = 10
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


def normalised(part, mean, std):
    images, labels = part
    return (torch.from_numpy(images).float() / 255 - mean) / std, torch.from_numpy(labels.astype(np.int64))
