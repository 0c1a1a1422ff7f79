//! The header of a `.npy` file (NumPy enhancement proposal 1; versions 1 to 3): a Python dictionary literal with the
//! element type, the order of axes in memory and the shape.

use std::io::Read;

use crate::model::header::Dtype;

/// What a file of an array begins with.
pub const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Real headers have about 100 bytes; NumPy itself refuses more than 10,000.
const MAX_HEADER_BYTES: usize = 65_536;

/// Bytes of a file that the header of an array of numbers ends in.
pub(super) const FRONT_BYTES: u64 = 4096;

/// As many axes as NumPy can have at most.
const MAX_RANK: usize = 64;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Most significant byte first.
    pub big_endian: bool,
    /// The first axis runs fastest.
    pub fortran: bool,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Bytes of the file before its first element.
    pub bytes: u64,
}

/// Reads the header and leaves `source` at the first element.
///
/// # Errors
/// What is wrong, for people.
pub fn read_header(source: &mut dyn Read) -> Result<Header, String> {
    let mut start = [0; 8];
    read_exact(source, &mut start)?;
    if !start.starts_with(MAGIC) {
        return Err("it does not begin with the magic bytes of a .npy file".to_owned());
    }
    let (length, prefix) = match start[6] {
        1 => {
            let mut length = [0; 2];
            read_exact(source, &mut length)?;
            (usize::from(u16::from_le_bytes(length)), 10)
        }
        2 | 3 => {
            let mut length = [0; 4];
            read_exact(source, &mut length)?;
            (u32::from_le_bytes(length) as usize, 12)
        }
        other => return Err(format!("version {other} of the .npy format is unknown; versions 1 to 3 are read")),
    };
    if length > MAX_HEADER_BYTES {
        return Err(format!("its header has {length} bytes; at most {MAX_HEADER_BYTES} are read"));
    }
    let mut text = vec![0; length];
    read_exact(source, &mut text)?;
    let text = String::from_utf8_lossy(&text);
    let (descr, fortran, shape) = Literal { rest: &text }.dictionary()?;
    let (dtype, big_endian) = element(&descr)?;
    Ok(Header { dtype, big_endian, fortran, shape, bytes: (prefix + length) as u64 })
}

fn read_exact(source: &mut dyn Read, bytes: &mut [u8]) -> Result<(), String> {
    source.read_exact(bytes).map_err(|error| format!("its header cannot be read: {error}"))
}

/// The element type of a `descr` such as `<f4`, and whether its most significant byte comes first.
fn element(descr: &str) -> Result<(Dtype, bool), String> {
    let (order, kind) = match descr.split_at_checked(1) {
        Some((order @ ("<" | ">" | "|" | "="), kind)) => (order, kind),
        _ => ("|", descr),
    };
    let dtype = match kind {
        "u1" => Dtype::U8,
        "b1" => Dtype::Bool,
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        _ => {
            let shown: String = descr.chars().take(40).collect();
            return Err(format!(
                "its element type is {shown:?}; expected numbers: |u1, |i1, i2 to i8, u2 to u8, f2, f4 or f8 (a ragged \
                 list becomes an object array: make all examples equally large)"
            ));
        }
    };
    Ok((dtype, order == ">"))
}

/// A reader of the few Python literals that stand in headers.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    /// `{'descr': .., 'fortran_order': .., 'shape': ..}`, keys in any order.
    fn dictionary(mut self) -> Result<(String, bool, Vec<usize>), String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.take('}') {
            let key = self.string()?;
            self.expect(':')?;
            match key {
                "descr" => descr = Some(self.string()?.to_owned()),
                "fortran_order" => fortran = Some(self.boolean()?),
                "shape" => shape = Some(self.tuple()?),
                _ => return Err(self.unexpected("one of the keys descr, fortran_order, shape")),
            }
            if !self.take(',') {
                self.expect('}')?;
                break;
            }
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok((descr, fortran, shape)),
            _ => Err("its header lacks one of the keys descr, fortran_order, shape".to_owned()),
        }
    }

    fn take(&mut self, token: char) -> bool {
        let rest = self.rest.trim_start();
        let stripped = rest.strip_prefix(token);
        self.rest = stripped.unwrap_or(rest);
        stripped.is_some()
    }

    fn expect(&mut self, token: char) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected(&format!("`{token}`"))) }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.take('\'') { '\'' } else { self.expect('"').map(|()| '"')? };
        let (text, rest) = self.rest.split_once(quote).ok_or_else(|| self.unexpected("the end of a string"))?;
        self.rest = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        let rest = self.rest.trim_start();
        let found = [("True", true), ("False", false)].into_iter().find(|(name, _)| rest.starts_with(name));
        let (name, value) = found.ok_or_else(|| self.unexpected("True or False"))?;
        self.rest = &rest[name.len()..];
        Ok(value)
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        let mut axes = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            axes.push(self.integer()?);
            if axes.len() > MAX_RANK {
                return Err(format!("it has more than {MAX_RANK} axes"));
            }
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(axes)
    }

    /// Digits, with the `L` that Python 2 appended.
    fn integer(&mut self) -> Result<usize, String> {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let value = rest[..end].parse().map_err(|_| self.unexpected("a length"))?;
        self.rest = &rest[end..];
        self.take('L');
        Ok(value)
    }

    fn unexpected(&self, expected: &str) -> String {
        let found: String = self.rest.chars().take(40).collect();
        format!("its header has {found:?} where {expected} is expected")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u8, text: &str) -> Result<Header, String> {
        let length = if version == 1 {
            (text.len() as u16).to_le_bytes().to_vec()
        } else {
            (text.len() as u32).to_le_bytes().to_vec()
        };
        read_header(&mut [&MAGIC[..], &[version, 0], &length, text.as_bytes()].concat().as_slice())
    }

    #[test]
    fn every_version_and_spelling_is_read() {
        let expected = |dtype, big_endian, fortran, shape: &[usize]| (dtype, big_endian, fortran, shape.to_vec());
        let cases = [
            (
                1,
                "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n",
                expected(Dtype::F32, false, false, &[2, 3]),
            ),
            (2, "{\"shape\":(7,),\"descr\":\">i8\",\"fortran_order\":True}", expected(Dtype::I64, true, true, &[7])),
            (3, "{'descr': '|u1', 'fortran_order': False, 'shape': ()}", expected(Dtype::U8, false, false, &[])),
            (
                1,
                "{'descr': '|b1', 'fortran_order': False, 'shape': (5L, 1L)}",
                expected(Dtype::Bool, false, false, &[5, 1]),
            ),
        ];
        for (version, text, expected) in cases {
            let header = header(version, text).unwrap();
            assert_eq!((header.dtype, header.big_endian, header.fortran, header.shape), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", "ragged"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", "`\"`"),
            ("{'descr': '<f4', 'shape': (2,)}", "lacks"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "a length"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", "a length"),
            ("{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}", "True or False"),
            ("{'descr': '<f4", "end of a string"),
            ("", "`{`"),
        ] {
            let error = header(1, text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(header(9, "").unwrap_err().contains("version 9"));
        assert!(read_header(&mut &b"PK\x03\x04...."[..]).unwrap_err().contains("magic"));
        let huge = [&MAGIC[..], &[2, 0], &u32::MAX.to_le_bytes()].concat();
        assert!(read_header(&mut huge.as_slice()).unwrap_err().contains("4294967295"));
    }
}
