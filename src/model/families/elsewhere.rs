//! Networks that are known by their names and are not spelled out here: what they are, so that a refusal names them.

use crate::model::header::CheckpointHeader;

/// Networks of one library with like names.
struct Kind {
    library: &'static str,
    name: &'static str,
    /// Tensors that all of them have.
    anchors: &'static [&'static str],
    /// Modules that end in as many outputs as there are classes.
    outputs: &'static [&'static str],
    /// Elements of all tensors but the outputs' and those of running statistics, and what the library calls such a network.
    models: &'static [(u64, &'static str)],
}

/// Those that reports of users ask for; the more telling names first.
const KINDS: [Kind; 16] = [
    Kind {
        library: "torchvision",
        name: "SqueezeNet",
        anchors: &["features.3.squeeze.weight", "features.3.expand1x1.weight"],
        outputs: &["classifier"],
        models: &[(735_424, "squeezenet1_0"), (722_496, "squeezenet1_1")],
    },
    Kind {
        library: "torchvision",
        name: "ShuffleNetV2",
        anchors: &["stage2.0.branch1.0.weight", "conv5.0.weight"],
        outputs: &["fc"],
        models: &[
            (341_792, "shufflenet_v2_x0_5"),
            (1_253_604, "shufflenet_v2_x1_0"),
            (2_478_624, "shufflenet_v2_x1_5"),
            (5_344_996, "shufflenet_v2_x2_0"),
        ],
    },
    Kind {
        library: "torchvision",
        name: "GoogLeNet",
        anchors: &["inception3a.branch1.conv.weight"],
        outputs: &["fc", "aux1", "aux2"],
        models: &[(5_599_904, "googlenet")],
    },
    Kind {
        library: "torchvision",
        name: "Inception v3",
        anchors: &["Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch1x1.conv.weight"],
        outputs: &["fc", "AuxLogits"],
        models: &[(21_785_568, "inception_v3")],
    },
    Kind {
        library: "torchvision",
        name: "MNASNet",
        anchors: &["layers.8.0.layers.0.weight", "layers.14.weight"],
        outputs: &["classifier"],
        models: &[
            (937_512, "mnasnet0_5"),
            (1_889_208, "mnasnet0_75"),
            (3_102_312, "mnasnet1_0"),
            (5_001_256, "mnasnet1_3"),
        ],
    },
    Kind {
        library: "torchvision",
        name: "RegNet",
        anchors: &["stem.0.weight", "trunk_output.block1.block1-0.f.a.0.weight"],
        outputs: &["fc"],
        models: &[
            (3_903_144, "regnet_y_400mf"),
            (5_647_512, "regnet_y_800mf"),
            (10_313_430, "regnet_y_1_6gf"),
            (17_923_338, "regnet_y_3_2gf"),
            (5_094_976, "regnet_x_400mf"),
            (6_586_656, "regnet_x_800mf"),
            (8_277_136, "regnet_x_1_6gf"),
            (14_287_552, "regnet_x_3_2gf"),
        ],
    },
    Kind {
        library: "torchvision",
        name: "Swin Transformer",
        anchors: &["features.1.0.attn.relative_position_bias_table"],
        outputs: &["head"],
        models: &[(27_548_166, "swin_t"), (48_894_882, "swin_s")],
    },
    Kind {
        library: "timm",
        name: "SE-ResNet",
        anchors: &["layer1.0.se.fc1.weight", "layer1.0.conv1.weight"],
        outputs: &["fc"],
        models: &[(11_266_624, "seresnet18"), (21_447_416, "seresnet34"), (26_039_024, "seresnet50")],
    },
    Kind {
        library: "timm",
        name: "ECA-ResNet",
        anchors: &["layer1.0.se.conv.weight", "layer1.0.conv1.weight"],
        outputs: &["fc"],
        models: &[(13_962_916, "ecaresnet26t"), (23_524_814, "ecaresnet50t")],
    },
    Kind {
        library: "timm",
        name: "ResNet-D",
        anchors: &["conv1.0.weight", "conv1.3.weight", "layer1.0.conv1.weight"],
        outputs: &["fc"],
        models: &[
            (11_195_744, "resnet18d"),
            (21_303_904, "resnet34d"),
            (13_965_408, "resnet26d"),
            (23_527_264, "resnet50d"),
        ],
    },
    Kind {
        library: "timm",
        name: "EfficientNet, MobileNetV3 or MNASNet",
        anchors: &["conv_stem.weight", "blocks.0.0.conv_dw.weight"],
        outputs: &["classifier"],
        models: &[
            (4_007_548, "efficientnet_b0"),
            (6_513_184, "efficientnet_b1"),
            (7_700_994, "efficientnet_b2"),
            (10_696_232, "efficientnet_b3"),
            (17_548_616, "efficientnet_b4"),
            (568_224, "mobilenetv3_small_050"),
            (1_016_872, "mobilenetv3_small_075"),
            (1_517_856, "mobilenetv3_small_100"),
            (4_202_032, "mobilenetv3_large_100"),
            (2_223_872, "mobilenetv2_100"),
            (3_102_312, "mnasnet_100"),
            (3_371_008, "efficientnet_lite0"),
        ],
    },
    Kind {
        library: "timm",
        name: "ConvNeXtV2",
        anchors: &["stem.0.weight", "stages.0.blocks.0.mlp.grn.weight"],
        outputs: &["head.fc"],
        models: &[
            (3_387_400, "convnextv2_atto"),
            (4_848_240, "convnextv2_femto"),
            (8_553_280, "convnextv2_pico"),
            (14_982_800, "convnextv2_nano"),
            (27_866_496, "convnextv2_tiny"),
            (87_692_800, "convnextv2_base"),
        ],
    },
    Kind {
        library: "timm",
        name: "ConvNeXt",
        anchors: &["stem.0.weight", "stages.0.blocks.0.conv_dw.weight"],
        outputs: &["head.fc"],
        models: &[
            (3_374_520, "convnext_atto"),
            (4_832_784, "convnext_femto"),
            (8_532_672, "convnext_pico"),
            (14_952_560, "convnext_nano"),
            (27_820_128, "convnext_tiny"),
            (49_454_688, "convnext_small"),
            (87_566_464, "convnext_base"),
        ],
    },
    Kind {
        library: "timm",
        name: "RepVGG",
        anchors: &["stem.conv_kxk.conv.weight", "stages.0.0.conv_1x1.conv.weight"],
        outputs: &["head.fc"],
        models: &[
            (7_827_968, "repvgg_a0"),
            (12_811_264, "repvgg_a1"),
            (26_801_600, "repvgg_a2"),
            (14_536_960, "repvgg_b0"),
            (55_366_016, "repvgg_b1"),
        ],
    },
    Kind {
        library: "timm",
        name: "MLP-Mixer",
        anchors: &["stem.proj.weight", "blocks.0.mlp_tokens.fc1.weight"],
        outputs: &["head"],
        models: &[
            (18_591_624, "mixer_s32_224"),
            (18_015_264, "mixer_s16_224"),
            (59_524_428, "mixer_b32_224"),
            (59_111_472, "mixer_b16_224"),
        ],
    },
    Kind {
        library: "timm",
        name: "DeiT with a distillation token",
        anchors: &["dist_token", "patch_embed.proj.weight"],
        outputs: &["head", "head_dist"],
        models: &[
            (5_524_800, "deit_tiny_distilled_patch16_224"),
            (21_666_432, "deit_small_distilled_patch16_224"),
            (85_800_192, "deit_base_distilled_patch16_224"),
        ],
    },
];

