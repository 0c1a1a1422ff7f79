//! What a field that does not exist was probably meant to be.

use strsim::damerau_levenshtein;

/// Names that people look for, and where what they mean stands in a job.
const ELSEWHERE: [(&str, &str); 39] = [
    ("title", "name"),
    ("models", "members"),
    ("checkpoints", "members"),
    ("data", "dataset"),
    ("normalize", "dataset.normalize"),
    ("mean", "dataset.normalize.mean"),
    ("std", "dataset.normalize.std"),
    ("validation", "dataset.validation"),
    ("val", "dataset.validation"),
    ("validation_fraction", "dataset.validation_fraction"),
    ("test", "dataset.test"),
    ("classes", "dataset.classes"),
    ("train", "finetune"),
    ("training", "finetune"),
    ("fine_tune", "finetune"),
    ("epochs", "finetune.epochs"),
    ("num_epochs", "finetune.epochs"),
    ("batch", "finetune.batch_size"),
    ("batch_size", "finetune.batch_size"),
    ("objective", "finetune.objective"),
    ("loss", "finetune.objective"),
    ("temperature", "finetune.temperature"),
    ("alpha", "finetune.soft_weight"),
    ("augment", "finetune.augment"),
    ("optimizer", "finetune.optimizer"),
    ("lr", "finetune.optimizer.lr"),
    ("learning_rate", "finetune.optimizer.lr"),
    ("momentum", "finetune.optimizer.momentum"),
    ("weight_decay", "finetune.optimizer.weight_decay"),
    ("width", "target.width"),
    ("size", "target.width"),
    ("params", "target.params"),
    ("macs", "target.macs"),
    ("sparsity", "target.width"),
    ("importance", "method.importance"),
    ("compensate", "method.compensate"),
    ("order", "method.order"),
    ("activation", "architecture.activation"),
    ("arch", "architecture"),
];

/// From this length on a name with one slip is still that name.
const LONG: usize = 5;

/// The field that `name`, at the JSON pointer `base` of a job, was probably meant to be: one of those that are `known` there but for
/// a slip of the pen, or one elsewhere in the job.
pub(super) fn meant(name: &str, base: &str, known: &[&'static str]) -> Option<String> {
    let lower = name.to_lowercase().replace('-', "_");
    let slips = |candidate: &str| damerau_levenshtein(&lower, candidate);
    let near = known.iter().map(|candidate| (slips(candidate), *candidate)).min();
    if let Some((_, candidate)) = near.filter(|(slips, candidate)| *slips <= 1.max(candidate.len() / 4)) {
        return Some(candidate.to_owned());
    }
    let exact = ELSEWHERE.iter().find(|(other, _)| *other == lower);
    let slip = || ELSEWHERE.iter().find(|(other, _)| other.len() >= LONG && slips(other) == 1);
    let (_, path) = exact.or_else(slip)?;
    // What stands in this very object is called as it is called here.
    let here = format!("{}.", base.trim_start_matches('/').replace('/', "."));
    Some(path.strip_prefix(&here).unwrap_or(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_other_places_are_found() {
        let finetune = ["augment", "batch_size", "epochs", "objective", "optimizer"];
        for (name, base, expected) in [
            ("epoch", "/finetune", Some("epochs")),
            ("Epochs", "/finetune", Some("epochs")),
            ("batch-size", "/finetune", Some("batch_size")),
            ("optimiser", "/finetune", Some("optimizer")),
            ("lr", "/finetune", Some("optimizer.lr")),
            ("importance", "/finetune", Some("method.importance")),
            ("lr", "", Some("finetune.optimizer.lr")),
            ("epoch", "", Some("finetune.epochs")),
            ("normalise", "", Some("dataset.normalize")),
            ("latr", "", None),
            ("colour", "/finetune", None),
        ] {
            let known = if base.is_empty() { &["members", "dataset", "method"][..] } else { &finetune };
            assert_eq!(meant(name, base, known).as_deref(), expected, "{name} at {base}");
        }
        assert_eq!(meant("x", "", &[]), None);
    }
}
