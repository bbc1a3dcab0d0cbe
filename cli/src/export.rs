//! Writing a graph as an ONNX model, with an external data file where it is too large for one file.

use crate::failure::Result;
use crate::files::Writer;
use planish_ir::Graph;
use planish_onnx::export::{ExportOptions, export};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// Writes the model and gives its size. External data go to `NAME.data` beside it.
pub fn write(graph: &Graph, path: &Path, writer: &Writer) -> Result<u64> {
    let mut data_name = OsString::from(path.file_name().unwrap_or_default());
    data_name.push(".data");
    let options = ExportOptions {
        output_names: (0..graph.outputs().len()).map(|i| graph.output_name(i).to_owned()).collect(),
        external_name: data_name.to_string_lossy().into_owned(),
        ..ExportOptions::default()
    };
    let exported = export(graph, &options)?;
    let mut size = exported.model.len() as u64;
    if !exported.external.is_empty() {
        // The data come first: a model file never stands without what it refers to.
        let data = path.with_file_name(&data_name);
        let mut at = 0u64;
        writer.write_with(&data, 0o666, |file| {
            let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
            for (offset, bytes) in &exported.external {
                while at < *offset {
                    let n = (*offset - at).min(4096);
                    out.write_all(&[0u8; 4096][..n as usize])?;
                    at += n;
                }
                out.write_all(bytes)?;
                at += bytes.len() as u64;
            }
            out.flush()
        })?;
        size += at;
    }
    writer.write(path, &exported.model)?;
    Ok(size)
}
