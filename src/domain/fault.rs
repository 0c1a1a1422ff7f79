//! Single faults of a request: where each stands, and of what kind it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

macro_rules! fault_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal;)+) => {
        /// Stable machine-readable names of the kinds of faults.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum FaultCode {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)+
        }

        impl FaultCode {
            /// The code as it stands in answers.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }
        }
    };
}

fault_codes! {
    /// A budget below the smallest network.
    BudgetTooSmall = "budget_too_small";
    /// One of several networks that fit; not a mistake in itself.
    Candidate = "candidate";
    /// Class folders of which nobody can tell which output of the network they are.
    ClassesDiffer = "classes_differ";
    /// The named dataset cannot be used.
    DatasetInvalid = "dataset_invalid";
    /// A member whose depth cannot be padded to the others'.
    DepthMismatch = "depth_mismatch";
    /// A node that does not fit the others.
    InvalidGraph = "invalid_graph";
    /// A node that cannot be read.
    InvalidNode = "invalid_node";
    /// Axes that no example can have.
    InvalidShape = "invalid_shape";
    /// A graph that is no JSON object.
    InvalidType = "invalid_type";
    /// The right JSON type, but not one of the values that are taken.
    InvalidValue = "invalid_value";
    /// The dataset has more classes than the network.
    LabelOutOfRange = "label_out_of_range";
    /// Something that needs labels, of a dataset that has none.
    LabelsMissing = "labels_missing";
    /// Layers of one coupling group were given different sizes.
    LayersDisagree = "layers_disagree";
    /// A field that is required, by itself or by another one.
    MissingField = "missing_field";
    /// A checkpoint lacks a tensor of the network.
    MissingTensor = "missing_tensor";
    /// No worker offers the device.
    NoSuchDevice = "no_such_device";
    /// A tensor whose element type is not a floating-point one.
    NotAWeight = "not_a_weight";
    /// A field that means nothing for this network.
    NotApplicable = "not_applicable";
    /// A value from the contract that is not built yet.
    NotSupportedYet = "not_supported_yet";
    /// Examples of one class alone to train on.
    OneClass = "one_class";
    /// A width that cuts an attention head in two.
    NotWholeHeads = "not_whole_heads";
    /// A layer whose units belong to several coupling groups.
    SeveralGroups = "several_groups";
    /// Shapes of a tensor, an example or a list that do not fit the network.
    ShapeMismatch = "shape_mismatch";
    /// Labels that may mean several things.
    TaskAmbiguous = "task_ambiguous";
    /// Labels that are none for what the network predicts.
    TaskMismatch = "task_mismatch";
    /// A list with fewer items than it needs.
    TooFew = "too_few";
    /// A graph over the limit on nodes.
    TooManyNodes = "too_many_nodes";
    /// A comparison over the limit on jobs, or on their bytes.
    TooManyRuns = "too_many_runs";
    /// Fewer units than have to be kept.
    TooNarrow = "too_narrow";
    /// More units than there are.
    TooWide = "too_wide";
    /// A checkpoint has a tensor that the network does not.
    UnexpectedTensor = "unexpected_tensor";
    /// No checkpoint has the name.
    UnknownCheckpoint = "unknown_checkpoint";
    /// No dataset has the name.
    UnknownDataset = "unknown_dataset";
    /// No family has the name.
    UnknownFamily = "unknown_family";
    /// A field that does not exist here.
    UnknownField = "unknown_field";
    /// The network has no layer of the name, or it has no units.
    UnknownLayer = "unknown_layer";
    /// A query parameter that does not exist here.
    UnknownParameter = "unknown_parameter";
    /// Another JSON type, or a number out of range.
    WrongType = "wrong_type";
}

/// One fault in a JSON body, a query or a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the value at fault.
    pub pointer: String,
    /// What kind of fault.
    pub code: FaultCode,
    /// What was expected, what was found, what to do.
    pub detail: String,
}

/// The way from a body to a value in it, step by step: the name of a field, or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValuePath(Vec<String>);

impl ValuePath {
    /// How many steps of the way, from its start, there are in the object `fields`.
    #[must_use]
    pub fn depth_in(&self, fields: &Map<String, Value>) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        let Some(mut value) = fields.get(first) else { return 0 };
        let deeper = rest.iter().map_while(|step| {
            value = match value {
                Value::Object(fields) => fields.get(step)?,
                Value::Array(entries) => entries.get(step.parse::<usize>().ok()?)?,
                _ => return None,
            };
            Some(())
        });
        1 + deeper.count()
    }
}

impl Fault {
    /// A fault at `pointer`.
    pub fn new(pointer: impl Into<String>, code: FaultCode, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }

    /// Where the value at fault stands.
    #[must_use]
    pub fn path(&self) -> ValuePath {
        let steps = self.pointer.split('/').skip(1);
        ValuePath(steps.map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_followed_as_far_as_it_goes() {
        let body = json!({"a/b": [{"~": 1}, null], "c": 2});
        let fields = body.as_object().expect("an object");
        for (pointer, steps) in [
            ("", 0),
            ("/x", 0),
            ("/c", 1),
            ("/c/d", 1),
            ("/a~1b/0/~0", 3),
            ("/a~1b/0/~0/more", 3),
            ("/a~1b/2", 1),
            ("/a~1b/last/0", 1),
        ] {
            let path = Fault::new(pointer, FaultCode::InvalidValue, "").path();
            assert_eq!(path.depth_in(fields), steps, "{pointer}");
        }
    }
}
