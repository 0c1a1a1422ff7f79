//! Tensors that training code leaves in a `state_dict` and that belong to no network: what to call before saving, or to ignore.

use std::collections::BTreeSet;

/// What to do about the tensors `names`, if one of them is known.
pub(super) fn remedy<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    let any = |ends: &[&str]| names.iter().any(|name| ends.iter().any(|end| name.ends_with(end)));
    let remedy = if any(&[".weight_mask", ".bias_mask"]) {
        "it was pruned with masks: call `torch.nn.utils.prune.remove(module, \"weight\")` for each pruned module, then save"
    } else if any(&[".parametrizations.weight.original0", ".parametrizations.weight.original"]) {
        "it has parametrizations (weight or spectral norm): call \
         `torch.nn.utils.parametrize.remove_parametrizations(module, \"weight\")` for each such module, then save"
    } else if any(&[".weight_g"]) {
        "it has weight norm: call `torch.nn.utils.remove_weight_norm(module)` for each such module, then save"
    } else if any(&[".weight_orig"]) {
        "it has spectral norm: call `torch.nn.utils.remove_spectral_norm(module)` for each such module, then save"
    } else if any(&[".zero_point"]) {
        "it is quantised: give the network from before `torch.ao.quantization`, or dequantise its weights"
    } else if names.contains(&"n_averaged") {
        "it is an averaged model: save `model.module.state_dict()`, or ignore its counter: \
         {\"architecture\": {\"ignore\": [\"n_averaged\"]}}"
    } else {
        return beside_the_network(&names);
    };
    Some(remedy.to_owned())
}

/// Modules that are saved along with a network.
fn beside_the_network(names: &[&str]) -> Option<String> {
    const BESIDE: [&str; 6] = ["criterion", "loss", "loss_fn", "ema", "model_ema", "ema_model"];
    let first = |name: &&str| name.split('.').next().unwrap_or_default().to_owned();
    let firsts: BTreeSet<String> = names.iter().map(first).collect();
    let beside = BESIDE.iter().find(|name| firsts.contains(**name))?;
    (firsts.len() > 1).then(|| {
        format!(
            "`{beside}` looks like no part of the network: leave it out with {{\"architecture\": {{\"ignore\": [\"{beside}.*\"]}}}}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_training_leaves_behind_has_a_remedy() {
        for (name, said) in [
            ("fc1.weight_g", "remove_weight_norm"),
            ("fc1.weight_orig", "remove_spectral_norm"),
            ("fc1.weight_mask", "prune.remove"),
            ("fc1.parametrizations.weight.original1", ""),
            ("fc1.parametrizations.weight.original0", "remove_parametrizations"),
            ("fc1.zero_point", "quantised"),
            ("n_averaged", "n_averaged"),
            ("criterion.weight", "criterion.*"),
        ] {
            let found = remedy(["fc1.bias", name].into_iter());
            assert_eq!(found.as_ref().is_some_and(|text| text.contains(said)), !said.is_empty(), "{name}: {found:?}");
        }
        assert_eq!(remedy(["criterion.weight"].into_iter()), None, "the whole network is called so");
    }
}
