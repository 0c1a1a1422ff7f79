//! What the outputs of a network are compared with: a class, labels that are there or not, or numbers.

/// What the outputs for one example should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Truth<'a> {
    /// The highest output is that of this class.
    Class(u32),
    /// For each output 1 where its label is there and 0 where it is not; the sigmoid of the output is the probability of the label.
    Flags(&'a [f32]),
    /// For each output the number that it should be.
    Numbers(&'a [f32]),
}

/// What the outputs for a batch should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Truths<'a> {
    /// One class per example.
    Classes(&'a [u32]),
    /// See [`Truth::Flags`]; batch x outputs.
    Flags(&'a [f32]),
    /// See [`Truth::Numbers`]; batch x outputs.
    Numbers(&'a [f32]),
}

impl<'a> Truths<'a> {
    /// Whether they are those of `examples` examples of a network of `outputs` outputs.
    #[must_use]
    pub fn fit(self, examples: usize, outputs: usize) -> bool {
        match self {
            Self::Classes(classes) => classes.len() == examples,
            Self::Flags(values) | Self::Numbers(values) => values.len() == examples * outputs,
        }
    }

    /// That of the example `index` of a network of `outputs` outputs.
    ///
    /// # Panics
    /// When there is no such example.
    #[must_use]
    pub fn of(self, index: usize, outputs: usize) -> Truth<'a> {
        let row = index * outputs..(index + 1) * outputs;
        match self {
            Self::Classes(classes) => Truth::Class(classes[index]),
            Self::Flags(values) => Truth::Flags(&values[row]),
            Self::Numbers(values) => Truth::Numbers(&values[row]),
        }
    }
}

/// What the outputs for examples should be, gathered one after another.
#[derive(Debug, Clone, PartialEq)]
pub enum TruthBuffer {
    /// One class per example.
    Classes(Vec<u32>),
    /// See [`Truth::Flags`]; examples x outputs.
    Flags(Vec<f32>),
    /// See [`Truth::Numbers`]; examples x outputs.
    Numbers(Vec<f32>),
}

impl Default for TruthBuffer {
    fn default() -> Self {
        Self::Classes(Vec::new())
    }
}

impl TruthBuffer {
    /// Nothing, with the room that there was.
    pub fn clear(&mut self) {
        match self {
            Self::Classes(classes) => classes.clear(),
            Self::Flags(values) | Self::Numbers(values) => values.clear(),
        }
    }

    /// Adds that of the next example; one of another kind than those before takes their place.
    pub fn push(&mut self, truth: Truth<'_>) {
        match (self, truth) {
            (Self::Classes(classes), Truth::Class(class)) => classes.push(class),
            (Self::Flags(values), Truth::Flags(row)) | (Self::Numbers(values), Truth::Numbers(row)) => {
                values.extend_from_slice(row);
            }
            (own, truth) => {
                *own = match truth {
                    Truth::Class(class) => Self::Classes(vec![class]),
                    Truth::Flags(row) => Self::Flags(row.to_vec()),
                    Truth::Numbers(row) => Self::Numbers(row.to_vec()),
                };
            }
        }
    }

    /// All of them.
    #[must_use]
    pub fn truths(&self) -> Truths<'_> {
        match self {
            Self::Classes(classes) => Truths::Classes(classes),
            Self::Flags(values) => Truths::Flags(values),
            Self::Numbers(values) => Truths::Numbers(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_takes_examples_of_one_kind() {
        let mut buffer = TruthBuffer::default();
        buffer.push(Truth::Class(3));
        buffer.push(Truth::Class(1));
        assert_eq!((buffer.truths(), buffer.truths().of(1, 9)), (Truths::Classes(&[3, 1]), Truth::Class(1)));
        assert!(buffer.truths().fit(2, 9) && !buffer.truths().fit(1, 9));
        buffer.clear();
        buffer.push(Truth::Flags(&[1.0, 0.0]));
        buffer.push(Truth::Flags(&[0.0, 0.0]));
        assert_eq!(buffer.truths().of(0, 2), Truth::Flags(&[1.0, 0.0]));
        assert!(buffer.truths().fit(2, 2) && !buffer.truths().fit(2, 3));
    }
}
