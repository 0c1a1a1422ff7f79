//! How an ensemble is trained from scratch: what `engraft train` reads.

use serde_json::Value;

use crate::model::families::fresh;
use crate::settings::{DatasetRequest, Device, Finetune, Precision};

/// An ensemble to train.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsembleRecipe {
    /// Which network every member is.
    pub network: NetworkSource,
    /// Data; the validation part is drawn as in a job, so that one with the same dataset validates on what no member has seen.
    pub dataset: DatasetRequest,
    /// How each member is trained.
    pub train: Finetune,
    /// Seeds of the members' first weights and of the order of their examples; one member each.
    pub seeds: Vec<u64>,
    /// Where to compute.
    pub device: Device,
    /// How exactly a GPU multiplies.
    pub precision: Precision,
    /// Whether a GPU computes the same bits each time.
    pub deterministic: bool,
}

/// What the names of checkpoints end with.
const CHECKPOINTS: [&str; 6] = ["safetensors", "pt", "pth", "bin", "ckpt", "npz"];

/// Where a network comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkSource {
    /// Matrices with ReLU between them, of these hidden widths.
    Mlp(Vec<usize>),
    /// LeNet-5, of this width in its first layer (6 in the paper) and in proportion in the others.
    LeNet(usize),
    /// VGG-11 for images of 32 pixels, without BatchNorm, of this width in its first layer.
    Vgg11(usize),
    /// ResNet-18 for images of 32 pixels, of this width in its first stage.
    ResNet18(usize),
    /// Spelled out, in the JSON form of [`crate::model::graph::Graph`].
    Graph(Value),
    /// That of a checkpoint in this file.
    Like(String),
}

impl std::str::FromStr for NetworkSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let file = |ending: &str| std::path::Path::new(text).extension().is_some_and(|found| found == ending);
        match text.split_once(':') {
            Some(("mlp", widths)) => {
                let widths: Option<Vec<usize>> =
                    widths.split(',').map(|width| width.trim().parse().ok().filter(|width| *width > 0)).collect();
                widths.map(Self::Mlp).ok_or_else(|| format!("expected widths such as `mlp:512,512`, got `{text}`"))
            }
            Some((name @ ("lenet" | "vgg11" | "resnet18"), width)) => match width.trim().parse() {
                Ok(width @ 1..) if name == "lenet" => Ok(Self::LeNet(width)),
                Ok(width @ 1..) if name == "vgg11" => Ok(Self::Vgg11(width)),
                Ok(width @ 1..) => Ok(Self::ResNet18(width)),
                _ => Err(format!("expected a width such as `{name}:64`, got `{text}`")),
            },
            _ if text == "lenet" => Ok(Self::LeNet(fresh::LENET)),
            _ if text == "vgg11" => Ok(Self::Vgg11(64)),
            _ if text == "resnet18" => Ok(Self::ResNet18(64)),
            _ if CHECKPOINTS.iter().any(|ending| file(ending)) => Ok(Self::Like(text.to_owned())),
            _ => Err(format!(
                "expected `mlp:WIDTH,…`, `lenet:WIDTH`, `vgg11:WIDTH`, `resnet18:WIDTH`, {{\"graph\": …}} or a checkpoint (.safetensors, .pt, .npz, …) of that network, got `{text}`"
            )),
        }
    }
}
