//! Outputs of a model as files.

use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::inputs::Signature;
use crate::io::npy;
use crate::percent;
use planish_ir::{Type, Value};
use planish_onnx::value::OnnxValue;
use std::path::Path;

/// How outputs are written.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Outputs")]
pub struct OutputArgs {
    /// Also write output_<i>.pb (ONNX tensor, sequence, optional or map)
    #[arg(long)]
    pub pb: bool,
    /// Also write NAME.npy
    #[arg(long)]
    pub named: bool,
    /// Replace files that planish did not write
    #[arg(long)]
    pub force: bool,
}

/// Writes the outputs of one sample into `folder`, which is made if needed. Gives how many files were written.
pub fn write(
    folder: &Path,
    values: &[Value],
    signature: &Signature,
    args: OutputArgs,
    writer: &Writer,
) -> Result<usize> {
    std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
    let mut count = 0;
    for (i, (value, port)) in values.iter().zip(&signature.outputs).enumerate() {
        let mut names = vec![format!("output_{i}.npy")];
        if args.named && !port.name.is_empty() {
            names.push(format!("{}.npy", percent::encode(&port.name)));
        }
        match value {
            Value::Tensor(t) => {
                let bytes = npy::write(t);
                for name in names {
                    writer.write(&folder.join(name), &bytes)?;
                    count += 1;
                }
            }
            _ if !args.pb => {
                let text = format!("output {:?} is no tensor: it can only be written with --pb", port.name);
                return Err(Failure::usage(text));
            }
            _ => {}
        }
        if args.pb {
            writer.write(&folder.join(format!("output_{i}.pb")), &pb(value, &port.name, &port.ty)?)?;
            count += 1;
        }
    }
    Ok(count)
}

/// The bytes of an ONNX value file for a value of the declared type.
pub fn pb(value: &Value, name: &str, ty: &Type) -> Result<Vec<u8>> {
    let value = match (value, ty) {
        (Value::Optional(..), _) | (_, Type::Tensor(_) | Type::Sequence(_) | Type::Map(..)) => value.clone(),
        (other, Type::Optional(inner)) => Value::Optional(inner.clone(), Some(Box::new(other.clone()))),
    };
    Ok(OnnxValue::from_value(&value)?.encode(name)?)
}