/// Whose network `header` holds by its names, in words.
#[must_use]
pub(super) fn name(header: &CheckpointHeader) -> Option<String> {
    kind(header).or_else(|| residual(header).map(str::to_owned))
}

/// What a network with the names of a ResNet is instead.
fn residual(header: &CheckpointHeader) -> Option<&'static str> {
    let shape = |name: &str| header.tensors.iter().find(|info| info.name.ends_with(name)).map(|info| &info.shape[..]);
    let (widening, norm) = (shape("layer2.0.conv1.weight")?, shape("layer1.0.bn1.weight")?);
    let has = |part: &str| header.tensors.iter().any(|info| info.name.contains(part));
    if shape("layer1.0.bn1.running_mean").is_none() && norm.len() == 1 {
        return Some(
            "a ResNet with GroupNorm in place of BatchNorm (of how many groups, a file does not say) or with BatchNorm that has no running \
             statistics (`track_running_stats=False`: what it computes depends on the batch)",
        );
    }
    let widens = matches!(widening, [out, input, _, _] if out > input);
    let plain = widens && !has("layer2.0.shortcut.") && !has("layer2.0.downsample.");
    plain.then_some(
        "a ResNet whose shortcuts have no weights (option A, as akamaster/pytorch_resnet_cifar10: subsampled, with channels of zeros)",
    )
}

