//! Tables that say which image has which label: `labels.csv` beside `images/`, Kaggle's `train.csv`, the hub's `metadata.csv`.

use csv::{ReaderBuilder, StringRecord};

use super::DatasetError;
use super::archive::{components, shortened};
use super::intake::SplitName;

/// Columns of labels, by the names that are usual, the most certain first.
const LABELS: [&str; 12] = [
    "label",
    "labels",
    "class",
    "class_id",
    "label_id",
    "target",
    "category",
    "class_name",
    "label_name",
    "classname",
    "species",
    "diagnosis",
];
/// Columns that name the part of a row.
const PARTS: [&str; 4] = ["split", "set", "subset", "partition"];

/// A table as it was read.
#[derive(Debug)]
pub(super) struct Table {
    /// Its path in the archive.
    pub(super) name: String,
    /// The names of its columns.
    pub(super) columns: Vec<String>,
    /// As many cells in each as there are columns.
    pub(super) rows: Vec<StringRecord>,
}

/// What is in the labels' column, or the labels' columns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LabelColumns {
    /// One, with a number or a name in each row.
    One(usize),
    /// One for each class or label, with 1 where it is the row's and 0 elsewhere.
    Flags(Vec<usize>),
}

/// Whether `name` is a table of labels. The sample of a submission, which competitions add, has made-up ones.
pub(super) fn is_table(name: &str) -> bool {
    let last = components(name).and_then(|parts| parts.last().map(|last| last.to_ascii_lowercase()));
    let split = last.as_deref().and_then(|last| last.rsplit_once('.'));
    split.is_some_and(|(stem, ending)| matches!(ending, "csv" | "tsv") && !stem.contains("submission"))
}

impl Table {
    /// Reads the table `name`, whose first line names the columns; cells are parted by commas, semicolons or tabs, whichever the
    /// first line has most of.
    ///
    /// # Errors
    /// When it is no UTF-8, has a row with more or fewer cells than columns, or more rows than `most`.
    pub(super) fn read(name: &str, bytes: &[u8], most: u64) -> Result<Self, DatasetError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let cells = |delimiter: u8| first.split(|byte| *byte == delimiter).count();
        let delimiter = [b'\t', b';', b','].into_iter().max_by_key(|delimiter| cells(*delimiter)).unwrap_or(b',');
        let mut reader = ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(bytes);
        let bad = |error: csv::Error| refused(name, &error.to_string());
        let columns = reader.headers().map_err(bad)?.iter().map(str::to_owned).collect();
        let mut rows = Vec::new();
        for row in reader.into_records() {
            if rows.len() as u64 >= most {
                return Err(DatasetError::TooManyEntries { limit: most });
            }
            rows.push(row.map_err(bad)?);
        }
        Ok(Self { name: name.to_owned(), columns, rows })
    }

    /// The part that all its rows belong to by the table's name or the folder closest to it, `train.csv` or `trainLabels.csv` for
    /// example.
    pub(super) fn part(&self) -> Option<SplitName> {
        let parts = components(&self.name)?;
        let (last, folders) = parts.split_last()?;
        let stem = last.rsplit_once('.').map_or(*last, |(stem, _)| stem);
        let words = stem.split(|c: char| !c.is_ascii_alphanumeric());
        let humps =
            words.flat_map(|word| [word, word.split(|c: char| c.is_ascii_uppercase()).next().unwrap_or_default()]);
        humps.chain(folders.iter().rev().copied()).find_map(SplitName::of)
    }

    /// The folders above it.
    pub(super) fn folder(&self) -> Vec<&str> {
        let mut path = components(&self.name).unwrap_or_default();
        path.pop();
        path
    }

    /// The column that names each row's part, if there is one.
    pub(super) fn part_column(&self) -> Option<usize> {
        let column = self.named(&PARTS)?;
        self.cells(column).all(|cell| SplitName::of(cell).is_some()).then_some(column)
    }

    /// The column that is called as labels are.
    pub(super) fn label_column(&self) -> Option<usize> {
        self.named(&LABELS)
    }

    /// Where the labels are, when `used` columns say something else.
    ///
    /// # Errors
    /// When several columns could hold them.
    pub(super) fn label_columns(&self, used: &[usize]) -> Result<LabelColumns, DatasetError> {
        if let Some(column) = self.label_column() {
            return Ok(LabelColumns::One(column));
        }
        let rest: Vec<usize> = (0..self.columns.len()).filter(|column| !used.contains(column)).collect();
        match rest[..] {
            [column] => Ok(LabelColumns::One(column)),
            [_, _, ..] if self.rows.iter().all(|row| flags(row, &rest).is_some()) => Ok(LabelColumns::Flags(rest)),
            _ => {
                let names: Vec<String> =
                    self.columns.iter().take(8).map(|name| format!("`{}`", shortened(name))).collect();
                let reason = format!("which of its columns {} is the label? Call it `label`", names.join(", "));
                Err(refused(&self.name, &reason))
            }
        }
    }

    /// The cells of a column.
    pub(super) fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().map(move |row| &row[column])
    }

    /// The first of the columns `names` that is there, whatever its case.
    fn named(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.columns.iter().position(|column| column.eq_ignore_ascii_case(name)))
    }
}

