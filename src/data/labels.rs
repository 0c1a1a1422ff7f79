//! What the files say of each example: its class, or a row of numbers that the task of a network gives a meaning.

use super::MAX_LABEL;
use crate::domain::dataset::{LabelForm, RowValues};
use crate::settings::PredictionTask;

/// What is said of each example, in the order of the examples.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// Its class.
    Classes(Vec<u32>),
    /// For each label 1 where it is there and 0 where it is not.
    Flags(LabelRows),
    /// Numbers: to be predicted, or of a meaning that no task has given them yet.
    Numbers(LabelRows),
    /// Nothing is said, of so many examples.
    Absent(usize),
}

/// Equally many numbers for each example.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelRows {
    /// Numbers of one example, at least one.
    pub width: usize,
    /// Finite; examples x width.
    pub values: Vec<f32>,
}

impl LabelRows {
    /// The rows, one for each example.
    #[must_use]
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }
}

impl Labels {
    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(classes) => classes.len(),
            Self::Flags(rows) | Self::Numbers(rows) => rows.rows().len(),
            Self::Absent(examples) => *examples,
        }
    }

    /// Whether something is said of each example.
    #[must_use]
    pub fn are_there(&self) -> bool {
        !matches!(self, Self::Absent(_))
    }

    /// Whether there is no example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of each example; empty where examples have no class.
    #[must_use]
    pub fn classes(&self) -> &[u32] {
        if let Self::Classes(classes) = self { classes } else { &[] }
    }

    /// Whether some are numbers that are not whole.
    pub(super) fn is_real(&self) -> bool {
        match self {
            Self::Classes(_) | Self::Absent(_) => false,
            Self::Flags(rows) | Self::Numbers(rows) => rows.values.iter().any(|value| value.fract() != 0.0),
        }
    }

    /// Numbers of each example.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Classes(_) => 1,
            Self::Flags(rows) | Self::Numbers(rows) => rows.width,
            Self::Absent(_) => 0,
        }
    }

    /// Classes as numbers.
    pub(super) fn numbers(self) -> LabelRows {
        match self {
            Self::Classes(classes) => {
                LabelRows { width: 1, values: classes.into_iter().map(|class| class as f32).collect() }
            }
            Self::Flags(rows) | Self::Numbers(rows) => rows,
            Self::Absent(_) => LabelRows { width: 0, values: Vec::new() },
        }
    }

    /// What they are to a network of this task and so many outputs, for which their form is known to fit. Where there are none, zeros
    /// stand in their place, for losses that give labels no weight.
    #[must_use]
    pub fn fitted(&self, task: PredictionTask, outputs: usize) -> Self {
        if let Self::Absent(examples) = *self {
            let zeros = || LabelRows { width: outputs, values: vec![0.0; examples * outputs] };
            return match task {
                PredictionTask::Classification => Self::Classes(vec![0; examples]),
                PredictionTask::Binary | PredictionTask::MultiLabel => Self::Flags(zeros()),
                PredictionTask::Regression => Self::Numbers(zeros()),
            };
        }
        let class = |row: &[f32]| row.iter().position(|flag| *flag > 0.5).unwrap_or(0) as u32;
        match (task, self) {
            (PredictionTask::Classification, Self::Classes(_) | Self::Absent(_)) => self.clone(),
            (PredictionTask::Classification, Self::Flags(rows) | Self::Numbers(rows)) => {
                Self::Classes(rows.rows().map(class).collect())
            }
            (PredictionTask::Binary | PredictionTask::MultiLabel, labels) => Self::Flags(labels.clone().numbers()),
            (PredictionTask::Regression, labels) => Self::Numbers(labels.clone().numbers()),
        }
    }
}

/// A label for each example as they come: classes, until one comes that is none; then numbers.
#[derive(Debug)]
pub(super) struct LabelColumn(Labels);

impl Default for LabelColumn {
    fn default() -> Self {
        Self(Labels::Classes(Vec::new()))
    }
}

impl LabelColumn {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes a finite number, which is a class where it is a whole one from 0 to [`MAX_LABEL`].
    pub(super) fn take(&mut self, number: f64) {
        let is_class = number >= 0.0 && number <= f64::from(MAX_LABEL) && number.fract() == 0.0;
        match &mut self.0 {
            Labels::Classes(classes) if is_class => classes.push(number as u32),
            Labels::Flags(rows) | Labels::Numbers(rows) => rows.values.push(number as f32),
            classes @ (Labels::Classes(_) | Labels::Absent(_)) => {
                let mut rows = std::mem::replace(classes, Labels::Classes(Vec::new())).numbers();
                rows.values.push(number as f32);
                *classes = Labels::Numbers(rows);
            }
        }
    }

