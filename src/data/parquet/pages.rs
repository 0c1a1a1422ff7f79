//! The pages of a column, looked at before they are read: the reader makes room for what their headers promise.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of a page, decompressed; pages are held in memory whole.
const MAX_PAGE_BYTES: i64 = 512 << 20;

/// Bytes of a page's header; it may hold statistics.
const MAX_HEADER_BYTES: usize = 65_536;

/// Structures in structures.
const MAX_DEPTH: usize = 16;

/// Data page, dictionary page, data page of the second kind: their types, and the fields with what is in them.
const DATA: (i64, u16) = (0, 5);
const DICTIONARY: (i64, u16) = (2, 7);
const DATA_V2: (i64, u16) = (3, 8);

/// Encodings of values: plain, and two names of indices into a dictionary.
const ENCODINGS: [i64; 3] = [0, 2, 8];

/// Walks the pages in the bytes `begin..end` of `file`, of a column with `rows` values and no lists.
///
/// # Errors
/// The first page that promises too much or is encoded in a way that is not read, in words for people.
pub(super) fn check(file: &File, begin: u64, end: u64, rows: i64) -> Result<(), String> {
    let (mut at, mut values) = (begin, 0_i64);
    let mut buffer = vec![0; MAX_HEADER_BYTES];
    while at < end {
        let header_bytes = &mut buffer[..MAX_HEADER_BYTES.min((end - at) as usize)];
        file.read_exact_at(header_bytes, at).map_err(|error| error.to_string())?;
        let header = Header::read(header_bytes).ok_or_else(|| format!("the page at byte {at} has no usable header"))?;
        let rest = (end - at) as i64 - header.length as i64;
        if !(0..=rest).contains(&header.compressed) || header.uncompressed < 0 || header.values < 0 {
            return Err(format!("the page at byte {at} is larger than its column"));
        }
        if header.uncompressed > MAX_PAGE_BYTES {
            return Err(format!(
                "a page has {} bytes; at most {MAX_PAGE_BYTES} are read: write smaller row groups",
                header.uncompressed
            ));
        }
        if header.kind == DICTIONARY.0 {
            // Each has at least four bytes, a number or a length.
            if header.values > header.uncompressed / 4 {
                return Err(format!("the dictionary at byte {at} has more values than bytes"));
            }
        } else if header.kind == DATA.0 || header.kind == DATA_V2.0 {
            values = values.saturating_add(header.values);
            if values > rows {
                return Err(format!("the pages up to byte {at} have more values than there are rows"));
            }
        }
        if !ENCODINGS.contains(&header.encoding) {
            let encoding = header.encoding;
            return Err(format!("the encoding {encoding} is not read; write plain values or dictionaries"));
        }
        at += header.length as u64 + header.compressed as u64;
    }
    Ok(())
}

/// Walks the footer of `file`, which has `length` bytes: the reader makes room for as many elements as its lists promise.
///
/// # Errors
/// When it is no footer, or a list promises more than there is, in words for people.
pub(super) fn check_footer(file: &File, length: u64) -> Result<(), String> {
    let damaged = || "its footer is damaged; write the file again".to_owned();
    let mut end = [0; 4];
    let at = length.checked_sub(8).ok_or_else(damaged)?;
    file.read_exact_at(&mut end, at).map_err(|error| error.to_string())?;
    let begin = at.checked_sub(u32::from_le_bytes(end).into()).ok_or_else(damaged)?;
    let mut footer = vec![0; (at - begin) as usize];
    file.read_exact_at(&mut footer, begin).map_err(|error| error.to_string())?;
    Compact { rest: &footer }.skip(STRUCT, 0).ok_or_else(damaged)
}

