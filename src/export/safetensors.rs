//! Weights as a safetensors file that states its network.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::model::families;
use crate::model::formats::safetensors::{encode_header, sort_for_file};
use crate::model::graph::Graph;
use crate::model::header::TensorInfo;
use crate::tensors::Checkpoint;

/// Writes the tensors of a checkpoint as they are, wide elements first.
pub(super) fn write(checkpoint: &Checkpoint, graph: Option<&Graph>, out: &mut impl Write) -> io::Result<()> {
    let mut notes = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    notes.extend(graph.map(families::metadata).unwrap_or_default());
    let mut infos: Vec<TensorInfo> = checkpoint.header().tensors.clone();
    sort_for_file(&mut infos);
    out.write_all(&encode_header(&infos, &notes))?;
    for info in &infos {
        let (_, bytes) = checkpoint.bytes(&info.name).map_err(io::Error::other)?;
        out.write_all(bytes)?;
    }
    Ok(())
}
