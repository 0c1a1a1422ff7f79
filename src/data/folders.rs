//! Class folders: which image of an archive has which label and place, decided from the names alone.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::{components, junk_reason, shortened};
use super::intake::SplitName;
use super::labels::Labels;
use super::{DatasetError, MAX_LABEL};

/// Where an image belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageSlot {
    /// Its part of the dataset.
    pub(super) part: SplitName,
    /// Its number within the part: by class, then by name.
    pub(super) index: usize,
}

/// Where the images of an archive belong.
#[derive(Debug, PartialEq)]
pub(super) struct ImageLayout {
    /// In label order, where labels are names: alphabetical, as in torchvision's `ImageFolder`, so that labels mean what they meant
    /// in training. Empty folders count.
    pub(super) class_names: Option<Vec<String>>,
    /// For each file of the archive its place; `None` for files that are no images.
    pub(super) places: Vec<Option<ImageSlot>>,
    /// The labels of each part.
    pub(super) labels: BTreeMap<SplitName, Labels>,
    /// How many files are passed over, by the reason.
    pub(super) skipped: BTreeMap<String, usize>,
}

/// An image: its number in the archive and its path, cut into names.
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub(super) entry: usize,
    pub(super) path: Vec<&'a str>,
}

/// Sorts the files of an archive into classes and, below `train/`, `val/` and `test/`, splits. Folders around everything are
/// looked through; empty ones beside those of classes name classes without examples, and so does each split for the others.
///
/// # Errors
/// When images lie outside class folders, folders are mixed, or a format is not read.
pub(super) fn plan(
    names: &[String],
    folders: &[String],
    images: Vec<Image<'_>>,
    skipped: BTreeMap<String, usize>,
) -> Result<ImageLayout, DatasetError> {
    let (depth, split) = depth(&images)?;
    let part = |image: &Image<'_>| {
        let named = if split { SplitName::of(image.path[depth - 1]) } else { None };
        named.unwrap_or(SplitName::Train)
    };
    let around = images[0].path[..depth - usize::from(split)].to_vec();
    let sorted = sorted(images, part, depth)?;
    let mut classes: BTreeSet<&str> = sorted.iter().map(|(_, image)| image.path[depth]).collect();
    for path in empty(names, folders, &around, depth) {
        let of_split = |folder: &str| SplitName::of(folder).is_some();
        let is_class = if split { of_split(path[depth - 1]) } else { !of_split(path[depth]) };
        classes.extend(is_class.then_some(path[depth]));
    }
    let classes: BTreeMap<&str, u32> = classes.into_iter().zip(0..).collect();
    if classes.len() > MAX_LABEL as usize + 1 {
        return Err(confusing(format!(
            "there are {} class folders; at most {} are read",
            classes.len(),
            MAX_LABEL + 1
        )));
    }
    let mut places = vec![None; names.len()];
    let mut labels: BTreeMap<SplitName, Vec<u32>> = BTreeMap::new();
    for (part, image) in &sorted {
        let Some(label) = classes.get(image.path[depth]) else { continue };
        let labels = labels.entry(*part).or_default();
        places[image.entry] = Some(ImageSlot { part: *part, index: labels.len() });
        labels.push(*label);
    }
    let class_names = Some(classes.into_keys().map(str::to_owned).collect());
    let labels = labels.into_iter().map(|(part, labels)| (part, Labels::Classes(labels))).collect();
    Ok(ImageLayout { class_names, places, labels, skipped })
}

