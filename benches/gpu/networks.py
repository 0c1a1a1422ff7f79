"""The networks that the checks on a GPU train, as a good user of PyTorch would write them: in place where that is free,
attention by `scaled_dot_product_attention`.

They are those of ../training.py under the names by which engraft's families know them: MLP, LeNet, VGG11, a ResNet18 for
small images, MobileNetV2 (as published, on images of 64 x 64) and ViT-Tiny (patches of 4 x 4, 12 layers, 3 heads).
"""

import torch
from torch import nn
from torch.nn import functional

CLASSES, BATCH = 10, 128


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3072, 512), nn.Linear(512, 512)
        self.fc3, self.fc4 = nn.Linear(512, 512), nn.Linear(512, CLASSES)

    def forward(self, x):
        x = functional.relu(self.fc1(x.flatten(1)), inplace=True)
        x = functional.relu(self.fc2(x), inplace=True)
        return self.fc4(functional.relu(self.fc3(x), inplace=True))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, CLASSES)

    def forward(self, x):
        for conv in (self.conv1, self.conv2):
            x = functional.max_pool2d(functional.relu(conv(x), inplace=True), 2)
        x = functional.relu(self.fc1(x.flatten(1)), inplace=True)
        return self.fc3(functional.relu(self.fc2(x), inplace=True))


class Vgg11(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if width == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            conv = nn.Conv2d(channels, width, 3, 1, 1)
            # PyTorch's own first weights are too small for a deep network without norms: its losses would stay the same.
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
            layers += [conv, nn.ReLU(inplace=True)]
            channels = width
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(channels, CLASSES)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Block(nn.Module):
    """A block of the ResNet."""

    def __init__(self, i, o, s):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        short = [] if s == 1 and i == o else [nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o)]
        self.shortcut = nn.Sequential(*short)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return functional.relu(y, inplace=True)


class ResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for stage, (width, stride) in enumerate(((64, 1), (128, 2), (256, 2), (512, 2)), 1):
            setattr(self, f"layer{stage}", nn.Sequential(Block(channels, width, stride), Block(width, width, 1)))
            channels = width
        self.linear = nn.Linear(channels, CLASSES)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def unit(i, o, kernel, stride, groups=1):
    conv = nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o), nn.ReLU6(inplace=True))


class Inverted(nn.Module):
    """A block of MobileNetV2."""

    def __init__(self, i, o, s, expansion):
        super().__init__()
        inner = expansion * i
        widen = [] if expansion == 1 else [unit(i, inner, 1, 1)]
        narrow = [nn.Conv2d(inner, o, 1, bias=False), nn.BatchNorm2d(o)]
        self.conv = nn.Sequential(*widen, unit(inner, inner, 3, s, inner), *narrow)
        self.same = s == 1 and i == o

    def forward(self, x):
        return x + self.conv(x) if self.same else self.conv(x)


class MobileNetV2(nn.Module):
    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self):
        super().__init__()
        layers, channels = [unit(3, 32, 3, 2)], 32
        for expansion, width, blocks, stride in self.STAGES:
            for block in range(blocks):
                layers.append(Inverted(channels, width, stride if block == 0 else 1, expansion))
                channels = width
        self.features = nn.Sequential(*layers, unit(channels, 1280, 1, 1))
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(1280, CLASSES))

    def forward(self, x):
        return self.classifier(functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Matrices(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class Layer(nn.Module):
    """A layer of the transformer."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, 1e-6), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, 1e-6), Matrices(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, 4)

    def forward(self, x):
        return self.proj(x).flatten(2).mT


class VitTiny(nn.Module):
    def __init__(self, width=192, layers=12, heads=3):
        super().__init__()
        self.patch_embed = Patches(width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 65, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.Sequential(*[Layer(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


MAKERS = {
    "mlp": Mlp, "lenet": LeNet, "vgg11": Vgg11, "resnet18": ResNet18, "mobilenet_v2": MobileNetV2, "vit_tiny": VitTiny,
}


def make(name, seed=0):
    """The network with its first weights."""
    torch.manual_seed(seed)
    return MAKERS[name]()


def image_shape(name):
    side = 64 if name == "mobilenet_v2" else 32
    return (3, side, side)


def examples(name, steps, batch, seed=1):
    """Batches that can be learnt in part: a smooth picture of each class under noise, and every second label is any."""
    random = torch.Generator().manual_seed(seed)
    channels, side, _ = image_shape(name)
    small = torch.randn(CLASSES, channels, 4, 4, generator=random)
    pictures = functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    shown, others = (torch.randint(CLASSES, (steps, batch), generator=random) for _ in range(2))
    labels = torch.where(torch.rand(steps, batch, generator=random) < 0.5, shown, others)
    images = torch.randn(steps, batch, channels, side, side, generator=random)
    return images.add_(pictures[shown], alpha=0.5), labels