/// The cells of a row that has 0 or 1 in each of `columns`.
pub(super) fn flags(row: &StringRecord, columns: &[usize]) -> Option<Vec<f32>> {
    let flag = |column: &usize| match row[*column].parse::<f64>() {
        Ok(value) if value.to_bits() == 0 => Some(0.0),
        Ok(1.0) => Some(1.0),
        _ => None,
    };
    columns.iter().map(flag).collect()
}

/// A fault of the table `name`.
pub(super) fn refused(name: &str, reason: &str) -> DatasetError {
    DatasetError::Table { entry: shortened(name), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table::read("data/labels.csv", text.as_bytes(), 10).expect("a table")
    }

    #[test]
    fn labels_are_found_by_name_by_elimination_or_as_ones() {
        let labels = |text: &str| table(text).label_columns(&[0]);
        assert_eq!(labels("id,Label,width\n1,cat,3\n").unwrap(), LabelColumns::One(1));
        assert_eq!(labels("id;breed\n1;cat\n").unwrap(), LabelColumns::One(1));
        assert_eq!(labels("\u{feff}image\tMEL\tNV\n1\t0.0\t1.0\n2\t1\t0\n").unwrap(), LabelColumns::Flags(vec![1, 2]));
        assert_eq!(labels("id,a,b\n1,0,1\n2,1,1\n").unwrap(), LabelColumns::Flags(vec![1, 2]));
        let unclear = labels("id,a,b\n1,0,1\n2,1,5\n").unwrap_err().to_string();
        assert!(unclear.contains("Call it `label`"), "{unclear}");
    }

    #[test]
    fn parts_are_named_by_files_folders_and_columns() {
        for (name, part) in [
            ("train.csv", Some(SplitName::Train)),
            ("trainLabels.csv", Some(SplitName::Train)),
            ("x/val_labels.csv", Some(SplitName::Validation)),
            ("test/metadata.csv", Some(SplitName::Test)),
            ("labels.csv", None),
        ] {
            assert_eq!(Table::read(name, b"a,b\n", 10).unwrap().part(), part, "{name}");
        }
        assert_eq!(table("id,split\n1,train\n2,val\n").part_column(), Some(1));
        assert_eq!(table("id,split\n1,3\n").part_column(), None);
    }

    #[test]
    fn crooked_tables_are_refused() {
        for (text, said) in
            [(&b"id,label\n1,2,3\n"[..], "found record with 3 fields"), (b"id,label\n\xff,2\n", "UTF-8")]
        {
            let error = Table::read("labels.csv", text, 10).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(matches!(Table::read("l.csv", b"a\n1\n2\n", 1), Err(DatasetError::TooManyEntries { limit: 1 })));
        assert!(is_table("data/Labels.CSV") && !is_table("__MACOSX/labels.csv") && !is_table("labels.json"));
        assert!(!is_table("sampleSubmission.csv"));
    }
}
