"""The families of `trained_pairs.py`, each as small as its library lets it be."""

import dataclasses
import typing


@dataclasses.dataclass
class Family:
    """How a member is built, and what it reads."""

    build: typing.Callable
    shape: tuple = (3, 32, 32)
    #: Inputs without labels that layers are refitted on.
    samples: int = 64
    #: How often each example is seen.
    epochs: int = 3
    #: The highest learning rate.
    rate: float = 3e-3
    #: Whether it leaves by the newer exporter; by turns where nothing is said.
    dynamo: bool | None = None
    #: What engraft says to it, where it is none to be fused.
    refused: str = ""


def torchvision(name, **options):
    def build():
        import torchvision.models

        return getattr(torchvision.models, name)(num_classes=10, **options)

    return build


def timm(name, **options):
    def build():
        import timm

        return timm.create_model(name, num_classes=10, **options)

    return build


def group_norm():
    from torch import nn
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], 10, norm_layer=lambda channels: nn.GroupNorm(8, channels))


def regnet(se_ratio):
    def build():
        import torchvision.models
        from torchvision.models.regnet import BlockParams

        params = BlockParams.from_init_params(depth=5, w_0=16, w_a=18, w_m=2.2, group_width=8, se_ratio=se_ratio)
        return torchvision.models.RegNet(params, num_classes=10)

    return build


def mnasnet():
    """torchvision's, whose statistics follow the batches within a brief training."""
    import torchvision.models
    from torch import nn

    network = torchvision.models.MNASNet(0.35, num_classes=10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return network


def alexnet():
    """torchvision's, with a narrower classifier."""
    import torchvision.models
    from torch import nn

    network = torchvision.models.alexnet(num_classes=10)
    network.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(256 * 6 * 6, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    return network


def sequence():
    """A network on time series."""
    from torch import nn

    layers = [nn.Conv1d(9, 24, 5, padding=2), nn.BatchNorm1d(24), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(24, 32, 3), nn.BatchNorm1d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10))


def without_factors():
    """BatchNorm on the input, and without factors."""
    from torch import nn

    norm = lambda channels: nn.BatchNorm2d(channels, affine=False)
    layers = [nn.BatchNorm2d(3), nn.Conv2d(3, 16, 3, padding=1), norm(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, 2), norm(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def option_a():
    """ResNet-20 for CIFAR (He et al. 2016) of half the width, with shortcuts without weights."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
            self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
            self.widened = after - before

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            if self.widened:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.widened // 2, self.widened // 2))
            return F.relu(y + x)

    class ResNet20(nn.Module):
        def __init__(self, width=8, depth=3):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
            stage = lambda before, after, stride: nn.Sequential(
                Block(before, after, stride), *(Block(after, after, 1) for _ in range(depth - 1))
            )
            self.layer1, self.layer2 = stage(width, width, 1), stage(width, 2 * width, 2)
            self.layer3, self.linear = stage(2 * width, 4 * width, 2), nn.Linear(4 * width, 10)

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
            return self.linear(torch.flatten(F.avg_pool2d(x, x.shape[3]), 1))

    return ResNet20()


def normalised():
    """Pixels from -1 to 1, causal convolutions of a sequence, differences and scaled branches."""
    from torch import nn
    from torch.nn import functional as F

    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2, self.fc = nn.Conv1d(3, 24, 5), nn.Conv1d(24, 24, 3, dilation=2), nn.Linear(24, 10)

        def forward(self, x):
            x = F.relu(self.conv1(F.pad(2 * x - 0.5, (4, 0))))
            x = F.relu(x - 0.5 * self.conv2(F.pad(x, (4, 0))))
            return self.fc(x.mean(2))

    return Causal()


NARROW = {"layers": [1, 1, 1, 1], "channels": [16, 24, 32, 48]}

FAMILIES = {
    "googlenet (torchvision)": Family(torchvision("googlenet", aux_logits=False, init_weights=False)),
    "inception_v3 (torchvision)": Family(torchvision("inception_v3", aux_logits=False, init_weights=False), (3, 75, 75), samples=16, epochs=1),
    "mnasnet (torchvision)": Family(mnasnet, epochs=8),
    "regnet_x (torchvision)": Family(regnet(None)),
    "regnet_y (torchvision)": Family(regnet(0.25)),
    "resnet with GroupNorm (torchvision)": Family(group_norm),
    "seresnet (timm)": Family(timm("seresnet18", **NARROW)),
    "resnet-d (timm)": Family(timm("resnet18d", stem_width=8, **NARROW)),
    "efficientnet_b0 (timm)": Family(timm("efficientnet_b0"), epochs=6),
    "mobilenetv3_small_050 (timm)": Family(timm("mobilenetv3_small_050"), epochs=10),
    "repvgg_a0 (timm)": Family(timm("repvgg_a0")),
    "1D network": Family(sequence, (9, 64)),
    "alexnet (torchvision)": Family(alexnet, (3, 64, 64), dynamo=True),
    "squeezenet1_1 (torchvision)": Family(torchvision("squeezenet1_1"), epochs=8, rate=5e-4),
    "BatchNorm without factors, and on the input": Family(without_factors),
    "resnet20 with option A": Family(option_a),
    "tf_efficientnet_b0 (timm)": Family(timm("tf_efficientnet_b0"), epochs=6),
    "causal 1D network": Family(normalised, (3, 64)),
    "shufflenet_v2_x0_5 (torchvision)": Family(torchvision("shufflenet_v2_x0_5"), epochs=12),
    "convnextv2 (timm)": Family(timm("convnextv2_atto", depths=(1, 1, 2, 1), dims=(16, 24, 32, 48))),
    "deit, distilled (timm)": Family(
        timm("deit_tiny_distilled_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    ),
    "ecaresnet (timm)": Family(timm("ecaresnet26t", layers=[1, 1, 1, 1], channels=[8, 12, 16, 24])),
    "mlp_mixer (timm)": Family(timm("mixer_s32_224", img_size=64), (3, 64, 64), refused="it mixes tokens"),
}
