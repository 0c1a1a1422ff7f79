//! Data of tensors in files beside the model's (onnx.ai, "External Data"): `location` names a file, `offset` and `length` say where in
//! it, as decimal numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::budget::text;
use super::error::OnnxError;
use crate::model::formats::files::is_plain_name;
use crate::model::formats::limits::MAX_FILES;
use crate::model::formats::protobuf::{Fields, Piece};

/// The files beside a model, by their names.
pub type Beside<'a> = BTreeMap<String, Piece<'a>>;

/// Where the data of one tensor lie.
#[derive(Debug, Default)]
pub(super) struct External<'a> {
    /// Whether the tensor says that they lie in another file at all.
    pub(super) is_used: bool,
    location: &'a str,
    offset: &'a str,
    length: &'a str,
}

impl<'a> External<'a> {
    /// Takes over an entry of `external_data`.
    pub(super) fn entry(&mut self, piece: Piece<'a>) -> Result<(), OnnxError> {
        let (mut key, mut value) = ("", "");
        for field in Fields::of(piece) {
            let field = field?;
            match field.number {
                1 => key = text(&field)?,
                2 => value = text(&field)?,
                _ => {}
            }
        }
        match key {
            "location" => self.location = value,
            "offset" => self.offset = value,
            "length" => self.length = value,
            // A checksum of the file, and what other programs note.
            _ => {}
        }
        Ok(())
    }

    /// The name of the file.
    fn file(&self) -> Result<&'a str, String> {
        let file = self.location;
        let strange = || format!("its data would lie in `{}`, which is no file beside the model", file.escape_debug());
        if is_plain_name(file) { Ok(file) } else { Err(strange()) }
    }

    /// The `expected` bytes of the tensor.
    pub(super) fn piece(&self, beside: &Beside<'a>, expected: usize) -> Result<Piece<'a>, String> {
        let file = self.file()?;
        let number = |what: &str, text: &str| {
            text.parse::<u64>().map_err(|_| format!("the {what} `{}` of its data is no number", text.escape_debug()))
        };
        let offset = if self.offset.is_empty() { 0 } else { number("offset", self.offset)? };
        let length = if self.length.is_empty() { expected as u64 } else { number("length", self.length)? };
        if length != expected as u64 {
            return Err(format!("its shape takes {expected} bytes, but {length} lie in `{file}`"));
        }
        let data = beside.get(file).ok_or_else(|| format!("its data lie in `{file}`, which is not there"))?;
        let end = offset.checked_add(length).filter(|end| *end <= data.bytes.len() as u64);
        let end = end.ok_or_else(|| {
            let len = data.bytes.len();
            format!("its {length} bytes at {offset} of `{file}` end behind that file, which has {len}: it is truncated, or another")
        })?;
        Ok(Piece { bytes: &data.bytes[offset as usize..end as usize], begin: data.begin + offset as usize })
    }
}

/// The names of the files beside the model in `bytes` that hold data of its tensors. Needs memory in proportion to them.
///
/// # Errors
/// When it is no model, or names anything but files beside it.
pub fn files(bytes: &[u8]) -> Result<BTreeSet<String>, OnnxError> {
    let mut files = BTreeSet::new();
    each(Piece { bytes, begin: 0 }, 7, &mut |graph| {
        each(graph, 1, &mut |node| {
            each(node, 5, &mut |attribute| each(attribute, 5, &mut |tensor| note(tensor, &mut files)))
        })?;
        each(graph, 5, &mut |tensor| note(tensor, &mut files))
    })?;
    Ok(files)
}

/// Goes through the fields `number` of a message.
fn each<'a>(
    message: Piece<'a>,
    number: u64,
    visit: &mut dyn FnMut(Piece<'a>) -> Result<(), OnnxError>,
) -> Result<(), OnnxError> {
    for field in Fields::of(message) {
        let field = field?;
        if field.number == number {
            visit(field.piece()?)?;
        }
    }
    Ok(())
}

/// Notes the file of a tensor, if it has one.
fn note(tensor: Piece<'_>, files: &mut BTreeSet<String>) -> Result<(), OnnxError> {
    let (mut external, mut name) = (External::default(), "");
    for field in Fields::of(tensor) {
        let field = field?;
        match field.number {
            8 => name = text(&field)?,
            13 => external.entry(field.piece()?)?,
            14 => external.is_used = field.integer()? == EXTERNAL,
            _ => {}
        }
    }
    if !external.is_used {
        return Ok(());
    }
    let file = external.file().map_err(|detail| OnnxError::Tensor { name: name.to_owned(), detail })?;
    if !files.contains(file) {
        files.insert(file.to_owned());
    }
    if files.len() > MAX_FILES {
        return Err(OnnxError::Limit { what: "more files of data".to_owned(), most: MAX_FILES });
    }
    Ok(())
}

/// The `data_location` of a tensor whose data lie in another file.
pub(super) const EXTERNAL: i64 = 1;
