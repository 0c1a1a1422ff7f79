//! The fused network: kept rows and columns of the members, side by side.

use crate::fusion::assemble::provenance::Provenance;
use crate::fusion::assemble::recipe::{Fused, Recipe, counters};
use crate::fusion::assemble::routes::Routes;
use crate::fusion::assemble::rows::{Kernels, MatrixRows, Mean, OutputRows, Pick, Tokens, Vector};
use crate::fusion::{Ensemble, FusionError, Selection};
use crate::model::graph::{Node, NodeId, Op};
use crate::model::groups::CouplingError;
use crate::model::parameters::{self, Role};
use crate::tensors::{CheckpointError, Elements, Make, Rows};

/// The whole concatenated network: computes the mean of the members' outputs, weighted by their shares. Needs memory in
/// proportion to the square of the number of members.
///
/// # Errors
/// When weights cannot be read.
pub fn materialise(ensemble: &Ensemble<'_>) -> Result<Fused, FusionError> {
    gather(ensemble, &Selection::all(ensemble))?.build()
}

/// Copies what `selection` keeps into a network of its own. Output layers are scaled by the members' shares and added up.
///
/// # Errors
/// When weights cannot be read.
pub fn gather<'a>(ensemble: &'a Ensemble<'a>, selection: &Selection) -> Result<Recipe<'a>, FusionError> {
    let mut tensors = Vec::new();
    let graph = ensemble.graph();
    let mut widths = std::collections::BTreeMap::new();
    for (id, node) in graph.iter() {
        if let Op::Zeros { .. } = node.op {
            widths.insert(id, (0, Routes::rows(ensemble, id, selection).len));
        }
        if !node.op.has_parameters() {
            continue;
        }
        if matches!(node.op, Op::Attention { .. }) {
            widths.insert(id, attention(ensemble, selection, id, &mut tensors)?);
            continue;
        }
        let layer = Layer::new(ensemble, selection, id);
        widths.insert(id, (layer.columns.as_ref().map_or(0, |columns| columns.len), layer.rows.len));
        for parameter in parameters::of_node(node) {
            tensors.push(match (&layer.columns, parameter.role) {
                _ if ensemble.couplings()[0].is_on_input(id) => layer.shared(parameter)?,
                (Some(columns), Role::Weight) if node.op.is_dense() => layer.matrix(parameter, columns)?,
                (_, Role::Embedding) => layer.embedding(parameter)?,
                _ if parameter.shape.len() > 1 => layer.kernels(parameter)?,
                _ => layer.vector(parameter)?,
            });
        }
    }
    let graph = parameters::with_widths(graph, |id, _| widths[&id])?;
    Ok(Recipe { graph, tensors, counters: counters(ensemble), provenance: Provenance::of(ensemble, selection) })
}

/// The tensors of an attention: rows and columns of the kept heads and channels of all members; returns its widths.
fn attention<'a>(
    ensemble: &'a Ensemble<'a>,
    selection: &Selection,
    id: NodeId,
    tensors: &mut Vec<Rows<'a>>,
) -> Result<(usize, usize), FusionError> {
    let node = ensemble.graph().node(id);
    let refuse = |detail: &str| FusionError::from(CouplingError { node: node.name.clone(), detail: detail.to_owned() });
    if ensemble.is_output_layer(id) && ensemble.members().len() > 1 {
        return Err(refuse("attentions whose outputs are the network's are not fused yet"));
    }
    ensemble.check_heads()?;
    let of_role = |role| parameters::of_node(node).iter().filter(|tensor| tensor.role == role).count();
    let separate = of_role(Role::Projection) > 1;
    let mut widths = (0, 0);
    for parameters::Parameter { name, role, .. } in parameters::of_node(node) {
        let (rows, columns) = Routes::tensor(ensemble, id, role, separate, selection);
        let members: Vec<Elements<'a>> =
            ensemble.members().iter().map(|member| member.weights.elements(&name)).collect::<Result<_, _>>()?;
        let Some(columns) = columns else {
            let picks = rows.runs.iter().map(|runs| Pick::new(runs, 1)).collect();
            tensors.push(Rows {
                name,
                shape: vec![rows.len],
                maker: Box::new(Vector { members, picks, shares: None }),
            });
            continue;
        };
        if role == Role::OutputWeight {
            widths.1 = rows.len;
        } else {
            widths.0 = columns.len;
        }
        let source_len = (0..members.len()).map(|member| ensemble.members()[member].graph.shape(id)[0]).collect();
        let shape = vec![rows.len, columns.len];
        let picks = columns.runs.iter().map(|runs| Pick::new(runs, 1)).collect();
        let maker = Box::new(MatrixRows { members, source_len, picks, places: rows.by_target() });
        tensors.push(Rows { name, shape, maker });
    }
    Ok(widths)
}

