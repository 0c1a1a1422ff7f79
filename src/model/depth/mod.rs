//! Members of different depth: a shorter member is padded to the topology of the deepest one with blocks that hand their
//! input on unchanged.
//!
//! A network is cut where all values pass through one node; between two cuts lies a segment: a single operation of a
//! chain, or a whole residual block. The shorter network's segments must be found among the deeper one's, in order. A
//! segment that is left over is padded where that is exact: a matrix or a convolution that keeps the size as the identity,
//! a ReLU behind values that are not negative, a residual block with a branch of zeros.

mod segments;

use std::collections::BTreeMap;

use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::model::families::{self, Detected, ExampleShape};
use crate::model::graph::{Graph, Node, NodeId, Op, Shape};
use crate::model::header::CheckpointHeader;
use crate::model::parameters;
use crate::settings::{Architecture, Settings};
use segments::{Segment, Skip, segments};

/// Most pairs of segments that an alignment compares.
const MAX_PAIRS: usize = 1 << 22;

/// Where the tensors of a padded network's node come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeSource {
    /// The member's node of this name.
    Own(String),
    /// The identity.
    Identity,
    /// Zeros: the branch of a residual block that adds nothing.
    Zero,
}

/// How a member looks with the depth of another network.
#[derive(Debug, Clone, PartialEq)]
pub struct DepthPadding {
    /// The padded network: names and operations of the deeper one, widths of the member.
    pub graph: Graph,
    /// For each node with weights, by its name.
    pub sources: BTreeMap<String, NodeSource>,
}

impl DepthPadding {
    /// Names of the layers that were added.
    #[must_use]
    pub fn added(&self) -> Vec<&str> {
        let added = self.graph.nodes().iter().filter(|node| node.op.is_dense());
        added
            .map(|node| node.name.as_str())
            .filter(|name| !matches!(self.sources.get(*name), Some(NodeSource::Own(_))))
            .collect()
    }
}

/// The members of an ensemble, brought to one depth.
#[derive(Debug, Clone, PartialEq)]
pub struct Aligned {
    /// The networks as they are fused.
    pub detected: Detected,
    /// The networks as the members' files have them.
    pub own: Vec<Graph>,
    /// How each was padded; none for members of full depth.
    pub paddings: Vec<Option<DepthPadding>>,
}

/// Recognises the members as [`families::detect`] does; where they differ in depth, pads the shorter ones.
///
/// # Errors
/// Those of [`families::detect`]; [`Code::MembersIncompatible`] with the layers that cannot be padded.
pub fn detect<'a>(
    headers: &[&CheckpointHeader],
    architecture: &Architecture,
    example: impl Into<ExampleShape<'a>>,
) -> Result<Aligned, Problem> {
    let example = example.into();
    match families::detect(headers, architecture, example) {
        Ok(detected) => {
            let (own, paddings) = (detected.graphs.clone(), vec![None; headers.len()]);
            Ok(Aligned { detected, own, paddings })
        }
        Err(mut problem) if problem.code == Code::MembersIncompatible => {
            match one_by_one(headers, architecture, example.shape) {
                Some(Ok(aligned)) => Ok(aligned),
                Some(Err(mut faults)) => {
                    faults.append(&mut problem.errors);
                    Err(Problem { code: problem.code, ..Problem::faults(faults) })
                }
                None => Err(problem),
            }
        }
        Err(problem) => Err(problem),
    }
}

