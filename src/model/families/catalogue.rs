//! The families by name, and who recognises them.

use serde::Serialize;

use crate::model::families::mlp::OUTPUTS;
use crate::model::families::modules::modules;
use crate::model::families::named::Tensors;
use crate::model::families::{
    Candidate, Given, Unfit, builder, convnet, convnext, densenet, efficientnet, mlp, mobilenet_v2, mobilenet_v3,
    pickled, resnet, vit, wide_resnet,
};
use crate::model::graph::{Graph, Node, NodeId};
use crate::model::header::CheckpointHeader;
use crate::settings::{Activation, Settings};

/// A family of networks that checkpoints are recognised as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Family {
    /// Its name in requests and answers.
    pub name: &'static str,
    /// How it is recognised, and what is assumed.
    pub description: &'static str,
}

/// Every family.
pub const FAMILIES: [Family; 13] = [
    Family { name: "mlp", description: "Matrices only, with ReLU between them; BatchNorm where there is one." },
    Family {
        name: "lenet",
        description: "Two 5x5 convolutions with ReLU and 2x2 maximum pooling, then three matrices.",
    },
    Family {
        name: "vgg",
        description: "Six or more 3x3 convolutions, with or without BatchNorm, then matrices: one as for CIFAR, or three \
                      behind an adaptive mean pool as in torchvision.",
    },
    Family {
        name: "resnet",
        description: "Residual networks of basic or bottleneck blocks, wide and grouped ones among them, by their names \
                      (`layer1.0.conv1`, …): with a 3x3 stem as for CIFAR, or a 7x7 stem and a pool as for ImageNet.",
    },
    Family {
        name: "wide_resnet",
        description: "Wide residual networks for CIFAR, with BatchNorm before the convolutions, by their names \
                      (`block1.layer.0.conv1`, …).",
    },
    Family {
        name: "densenet",
        description: "DenseNet-121, 161, 169 and 201 by torchvision's names (`features.denseblock1.denselayer1.conv1`, …).",
    },
    Family { name: "mobilenet_v2", description: "MobileNetV2 by torchvision's names (`features.1.conv.0.0`, …)." },
    Family {
        name: "mobilenet_v3",
        description: "MobileNetV3, small and large, by torchvision's names (`features.1.block.0.0`, …) and its depth.",
    },
    Family {
        name: "efficientnet",
        description: "EfficientNet B0 to B7 by torchvision's names (`features.1.0.block.0.0`, …).",
    },
    Family { name: "convnext", description: "ConvNeXt by torchvision's names (`features.1.0.layer_scale`, …)." },
    Family {
        name: "vit",
        description: "Vision transformers by the names of torchvision (`encoder.pos_embedding`, …), timm (`pos_embed`, …) and \
                      Hugging Face (`vit.embeddings.position_embeddings`, …); heads of 64 channels, or `heads` of them.",
    },
    Family {
        name: "alexnet",
        description: "Five convolutions with a stem of 11x11 kernels and stride 4, then matrices, as in torchvision or for CIFAR.",
    },
    Family { name: "cnn", description: "Any other chain of convolutions, ReLU, pools and matrices." },
];

/// What makes networks of the tensors of a family.
type Reader = fn(&Tensors<'_>, Given<'_>) -> Result<Vec<Candidate>, Unfit>;

/// Families that are known by the name of one tensor, those with the more telling names first.
const BY_NAME: [(&[&str], Reader); 8] = [
    (&vit::ANCHORS, vit::candidates),
    (&[convnext::ANCHOR], convnext::candidates),
    (&densenet::ANCHORS, densenet::candidates),
    (&[mobilenet_v2::ANCHOR], mobilenet_v2::candidates),
    (&[mobilenet_v3::ANCHOR], mobilenet_v3::candidates),
    (&[efficientnet::ANCHOR], efficientnet::candidates),
    (&[wide_resnet::ANCHOR], wide_resnet::candidates),
    (&[resnet::ANCHOR], resnet::candidates),
];

/// Most tensors of a network that is recognised: more make more operations than a graph may have, in every variant.
const MOST_TENSORS: usize = 20_000;

/// All networks that fit a checkpoint: its names and shapes, and its modules, where it is a pickled model.
pub(super) fn candidates(header: &CheckpointHeader, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let mut found = named(header, given)?;
    let fitting = found.len();
    let first = found.first().and_then(|first| pickled::contradiction(header, &first.graph));
    found.retain(|candidate| pickled::contradiction(header, &candidate.graph).is_none());
    match (first, &found[..], given.settings.output) {
        (Some(what), [], _) => Err(Unfit::Unknown(format!("no network that is known fits {what}"))),
        // What a model's own code calls behind the last layer is open where its modules have decided all else.
        (_, [only], None)
            if fitting > 1 && only.settings.output.is_none() && *given.settings == Settings::default() =>
        {
            Ok(OUTPUTS.iter().filter_map(|function| with_output(only, *function)).collect())
        }
        (_, _, Some(function)) if found.iter().all(|candidate| candidate.settings.output.is_none()) => {
            Ok(found.iter().filter_map(|candidate| with_output(candidate, function)).collect())
        }
        _ => Ok(found),
    }
}

/// The network with `function` behind its last layer.
fn with_output(candidate: &Candidate, function: Activation) -> Option<Candidate> {
    let mut nodes = candidate.graph.nodes().to_vec();
    if let Some(op) = builder::function(function) {
        let mut name = "output".to_owned();
        while nodes.iter().any(|node| node.name == name) {
            name.push('_');
        }
        let inputs = vec![NodeId(nodes.len() - 1)];
        nodes.push(Node { name, op, inputs });
    }
    let settings = Settings { output: Some(function), ..candidate.settings.clone() };
    Some(Candidate { graph: Graph::new(nodes).ok()?, settings, ..candidate.clone() })
}

/// All networks that fit the names and shapes of a checkpoint.
fn named(header: &CheckpointHeader, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let count = header.tensors.len();
    if count > MOST_TENSORS {
        return Err(Unfit::Unknown(format!(
            "networks of up to {MOST_TENSORS} tensors are recognised, this one has {count}"
        )));
    }
    for (anchors, read) in BY_NAME {
        if let Some(tensors) = anchors.iter().find_map(|anchor| Tensors::anchored(header, anchor)) {
            return read(&tensors, given);
        }
    }
    let modules = modules(header).map_err(|details| Unfit::Unknown(details.join("; ")))?;
    if mlp::applies(&modules) { mlp::candidates(header, &modules, given) } else { convnet::candidates(&modules, given) }
}
