//! Images whose labels stand in tables: which image has which label and place.

use std::collections::{BTreeMap, BTreeSet};

use super::DatasetError;
use super::archive::shortened;
use super::folders::{Image, ImageLayout, ImageSlot};
use super::intake::SplitName;
use super::labels::{LabelColumn, LabelRows, Labels};
use super::table::{LabelColumns, Table, flags, refused};
use super::table_labels::{LabelScale, TableLabel};

/// How the rows of a table call images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Naming {
    /// The column that does.
    column: usize,
    /// Names of the path that are given: the file's, and those of folders above it.
    depth: usize,
    /// Whether the file's name has its ending.
    with_ending: bool,
}

/// What is called by a name.
#[derive(Debug, Clone, Copy)]
enum Called {
    /// One image, by its number.
    One(usize),
    /// Several.
    Several,
}

/// Images by what the rows of a table call them.
type ByName = BTreeMap<String, Called>;

/// What a table calls images.
struct Names {
    naming: Naming,
    /// Those that the table is most likely about: below its folder, and of its part.
    near: ByName,
    all: ByName,
}

/// A row that names an image.
struct Labelled {
    image: usize,
    part: SplitName,
    label: TableLabel,
}

/// Sorts `images` by what `tables` say of them; none where no table names any.
///
/// # Errors
/// When a table names what is not there or leaves out what is, or its columns are unclear.
pub(super) fn plan(
    images: &[Image<'_>],
    tables: &[Table],
    entries: usize,
    skipped: BTreeMap<String, usize>,
) -> Result<Option<ImageLayout>, DatasetError> {
    let mut rows: Vec<Labelled> = Vec::new();
    let mut hot_names: Option<Option<Vec<String>>> = None;
    for table in tables {
        let Some(names) = Names::of(table, images)? else { continue };
        let column = names.naming.column;
        let part_column = table.part_column();
        let used: Vec<usize> = [Some(column), part_column].into_iter().flatten().collect();
        let labels = table.label_columns(&used)?;
        let classes = match &labels {
            LabelColumns::Flags(columns) => Some(columns.iter().map(|column| table.columns[*column].clone()).collect()),
            LabelColumns::One(_) => None,
        };
        if *hot_names.get_or_insert_with(|| classes.clone()) != classes {
            return Err(refused(&table.name, "it has other columns of classes than the table before it"));
        }
        for (number, row) in table.rows.iter().enumerate() {
            let fault = |what: &str| refused(&table.name, &format!("row {} {what}", number + 1));
            let cell = || shortened(&row[column]);
            let image = match names.look_up(&row[column]) {
                Some(Called::One(image)) => image,
                Some(Called::Several) => {
                    return Err(fault(&format!("names `{}`, as several images are called", cell())));
                }
                None => return Err(fault(&format!("names `{}`, which is not in the archive", cell()))),
            };
            let named = part_column.and_then(|column| SplitName::of(&row[column])).or_else(|| table.part());
            let part = named.or_else(|| part_of(&images[image])).unwrap_or(SplitName::Train);
            let label = match &labels {
                LabelColumns::One(column) if row[*column].is_empty() => return Err(fault("has no label")),
                LabelColumns::One(column) => TableLabel::Cell(row[*column].to_owned()),
                LabelColumns::Flags(columns) => TableLabel::Flags(flags(row, columns).unwrap_or_default()),
            };
            rows.push(Labelled { image, part, label });
        }
    }
    let Some(first) = tables.first().filter(|_| !rows.is_empty()) else { return Ok(None) };
    let skipped = unlabelled(images, &rows, first, skipped)?;
    lay_out(images, rows, hot_names.flatten(), entries, skipped).map(Some)
}

/// The part that the folders of an image name.
fn part_of(image: &Image<'_>) -> Option<SplitName> {
    image.path.iter().rev().skip(1).find_map(|folder| SplitName::of(folder))
}

impl Names {
    /// What `table` calls images; none where it names none. Labels are often numbers, and so are files: of several columns that could
    /// be meant one counts in which every row names an image of its own.
    ///
    /// # Errors
    /// When two such columns name other images in some row.
    fn of(table: &Table, images: &[Image<'_>]) -> Result<Option<Self>, DatasetError> {
        let Some(first) = table.rows.first() else { return Ok(None) };
        let columns = (0..table.columns.len()).filter(|column| Some(*column) != table.label_column());
        let namings = columns.filter_map(|column| Naming::of(column, &first[column], images));
        let mut named: Vec<Self> = namings.map(|naming| Self::by(naming, table, images)).collect();
        let found: Vec<Vec<usize>> = named.iter().map(|names| names.all_found(table)).collect();
        let whole = |found: &Vec<usize>| found.iter().collect::<BTreeSet<_>>().len() == table.rows.len();
        let best = found.iter().position(whole).unwrap_or(0);
        if found.iter().filter(|found| whole(found)).any(|other| *other != found[best]) {
            return Err(refused(
                &table.name,
                "several of its columns name images, and other ones; leave only one of them",
            ));
        }
        Ok((!named.is_empty()).then(|| named.swap_remove(best)))
    }

    fn by(naming: Naming, table: &Table, images: &[Image<'_>]) -> Self {
        let (folder, part) = (table.folder(), table.part());
        let is_near = |image: &Image<'_>| {
            image.path.starts_with(&folder) && (part.is_none() || part_of(image).is_none_or(|own| Some(own) == part))
        };
        let of = |is_meant: &dyn Fn(&Image<'_>) -> bool| {
            let mut names = ByName::new();
            for (index, image) in images.iter().enumerate().filter(|(_, image)| is_meant(image)) {
                if let Some(name) = naming.name(image) {
                    names.entry(name).and_modify(|called| *called = Called::Several).or_insert(Called::One(index));
                }
            }
            names
        };
        Self { naming, near: of(&is_near), all: of(&|_| true) }
    }

    /// The image of each row, as far as they are found.
    fn all_found(&self, table: &Table) -> Vec<usize> {
        let image = |cell| if let Some(Called::One(image)) = self.look_up(cell) { Some(image) } else { None };
        table.cells(self.naming.column).filter_map(image).collect()
    }

    /// What `cell` names, if anything.
    fn look_up(&self, cell: &str) -> Option<Called> {
        let name = parts(cell).join("/");
        self.near.get(&name).or_else(|| self.all.get(&name)).copied()
    }
}

impl Naming {
    /// How the cell `cell` of `column` calls one of `images`, if it does.
    fn of(column: usize, cell: &str, images: &[Image<'_>]) -> Option<Self> {
        let (depth, cell) = (parts(cell).len(), parts(cell).join("/"));
        let naming = |with_ending| Self { column, depth, with_ending };
        let names = |naming: &Self| images.iter().any(|image| naming.name(image).as_deref() == Some(&cell));
        [naming(true), naming(false)].into_iter().find(names)
    }

    /// What it calls `image`; none where that has fewer folders above it.
    fn name(self, image: &Image<'_>) -> Option<String> {
        let from = image.path.len().checked_sub(self.depth)?;
        let path = image.path[from..].join("/");
        Some(if self.with_ending { path } else { stem(&path).to_owned() })
    }
}

/// The names of a path in a cell.
fn parts(cell: &str) -> Vec<&str> {
    cell.split(['/', '\\']).filter(|part| !matches!(*part, "" | ".")).collect()
}

/// A path without the ending of its file name.
fn stem(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(stem, _)| stem)
}

/// Checks that images without a row are those of whole parts, as of a test split whose labels are kept back; counts them.
fn unlabelled(
    images: &[Image<'_>],
    rows: &[Labelled],
    table: &Table,
    mut skipped: BTreeMap<String, usize>,
) -> Result<BTreeMap<String, usize>, DatasetError> {
    let mut labelled = vec![false; images.len()];
    for row in rows {
        if std::mem::replace(&mut labelled[row.image], true) {
            let name = shortened(&images[row.image].path.join("/"));
            return Err(refused(&table.name, &format!("`{name}` has more than one row")));
        }
    }
    let parts: BTreeSet<Option<SplitName>> = rows.iter().map(|row| part_of(&images[row.image])).collect();
    let without = images.iter().zip(&labelled).filter(|(_, labelled)| !**labelled).map(|(image, _)| image);
    for image in without {
        if parts.contains(&part_of(image)) {
            let name = shortened(&image.path.join("/"));
            return Err(refused(&table.name, &format!("`{name}` has no row; add it, or take the image out")));
        }
        *skipped.entry("an image without a label".to_owned()).or_default() += 1;
    }
    Ok(skipped)
}

/// Labels that are whole numbers from 0 are classes; numbers of which some are not whole are to be predicted; others are numbered in the order of their
/// names, as class folders are. Of several columns with a single 1 in every row it is the class.
fn lay_out(
    images: &[Image<'_>],
    mut rows: Vec<Labelled>,
    hot_names: Option<Vec<String>>,
    entries: usize,
    skipped: BTreeMap<String, usize>,
) -> Result<ImageLayout, DatasetError> {
    rows.sort_by(|a, b| (a.part, &images[a.image].path).cmp(&(b.part, &images[b.image].path)));
    let first = rows.first().map_or(SplitName::Train, |row| row.part);
    // A part alone is what there is to train on, whatever it is called.
    let alone = rows.iter().all(|row| row.part == first);
    let scale = LabelScale::of(rows.iter().map(|row| &row.label));
    let class_names = match &scale {
        LabelScale::Names(names) => Some(names.keys().cloned().collect()),
        LabelScale::Class | LabelScale::Number | LabelScale::Flags => hot_names,
    };
    let mut places = vec![None; entries];
    let mut columns: BTreeMap<SplitName, (LabelColumn, LabelRows)> = BTreeMap::new();
    for row in &rows {
        let part = if alone { SplitName::Train } else { row.part };
        let (column, flags) = columns
            .entry(part)
            .or_insert_with(|| (LabelColumn::default(), LabelRows { width: row.label.width(), values: Vec::new() }));
        let index = if scale == LabelScale::Flags { flags.rows().len() } else { column.len() };
        match (&row.label, scale.number(&row.label)) {
            (TableLabel::Flags(own), _) if scale == LabelScale::Flags => flags.values.extend_from_slice(own),
            (_, Some(number)) => column.take(number),
            (label, None) => {
                let array = shortened(&images[row.image].path.join("/"));
                return Err(DatasetError::Label { array, index, value: label.shown() });
            }
        }
        places[images[row.image].entry] = Some(ImageSlot { part, index });
    }
    let labels = columns.into_iter().map(|(part, (column, flags))| {
        let labels = if scale == LabelScale::Flags { Labels::Numbers(flags) } else { column.into_labels() };
        (part, labels)
    });
    Ok(ImageLayout { class_names, places, labels: labels.collect(), skipped })
}

#[cfg(test)]
mod tests {
    use super::super::folders::images;
    use super::*;

    fn planned(names: &[&str], tables: &[(&str, &str)]) -> Result<Option<ImageLayout>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let read = |(name, text): &(&str, &str)| Table::read(name, text.as_bytes(), 100).expect("a table");
        let tables: Vec<Table> = tables.iter().map(read).collect();
        let (images, skipped) = images(&names).expect("images");
        plan(&images, &tables, names.len(), skipped).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_name_images_in_many_ways() {
        let cells = ["?.png", "?", "images/?.png", "./images/?", "\\images\\?.png", "/d/images/?.png"];
        for cell in cells {
            let text = format!("file,label\n{},dog\n{},cat\n", cell.replace('?', "2"), cell.replace('?', "1"));
            let plan = planned(&["d/images/1.png", "d/images/2.png"], &[("d/labels.csv", &text)]).unwrap().unwrap();
            assert_eq!(plan.class_names, Some(vec!["cat".to_owned(), "dog".to_owned()]), "{cell}");
            assert_eq!(plan.labels[&SplitName::Train].classes(), [0, 1]);
        }
    }

    #[test]
    fn numbers_are_labels_and_columns_are_classes() {
        let two = ["i/a.jpg", "i/b.jpg"];
        let numbers = planned(&two, &[("l.csv", "id,label\na,7\nb,0\n")]).unwrap().unwrap();
        assert_eq!((numbers.class_names, numbers.labels[&SplitName::Train].classes()), (None, &[7, 0][..]));
        let hot = planned(&two, &[("l.csv", "image,MEL,NV\na,0.0,1.0\nb,1.0,0.0\n")]).unwrap().unwrap();
        assert_eq!(hot.class_names, Some(vec!["MEL".to_owned(), "NV".to_owned()]));
        assert_eq!(hot.labels[&SplitName::Train].classes(), [1, 0]);
    }

    #[test]
    fn numbers_that_are_not_whole_and_several_labels_are_no_classes() {
        let rows = |width: usize, values: &[f32]| Labels::Numbers(LabelRows { width, values: values.to_vec() });
        let two = ["i/a.jpg", "i/b.jpg"];
        let numbers = planned(&two, &[("l.csv", "id,age\na,7\nb,-0.5\n")]).unwrap().unwrap();
        assert_eq!((numbers.class_names, &numbers.labels[&SplitName::Train]), (None, &rows(1, &[7.0, -0.5])));
        let flags = planned(&two, &[("l.csv", "image,sun,rain\na,1,1\nb,0,1\n")]).unwrap().unwrap();
        assert_eq!(flags.class_names, Some(vec!["sun".to_owned(), "rain".to_owned()]));
        assert_eq!(flags.labels[&SplitName::Train], rows(2, &[1.0, 1.0, 0.0, 1.0]));
        let tables = [("train.csv", "image,sun,rain\na,1,0\n"), ("test.csv", "image,sun,rain\nb,0,0\n")];
        let split = planned(&two, &tables).unwrap().unwrap();
        assert_eq!(split.labels[&SplitName::Train], rows(2, &[1.0, 0.0]));
    }

    #[test]
    fn labels_that_are_called_like_images_are_no_names() {
        let plan =
            planned(&["i/1.png", "i/2.png", "i/3.png"], &[("l.csv", "label,id\n1,3\n2,1\n1,2\n")]).unwrap().unwrap();
        assert_eq!(plan.labels[&SplitName::Train].classes(), [2, 1, 1]);
    }

    #[test]
    fn a_table_is_about_the_images_of_its_folder_and_its_part() {
        let files = ["train/1.png", "train/2.png", "test/1.png"];
        let both = [
            ("train/metadata.csv", "file_name,label\n1.png,1\n2.png,0\n"),
            ("test/metadata.csv", "file_name,label\n1.png,1\n"),
        ];
        let plan = planned(&files, &both).unwrap().unwrap();
        assert_eq!(
            (plan.labels[&SplitName::Train].classes(), plan.labels[&SplitName::Test].classes()),
            (&[1, 0][..], &[1][..])
        );
        let kaggle = planned(&files, &[("trainLabels.csv", "id,label\n1,1\n2,0\n")]).unwrap().unwrap();
        assert_eq!((kaggle.places[0].is_some(), kaggle.places[2]), (true, None));
    }

    #[test]
    fn parts_follow_columns_tables_and_folders() {
        let files = ["train/1.png", "train/2.png", "test/3.png"];
        let by_folder = planned(&files, &[("labels.csv", "id,label\n1,0\n2,1\n3,1\n")]).unwrap().unwrap();
        assert_eq!(
            (by_folder.labels[&SplitName::Train].classes(), by_folder.labels[&SplitName::Test].classes()),
            (&[0, 1][..], &[1][..])
        );
        let by_column =
            planned(&files, &[("l.csv", "id,label,split\n1,0,train\n2,1,val\n3,1,test\n")]).unwrap().unwrap();
        assert_eq!(by_column.labels.len(), 3);
        // A test split whose labels are kept back.
        let kaggle = planned(&files, &[("trainLabels.csv", "id,label\n1,0\n2,1\n")]).unwrap().unwrap();
        assert_eq!(kaggle.labels.keys().collect::<Vec<_>>(), [&SplitName::Train]);
        assert_eq!(kaggle.skipped["an image without a label"], 1);
    }

    #[test]
    fn what_does_not_match_is_named() {
        let two = ["i/a.jpg", "i/b.jpg"];
        for (text, said) in [
            ("id,label\na,0\nc,1\n", "row 2 names `c`, which is not in the archive"),
            ("id,label\na,0\n", "`i/b.jpg` has no row"),
            ("id,label\na,0\nb,1\na,0\n", "`i/a.jpg` has more than one row"),
            ("id,label\na,0\nb,1e9\n", "labels are whole numbers"),
            ("id,label\na,0\nb,\n", "row 2 has no label"),
            ("id,label,file\na,0,b.jpg\nb,1,a.jpg\n", "several of its columns name images"),
        ] {
            let error = planned(&two, &[("l.csv", text)]).unwrap_err();
            assert!(error.contains(said), "expected {said:?} in {error:?}");
        }
        let other =
            planned(&two, &[("a.csv", "image,MEL,NV\na,0,1\n"), ("b.csv", "image,NV,MEL\nb,0,1\n")]).unwrap_err();
        assert!(other.contains("other columns of classes"), "{other}");
        let twins = planned(&["x/a.jpg", "y/a.jpg"], &[("l.csv", "id,label\na,0\n")]).unwrap_err();
        assert!(twins.contains("as several images are called"), "{twins}");
        assert_eq!(planned(&two, &[("notes.csv", "x,y\n1,2\n")]), Ok(None));
    }
}
