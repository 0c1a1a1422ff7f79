//! What is recognised as what.

mod stated;

use std::collections::BTreeMap;

use super::*;
use crate::model::graph::{Node, Op};
use crate::model::header::{Dtype, TensorInfo};
use crate::model::natural;
use crate::model::parameters;
use crate::settings::Activation;

/// A checkpoint of float tensors.
fn header(tensors: &[(&str, &[usize])]) -> CheckpointHeader {
    let info = |(name, shape): &(&str, &[usize])| TensorInfo {
        name: (*name).to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let mut tensors: Vec<TensorInfo> = tensors.iter().map(info).collect();
    tensors.sort_by(|a, b| natural::compare(&a.name, &b.name));
    CheckpointHeader::new(tensors)
}

fn mlp(widths: [usize; 4]) -> CheckpointHeader {
    header(&[
        ("fc1.weight", &[widths[1], widths[0]]),
        ("fc2.weight", &[widths[2], widths[1]]),
        ("fc3.weight", &[widths[3], widths[2]]),
        ("fc3.bias", &[widths[3]]),
    ])
}

fn lenet() -> CheckpointHeader {
    header(&[
        ("conv1.weight", &[6, 1, 5, 5]),
        ("conv2.weight", &[16, 6, 5, 5]),
        ("fc1.weight", &[120, 400]),
        ("fc2.weight", &[84, 120]),
        ("fc3.weight", &[10, 84]),
    ])
}

/// VGG-11 for images of 32 x 32 as a sequence of modules, with or without BatchNorm.
fn vgg(norm: bool) -> CheckpointHeader {
    let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let (mut place, mut input) = (0, 3);
    for (width, pool) in
        [(8, true), (16, true), (32, false), (32, true), (64, false), (64, true), (64, false), (64, true)]
    {
        shapes.insert(format!("features.{place}.weight"), vec![width, input, 3, 3]);
        if norm {
            for role in ["weight", "bias", "running_mean", "running_var"] {
                shapes.insert(format!("features.{}.{role}", place + 1), vec![width]);
            }
        }
        place += 2 + usize::from(norm) + usize::from(pool);
        input = width;
    }
    shapes.insert("classifier.weight".to_owned(), vec![10, 64]);
    let list: Vec<(&str, &[usize])> = shapes.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect();
    header(&list)
}

fn only(header: &CheckpointHeader, input: Option<&Shape>) -> Detected {
    detect(&[header], &Architecture::default(), input).unwrap()
}

fn count(graph: &Graph, matches: impl Fn(&Op) -> bool) -> usize {
    graph.nodes().iter().filter(|node| matches(&node.op)).count()
}

#[test]
fn an_mlp_needs_no_input_shape() {
    let detected = only(&mlp([784, 32, 16, 10]), None);
    assert_eq!(detected.family, "mlp");
    assert_eq!(detected.graphs[0].input_shape(), &vec![784]);
    assert_eq!(count(&detected.graphs[0], |op| *op == Op::Relu), 2);
    let image = only(&mlp([784, 32, 16, 10]), Some(&vec![1, 28, 28]));
    assert_eq!(image.graphs[0].nodes()[1].op, Op::Flatten);
}

#[test]
fn a_lenet_is_padded_as_its_input_asks() {
    let padding = |input: &Shape| match only(&lenet(), Some(input)).graphs[0].nodes()[1].op {
        Op::Conv2d { window, .. } => window.padding[0],
        ref other => panic!("{other:?}"),
    };
    assert_eq!(padding(&vec![1, 28, 28]), 2);
    assert_eq!(padding(&vec![1, 32, 32]), 0);
    assert_eq!(only(&lenet(), Some(&vec![1, 28, 28])).family, "lenet");
}

#[test]
fn two_networks_that_fit_are_both_named() {
    let problem = detect(&[&lenet()], &Architecture::default(), None).unwrap_err();
    assert_eq!(problem.code, Code::ArchitectureAmbiguous);
    assert!(problem.errors.iter().any(|fault| fault.pointer == "/input_shape"), "{problem}");
    assert!(problem.to_string().contains("[1, 28, 28]") && problem.to_string().contains("[1, 32, 32]"));
    let inspection = inspect(&lenet());
    let open: Vec<&str> = inspection.open.iter().map(|open| open.name.as_str()).collect();
    assert_eq!(open, ["input_shape", "activation", "pool", "padding"]);
    assert!(inspection.candidates.len() > 50, "{:?}", inspection.candidates.len());
}

#[test]
fn a_vgg_has_pools_where_its_names_leave_room() {
    for norm in [false, true] {
        let detected = only(&vgg(norm), Some(&vec![3, 32, 32]));
        assert_eq!(detected.family, "vgg");
        let graph = &detected.graphs[0];
        assert_eq!(count(graph, |op| matches!(op, Op::MaxPool2d { .. })), 5);
        assert_eq!(count(graph, |op| matches!(op, Op::BatchNorm { .. })), if norm { 8 } else { 0 });
        assert_eq!(inspect(&vgg(norm)).network.map(|network| network.graph).as_ref(), Some(graph));
    }
}

#[test]
fn an_input_that_does_not_fit_is_told_so() {
    for (header, input) in [
        (mlp([784, 32, 16, 10]), vec![3, 32, 32]),
        (lenet(), vec![3, 32, 32]),
        (lenet(), vec![1, 50, 50]),
        (lenet(), vec![784]),
        (lenet(), vec![1, usize::MAX, usize::MAX]),
        (lenet(), vec![]),
    ] {
        let problem = detect(&[&header], &Architecture::default(), Some(&input)).unwrap_err();
        assert_eq!(problem.code, Code::InvalidRequest);
        assert_eq!(problem.errors[0].pointer, "/input_shape", "{problem}");
    }
}

#[test]
fn unknown_tensors_and_families_are_named() {
    let strange = header(&[("fc1.weight", &[4, 4]), ("attention.qkv", &[12, 4, 4])]);
    let problem = detect(&[&strange], &Architecture::default(), None).unwrap_err();
    assert_eq!(problem.code, Code::ArchitectureUnknown);
    assert!(problem.detail.contains("attention"), "{problem}");
    assert!(inspect(&strange).unrecognised.unwrap().contains("attention"));
    let family = Architecture::family;
    let problem = detect(&[&lenet()], &family("resnext"), None).unwrap_err();
    assert_eq!(problem.errors[0].pointer, "/architecture/family");
    let problem = detect(&[&lenet()], &family("mlp"), Some(&vec![1, 28, 28])).unwrap_err();
    assert_eq!(problem.code, Code::ArchitectureUnknown);
    assert!(detect(&[&lenet()], &family("lenet"), Some(&vec![1, 28, 28])).is_ok());
}

/// Residual networks or inverted ones of `stages` stages, each of `blocks` blocks.
fn deep(stages: usize, blocks: usize) -> CheckpointHeader {
    let mut shapes = vec![("conv1.weight".to_owned(), vec![1, 3, 3, 3]), ("fc.weight".to_owned(), vec![2, 1])];
    for (stage, block) in (1..=stages).flat_map(|stage| (0..blocks).map(move |block| (stage, block))) {
        for conv in 1..=2 {
            shapes.push((format!("layer{stage}.{block}.conv{conv}.weight"), vec![1, 1, 3, 3]));
        }
    }
    let list: Vec<(&str, &[usize])> = shapes.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect();
    header(&list)
}

#[test]
fn a_file_of_many_layers_is_refused_before_its_variants_fill_the_memory() {
    for (header, said) in [
        (deep(5000, 1), "at most 64 stages"),
        (deep(2, 1000), "too many variants"),
        (deep(2, 10_000), "up to 20000 tensors"),
    ] {
        let problem = detect(&[&header], &Architecture::default(), Some(&vec![3, 8, 8])).unwrap_err();
        assert_eq!(problem.code, Code::ArchitectureUnknown);
        assert!(problem.detail.contains(said), "{problem}");
    }
}

#[test]
fn a_prefix_that_one_member_has_is_named() {
    let first = mlp([20, 32, 16, 10]);
    let mut wrapped = first.clone();
    wrapped.tensors.iter_mut().for_each(|info| info.name = format!("module.{}", info.name));
    for members in [[&first, &wrapped], [&wrapped, &first]] {
        let problem = detect(&members, &Architecture::default(), None).unwrap_err();
        assert_eq!((problem.code, problem.errors.len()), (Code::MembersIncompatible, 1), "{problem}");
        assert!(problem.errors[0].detail.contains("removeprefix(\"module.\")"), "{problem}");
    }
}

#[test]
fn members_may_differ_in_their_hidden_widths_only() {
    let first = mlp([20, 32, 16, 10]);
    let detected = detect(&[&first, &mlp([20, 48, 8, 10])], &Architecture::default(), None).unwrap();
    assert_eq!(detected.graphs[1].shape(crate::model::graph::NodeId(1)), &vec![48]);

    let problem =
        detect(&[&first, &mlp([21, 32, 16, 9]), &mlp([20, 8, 8, 8])], &Architecture::default(), None).unwrap_err();
    assert_eq!(problem.code, Code::MembersIncompatible);
    let faults: Vec<(&str, &str)> =
        problem.errors.iter().map(|fault| (fault.pointer.as_str(), fault.detail.as_str())).collect();
    assert_eq!(
        faults,
        [
            ("/members/1", "tensor `fc1.weight`: expected shape [32, 20], got [32, 21]"),
            ("/members/1", "tensor `fc3.weight`: expected shape [10, 16], got [9, 16]"),
            ("/members/1", "tensor `fc3.bias`: expected shape [10], got [9]"),
            ("/members/2", "tensor `fc3.weight`: expected shape [10, 8], got [8, 8]"),
            ("/members/2", "tensor `fc3.bias`: expected shape [10], got [8]"),
        ]
    );
}

#[test]
fn missing_and_extra_tensors_are_listed() {
    let first = mlp([20, 32, 16, 10]);
    let other =
        header(&[("fc1.weight", &[32, 20]), ("fc2.weight", &[16, 32]), ("fc4.weight", &[10, 16]), ("fc3.bias", &[10])]);
    let problem = detect(&[&first, &other], &Architecture::default(), None).unwrap_err();
    let codes: Vec<&str> = problem.errors.iter().map(|fault| fault.code.as_str()).collect();
    assert_eq!(codes, ["missing_tensor", "unexpected_tensor"]);
}

#[test]
fn a_graph_that_is_spelled_out_is_compared_with_every_member() {
    let form = serde_json::to_value(&only(&mlp([20, 32, 16, 10]), None).graphs[0]).unwrap();
    let graph = Architecture::graph(form);
    let (first, second) = (mlp([20, 32, 16, 10]), mlp([20, 8, 4, 10]));
    let detected = detect(&[&first, &second], &graph, None).unwrap();
    assert_eq!((detected.family.as_str(), detected.graphs.len()), ("graph", 2));
    assert_eq!(detect(&[&lenet()], &graph, None).unwrap_err().code, Code::MembersIncompatible);
    let problem = detect(&[&first], &graph, Some(&vec![1, 28, 28])).unwrap_err();
    assert_eq!(problem.errors[0].pointer, "/architecture/graph");
}

/// One basic block per stage, two stages, the second with a projection called `shortcut`.
fn resnet(shortcut: &str, head: &str, stem: usize) -> CheckpointHeader {
    let projection = format!("layer2.0.{shortcut}.0.weight");
    let head = format!("{head}.weight");
    header(&[
        ("conv1.weight", &[4, 3, stem, stem]),
        ("layer1.0.conv1.weight", &[5, 4, 3, 3]),
        ("layer1.0.conv2.weight", &[4, 5, 3, 3]),
        ("layer2.0.conv1.weight", &[6, 4, 3, 3]),
        ("layer2.0.conv2.weight", &[8, 6, 3, 3]),
        (&projection, &[8, 4, 1, 1]),
        (&head, &[10, 8]),
    ])
}

#[test]
fn residual_networks_are_recognised_by_name() {
    let small = only(&resnet("shortcut", "linear", 3), None);
    assert_eq!(small.family, "resnet");
    let shape = |graph: &Graph, name: &str| {
        let found = graph.iter().find(|(_, node)| node.name == name).unwrap();
        graph.shape(found.0).clone()
    };
    assert_eq!(shape(&small.graphs[0], "layer2.0.add"), [8, 16, 16]);
    let large = only(&resnet("downsample", "fc", 7), None);
    assert_eq!(shape(&large.graphs[0], "maxpool"), [4, 56, 56]);
    assert_eq!(count(&large.graphs[0], |op| *op == Op::Add), 2);
    let problem = detect(&[&resnet("bypass", "fc", 3)], &Architecture::default(), None).unwrap_err();
    assert_eq!(problem.code, Code::ArchitectureUnknown);
    assert!(problem.detail.contains("layer2.0.bypass.0"), "{problem}");
}

#[test]
fn a_tensor_out_of_place_is_named_with_what_was_expected() {
    let mut network = resnet("shortcut", "linear", 3);
    network.tensors.push(TensorInfo { name: "layer1.0.bn1.weight".to_owned(), dtype: Dtype::F32, shape: vec![4] });
    let reason = inspect(&network).unrecognised.unwrap();
    assert!(reason.contains("has its blocks' BatchNorms before the convolutions"), "{reason}");
    let mut network = resnet("shortcut", "linear", 3);
    network.tensors.iter_mut().find(|info| info.name == "linear.weight").unwrap().shape = vec![10, 9];
    let reason = inspect(&network).unrecognised.unwrap();
    assert_eq!(reason, "tensor `linear.weight`: expected shape [10, 8], got [10, 9]");
    let network = header(&[("net.layer1.0.conv1.weight", &[4, 3, 3, 3])]);
    assert!(inspect(&network).unrecognised.unwrap().contains("`net.conv1.weight`"));
    let problem =
        detect(&[&resnet("shortcut", "linear", 3)], &Architecture::default(), Some(&vec![1, 32, 32])).unwrap_err();
    assert_eq!(problem.errors[0].pointer, "/input_shape", "{problem}");
}

/// One block of a vision transformer of timm, 4 x 4 patches of 2 x 2 pixels.
fn vit(width: usize) -> CheckpointHeader {
    let (triple, double) = (3 * width, 2 * width);
    header(&[
        ("cls_token", &[1, 1, width]),
        ("pos_embed", &[1, 17, width]),
        ("patch_embed.proj.weight", &[width, 3, 2, 2]),
        ("blocks.0.norm1.weight", &[width]),
        ("blocks.0.norm1.bias", &[width]),
        ("blocks.0.attn.qkv.weight", &[triple, width]),
        ("blocks.0.attn.proj.weight", &[width, width]),
        ("blocks.0.norm2.weight", &[width]),
        ("blocks.0.norm2.bias", &[width]),
        ("blocks.0.mlp.fc1.weight", &[double, width]),
        ("blocks.0.mlp.fc2.weight", &[width, double]),
        ("norm.weight", &[width]),
        ("norm.bias", &[width]),
        ("head.weight", &[10, width]),
    ])
}

fn heads(graph: &Graph) -> usize {
    let of = |op: &Op| if let Op::Attention { heads, .. } = op { Some(*heads) } else { None };
    graph.nodes().iter().find_map(|node| of(&node.op)).unwrap()
}

#[test]
fn heads_follow_the_convention_or_are_asked_for() {
    let family =
        |heads| Architecture { settings: Settings { heads, ..Settings::default() }, ..Architecture::family("vit") };
    let detected = only(&vit(192), None);
    assert_eq!((heads(&detected.graphs[0]), detected.graphs[0].input_shape()), (3, &vec![3, 8, 8]));
    assert_eq!(heads(&only(&vit(1280), None).graphs[0]), 16);
    assert_eq!(heads(&detect(&[&vit(192)], &family(Some(6)), None).unwrap().graphs[0]), 6);

    let narrow = vit(96);
    let open = open(&only(&narrow, None).candidates);
    let of_heads = open.iter().find(|open| open.name == "heads").unwrap();
    assert_eq!(of_heads.values, ["2", "3", "1", "4", "6", "8", "12", "16", "24"], "heads of about 64 channels first");
    assert_eq!(heads(&detect(&[&narrow], &family(Some(3)), None).unwrap().graphs[0]), 3);

    let problem = detect(&[&narrow], &family(Some(5)), None).unwrap_err();
    assert_eq!(problem.errors[0].pointer, "/architecture/heads");
    let settings = Settings { heads: Some(2), ..Settings::default() };
    let mlp_with_heads = Architecture { settings, ..Architecture::family("mlp") };
    let problem = detect(&[&mlp([784, 32, 16, 10])], &mlp_with_heads, None).unwrap_err();
    assert_eq!(problem.errors[0].pointer, "/architecture/heads");
    let problem = detect(&[&vit(192)], &Architecture::default(), Some(&vec![3, 8, 6])).unwrap_err();
    assert!(problem.errors[0].detail.contains("17 tokens"), "{problem}");
}

#[test]
fn a_published_network_is_named_as_the_most_usual_of_several() {
    let header_of = |graph: &Graph| {
        let info = |parameter: parameters::Parameter| TensorInfo {
            name: parameter.name,
            dtype: Dtype::F32,
            shape: parameter.shape,
        };
        CheckpointHeader::new(parameters::of_graph(graph).into_iter().map(info).collect())
    };
    let why = |width| {
        let graph = fresh::resnet18(&vec![3, 32, 32], width, 10).unwrap();
        inspect(&header_of(&graph)).evidence.unwrap().why
    };
    assert!(
        why(64).ends_with("the most usual has the names and sizes of kuangliu/pytorch-cifar's ResNet18"),
        "{}",
        why(64)
    );
    assert!(why(32).ends_with("networks fit names and shapes"), "{}", why(32));
}
