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
    import torchvision.models

    return torchvision.models.MNASNet(0.35, num_classes=10)


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


NARROW = {"layers": [1, 1, 1, 1], "channels": [16, 24, 32, 48]}

FAMILIES = {
    "googlenet (torchvision)": Family(torchvision("googlenet", aux_logits=False, init_weights=False)),
    "inception_v3 (torchvision)": Family(torchvision("inception_v3", aux_logits=False, init_weights=False), (3, 75, 75), 16),
    "mnasnet (torchvision)": Family(mnasnet),
    "regnet_x (torchvision)": Family(regnet(None)),
    "regnet_y (torchvision)": Family(regnet(0.25)),
    "resnet with GroupNorm (torchvision)": Family(group_norm),
    "seresnet (timm)": Family(timm("seresnet18", **NARROW)),
    "resnet-d (timm)": Family(timm("resnet18d", stem_width=8, **NARROW)),
    "efficientnet_b0 (timm)": Family(timm("efficientnet_b0")),
    "mobilenetv3_small_050 (timm)": Family(timm("mobilenetv3_small_050")),
    "repvgg_a0 (timm)": Family(timm("repvgg_a0")),
    "1D network": Family(sequence, (9, 64)),
    "alexnet (torchvision)": Family(alexnet, (3, 64, 64)),
}
