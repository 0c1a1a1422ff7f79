//! Results in files: each is complete before it takes its name.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::domain::problem::Problem;
use crate::export::onnx::OnnxFile;
use crate::export::{self, ExportFormat, ExportOptions};
use crate::model::graph::Graph;
use crate::tensors::Checkpoint;

/// Writes a checkpoint in another format to `to`; what was there before stays until it is complete. The weights of a large ONNX model
/// go to a file beside it, which is not replaced without `force`. Returns every file that was written.
pub(super) fn write(
    to: &Path,
    format: ExportFormat,
    checkpoint: &Checkpoint,
    graph: Option<&Graph>,
    options: &ExportOptions,
    force: bool,
) -> Result<Vec<PathBuf>> {
    if let (ExportFormat::Onnx, Some(graph)) = (format, graph) {
        let file = OnnxFile::new(graph, checkpoint, options.normalize.as_ref()).map_err(Problem::from)?;
        if file.bytes() > options.onnx_bytes {
            return write_both(to, &file, force);
        }
    }
    persist(to, |out| Ok(export::write(format, checkpoint, graph, options, out).map(|_| ())?))?;
    Ok(vec![to.to_owned()])
}

/// Where the data of the ONNX model `path` go, if it needs such a file.
pub(super) fn data_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".data");
    name.into()
}

fn write_both(to: &Path, file: &OnnxFile<'_>, force: bool) -> Result<Vec<PathBuf>> {
    let data = data_of(to);
    if !force && std::fs::symlink_metadata(&data).is_ok() {
        bail!("{} exists, and would hold the weights: give another name, or --force to replace it", data.display());
    }
    let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let model = file.without_data(&name).map_err(Problem::from)?;
    persist(&data, |out| Ok(file.write_data(out).map_err(Problem::from)?))?;
    persist(to, |out| Ok(out.write_all(&model)?))?;
    Ok(vec![to.to_owned(), data])
}

/// Writes one file by `content`.
fn persist(to: &Path, content: impl FnOnce(&mut BufWriter<tempfile::NamedTempFile>) -> Result<()>) -> Result<()> {
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritable = || format!("cannot write {}", to.display());
    let file = tempfile::Builder::new().prefix(".engraft-convert-").tempfile_in(folder).with_context(unwritable)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    content(&mut out)?;
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(unwritable)?;
    file.as_file().sync_all().with_context(unwritable)?;
    file.persist(to).with_context(unwritable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_of_a_large_model_lie_beside_it() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx/resnet.trace.onnx");
        let checkpoint = Checkpoint::open(&source).unwrap();
        let graph: Graph = serde_json::from_value(checkpoint.header().stated.clone().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("x.onnx");
        let options = ExportOptions { onnx_bytes: 3000, ..ExportOptions::default() };
        let wrote = write(&to, ExportFormat::Onnx, &checkpoint, Some(&graph), &options, false).unwrap();
        assert_eq!(wrote, [to.clone(), folder.path().join("x.onnx.data")]);
        let again = Checkpoint::open(&to).unwrap();
        assert_eq!(again.header().tensors, checkpoint.header().tensors);
        for (info, bytes) in checkpoint.tensors() {
            assert_eq!(again.bytes(&info.name).unwrap().1, bytes, "{}", info.name);
        }
        std::fs::remove_file(&to).unwrap();
        let error = write(&to, ExportFormat::Onnx, &checkpoint, Some(&graph), &options, false).unwrap_err();
        assert!(error.to_string().contains("x.onnx.data exists"), "{error}");
        write(&to, ExportFormat::Onnx, &checkpoint, Some(&graph), &options, true).unwrap();
        let alone = write(&to, ExportFormat::Onnx, &checkpoint, Some(&graph), &ExportOptions::default(), true).unwrap();
        assert_eq!(alone, [to]);
    }
}
