//! Models of more bytes than a message may have: their weights lie in a file beside them (onnx.ai, "External Data").

use std::io::{self, Write};

use super::emitter::{ConstantSource, Initializer};
use super::{OnnxExportError, OnnxFile, message, write_elements};
use crate::model::formats::protobuf::{MAX_MESSAGE, put_bytes, put_integer, put_length};

/// What the data of every tensor begin at a multiple of, so that they can be mapped.
const ALIGNMENT: u64 = 4096;
/// The `data_location` of a tensor whose data lie in another file.
const EXTERNAL: i64 = 1;

impl OnnxFile<'_> {
    /// The model whose weights lie in the file `name` beside it.
    ///
    /// # Errors
    /// Where even that is too large.
    pub fn without_data(&self, name: &str) -> Result<Vec<u8>, OnnxExportError> {
        let mut graph = self.head.clone();
        let mut offset = 0_u64;
        for (initializer, (front, data)) in self.initializers.iter().zip(&self.fronts) {
            if let ConstantSource::Bytes(bytes) = &initializer.source {
                graph.extend_from_slice(front);
                graph.extend_from_slice(bytes);
                continue;
            }
            offset = offset.next_multiple_of(ALIGNMENT);
            put_bytes(&mut graph, 5, &external(initializer, name, offset, *data));
            offset += data;
        }
        graph.extend_from_slice(&self.tail);
        let mut model = message::model_head();
        put_length(&mut model, 7, graph.len() as u64);
        let bytes = (model.len() + graph.len()) as u64;
        if bytes > MAX_MESSAGE {
            return Err(OnnxExportError::TooLarge(bytes));
        }
        model.extend(graph);
        Ok(model)
    }

    /// Length of the file of all weights.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.weights_with_bytes().fold(0, |end, (_, data)| end.next_multiple_of(ALIGNMENT) + data)
    }

    /// Writes the file of all weights.
    ///
    /// # Errors
    /// When a weight cannot be read, or writing fails.
    pub fn write_data(&self, out: &mut impl Write) -> Result<(), OnnxExportError> {
        let mut end = 0_u64;
        for (name, data) in self.weights_with_bytes() {
            let begin = end.next_multiple_of(ALIGNMENT);
            io::copy(&mut io::Read::take(io::repeat(0), begin - end), out)?;
            write_elements(&self.weights.elements(name)?, out)?;
            end = begin + data;
        }
        Ok(())
    }

    /// The names of the weights, each with the length of its data.
    fn weights_with_bytes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.initializers.iter().zip(&self.fronts).filter_map(|(initializer, (_, data))| match &initializer.source {
            ConstantSource::Weight(name) => Some((name.as_str(), *data)),
            ConstantSource::Bytes(_) => None,
        })
    }
}

/// A `TensorProto` whose `data` bytes lie from `offset` on in the file `name`.
fn external(initializer: &Initializer, name: &str, offset: u64, data: u64) -> Vec<u8> {
    let Initializer { name: own, dtype, shape, .. } = initializer;
    let mut tensor = message::tensor(own, *dtype, shape);
    for (key, value) in [("location", name), ("offset", &offset.to_string()), ("length", &data.to_string())] {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        put_bytes(&mut entry, 2, value.as_bytes());
        put_bytes(&mut tensor, 13, &entry);
    }
    put_integer(&mut tensor, 14, EXTERNAL);
    tensor
}
