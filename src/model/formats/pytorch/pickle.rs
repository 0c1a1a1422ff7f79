//! A pickle machine that cannot run code: classes and functions are names, a call of one that is not known gives an inert
//! object. It knows what `torch.save` writes (protocols 2 to 5; Python's `pickletools` describes each operation).

use std::collections::BTreeMap;

use super::error::PyTorchError;
use super::rebuild;
use super::value::{Global, Heap, Pickle, PickleValue, PickledObject, Text};
use crate::model::formats::limits::{MAX_PICKLE_BYTES, MAX_PICKLE_VALUES};

/// Reads one pickle from the front of `bytes`, at most [`MAX_PICKLE_BYTES`] of them. Needs memory in proportion to its operations,
/// at most that of [`MAX_PICKLE_VALUES`].
pub(super) fn read(bytes: &[u8]) -> Result<Pickle<'_>, PyTorchError> {
    read_whole(&bytes[..bytes.len().min(MAX_PICKLE_BYTES as usize)])
}

/// As [`read`], of all `bytes`.
pub(super) fn read_whole(bytes: &[u8]) -> Result<Pickle<'_>, PyTorchError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        operation: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        heap: Heap::default(),
        values: 0,
    };
    let root = machine.run()?;
    Ok(Pickle { bytes, heap: machine.heap, root, len: machine.at })
}

/// What an object or a tensor counts for: its size in values.
const SIZE_OF_OBJECT: usize = 12;

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the present operation stands.
    operation: usize,
    stack: Vec<PickleValue>,
    marks: Vec<usize>,
    memo: BTreeMap<u32, PickleValue>,
    heap: Heap,
    /// Values that were made or named so far.
    values: usize,
}