/// Each member by itself, aligned with the deepest, or what keeps the members of one family from that; `None` where depth
/// is not their difference.
fn one_by_one(
    headers: &[&CheckpointHeader],
    architecture: &Architecture,
    input: Option<&Shape>,
) -> Option<Result<Aligned, Vec<Fault>>> {
    let each = headers.iter().map(|header| alone(header, architecture, input).ok());
    let mut each: Vec<Detected> = each.collect::<Option<_>>()?;
    let layers = |detected: &Detected| detected.graphs[0].nodes().iter().filter(|node| node.op.is_dense()).count();
    let deepest = (0..each.len()).max_by_key(|&index| (layers(&each[index]), std::cmp::Reverse(index)))?;
    if each.iter().all(|detected| layers(detected) == layers(&each[deepest])) {
        return None;
    }
    let own: Vec<Graph> = each.iter().map(|detected| detected.graphs[0].clone()).collect();
    let (mut paddings, mut faults) = (Vec::new(), Vec::new());
    for (index, graph) in own.iter().enumerate() {
        match pad(&own[deepest], graph) {
            Ok(padding) => paddings.push(padding),
            Err(detail) => faults.push(Fault::new(format!("/members/{index}"), FaultCode::DepthMismatch, detail)),
        }
    }
    if !faults.is_empty() {
        return each.iter().all(|detected| detected.family == each[deepest].family).then_some(Err(faults));
    }
    let reference = each.swap_remove(deepest);
    let graphs = own.iter().zip(&paddings).map(|(own, padding)| padding.as_ref().map_or(own, |padding| &padding.graph));
    let detected = Detected { graphs: graphs.cloned().collect(), ..reference };
    Some(Ok(Aligned { detected, own, paddings }))
}

/// One member by itself. Settings that name layers are those of the deepest member: one that has other layers takes what is usual
/// in their place.
///
/// # Errors
/// Those of [`families::detect`].
pub fn alone(
    header: &CheckpointHeader,
    architecture: &Architecture,
    input: Option<&Shape>,
) -> Result<Detected, Problem> {
    let Settings { pool_after, order, .. } = &architecture.settings;
    families::detect(&[header], architecture, input).or_else(|problem| {
        if pool_after.is_none() && order.is_none() {
            return Err(problem);
        }
        let settings = Settings { pool_after: None, order: None, ..architecture.settings.clone() };
        families::detect(&[header], &Architecture { settings, ..architecture.clone() }, input)
    })
}

/// `member` with the depth of `deeper`; `None` where it has that depth and those names already.
///
/// # Errors
/// Names the layers that have no counterpart and cannot be padded exactly.
pub fn pad(deeper: &Graph, member: &Graph) -> Result<Option<DepthPadding>, String> {
    let same = |(a, b): (&Node, &Node)| a.name == b.name && parameters::same_but_widths(&a.op, &b.op);
    if deeper.nodes().len() == member.nodes().len() && deeper.nodes().iter().zip(member.nodes()).all(same) {
        return Ok(None);
    }
    if deeper.input_shape() != member.input_shape() || deeper.classes() != member.classes() {
        let ends = |graph: &Graph| format!("input {:?} and {} outputs", graph.input_shape(), graph.classes());
        return Err(format!("expected {}, got {}", ends(deeper), ends(member)));
    }
    let (long, short) = (segments(deeper), segments(member));
    let steps = align(deeper, member, &long, &short).ok_or_else(|| unaligned(deeper, member, &long, &short))?;
    build(deeper, member, &steps).map(Some)
}

/// What becomes of one segment of the deeper network.
enum Step<'a> {
    /// It is the member's.
    Matched(&'a Segment, &'a Segment),
    /// It hands on what the member's node has.
    Skipped(&'a Segment, NodeId),
}

