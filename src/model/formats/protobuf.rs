//! The wire form of protocol buffers (protobuf.dev, "Encoding"): fields of messages, read in place and written one by one.

/// Most bytes of a message, as every implementation has it.
pub const MAX_MESSAGE: u64 = i32::MAX as u64;
/// Most bytes of a number.
const MAX_VARINT: usize = 10;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends within a field.
    #[error("the message ends within a field at byte {0}")]
    Truncated(usize),
    /// A number of more than 64 bits.
    #[error("the number at byte {0} has more than 64 bits")]
    Overlong(usize),
    /// A kind of field that does not exist, or no longer.
    #[error("the field at byte {0} is of an unknown kind")]
    Kind(usize),
    /// A field of another kind than its message says.
    #[error("the field at byte {0} is of the wrong kind")]
    Mismatch(usize),
}

/// A part of a file, with the place where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its first byte in the file.
    pub begin: usize,
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// An integer of any type.
    Varint(u64),
    /// Eight bytes, such as a double.
    Fixed64([u8; 8]),
    /// Four bytes, such as a float.
    Fixed32([u8; 4]),
    /// A text, a message or packed numbers.
    Bytes(Piece<'a>),
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number in the message's definition.
    pub number: u64,
    /// Its value.
    pub value: FieldValue<'a>,
    /// Its first byte in the file.
    pub at: usize,
}

impl<'a> Field<'a> {
    /// The value as an integer.
    ///
    /// # Errors
    /// When it is of another kind.
    pub fn integer(&self) -> Result<i64, WireError> {
        match self.value {
            FieldValue::Varint(value) => Ok(value.cast_signed()),
            _ => Err(WireError::Mismatch(self.at)),
        }
    }

    /// The value as a float.
    ///
    /// # Errors
    /// When it is of another kind.
    pub fn float(&self) -> Result<f32, WireError> {
        match self.value {
            FieldValue::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => Err(WireError::Mismatch(self.at)),
        }
    }

    /// The value as bytes: those of a text, a message or packed numbers.
    ///
    /// # Errors
    /// When it is of another kind.
    pub fn piece(&self) -> Result<Piece<'a>, WireError> {
        match self.value {
            FieldValue::Bytes(piece) => Ok(piece),
            _ => Err(WireError::Mismatch(self.at)),
        }
    }

    /// Adds the integers of a repeated field to `list`, whether they are packed or not.
    ///
    /// # Errors
    /// When the value is of another kind.
    pub fn integers(&self, list: &mut Vec<i64>) -> Result<(), WireError> {
        match self.value {
            FieldValue::Varint(value) => list.push(value.cast_signed()),
            FieldValue::Bytes(piece) => {
                let mut rest = Fields::of(piece);
                while rest.at < piece.bytes.len() {
                    list.push(rest.varint()?.cast_signed());
                }
            }
            _ => return Err(WireError::Mismatch(self.at)),
        }
        Ok(())
    }
}

/// The fields of a message, in the file's order.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: Piece<'a>,
    at: usize,
}

impl<'a> Fields<'a> {
    /// Those of the message in `piece`.
    #[must_use]
    pub fn of(piece: Piece<'a>) -> Self {
        Self { message: piece, at: 0 }
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let start = self.message.begin + self.at;
        let mut value = 0_u64;
        for place in 0..MAX_VARINT {
            let byte = *self.message.bytes.get(self.at).ok_or(WireError::Truncated(start))?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if place == MAX_VARINT - 1 && bits > 1 {
                break;
            }
            value |= bits << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Overlong(start))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let begin = self.at;
        let end = begin.checked_add(len).filter(|end| *end <= self.message.bytes.len());
        self.at = end.ok_or(WireError::Truncated(self.message.begin + begin))?;
        Ok(&self.message.bytes[begin..self.at])
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let at = self.message.begin + self.at;
        self.take(N)?.try_into().map_err(|_| WireError::Truncated(at))
    }

    fn field(&mut self) -> Result<Field<'a>, WireError> {
        let at = self.message.begin + self.at;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => FieldValue::Varint(self.varint()?),
            1 => FieldValue::Fixed64(self.chunk()?),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated(at))?;
                let begin = self.message.begin + self.at;
                FieldValue::Bytes(Piece { bytes: self.take(len)?, begin })
            }
            5 => FieldValue::Fixed32(self.chunk()?),
            _ => return Err(WireError::Kind(at)),
        };
        Ok(Field { number: tag >> 3, value, at })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.message.bytes.len();
        }
        Some(field)
    }
}

/// Writes a number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes an integer field.
pub fn put_integer(out: &mut Vec<u8>, number: u64, value: i64) {
    put_varint(out, number << 3);
    put_varint(out, value.cast_unsigned());
}

/// Writes a float field.
pub fn put_float(out: &mut Vec<u8>, number: u64, value: f32) {
    put_varint(out, number << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes a double field.
pub fn put_double(out: &mut Vec<u8>, number: u64, value: f64) {
    put_varint(out, number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes how a field of `len` bytes begins: what follows are its bytes.
pub fn put_length(out: &mut Vec<u8>, number: u64, len: u64) {
    put_varint(out, number << 3 | 2);
    put_varint(out, len);
}

/// Writes a field of bytes: a text, a message or packed numbers.
pub fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_length(out, number, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<Field<'_>>, WireError> {
        Fields::of(Piece { bytes, begin: 0 }).collect()
    }

    #[test]
    fn what_is_written_is_read_where_it_stands() {
        let mut bytes = Vec::new();
        put_integer(&mut bytes, 1, -1);
        put_float(&mut bytes, 2, 0.5);
        put_bytes(&mut bytes, 300, &[1, 0xac, 0x02]);
        let all = fields(&bytes).unwrap();
        assert_eq!(all[0].integer(), Ok(-1));
        assert_eq!(all[1].float(), Ok(0.5));
        assert_eq!(all[2].number, 300);
        let piece = all[2].piece().unwrap();
        assert_eq!(&bytes[piece.begin..], piece.bytes);
        let mut list = Vec::new();
        all[2].integers(&mut list).unwrap();
        assert_eq!(list, [1, 300]);
        assert_eq!(all[0].float(), Err(WireError::Mismatch(0)));
    }

    #[test]
    fn what_is_no_message_is_refused_where_it_breaks() {
        assert_eq!(fields(&[0x0a, 5, 1]), Err(WireError::Truncated(2)));
        assert_eq!(
            fields(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(WireError::Truncated(11))
        );
        assert_eq!(fields(&[8, 0xff]), Err(WireError::Truncated(1)));
        assert_eq!(fields(&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(WireError::Overlong(1)));
        assert_eq!(fields(&[8, 1, 0x0b]), Err(WireError::Kind(2)));
        assert_eq!(fields(&[9, 1]), Err(WireError::Truncated(1)));
    }
}