/// The library's network whose names and sizes these are.
fn kind(header: &CheckpointHeader) -> Option<String> {
    let has = |anchor: &&str| header.tensors.iter().any(|info| info.name.ends_with(*anchor));
    let kind = KINDS.iter().find(|kind| kind.anchors.iter().all(has))?;
    let first = header.tensors.iter().find(|info| info.name.ends_with(kind.anchors[0]))?;
    let prefix = first.name.strip_suffix(kind.anchors[0])?;
    let counts = |name: &str| {
        let statistics = ["running_mean", "running_var", "num_batches_tracked"];
        let output =
            kind.outputs.iter().any(|output| name.strip_prefix(output).is_some_and(|rest| rest.starts_with('.')));
        !output && !statistics.iter().any(|ending| name.ends_with(ending))
    };
    let own = header.tensors.iter().filter(|info| info.name.strip_prefix(prefix).is_some_and(counts));
    let elements: u64 = own.map(|info| info.elements() as u64).sum();
    let known: Vec<&str> = kind.models.iter().filter(|(count, _)| *count == elements).map(|(_, name)| *name).collect();
    Some(match known[..] {
        [] => format!("{}'s {}", kind.library, kind.name),
        _ => format!("{}'s {}", kind.library, known.join(" or ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_networks_are_known() {
        let squeezed = |widths: &'static [usize], prefix: &str| {
            let names = ["features.3.squeeze.weight", "features.3.expand1x1.weight"];
            let tensors: Vec<(String, &[usize])> =
                names.iter().map(|name| (format!("{prefix}{name}"), widths)).collect();
            let tensors: Vec<(&str, &[usize])> = tensors.iter().map(|(name, shape)| (name.as_str(), *shape)).collect();
            CheckpointHeader::of_floats(&tensors)
        };
        assert_eq!(name(&squeezed(&[3], "")).as_deref(), Some("torchvision's SqueezeNet"));
        // As many elements in both tensors as in the whole of squeezenet1_1.
        assert_eq!(name(&squeezed(&[722_496 / 2], "module.")).as_deref(), Some("torchvision's squeezenet1_1"));
        assert_eq!(name(&CheckpointHeader::of_floats(&[("features.3.squeeze.weight", &[1])])), None);
        let residual = |tensors: &[(&str, &[usize])]| {
            let both: [(&str, &[usize]); 2] =
                [("layer1.0.bn1.weight", &[8]), ("layer2.0.conv1.weight", &[16, 8, 3, 3])];
            name(&CheckpointHeader::of_floats(&[&both, tensors].concat())).unwrap_or_default()
        };
        assert!(residual(&[]).contains("GroupNorm"));
        assert!(residual(&[("layer1.0.bn1.running_mean", &[8])]).contains("option A"));
        let usual = residual(&[("layer1.0.bn1.running_mean", &[8]), ("layer2.0.shortcut.0.weight", &[16, 8, 1, 1])]);
        assert_eq!(usual, "");
    }
}
