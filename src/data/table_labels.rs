//! What the cells of tables say of images: numbers of classes, names of classes, numbers to predict, or several labels.

use std::collections::BTreeMap;

use super::MAX_LABEL;

/// What a row says of its image.
#[derive(Debug)]
pub(super) enum TableLabel {
    /// A number or a name.
    Cell(String),
    /// 0 or 1 in each of several columns.
    Flags(Vec<f32>),
}

/// What the labels of all tables are together.
#[derive(Debug, PartialEq)]
pub(super) enum LabelScale {
    /// The number of a class.
    Class,
    /// A number, not always a whole one.
    Number,
    /// The name of a class, with the class.
    Names(BTreeMap<String, u32>),
    /// Several labels.
    Flags,
}

impl TableLabel {
    /// Numbers of it.
    pub(super) fn width(&self) -> usize {
        if let Self::Flags(flags) = self { flags.len() } else { 1 }
    }

    /// The only 1 among zeros, as a class, or the number of a cell.
    fn number(&self) -> Option<f64> {
        match self {
            Self::Cell(text) => text.parse::<f64>().ok().filter(|value| value.is_finite()),
            Self::Flags(flags) => {
                let mut set = flags.iter().enumerate().filter(|(_, flag)| **flag > 0.5);
                let (class, _) = set.next()?;
                set.next().is_none().then_some(class as f64)
            }
        }
    }

    /// As it stands in the table.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Cell(text) => text.clone(),
            Self::Flags(flags) => format!("{flags:?}"),
        }
    }
}

impl LabelScale {
    /// Of all `labels`.
    pub(super) fn of<'a>(labels: impl Iterator<Item = &'a TableLabel> + Clone) -> Self {
        let whole = |value: f64| value.fract().to_bits() == 0 && value >= 0.0;
        let numbers: Option<Vec<f64>> = labels.clone().map(TableLabel::number).collect();
        match numbers {
            Some(numbers) if numbers.iter().all(|value| whole(*value)) => Self::Class,
            Some(numbers) if numbers.iter().any(|value| value.fract() != 0.0) => Self::Number,
            None if labels.clone().any(|label| matches!(label, TableLabel::Flags(_))) => Self::Flags,
            _ => {
                let mut names: BTreeMap<String, u32> = labels.map(|label| (label.shown(), 0)).collect();
                names.values_mut().zip(0..).for_each(|(class, number)| *class = number);
                Self::Names(names)
            }
        }
    }

    /// The label as a number; none of a class that is none.
    pub(super) fn number(&self, label: &TableLabel) -> Option<f64> {
        match self {
            Self::Class => label.number().filter(|class| *class <= f64::from(MAX_LABEL)),
            Self::Number => label.number(),
            Self::Names(names) => {
                names.get(&label.shown()).filter(|class| **class <= MAX_LABEL).map(|class| f64::from(*class))
            }
            Self::Flags => None,
        }
    }
}
