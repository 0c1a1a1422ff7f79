//! Published networks, known by family, size and the name of the output layer: names, widths and depths are then those of
//! the source, and so, most likely, is all that a checkpoint does not say.

use crate::model::costs::Costs;
use crate::model::families::Candidate;
use crate::model::graph::Op;
use crate::model::parameters;
use crate::model::precision::Precision;
use crate::settings::Settings;

/// What parts a published network from others of its names and sizes.
#[derive(Debug, Clone, Copy)]
enum Stem {
    /// Nothing that is known.
    Any,
    Pool(bool),
    Stride(usize),
}

use Stem::{Any, Pool, Stride};

impl Stem {
    fn fits(self, settings: &Settings) -> bool {
        match self {
            Any => true,
            Pool(pool) => settings.stem_pool == Some(pool),
            Stride(stride) => settings.stem_stride == Some(stride),
        }
    }
}

/// Family, trainable weights without the output layer, name of the output layer, its stem, and what is published there.
const PUBLISHED: [(&str, u64, &str, Stem, &str); 80] = [
    ("resnet", 11_176_512, "fc", Any, "torchvision's resnet18 or timm's resnet18"),
    ("resnet", 21_284_672, "fc", Any, "torchvision's resnet34 or timm's resnet34"),
    ("resnet", 23_508_032, "fc", Any, "torchvision's resnet50 or timm's resnet50"),
    ("resnet", 42_500_160, "fc", Any, "torchvision's resnet101 or timm's resnet101"),
    ("resnet", 58_143_808, "fc", Any, "torchvision's resnet152"),
    ("resnet", 66_834_240, "fc", Any, "torchvision's wide_resnet50_2"),
    ("resnet", 124_837_696, "fc", Any, "torchvision's wide_resnet101_2"),
    ("resnet", 22_979_904, "fc", Any, "torchvision's resnext50_32x4d or timm's resnext50_32x4d"),
    ("resnet", 86_742_336, "fc", Any, "torchvision's resnext101_32x8d"),
    ("resnet", 81_406_272, "fc", Any, "torchvision's resnext101_64x4d"),
    ("vgg", 128_766_336, "classifier.6", Any, "torchvision's vgg11"),
    ("vgg", 128_771_840, "classifier.6", Any, "torchvision's vgg11_bn or huyvnphan/PyTorch_CIFAR10's vgg11_bn"),
    ("vgg", 128_950_848, "classifier.6", Any, "torchvision's vgg13"),
    ("vgg", 128_956_736, "classifier.6", Any, "torchvision's vgg13_bn or huyvnphan/PyTorch_CIFAR10's vgg13_bn"),
    ("vgg", 134_260_544, "classifier.6", Any, "torchvision's vgg16"),
    ("vgg", 134_268_992, "classifier.6", Any, "torchvision's vgg16_bn or huyvnphan/PyTorch_CIFAR10's vgg16_bn"),
    ("vgg", 139_570_240, "classifier.6", Any, "torchvision's vgg19"),
    ("vgg", 139_581_248, "classifier.6", Any, "torchvision's vgg19_bn or huyvnphan/PyTorch_CIFAR10's vgg19_bn"),
    ("alexnet", 57_003_840, "classifier.6", Any, "torchvision's alexnet"),
    ("densenet", 6_953_856, "classifier", Any, "torchvision's densenet121 or timm's densenet121"),
    ("densenet", 26_472_000, "classifier", Any, "torchvision's densenet161"),
    ("densenet", 12_484_480, "classifier", Any, "torchvision's densenet169"),
    ("densenet", 18_092_928, "classifier", Any, "torchvision's densenet201"),
    ("mobilenet_v2", 2_223_872, "classifier.1", Stride(2), "torchvision's mobilenet_v2"),
    (
        "mobilenet_v2",
        2_223_872,
        "classifier.1",
        Stride(1),
        "chenyaofo/pytorch-cifar-models' cifar10_mobilenetv2_x1_0 or huyvnphan/PyTorch_CIFAR10's mobilenet_v2",
    ),
    ("mobilenet_v3", 1_517_856, "classifier.3", Any, "torchvision's mobilenet_v3_small"),
    ("mobilenet_v3", 4_202_032, "classifier.3", Any, "torchvision's mobilenet_v3_large"),
    ("efficientnet", 4_007_548, "classifier.1", Any, "torchvision's efficientnet_b0"),
    ("efficientnet", 6_513_184, "classifier.1", Any, "torchvision's efficientnet_b1"),
    ("efficientnet", 7_700_994, "classifier.1", Any, "torchvision's efficientnet_b2"),
    ("efficientnet", 10_696_232, "classifier.1", Any, "torchvision's efficientnet_b3"),
    ("efficientnet", 17_548_616, "classifier.1", Any, "torchvision's efficientnet_b4"),
    ("efficientnet", 28_340_784, "classifier.1", Any, "torchvision's efficientnet_b5"),
    ("efficientnet", 40_735_704, "classifier.1", Any, "torchvision's efficientnet_b6"),
    ("efficientnet", 63_786_960, "classifier.1", Any, "torchvision's efficientnet_b7"),
    ("convnext", 27_820_128, "classifier.2", Any, "torchvision's convnext_tiny"),
    ("convnext", 49_454_688, "classifier.2", Any, "torchvision's convnext_small"),
    ("convnext", 87_566_464, "classifier.2", Any, "torchvision's convnext_base"),
    ("convnext", 196_230_336, "classifier.2", Any, "torchvision's convnext_large"),
    ("vit", 85_798_656, "heads.head", Any, "torchvision's vit_b_16"),
    ("vit", 87_455_232, "heads.head", Any, "torchvision's vit_b_32"),
    ("vit", 303_301_632, "heads.head", Any, "torchvision's vit_l_16"),
    ("vit", 305_510_400, "heads.head", Any, "torchvision's vit_l_32"),
    ("vit", 630_764_800, "heads.head", Any, "torchvision's vit_h_14"),
    ("vit", 5_524_416, "head", Any, "timm's vit_tiny_patch16_224 or timm's deit_tiny_patch16_224"),
    ("vit", 21_665_664, "head", Any, "timm's vit_small_patch16_224 or timm's deit_small_patch16_224"),
    ("vit", 85_798_656, "head", Any, "timm's vit_base_patch16_224"),
    ("vit", 303_301_632, "head", Any, "timm's vit_large_patch16_224"),
    ("resnet", 13_946_176, "fc", Any, "timm's resnet26"),
    ("vit", 85_798_656, "classifier", Any, "Hugging Face's google/vit-base-patch16-224"),
    ("vit", 303_301_632, "classifier", Any, "Hugging Face's google/vit-large-patch16-224"),
    ("vit", 87_528_192, "classifier", Any, "Hugging Face's google/vit-base-patch32-384"),
    ("vit", 5_524_416, "classifier", Any, "Hugging Face's WinKawaks/vit-tiny-patch16-224"),
    ("vit", 21_665_664, "classifier", Any, "Hugging Face's WinKawaks/vit-small-patch16-224"),
    ("resnet", 271_824, "fc", Any, "chenyaofo/pytorch-cifar-models' cifar10_resnet20"),
    ("resnet", 466_256, "fc", Any, "chenyaofo/pytorch-cifar-models' cifar10_resnet32"),
    ("resnet", 660_688, "fc", Any, "chenyaofo/pytorch-cifar-models' cifar10_resnet44"),
    ("resnet", 855_120, "fc", Any, "chenyaofo/pytorch-cifar-models' cifar10_resnet56"),
    ("resnet", 11_168_832, "linear", Pool(false), "kuangliu/pytorch-cifar's ResNet18"),
    ("resnet", 21_276_992, "linear", Pool(false), "kuangliu/pytorch-cifar's ResNet34"),
    ("resnet", 23_500_352, "linear", Pool(false), "kuangliu/pytorch-cifar's ResNet50"),
    ("resnet", 42_492_480, "linear", Pool(false), "kuangliu/pytorch-cifar's ResNet101"),
    ("resnet", 58_136_128, "linear", Pool(false), "kuangliu/pytorch-cifar's ResNet152"),
    ("resnet", 11_168_832, "fc", Pool(true), "huyvnphan/PyTorch_CIFAR10's resnet18"),
    ("resnet", 21_276_992, "fc", Pool(true), "huyvnphan/PyTorch_CIFAR10's resnet34"),
    ("resnet", 23_500_352, "fc", Pool(true), "huyvnphan/PyTorch_CIFAR10's resnet50"),
    ("vgg", 9_751_296, "classifier.6", Any, "chenyaofo/pytorch-cifar-models' cifar10_vgg11_bn"),
    ("vgg", 9_225_984, "classifier", Any, "kuangliu/pytorch-cifar's VGG11"),
    ("vgg", 9_936_192, "classifier.6", Any, "chenyaofo/pytorch-cifar-models' cifar10_vgg13_bn"),
    ("vgg", 9_410_880, "classifier", Any, "kuangliu/pytorch-cifar's VGG13"),
    ("vgg", 15_248_448, "classifier.6", Any, "chenyaofo/pytorch-cifar-models' cifar10_vgg16_bn"),
    ("vgg", 14_723_136, "classifier", Any, "kuangliu/pytorch-cifar's VGG16"),
    ("vgg", 20_560_704, "classifier.6", Any, "chenyaofo/pytorch-cifar-models' cifar10_vgg19_bn"),
    ("vgg", 20_035_392, "classifier", Any, "kuangliu/pytorch-cifar's VGG19"),
    ("mobilenet_v2", 687_680, "classifier.1", Stride(1), "chenyaofo/pytorch-cifar-models' cifar10_mobilenetv2_x0_5"),
    ("mobilenet_v2", 1_355_424, "classifier.1", Stride(1), "chenyaofo/pytorch-cifar-models' cifar10_mobilenetv2_x0_75"),
    ("mobilenet_v2", 4_315_776, "classifier.1", Stride(1), "chenyaofo/pytorch-cifar-models' cifar10_mobilenetv2_x1_4"),
    ("densenet", 6_946_176, "classifier", Pool(true), "huyvnphan/PyTorch_CIFAR10's densenet121"),
    ("densenet", 26_460_480, "classifier", Pool(true), "huyvnphan/PyTorch_CIFAR10's densenet161"),
    ("densenet", 12_476_800, "classifier", Pool(true), "huyvnphan/PyTorch_CIFAR10's densenet169"),
];

/// The published network that a candidate is, with its source.
#[must_use]
pub fn published(candidate: &Candidate) -> Option<&'static str> {
    let graph = &candidate.graph;
    let output = graph.iter().filter(|(_, node)| matches!(node.op, Op::Linear { .. })).last()?.1;
    let of_output: u64 =
        parameters::of_node(output).iter().map(|parameter| parameter.shape.iter().product::<usize>() as u64).sum();
    let size = Costs::of(graph, &Precision::default()).parameters.checked_sub(of_output)?;
    let found = PUBLISHED.iter().find(|(family, weights, name, stem, _)| {
        *family == candidate.family && *weights == size && *name == output.name && stem.fits(&candidate.settings)
    });
    found.map(|(.., name)| *name)
}