/// Whether `images` lie in the folders of several classes.
pub(super) fn are_in_classes(images: &[Image<'_>]) -> bool {
    let classes = |depth: usize| images.iter().map(|image| image.path[depth]).collect::<BTreeSet<_>>().len();
    depth(images).is_ok_and(|(depth, _)| classes(depth) > 1)
}

fn confusing(reason: String) -> DatasetError {
    DatasetError::Folders { reason }
}

/// The files that are images by their names' endings, and how many others there are.
pub(super) fn images(names: &[String]) -> Result<(Vec<Image<'_>>, BTreeMap<String, usize>), DatasetError> {
    let (mut images, mut skipped) = (Vec::new(), BTreeMap::new());
    let mut skip = |reason: &str| *skipped.entry(reason.to_owned()).or_default() += 1;
    for (entry, name) in names.iter().enumerate() {
        let Some(path) = components(name) else {
            skip(junk_reason(name));
            continue;
        };
        let ending = path.last().and_then(|file| file.rsplit_once('.')).map(|(_, ending)| ending.to_ascii_lowercase());
        match ending.as_deref() {
            Some("png" | "jpg" | "jpeg" | "jfif" | "webp" | "bmp" | "ppm" | "pgm" | "pbm") => {
                images.push(Image { entry, path });
            }
            Some("gif" | "tif" | "tiff" | "avif" | "heic" | "jp2") => {
                return Err(DatasetError::Image {
                    entry: shortened(name),
                    reason: "PNG, JPEG, WebP, BMP and PPM are read; convert it".to_owned(),
                });
            }
            _ => skip("not an image"),
        }
    }
    Ok((images, skipped))
}

/// Folders below `around` with `depth` folders above them that hold nothing but hidden files.
fn empty<'a>(names: &'a [String], folders: &'a [String], around: &[&str], depth: usize) -> Vec<Vec<&'a str>> {
    let within = |path: &Vec<&str>| path.len() > depth && path.starts_with(around);
    // A file that is kept only for its folder, as `.gitkeep`, is as good as the folder's own entry.
    let kept = names.iter().filter_map(|name| components(name.rsplit_once(['/', '\\'])?.0));
    let named = folders.iter().filter_map(|name| components(name)).chain(kept);
    let filled: BTreeSet<Vec<&str>> = (names.iter().filter_map(|name| components(name)))
        .filter(|path| path.len() > depth + 1 && within(path))
        .map(|path| path[..=depth].to_vec())
        .collect();
    named.filter(|path| path.len() == depth + 1 && within(path) && !filled.contains(path)).collect()
}

/// Which component of the paths is the class, and whether the one before it is the split.
fn depth(images: &[Image<'_>]) -> Result<(usize, bool), DatasetError> {
    let shallowest = images.iter().min_by_key(|image| image.path.len());
    let levels = shallowest.map_or(0, |image| image.path.len());
    for depth in 0.. {
        let tops: BTreeSet<&str> = images.iter().filter_map(|image| image.path.get(depth).copied()).collect();
        if levels < depth + 2 {
            let name = shallowest.map(|image| image.path.join("/")).unwrap_or_default();
            return Err(confusing(format!("`{}` lies in no class folder", shortened(&name))));
        }
        let is_root = tops.len() == 1 && levels > depth + 2;
        let of_splits = tops.iter().all(|top| SplitName::of(top).is_some());
        let has_train = tops.iter().any(|top| SplitName::of(top) == Some(SplitName::Train));
        if of_splits && !has_train && tops.len() > 1 {
            let tops: Vec<String> = tops.iter().map(|top| format!("`{top}/`")).collect();
            return Err(confusing(format!("there is no `train/` beside {}", tops.join(" and "))));
        }
        if of_splits && has_train {
            if levels < depth + 3 {
                let name = shallowest.map(|image| image.path.join("/")).unwrap_or_default();
                return Err(confusing(format!("`{}` lies in no class folder below its split", shortened(&name))));
            }
            return Ok((depth + 1, true));
        }
        if is_root {
            continue;
        }
        if let Some(top) = tops.iter().find(|top| SplitName::of(top).is_some()) {
            let others: Vec<String> =
                tops.iter().filter(|other| *other != top).take(3).map(|top| shortened(top)).collect();
            return Err(confusing(format!("`{top}/` stands beside `{}`", others.join("`, `"))));
        }
        return Ok((depth, false));
    }
    Ok((0, false))
}

/// The images by part, class and name.
fn sorted<'a>(
    images: Vec<Image<'a>>,
    part: impl Fn(&Image<'_>) -> SplitName,
    depth: usize,
) -> Result<Vec<(SplitName, Image<'a>)>, DatasetError> {
    let mut sorted: Vec<(SplitName, Image<'a>)> = images.into_iter().map(|image| (part(&image), image)).collect();
    sorted.sort_by(|(a_part, a), (b_part, b)| (a_part, &a.path[depth..]).cmp(&(b_part, &b.path[depth..])));
    let twin =
        sorted.windows(2).find(|pair| (pair[0].0, &pair[0].1.path[depth..]) == (pair[1].0, &pair[1].1.path[depth..]));
    if let Some([(_, first), (_, second)]) = twin {
        let name = |image: &Image<'_>| shortened(&image.path.join("/"));
        return Err(DatasetError::Duplicate { first: name(first), second: name(second) });
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(names: &[&str]) -> Result<Option<ImageLayout>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (folders, files): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| name.ends_with('/'));
        let planned = images(&files).and_then(|(images, skipped)| {
            let found = !images.is_empty();
            found.then(|| plan(&files, &folders, images, skipped)).transpose()
        });
        planned.map_err(|error| error.to_string())
    }

    #[test]
    fn classes_are_alphabetical_and_junk_is_passed_over() {
        let plan = planned(&[
            "./data/b/2.PNG",
            "./data/b/10.jpeg",
            "data/README.txt",
            "data/.DS_Store",
            "__MACOSX/data/b/._2.png",
            "data/10/x/1.jpg",
            "data/9/1.jpg",
            "data/9/labels.csv",
            "data/9/._1.jpg",
        ])
        .unwrap()
        .unwrap();
        assert_eq!(plan.class_names.unwrap(), ["10", "9", "b"]);
        assert_eq!(plan.labels[&SplitName::Train].classes(), [0, 1, 2, 2]);
        let at = |index| Some(ImageSlot { part: SplitName::Train, index });
        assert_eq!(plan.places, [at(3), at(2), None, None, None, at(0), at(1), None, None]);
        let skipped = [("hidden", 1), ("not an image", 2), ("of the operating system", 2)];
        assert!(plan.skipped.iter().map(|(reason, count)| (reason.as_str(), *count)).eq(skipped), "{:?}", plan.skipped);
    }

    #[test]
    fn train_and_test_folders_are_splits() {
        let plan = planned(&["root/test/a/1.png", "root/train/a/1.png", "root/train/b/1.png"]).unwrap().unwrap();
        assert_eq!(plan.class_names.unwrap(), ["a", "b"]);
        assert_eq!(
            (plan.labels[&SplitName::Train].classes(), plan.labels[&SplitName::Test].classes()),
            (&[0, 1][..], &[0][..])
        );
        let alone = planned(&["test/a/1.png", "test/b/1.png"]).unwrap().unwrap();
        assert_eq!(alone.labels.keys().collect::<Vec<_>>(), [&SplitName::Train]);
        let three = planned(&["r/train/b/1.png", "r/val/a/1.png", "r/val/b/1.png", "r/test/c/1.png"]).unwrap().unwrap();
        assert_eq!(three.class_names.clone().unwrap(), ["a", "b", "c"]);
        let labels: Vec<&[u32]> = three.labels.values().map(Labels::classes).collect();
        assert_eq!(labels, [&[1][..], &[0, 1], &[2]], "train, validation, test");
        let one_class = planned(&["a/1.png"]).unwrap().unwrap();
        assert_eq!(one_class.class_names.unwrap(), ["a"]);
    }

    #[test]
    fn empty_folders_name_classes_without_examples() {
        let classes = |names: &[&str]| planned(names).unwrap().unwrap().class_names.unwrap();
        assert_eq!(classes(&["data/", "data/a/", "data/a/1.png", "data/b/", "data/c/1.png"]), ["a", "b", "c"]);
        assert_eq!(classes(&["a/1.png", "b/.gitkeep", "b/", "c/.DS_Store"]), ["a", "b", "c"]);
        let split = ["r/train/b/1.png", "r/train/a/", "r/test/a/1.png", "r/test/b/1.png", "r/test/c/"];
        assert_eq!(classes(&split), ["a", "b", "c"]);
        assert_eq!(planned(&split).unwrap().unwrap().labels[&SplitName::Test].classes(), [0, 1]);
        // Neither what is hidden or full of something else, nor what lies elsewhere.
        let others = ["__MACOSX/", "d/a/1.png", "d/b/1.png", ".git/", "d/.x/", "notes/", "d/texts/x.txt", "d/a/b/"];
        assert_eq!(classes(&others), ["a", "b"]);
        assert_eq!(classes(&["a/1.png", "b/1.jfif", "train/"]), ["a", "b"]);
    }

    #[test]
    fn confusing_folders_are_refused() {
        for (names, said) in [
            (&["1.png", "a/2.png"][..], "`1.png` lies in no class folder"),
            (&["train/1.png", "train/a/2.png"], "`train/1.png` lies in no class folder below"),
            (&["val/a/1.png", "test/a/1.png"], "there is no `train/` beside `test/` and `val/`"),
            (&["train/a/1.png", "cats/1.png"], "`train/` stands beside `cats`"),
            (&["a/1.png", "a/2.tiff"], "convert"),
            (&["a/1.png", "./a/1.png"], "the same part"),
        ] {
            let error = planned(names).unwrap_err();
            assert!(error.contains(said), "expected {said:?} in {error:?}");
        }
        assert_eq!(planned(&["a/notes.txt"]), Ok(None));
    }
}