/// One node with weights, on its way into the fused network.
struct Layer<'a> {
    ensemble: &'a Ensemble<'a>,
    id: NodeId,
    node: &'a Node,
    writes_output: bool,
    rows: Routes,
    columns: Option<Routes>,
}

impl<'a> Layer<'a> {
    fn new(ensemble: &'a Ensemble<'a>, selection: &Selection, id: NodeId) -> Self {
        let node = ensemble.graph().node(id);
        let reads = node.op.is_dense() || node.op.convolution().is_some();
        Self {
            ensemble,
            id,
            node,
            writes_output: ensemble.is_output_layer(id),
            rows: Routes::rows(ensemble, id, selection),
            columns: reads.then(|| Routes::columns(ensemble, id, selection)),
        }
    }

    /// The tensor `name` of every member.
    fn members(&self, name: &str) -> Result<Vec<Elements<'a>>, CheckpointError> {
        self.ensemble.members().iter().map(|member| member.weights.elements(name)).collect()
    }

    /// Rows and columns of all members; zero where a row of one meets a column of another.
    fn matrix(&self, parameter: parameters::Parameter, columns: &Routes) -> Result<Rows<'a>, CheckpointError> {
        let inner = self.node.op.taps();
        let members = self.members(&parameter.name)?;
        let source_len: Vec<usize> =
            (0..members.len()).map(|member| self.ensemble.columns(member, self.id).len() * inner).collect();
        let mut shape = parameter.shape;
        (shape[0], shape[1]) = (self.rows.len, columns.len);
        let picks = columns.runs.iter().map(|runs| Pick::new(runs, inner)).collect();
        let maker: Box<dyn Make + 'a> = if self.writes_output {
            let shares = self.ensemble.shares();
            Box::new(OutputRows { members, source_len, picks, shares })
        } else {
            Box::new(MatrixRows { members, source_len, picks, places: self.rows.by_target() })
        };
        Ok(Rows { name: parameter.name, shape, maker })
    }

    /// Kernels of grouped convolutions, and factors with axes of length 1: rows without columns.
    fn kernels(&self, parameter: parameters::Parameter) -> Result<Rows<'a>, CheckpointError> {
        let members = self.members(&parameter.name)?;
        let places = self.rows.by_target();
        let mut shape = parameter.shape;
        shape[0] = self.rows.len;
        Ok(Rows { name: parameter.name, shape, maker: Box::new(Kernels { members, places }) })
    }

    /// Tokens with one value per channel each, of shape (1 x tokens x channels).
    fn embedding(&self, parameter: parameters::Parameter) -> Result<Rows<'a>, CheckpointError> {
        let members = self.members(&parameter.name)?;
        let (mut shape, len) = (parameter.shape, self.rows.len);
        let tokens = shape[1];
        shape[2] = len;
        Ok(Rows {
            name: parameter.name,
            shape,
            maker: Box::new(Tokens { members, picks: self.picks(), count: tokens }),
        })
    }

    /// What works on the input's channels, which all members share: their mean.
    fn shared(&self, parameter: parameters::Parameter) -> Result<Rows<'a>, CheckpointError> {
        let members = self.members(&parameter.name)?;
        let shares = self.ensemble.shares().members();
        Ok(Rows { name: parameter.name, shape: parameter.shape, maker: Box::new(Mean { members, shares }) })
    }

    /// One value per row.
    fn vector(&self, parameter: parameters::Parameter) -> Result<Rows<'a>, CheckpointError> {
        let members = self.members(&parameter.name)?;
        let shares = self.writes_output.then(|| self.ensemble.shares());
        let maker = Box::new(Vector { members, picks: self.picks(), shares });
        Ok(Rows { name: parameter.name, shape: vec![self.rows.len], maker })
    }

    /// What each member's vectors give.
    fn picks(&self) -> Vec<Pick> {
        self.rows.runs.iter().map(|runs| Pick::new(runs, 1)).collect()
    }
}
