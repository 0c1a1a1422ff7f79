//! From a recipe file to a [`EnsembleRecipe`], or to the list of everything that is wrong with it.

use serde_json::Value;

use super::reader::{Object, boolean, integer, list, refuse, text, whole};
use super::{dataset, device, finetune, precision};
use crate::domain::problem::{Fault, FaultCode};
use crate::plan::recipe::{EnsembleRecipe, NetworkSource};
use crate::settings::{Finetune, Objective};

/// Most members of one recipe.
const MAX_SEEDS: usize = 1024;

/// Reads a recipe: `network`, `dataset` as in a job, `train` as a job's `finetune`, `seeds`, and where and how to compute as in a job.
///
/// # Errors
/// Every fault, each with the pointer to its value.
pub fn recipe(body: &Value) -> Result<EnsembleRecipe, Vec<Fault>> {
    whole(body, |body| {
        let expected = "the network to train: `mlp:WIDTH,…`, `lenet:WIDTH`, `vgg11:WIDTH`, `resnet18:WIDTH`, {\"graph\": …} or a checkpoint of that network";
        let network = match body.value("network") {
            Some(Value::Object(_)) => body.object("network", graph).flatten(),
            _ => body.required("network", expected, |value| text(value)?.parse().or_else(refuse)),
        };
        if body.value("dataset").is_none() {
            body.fault("dataset", FaultCode::MissingField, "expected a dataset to train on");
        }
        let train = body.object("train", finetune::from_scratch);
        Some(EnsembleRecipe {
            dataset: dataset(body)?,
            train: train.unwrap_or_else(|| Finetune { objective: Objective::CrossEntropy, ..Finetune::default() }),
            seeds: body.field("seeds", list(1..=MAX_SEEDS, integer(0..=u64::MAX))).unwrap_or_else(|| vec![0, 1, 2]),
            device: body.field("device", device).unwrap_or_default(),
            precision: body.field("precision", precision).unwrap_or_default(),
            deterministic: body.field("deterministic", boolean).unwrap_or(true),
            network: network?,
        })
    })
}

fn graph(object: &Object<'_>) -> Option<NetworkSource> {
    if object.value("graph").is_none() {
        object.fault("graph", FaultCode::MissingField, "expected the graph of the network");
    }
    object.value("graph").map(|graph| NetworkSource::Graph(graph.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::{Device, Optimizer, Precision};

    #[test]
    fn a_recipe_has_the_fields_of_a_job_and_its_own_defaults() {
        let body = json!({"network": "mlp:8, 4", "dataset": "d.npz"});
        let short = recipe(&body).expect("a recipe");
        assert_eq!((&short.network, &short.seeds[..]), (&NetworkSource::Mlp(vec![8, 4]), &[0, 1, 2][..]));
        assert_eq!((short.train.objective, short.dataset.validation_fraction), (Objective::CrossEntropy, None));
        assert_eq!((short.device, short.precision, short.deterministic), (Device::Auto, Precision::Tf32, true));
        let body = json!({
            "network": {"graph": {"nodes": []}}, "seeds": [7], "dataset": {"name": "d.npz", "validation_fraction": 0},
            "train": {"epochs": 2, "objective": "cross_entropy", "optimizer": {"name": "adamw"}},
        });
        let long = recipe(&body).expect("a recipe");
        assert_eq!(long.network, NetworkSource::Graph(json!({"nodes": []})));
        assert_eq!((long.train.epochs, long.train.optimizer, &long.seeds[..]), (2, Optimizer::ADAMW, &[7][..]));
        assert_eq!(long.train.objective, Objective::CrossEntropy);
    }

    #[test]
    fn every_fault_is_named() {
        let pointers = |body: Value| -> Vec<String> {
            recipe(&body).expect_err("faults").into_iter().map(|fault| fault.pointer).collect()
        };
        assert_eq!(pointers(json!({})), ["/network", "/dataset"]);
        let train = json!({"objective": "distill", "temperature": 2, "epochs": 0});
        let body = json!({"network": "mlp:8,", "dataset": "d", "train": train, "seeds": [], "members": []});
        let expected = ["/network", "/train/objective", "/train/temperature", "/train/epochs", "/seeds", "/members"];
        assert_eq!(pointers(body), expected);
        assert_eq!(pointers(json!({"network": {}, "dataset": "d"})), ["/network/graph"]);
        assert_eq!(pointers(json!({"network": "resnet", "dataset": "d"})), ["/network"]);
        assert_eq!(pointers(json!({"network": "resnet18:0", "dataset": "d"})), ["/network"]);
        assert_eq!(pointers(json!({"network": "vgg11:x", "dataset": "d"})), ["/network"]);
    }
}
