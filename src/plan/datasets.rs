//! What the datasets of a job are to its networks: their labels in one order of classes, their images with the networks' channels.

use crate::domain::dataset::DatasetFacts;
use crate::domain::problem::{Fault, FaultCode};
use crate::model::graph::Shape;
use crate::plan::network::{DatasetInput, JobFiles};
use crate::settings::DatasetRequest;

/// Where the datasets of a job stand in its request: those to train, to validate and to test on.
const POINTERS: [&str; 3] = ["/dataset", "/dataset/validation", "/dataset/test"];

/// The datasets of a job, as its networks use them; what is still being read is none.
#[derive(Debug, Clone, Default)]
pub(super) struct Agreed([Option<DatasetFacts>; 3]);

impl Agreed {
    /// Of the datasets that `inputs` names.
    ///
    /// # Errors
    /// When a class has no place in the order of classes.
    pub(super) fn of(request: Option<&DatasetRequest>, inputs: &JobFiles<'_>) -> Result<Self, Vec<Fault>> {
        let facts = [inputs.dataset, inputs.validation, inputs.test].map(|dataset| dataset?.facts());
        let order = request.and_then(|request| class_order(request, facts));
        let mut faults = Vec::new();
        let mut agreed = facts.map(Option::<&DatasetFacts>::cloned);
        if let Some(order) = order {
            for (facts, pointer) in
                agreed.iter_mut().zip(POINTERS).filter_map(|(facts, at)| Some((facts.as_mut()?, at)))
            {
                let relabelled = facts.relabelled(&order).map(|relabelled| *facts = relabelled);
                faults.extend(relabelled.err().map(|detail| Fault::new(pointer, FaultCode::ClassesDiffer, detail)));
            }
        }
        if faults.is_empty() { Ok(Self(agreed)) } else { Err(faults) }
    }

    /// The same with the only channel of all images three times, as torchvision's `ImageFolder` has it.
    pub(super) fn in_colour(self) -> Self {
        Self(self.0.map(|facts| facts.map(|facts| if facts.is_grey() { facts.in_colour() } else { facts })))
    }

    /// The main dataset.
    pub(super) fn main(&self) -> Option<&DatasetFacts> {
        self.0[0].as_ref()
    }

    /// `inputs` with these facts in place of those that were read.
    pub(super) fn in_place_of<'a>(&'a self, inputs: &JobFiles<'a>) -> JobFiles<'a> {
        let [main, validation, test] = &self.0;
        let ready = |facts: &'a Option<DatasetFacts>, read: Option<DatasetInput<'a>>| {
            facts.as_ref().map(DatasetInput::Ready).or(read)
        };
        JobFiles {
            members: inputs.members.clone(),
            dataset: ready(main, inputs.dataset),
            validation: ready(validation, inputs.validation),
            test: ready(test, inputs.test),
            speed: inputs.speed.clone(),
        }
    }
}

/// The order in which `datasets` (to train, to validate and to test on) have their classes: that of the request, or that of the one
/// that names the others' classes too, where labels are names; none where labels mean what their files say.
#[must_use]
pub fn class_order(request: &DatasetRequest, datasets: [Option<&DatasetFacts>; 3]) -> Option<Vec<String>> {
    if request.classes.is_some() {
        return request.classes.clone();
    }
    let named = datasets.into_iter().flatten().map(DatasetFacts::folders).collect::<Option<Vec<_>>>()?;
    let most = named.iter().max_by_key(|names| names.len())?;
    let has_all = named.iter().flat_map(|names| names.iter()).all(|name| most.contains(name));
    let differ = named.iter().any(|names| names != most);
    (differ && has_all).then(|| most.to_vec())
}

/// Whether images of the shape `example` have to be repeated for a network that reads `input`: they are grey, and it has colours.
#[must_use]
pub fn is_repeated(example: &[usize], input: &Shape) -> bool {
    matches!((example, &input[..]), ([1, height, width], [3, h, w]) if (height, width) == (h, w))
}

/// Whether the rows of examples of the shape `example` are the channels of a network that reads `input`, as those of time series.
#[must_use]
pub fn is_rows(example: &[usize], input: &Shape) -> bool {
    matches!((example, &input[..]), ([1, rows, columns], [channels, length]) if (rows, columns) == (channels, length))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts(format: &str, names: &[&str], per_class: &[usize]) -> DatasetFacts {
        let split = json!({"examples": per_class.iter().sum::<usize>(), "per_class": per_class});
        let value: Value = json!({"format": format, "example_shape": [1, 2, 2], "classes": names.len(), "class_names": names,
            "splits": {"train": split}, "mean": [0.5], "std": [1.0], "preview": []});
        serde_json::from_value(value).expect("facts")
    }

    fn request(classes: Option<&[&str]>) -> DatasetRequest {
        DatasetRequest {
            name: "d".to_owned(),
            classes: classes.map(|classes| classes.iter().map(|class| (*class).to_owned()).collect()),
            ..DatasetRequest::default()
        }
    }

    #[test]
    fn a_missing_folder_does_not_renumber_the_others() {
        let (train, test) =
            (facts("class_folders", &["a", "c"], &[3, 2]), facts("class_folders", &["a", "b", "c"], &[1, 1, 1]));
        let order = class_order(&request(None), [Some(&train), None, Some(&test)]).expect("an order");
        assert_eq!(order, ["a", "b", "c"]);
        let relabelled = train.relabelled(&order).expect("its names are there");
        assert_eq!((relabelled.classes, &relabelled.splits["train"].per_class[..]), (3, &[3, 0, 2][..]));
        assert_eq!(class_order(&request(None), [Some(&train), None, None]), None);
        let other = facts("class_folders", &["a", "d"], &[1, 1]);
        assert_eq!(class_order(&request(None), [Some(&train), None, Some(&other)]), None, "none names both c and d");
        let named = class_order(&request(Some(&["c", "b", "a"])), [Some(&train), None, None]).expect("an order");
        assert_eq!(train.relabelled(&named).expect("its names are there").splits["train"].per_class, [2, 0, 3]);
        let fault = train.relabelled(&["a".to_owned()]).expect_err("c is nowhere");
        assert!(fault.contains("`c`"), "{fault}");
        // Labels that are numbers in their file mean what it says.
        assert_eq!(class_order(&request(None), [Some(&facts("npz", &["x"], &[1])), None, Some(&test)]), None);
    }

    #[test]
    fn grey_images_are_repeated_for_colours_alone() {
        assert!(is_repeated(&[1, 28, 28], &vec![3, 28, 28]) && !is_repeated(&[1, 28, 28], &vec![3, 32, 32]));
        assert!(!is_repeated(&[1, 28, 28], &vec![1, 28, 28]) && !is_repeated(&[784], &vec![3, 28, 28]));
        assert!(
            is_rows(&[1, 9, 64], &vec![9, 64])
                && !is_rows(&[1, 9, 64], &vec![1, 9, 64])
                && !is_rows(&[576], &vec![9, 64])
        );
        let colour = facts("class_folders", &["a"], &[1]).in_colour();
        assert_eq!((colour.example_shape, colour.mean, colour.std), (vec![3, 2, 2], vec![0.5; 3], vec![1.0; 3]));
    }
}