impl<'a> Machine<'a> {
    /// Runs to the end of the pickle, and returns its value.
    fn run(&mut self) -> Result<PickleValue, PyTorchError> {
        loop {
            self.operation = self.at;
            let opcode = self.take(1)?[0];
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), PyTorchError> {
        match opcode {
            0x80 if matches!(self.take(1)?[0], 2..=5) => Ok(()),
            // A frame: only how many bytes could be read at once.
            0x95 => self.take(8).map(|_| ()),
            b'(' => {
                self.count(1)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => self.top().and_then(|top| self.push(top)),
            b'N' => self.push(PickleValue::None),
            0x88 => self.push(PickleValue::Bool(true)),
            0x89 => self.push(PickleValue::Bool(false)),
            b'K' => self.number(1),
            b'M' => self.number(2),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(PickleValue::Int(value.into()))
            }
            0x8a | 0x8b => self.long(if opcode == 0x8a { 1 } else { 4 }),
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(PickleValue::Float(value))
            }
            0x8c | b'U' => self.text(1),
            b'X' | b'T' => self.text(4),
            0x8d => self.text(8),
            b'C' => self.byte_string(1),
            b'B' => self.byte_string(4),
            0x8e | 0x96 => self.byte_string(8),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.named(module, name)
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (PickleValue::Text(name), PickleValue::Text(module)) => self.named(module, name),
                _ => Err(self.damaged("a class is named by something else than texts")),
            },
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memory(opcode),
            b')' | b']' | b't' | b'l' | 0x85..=0x87 | b'a' | b'e' | 0x8f..=0x91 => self.sequence(opcode),
            b'}' | b'd' | b's' | b'u' => self.mapping(opcode),
            b'R' | 0x81 | 0x92 | b'b' | b'Q' => self.object(opcode),
            _ => Err(PyTorchError::Opcode { opcode, at: self.operation }),
        }
    }

    /// What is kept for later, and what is fetched again.
    fn memory(&mut self, opcode: u8) -> Result<(), PyTorchError> {
        let index = match opcode {
            b'q' | b'h' => u32::from(self.take(1)?[0]),
            b'r' | b'j' => u32::from_le_bytes(self.array()?),
            b'p' | b'g' => {
                let line = self.line()?.of(self.bytes);
                line.parse().map_err(|_| self.damaged("a place in the memory is no number"))?
            }
            _ => self.memo.len() as u32,
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let value = self.memo.get(&index).copied();
            return self.push(value.ok_or_else(|| self.damaged("it fetches what it has not kept"))?);
        }
        // A node of the map is larger than a value.
        self.count(2)?;
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    /// Lists, tuples and sets.
    fn sequence(&mut self, opcode: u8) -> Result<(), PyTorchError> {
        match opcode {
            b')' => self.push_list(Vec::new(), PickleValue::Tuple),
            b']' | 0x8f => self.push_list(Vec::new(), PickleValue::List),
            b't' => self.pop_mark().and_then(|items| self.push_list(items, PickleValue::Tuple)),
            b'l' | 0x91 => self.pop_mark().and_then(|items| self.push_list(items, PickleValue::List)),
            0x85..=0x87 => {
                let at = self.stack.len().checked_sub(usize::from(opcode - 0x84));
                let at = at.ok_or_else(|| self.damaged("its stack is empty"))?;
                let items = self.stack.split_off(at);
                self.push_list(items, PickleValue::Tuple)
            }
            _ => {
                let items = if opcode == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
                // Items of an object that is a list are no weights.
                if let PickleValue::List(id) = self.top()? {
                    self.heap.lists[id as usize].extend(items);
                }
                Ok(())
            }
        }
    }

    /// Dicts.
    fn mapping(&mut self, opcode: u8) -> Result<(), PyTorchError> {
        if opcode == b'}' {
            return self.push_dict(Vec::new());
        }
        let items = if opcode == b's' {
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.pop_mark()?
        };
        let (pairs, []) = items.as_chunks::<2>() else { return Err(self.damaged("a key has no value")) };
        let pairs = pairs.iter().map(|[key, value]| (*key, *value));
        if opcode == b'd' {
            return self.push_dict(pairs.collect());
        }
        let id = match self.top()? {
            PickleValue::Dict(id) => id,
            PickleValue::PickledObject(object) => {
                let fresh = self.heap.dicts.len() as u32;
                let items = *self.heap.objects[object as usize].items.get_or_insert(fresh);
                if items == fresh {
                    self.heap.dicts.push(Vec::new());
                }
                items
            }
            _ => return Err(self.damaged("items are set in what has none")),
        };
        self.heap.dicts[id as usize].extend(pairs);
        Ok(())
    }

    /// Calls, which call nothing, and what stands outside the pickle.
    fn object(&mut self, opcode: u8) -> Result<(), PyTorchError> {
        match opcode {
            b'b' => {
                let state = self.pop()?;
                if let PickleValue::PickledObject(id) = self.top()? {
                    self.heap.objects[id as usize].state = state;
                }
                Ok(())
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = rebuild::persistent(&mut self.heap, self.bytes, id);
                let storage = storage.ok_or_else(|| self.damaged("a storage is described in an unknown way"))?;
                self.count(4)?;
                self.push(storage)
            }
            _ => {
                if opcode == 0x92 {
                    // Arguments by their names.
                    self.pop()?;
                }
                let (arguments, class) = (self.pop()?, self.pop()?);
                // A dict may be made of one and the same list again and again, and a tensor holds its sizes.
                let listed = |value: &PickleValue| match value {
                    PickleValue::List(id) | PickleValue::Tuple(id) => self.heap.lists[*id as usize].len(),
                    _ => 0,
                };
                let first =
                    if let PickleValue::Tuple(id) = arguments { self.heap.lists[id as usize].first() } else { None };
                self.count(SIZE_OF_OBJECT + 2 * first.map_or(0, listed))?;
                let made = rebuild::call(&mut self.heap, self.bytes, class, arguments);
                let made = made.map_err(|detail| self.damaged(detail))?;
                let made = made.unwrap_or_else(|| {
                    self.heap.objects.push(PickledObject { class, state: PickleValue::None, items: None });
                    PickleValue::PickledObject(self.heap.objects.len() as u32 - 1)
                });
                self.push(made)
            }
        }
    }

    /// The next `count` bytes.
    fn take(&mut self, count: usize) -> Result<&'a [u8], PyTorchError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            let whole = self.bytes.len() as u64 == MAX_PICKLE_BYTES;
            let length = self.bytes.len();
            return Err(if whole { PyTorchError::TooLong(length as u64) } else { PyTorchError::Truncated(length) });
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PyTorchError> {
        Ok(*self.take(N)?.first_chunk().unwrap_or(&[0; N]))
    }

    /// An unsigned number of `size` bytes.
    fn unsigned(&mut self, size: usize) -> Result<u64, PyTorchError> {
        Ok(self.take(size)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn number(&mut self, size: usize) -> Result<(), PyTorchError> {
        let value = self.unsigned(size)?;
        self.push(PickleValue::Int(value as i64))
    }

    /// An integer whose length stands before it, in two's complement.
    fn long(&mut self, size: usize) -> Result<(), PyTorchError> {
        let length = self.unsigned(size)? as usize;
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        if length > whole.len() {
            return self.push(PickleValue::Opaque);
        }
        whole[..length].copy_from_slice(bytes);
        self.push(PickleValue::Int(i64::from_le_bytes(whole)))
    }

    /// Bytes whose length, of `size` bytes, stands before them.
    fn run_of_bytes(&mut self, size: usize) -> Result<Text, PyTorchError> {
        let length = usize::try_from(self.unsigned(size)?).unwrap_or(usize::MAX);
        self.take(length)?;
        Ok(Text { begin: (self.at - length) as u32, end: self.at as u32 })
    }

    fn text(&mut self, size: usize) -> Result<(), PyTorchError> {
        let text = self.run_of_bytes(size)?;
        let is_text = std::str::from_utf8(&self.bytes[text.begin as usize..text.end as usize]).is_ok();
        self.push(if is_text { PickleValue::Text(text) } else { PickleValue::Bytes(text) })
    }

    fn byte_string(&mut self, size: usize) -> Result<(), PyTorchError> {
        let run = self.run_of_bytes(size)?;
        self.push(PickleValue::Bytes(run))
    }

    /// The text to the end of the line.
    fn line(&mut self) -> Result<Text, PyTorchError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        let length = length.ok_or(PyTorchError::Truncated(self.bytes.len()))?;
        let line = Text { begin: self.at as u32, end: (self.at + length) as u32 };
        if std::str::from_utf8(self.take(length + 1)?).is_err() {
            return Err(self.damaged("a name is no text"));
        }
        Ok(line)
    }

    fn named(&mut self, module: Text, name: Text) -> Result<(), PyTorchError> {
        self.heap.globals.push(Global { module, name });
        self.push(PickleValue::Global(self.heap.globals.len() as u32 - 1))
    }

    fn push_list(&mut self, items: Vec<PickleValue>, kind: fn(u32) -> PickleValue) -> Result<(), PyTorchError> {
        self.count(2)?;
        self.heap.lists.push(items);
        self.push(kind(self.heap.lists.len() as u32 - 1))
    }

    fn push_dict(&mut self, entries: Vec<(PickleValue, PickleValue)>) -> Result<(), PyTorchError> {
        self.count(2)?;
        self.heap.dicts.push(entries);
        self.push(PickleValue::Dict(self.heap.dicts.len() as u32 - 1))
    }

    fn push(&mut self, value: PickleValue) -> Result<(), PyTorchError> {
        self.count(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn count(&mut self, values: usize) -> Result<(), PyTorchError> {
        self.values += values;
        if self.values > MAX_PICKLE_VALUES { Err(PyTorchError::TooManyValues) } else { Ok(()) }
    }

    fn top(&self) -> Result<PickleValue, PyTorchError> {
        self.stack.last().copied().ok_or_else(|| self.damaged("its stack is empty"))
    }

    fn pop(&mut self) -> Result<PickleValue, PyTorchError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Everything behind the last mark.
    fn pop_mark(&mut self) -> Result<Vec<PickleValue>, PyTorchError> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        let mark = mark.ok_or_else(|| self.damaged("it has no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn damaged(&self, detail: &'static str) -> PyTorchError {
        PyTorchError::Damaged { at: self.operation, detail }
    }
}