/// What a page's header says of what follows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    kind: i64,
    uncompressed: i64,
    compressed: i64,
    values: i64,
    encoding: i64,
    /// Bytes of the header itself.
    length: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut input = Compact { rest: bytes };
        let mut header = Self { kind: -1, uncompressed: -1, compressed: -1, ..Self::default() };
        let mut last = 0;
        while let Some((field, kind)) = input.field(&mut last)? {
            match field {
                1 => header.kind = input.integer(kind)?,
                2 => header.uncompressed = input.integer(kind)?,
                3 => header.compressed = input.integer(kind)?,
                _ if [DATA, DICTIONARY, DATA_V2].contains(&(header.kind, field)) && kind == STRUCT => {
                    // The encoding comes behind two counts in the second kind of data page.
                    let encoding = if field == DATA_V2.1 { 4 } else { 2 };
                    let mut last = 0;
                    while let Some((field, kind)) = input.field(&mut last)? {
                        match field {
                            1 => header.values = input.integer(kind)?,
                            _ if field == encoding => header.encoding = input.integer(kind)?,
                            _ => input.skip(kind, 0)?,
                        }
                    }
                }
                _ => input.skip(kind, 0)?,
            }
        }
        header.length = bytes.len() - input.rest.len();
        Some(header)
    }
}

const STRUCT: u8 = 12;

/// Thrift's compact protocol, as far as headers need it; `None` where the bytes are something else.
struct Compact<'a> {
    rest: &'a [u8],
}

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Number and type of the next field, unless the structure ends.
    #[expect(clippy::option_option, reason = "`None` inside is the end, outside it is damage")]
    fn field(&mut self, last: &mut u16) -> Option<Option<(u16, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        let (delta, kind) = (u16::from(byte >> 4), byte & 15);
        *last = if delta == 0 { zigzag(self.varint()?).try_into().ok()? } else { last.checked_add(delta)? };
        Some(Some((*last, kind)))
    }

    /// An integer of a field of this type.
    fn integer(&mut self, kind: u8) -> Option<i64> {
        (4..=6).contains(&kind).then(|| self.varint().map(zigzag))?
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            // The type of the field is the value.
            1 | 2 => {}
            3 => self.advance(1)?,
            4..=6 => {
                self.varint()?;
            }
            7 => self.advance(8)?,
            8 => {
                let length = self.varint()?;
                self.advance(length.try_into().ok()?)?;
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                for _ in 0..count {
                    self.element(byte & 15, depth)?;
                }
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// In lists, truth values take a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        if matches!(kind, 1 | 2) { self.advance(1) } else { self.skip(kind, depth + 1) }
    }

    fn advance(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A data page's header as the specification of Thrift has it: type 0, 300 bytes that were 1000, a checksum, 7 values in
    /// the encoding 8, levels in the encoding 3.
    const HEADER: [u8; 22] =
        [0x15, 0, 0x15, 0xd0, 0x0f, 0x15, 0xd8, 0x04, 0x15, 2, 0x1c, 0x15, 14, 0x15, 16, 0x15, 6, 0x15, 6, 0, 0, 99];

    fn checked(bytes: &[u8], rows: i64) -> Result<(), String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        check(&file, 0, bytes.len() as u64, rows)
    }

    #[test]
    fn headers_are_read_to_their_end() {
        let expected = Header { kind: 0, uncompressed: 1000, compressed: 300, values: 7, encoding: 8, length: 21 };
        assert_eq!(Header::read(&HEADER), Some(expected));
        for length in 0..21 {
            assert_eq!(Header::read(&HEADER[..length]), None, "{length}");
        }
    }

    #[test]
    fn pages_that_promise_too_much_are_refused() {
        let page = |change: fn(&mut Vec<u8>)| {
            let mut page = HEADER[..21].to_vec();
            change(&mut page);
            page.extend([0; 300]);
            page
        };
        assert_eq!(checked(&page(|_| {}), 7), Ok(()));
        assert_eq!(checked(&page(|_| {}).repeat(2), 14), Ok(()));
        for (page, rows, said) in [
            (page(|_| {}), 6, "more values than there are rows"),
            (page(|page| page[6] = 0xda), 7, "larger than its column"),
            (page(|page| page[14] = 12), 7, "the encoding 6"),
            (page(|page| page[0] = 0x1d), 7, "no usable header"),
            (page(|page| drop(page.splice(3..5, [0x80, 0x80, 0x80, 0x80, 0x08]))), 7, "a page has 1073741824 bytes"),
        ] {
            let error = checked(&page, rows).unwrap_err();
            assert!(error.contains(said), "expected {said:?} in {error:?}");
        }
    }
}
