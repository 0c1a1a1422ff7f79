//! `engraft inspect`: what a checkpoint file holds, and which network it is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::http::views::checkpoints::ContentView;
use crate::model::families::{ADVICE, Evidence, Inspection, Reading, inspect};
use crate::model::header::{CheckpointHeader, TensorInfo};
use crate::report::scaled;
use crate::tensors::{Checkpoint, CheckpointFiles};

/// Show what a checkpoint holds: its tensors, the network they are the weights of, and what that network costs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Only the file's header is read, and with --json the bytes once for their digest.")]
pub(super) struct Inspect {
    /// The checkpoint (safetensors or the index of its shards, PyTorch, npz or ONNX).
    file: PathBuf,
    /// Print what `GET /v1/checkpoints/{name}` answers, as JSON.
    #[arg(long)]
    json: bool,
    /// Print the most usual network that fits as a graph (JSON), to change and to send as `{"architecture": {"graph": …}}`.
    #[arg(long, conflicts_with = "json")]
    graph: bool,
}

/// The checkpoint as the API shows it, but for what only a stored one has.
#[derive(Debug, Serialize)]
struct FileView {
    name: String,
    sha256: String,
    bytes: u64,
    parameters: u64,
    #[serde(flatten)]
    content: ContentView,
}

impl Inspect {
    /// Prints what it found; fails only where the file cannot be read or is no checkpoint.
    pub(super) fn run(self) -> Result<ExitCode> {
        let advice = || {
            let file = self.file.display();
            format!(
                "cannot inspect {file}; expected a file of safetensors, torch.save, torch.onnx.export or numpy.savez, or an index of shards"
            )
        };
        let files = CheckpointFiles::open(&self.file).with_context(advice)?;
        let checkpoint = Checkpoint::open(&self.file).with_context(advice)?;
        let header = checkpoint.header();
        let bytes = files.bytes();
        if self.graph {
            let found = inspect(header);
            let unknown =
                || format!("no network that is known fits: {}", found.unrecognised.as_deref().unwrap_or_default());
            let network = found.network.as_ref().with_context(unknown)?;
            println!("{}", serde_json::to_string_pretty(&network.graph)?);
        } else if self.json {
            let view = FileView {
                name: file_name(&self.file),
                sha256: files.sha256().with_context(advice)?,
                bytes,
                parameters: elements(header),
                content: header.clone().into(),
            };
            println!("{}", serde_json::to_string_pretty(&view)?);
        } else {
            print!("{}", text(&file_name(&self.file), bytes, header, &inspect(header)));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn elements(header: &CheckpointHeader) -> u64 {
    header.tensors.iter().map(|tensor| tensor.elements() as u64).sum()
}

/// The whole description, as text.
fn text(name: &str, bytes: u64, header: &CheckpointHeader, found: &Inspection) -> String {
    let mut out = format!(
        "{name}: {} tensors, {} elements, {}\n\n",
        header.tensors.len(),
        count(elements(header)),
        scaled(bytes as f64, 1024.0, [" B", " KiB", " MiB", " GiB"])
    );
    if let Some(network) = &found.network {
        out += &described(network, found.evidence.as_ref());
        out += &groups(network);
    }
    if !found.open.is_empty() {
        let _ = writeln!(
            out,
            "ambiguous: {} networks fit names and shapes, the one above is the most usual.",
            found.candidates.len()
        );
        let _ = writeln!(
            out,
            "A job settles it by labelled data, by `reference`, or by `architecture` with settings. Open are:\n"
        );
        let rows = found.open.iter().map(|open| [open.name.clone(), values(&open.values)]);
        out += &columns(&rows.collect::<Vec<_>>());
        out += "\n";
    }
    if let Some(reason) = &found.unrecognised {
        let _ = writeln!(out, "not recognised: {reason}\n{ADVICE}\n");
    }
    out + &tensors(&header.tensors)
}

/// Some values of an open setting.
fn values(all: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}

fn count(number: u64) -> String {
    scaled(number as f64, 1000.0, ["", " k", " M", " G"])
}

/// A network, how surely it is known, and what is assumed of it.
fn described(network: &Reading, evidence: Option<&Evidence>) -> String {
    let costs = &network.costs;
    let mut rows = vec![
        ["family".to_owned(), network.family.clone()],
        ["input".to_owned(), axes(&network.input_shape)],
        ["parameters".to_owned(), count(costs.parameters)],
        ["MACs".to_owned(), count(costs.macs)],
        ["size".to_owned(), scaled(costs.bytes as f64, 1024.0, [" B", " KiB", " MiB", " GiB"])],
    ];
    let known = evidence.map(|evidence| ["known".to_owned(), format!("{}: {}", evidence.degree.name(), evidence.why)]);
    rows.extend(known);
    for (index, assumption) in network.assumptions.iter().enumerate() {
        let head = if index == 0 { "assumed" } else { "" };
        rows.push([head.to_owned(), assumption.clone()]);
    }
    columns(&rows) + "\n"
}

/// The coupling groups, in pruning order.
fn groups(network: &Reading) -> String {
    if let Some(reason) = &network.no_groups {
        return format!("no groups of units to prune: {reason}\n\n");
    }
    let mut rows = vec![["group", "width", "layers"].map(str::to_owned)];
    let group = network.groups.iter().map(|group| {
        let layers = match &group.layers[..] {
            [first, second, third, rest @ ..] if !rest.is_empty() => {
                format!("{first}, {second}, {third} and {} more", rest.len())
            }
            layers => layers.join(", "),
        };
        [group.name.clone(), group.width.to_string(), layers]
    });
    rows.extend(group);
    columns(&rows) + "\n"
}

fn tensors(list: &[TensorInfo]) -> String {
    let head = [["tensor", "type", "shape"].map(str::to_owned)];
    let row = |info: &TensorInfo| {
        let dtype = format!("{:?}", info.dtype).to_lowercase();
        [info.name.clone(), dtype, axes(&info.shape)]
    };
    columns(&head.into_iter().chain(list.iter().map(row)).collect::<Vec<_>>())
}

fn axes(shape: &[usize]) -> String {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    if axes.is_empty() { "scalar".to_owned() } else { axes.join(" x ") }
}

/// Rows as lines, with every column but the last as wide as its widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &CheckpointHeader) -> String {
        text("m0.safetensors", 2048, header, &inspect(header))
    }

    #[test]
    fn a_network_is_shown_with_its_groups_and_tensors() {
        let text = shown(&CheckpointHeader::of_floats(&[
            ("fc1.weight", &[32, 20]),
            ("fc1.bias", &[32]),
            ("fc2.weight", &[10, 32]),
        ]));
        let expected = "\
m0.safetensors: 3 tensors, 992 elements, 2 KiB

family      mlp
input       20
parameters  992
MACs        960
size        3.88 KiB
known       ambiguous: 16 networks fit names and shapes
assumed     activation: relu
            no activation after the last layer
            layers in the order fc1, fc2

group  width  layers
fc1    32     fc1

ambiguous: 16 networks fit names and shapes, the one above is the most usual.
A job settles it by labelled data, by `reference`, or by `architecture` with settings. Open are:

activation  relu, gelu, tanh, sigmoid, silu, leaky_relu, leaky_relu(0.1), leaky_relu(0.2), gelu_tanh, hardswish, relu6, elu and 4 more

tensor      type  shape
fc1.weight  f32   32 x 20
fc1.bias    f32   32
fc2.weight  f32   10 x 32
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_ambiguous_or_unknown_says_what_to_do() {
        let lenet = CheckpointHeader::of_floats(&[
            ("conv1.weight", &[6, 1, 5, 5]),
            ("conv2.weight", &[16, 6, 5, 5]),
            ("fc1.weight", &[120, 400]),
            ("fc2.weight", &[84, 120]),
            ("fc3.weight", &[10, 84]),
        ]);
        let text = shown(&lenet);
        assert!(text.contains("ambiguous:") && text.contains("[1, 28, 28], [1, 32, 32]"), "{text}");
        let text = shown(&CheckpointHeader::of_floats(&[("strange", &[4])]));
        assert!(text.contains("not recognised:") && text.contains("\"graph\""), "{text}");
    }
}