/// The first way to find all segments of the member among the deeper network's, each as early as possible.
fn align<'a>(deeper: &Graph, member: &Graph, long: &'a [Segment], short: &'a [Segment]) -> Option<Vec<Step<'a>>> {
    let (rows, columns) = (long.len() + 1, short.len() + 1);
    if rows.checked_mul(columns)? > MAX_PAIRS {
        return None;
    }
    let last = |j: usize| j.checked_sub(1).map_or(NodeId(0), |before| short[before].last());
    let matches = |i: usize, j: usize| j < short.len() && long[i].matches(deeper, &short[j], member);
    let skips = |i: usize, j: usize| match long[i].skip(deeper) {
        Skip::Never => false,
        Skip::Always => true,
        Skip::IfNotNegative => segments::not_negative(member, last(j)),
    };
    let mut possible = vec![false; rows * columns];
    possible[rows * columns - 1] = true;
    for i in (0..long.len()).rev() {
        for j in (0..columns).rev() {
            possible[i * columns + j] = (matches(i, j) && possible[(i + 1) * columns + j + 1])
                || (possible[(i + 1) * columns + j] && skips(i, j));
        }
    }
    let mut steps = Vec::with_capacity(long.len());
    let mut j = 0;
    for (i, segment) in long.iter().enumerate() {
        if matches(i, j) && possible[(i + 1) * columns + j + 1] {
            steps.push(Step::Matched(segment, &short[j]));
            j += 1;
        } else if possible[i * columns + j] {
            steps.push(Step::Skipped(segment, last(j)));
        } else {
            return None;
        }
    }
    Some(steps)
}

/// The padded network.
fn build(deeper: &Graph, member: &Graph, steps: &[Step<'_>]) -> Result<DepthPadding, String> {
    let mut sources = BTreeMap::new();
    let mut widths: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Matched(segment, own) => {
                for (id, own) in segment.nodes().zip(own.nodes()) {
                    let own = member.node(own);
                    if let Some(width) = parameters::widths(&own.op) {
                        sources.insert(deeper.node(id).name.clone(), NodeSource::Own(own.name.clone()));
                        widths.insert(id, width);
                    }
                }
            }
            Step::Skipped(segment, at) => {
                let channels = member.shape(*at)[0];
                let source = if segment.nodes().len() == 1 { NodeSource::Identity } else { NodeSource::Zero };
                for (id, width) in segment.padded_widths(deeper, channels) {
                    sources.insert(deeper.node(id).name.clone(), source.clone());
                    widths.insert(id, width);
                }
            }
        }
    }
    let graph = parameters::with_widths(deeper, |id, node| {
        widths.get(&id).copied().or_else(|| parameters::widths(&node.op)).unwrap_or_default()
    });
    let graph =
        graph.map_err(|error| format!("padded to the deepest member's layers it does not fit together: {error}"))?;
    Ok(DepthPadding { graph, sources })
}

/// Why there is no alignment: the layers of the deeper network between what both begin and end with.
fn unaligned(deeper: &Graph, member: &Graph, long: &[Segment], short: &[Segment]) -> String {
    let same = |(a, b): (&Segment, &Segment)| a.matches(deeper, b, member);
    let head = long.iter().zip(short).take_while(|pair| same(*pair)).count();
    let tail = long[head..].iter().rev().zip(short[head..].iter().rev()).take_while(|pair| same(*pair)).count();
    let names = |graph: &Graph, segments: &[Segment]| {
        let nodes = segments.iter().flat_map(Segment::nodes).map(|id| graph.node(id));
        let names: Vec<&str> =
            nodes.filter(|node| node.op.has_parameters()).map(|node| node.name.as_str()).take(12).collect();
        if names.is_empty() { "nothing with weights".to_owned() } else { names.join(", ") }
    };
    format!(
        "it is not as deep as the deepest member and cannot be padded exactly: expected {}, got {}; a block can be padded \
         behind a ReLU where it keeps the size of its input, or where it is a residual block without a projection",
        names(deeper, &long[head..long.len() - tail]),
        names(member, &short[head..short.len() - tail]),
    )
}

/// Whether the operation is the identity for some weights, whatever its input.
fn can_be_identity(op: &Op) -> bool {
    match op.convolution() {
        Some(conv) => {
            let window = conv.window;
            let keeps = |axis: usize| {
                let reach = window.dilation[axis] * (window.kernel[axis] - 1);
                window.stride[axis] == 1 && window.kernel[axis] % 2 == 1 && 2 * window.padding[axis] == reach
            };
            keeps(0) && keeps(1)
        }
        None => matches!(op, Op::Linear { .. } | Op::BatchNorm { .. } | Op::LayerScale { .. }),
    }
}

#[cfg(test)]
mod tests;