    pub(super) fn into_labels(self) -> Labels {
        self.0
    }
}

/// What the labels of all parts of a dataset are together, which are classes all or rows of one width all. `floats` says whether some
/// were stored as floats.
pub(super) fn form<'a>(parts: impl Iterator<Item = &'a Labels> + Clone, floats: bool) -> LabelForm {
    if parts.clone().any(|labels| !labels.are_there()) {
        return LabelForm::Absent;
    }
    let rows = parts.filter_map(|labels| match labels {
        Labels::Classes(_) | Labels::Absent(_) => None,
        Labels::Flags(rows) | Labels::Numbers(rows) => Some(rows),
    });
    let Some(columns) = rows.clone().next().map(|rows| rows.width) else {
        return if floats { LabelForm::FloatClasses } else { LabelForm::Classes };
    };
    let all = |holds: fn(&[f32]) -> bool| rows.clone().all(|rows| rows.rows().all(holds));
    let values = if !all(|row| row.iter().all(|value| value.fract() == 0.0)) {
        RowValues::Real
    } else if !all(|row| row.iter().all(|value| [0.0, 1.0].contains(value))) {
        RowValues::Whole
    } else if columns > 1 && all(|row| row.iter().filter(|flag| **flag > 0.5).count() == 1) {
        RowValues::OneHot
    } else {
        RowValues::Flags
    };
    LabelForm::Rows { columns, values, floats }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(width: usize, values: &[f32]) -> Labels {
        Labels::Numbers(LabelRows { width, values: values.to_vec() })
    }

    #[test]
    fn the_form_is_that_of_all_parts() {
        let one_hot = rows(2, &[0.0, 1.0, 1.0, 0.0]);
        let of = |parts: &[Labels], floats| match form(parts.iter(), floats) {
            LabelForm::Rows { columns, values, .. } => Some((columns, values)),
            LabelForm::Classes | LabelForm::FloatClasses | LabelForm::Absent => None,
        };
        assert_eq!(of(std::slice::from_ref(&one_hot), false), Some((2, RowValues::OneHot)));
        assert_eq!(of(&[one_hot.clone(), rows(2, &[0.0, 0.0])], false), Some((2, RowValues::Flags)));
        assert_eq!(of(&[one_hot.clone(), rows(2, &[0.0, 2.0])], true), Some((2, RowValues::Whole)));
        assert_eq!(of(&[one_hot, rows(2, &[0.0, 0.5])], true), Some((2, RowValues::Real)));
        assert_eq!(form([Labels::Classes(vec![1])].iter(), false), LabelForm::Classes);
        assert_eq!(form([Labels::Classes(vec![1])].iter(), true), LabelForm::FloatClasses);
        assert_eq!(form([Labels::Absent(3), Labels::Absent(1)].iter(), false), LabelForm::Absent);
    }

    #[test]
    fn a_column_holds_classes_until_a_number_comes_that_is_none() {
        let mut column = LabelColumn::default();
        for number in [2.0, 0.0] {
            column.take(number);
        }
        assert_eq!(column.0, Labels::Classes(vec![2, 0]));
        for number in [0.5, 1.0] {
            column.take(number);
        }
        assert_eq!((column.len(), column.into_labels()), (4, rows(1, &[2.0, 0.0, 0.5, 1.0])));
    }

    #[test]
    fn a_task_gives_labels_their_meaning() {
        let flags = |width, values: &[f32]| Labels::Flags(LabelRows { width, values: values.to_vec() });
        let classes = Labels::Classes(vec![1, 0]);
        assert_eq!(classes.fitted(PredictionTask::Classification, 3), classes);
        assert_eq!(classes.fitted(PredictionTask::Binary, 1), flags(1, &[1.0, 0.0]));
        assert_eq!(classes.fitted(PredictionTask::Regression, 1), rows(1, &[1.0, 0.0]));
        let one_hot = rows(3, &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(one_hot.fitted(PredictionTask::Classification, 3), Labels::Classes(vec![2, 0]));
        assert_eq!(one_hot.fitted(PredictionTask::MultiLabel, 3), flags(3, &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]));
        assert_eq!(Labels::Absent(2).fitted(PredictionTask::Classification, 3), Labels::Classes(vec![0, 0]));
        assert_eq!(Labels::Absent(2).fitted(PredictionTask::MultiLabel, 3), flags(3, &[0.0; 6]));
        assert_eq!((one_hot.len(), one_hot.width(), one_hot.classes().len()), (2, 3, 0));
    }
}
