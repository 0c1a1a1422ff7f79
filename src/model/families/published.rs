//! Published networks, known by family and size: names, widths and depths are then those of the source, and so, most
//! likely, is all that a checkpoint does not say.

use crate::model::costs::Costs;
use crate::model::families::Candidate;
use crate::model::graph::Op;
use crate::model::parameters;
use crate::model::precision::Precision;

/// Family, trainable weights without the output layer, and what is published there.
const PUBLISHED: [(&str, u64, &str); 47] = [
    ("resnet", 11_176_512, "torchvision's resnet18"),
    ("resnet", 21_284_672, "torchvision's resnet34"),
    ("resnet", 23_508_032, "torchvision's resnet50"),
    ("resnet", 42_500_160, "torchvision's resnet101"),
    ("resnet", 58_143_808, "torchvision's resnet152"),
    ("resnet", 66_834_240, "torchvision's wide_resnet50_2"),
    ("resnet", 124_837_696, "torchvision's wide_resnet101_2"),
    ("resnet", 22_979_904, "torchvision's resnext50_32x4d"),
    ("resnet", 86_742_336, "torchvision's resnext101_32x8d"),
    ("resnet", 81_406_272, "torchvision's resnext101_64x4d"),
    ("vgg", 128_766_336, "torchvision's vgg11"),
    ("vgg", 128_771_840, "torchvision's vgg11_bn"),
    ("vgg", 128_950_848, "torchvision's vgg13"),
    ("vgg", 128_956_736, "torchvision's vgg13_bn"),
    ("vgg", 134_260_544, "torchvision's vgg16"),
    ("vgg", 134_268_992, "torchvision's vgg16_bn"),
    ("vgg", 139_570_240, "torchvision's vgg19"),
    ("vgg", 139_581_248, "torchvision's vgg19_bn"),
    ("alexnet", 57_003_840, "torchvision's alexnet"),
    ("densenet", 6_953_856, "torchvision's densenet121"),
    ("densenet", 26_472_000, "torchvision's densenet161"),
    ("densenet", 12_484_480, "torchvision's densenet169"),
    ("densenet", 18_092_928, "torchvision's densenet201"),
    ("mobilenet_v2", 2_223_872, "torchvision's mobilenet_v2"),
    ("mobilenet_v3", 1_517_856, "torchvision's mobilenet_v3_small"),
    ("mobilenet_v3", 4_202_032, "torchvision's mobilenet_v3_large"),
    ("efficientnet", 4_007_548, "torchvision's efficientnet_b0"),
    ("efficientnet", 6_513_184, "torchvision's efficientnet_b1"),
    ("efficientnet", 7_700_994, "torchvision's efficientnet_b2"),
    ("efficientnet", 10_696_232, "torchvision's efficientnet_b3"),
    ("efficientnet", 17_548_616, "torchvision's efficientnet_b4"),
    ("efficientnet", 28_340_784, "torchvision's efficientnet_b5"),
    ("efficientnet", 40_735_704, "torchvision's efficientnet_b6"),
    ("efficientnet", 63_786_960, "torchvision's efficientnet_b7"),
    ("convnext", 27_820_128, "torchvision's convnext_tiny"),
    ("convnext", 49_454_688, "torchvision's convnext_small"),
    ("convnext", 87_566_464, "torchvision's convnext_base"),
    ("convnext", 196_230_336, "torchvision's convnext_large"),
    ("vit", 85_798_656, "torchvision's vit_b_16"),
    ("vit", 87_455_232, "torchvision's vit_b_32"),
    ("vit", 303_301_632, "torchvision's vit_l_16"),
    ("vit", 305_510_400, "torchvision's vit_l_32"),
    ("vit", 630_764_800, "torchvision's vit_h_14"),
    ("resnet", 11_168_832, "kuangliu/pytorch-cifar's ResNet18"),
    ("resnet", 23_500_352, "kuangliu/pytorch-cifar's ResNet50"),
    ("vit", 5_524_416, "timm's vit_tiny_patch16_224"),
    ("vit", 21_665_664, "timm's vit_small_patch16_224"),
];

/// The published network that a candidate is, with its source.
#[must_use]
pub fn published(candidate: &Candidate) -> Option<&'static str> {
    let graph = &candidate.graph;
    let output = graph.iter().filter(|(_, node)| matches!(node.op, Op::Linear { .. })).last()?.1;
    let of_output: u64 =
        parameters::of_node(output).iter().map(|parameter| parameter.shape.iter().product::<usize>() as u64).sum();
    let size = Costs::of(graph, &Precision::default()).parameters.checked_sub(of_output)?;
    let found = PUBLISHED.iter().find(|(family, weights, _)| *family == candidate.family && *weights == size);
    found.map(|(_, _, name)| *name)
}
