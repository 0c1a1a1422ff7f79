//! Which values the settings of a network may have: what names and shapes leave open, the most usual first.

use crate::model::families::Unfit;
use crate::settings::{Activation, Settings, Summary};

/// Up to as many combinations all are tried; where there are more, those that depart from what is usual in
/// [`DEPARTURES`] settings at most.
const ALL: usize = 192;
/// See [`ALL`].
const DEPARTURES: usize = 2;
/// Most combinations that are tried.
const MOST: usize = 640;

/// Most stages of a network whose strides are open.
const MOST_STAGES: usize = 64;

/// Checks that a network has no more stages than can be told strides for.
pub(super) fn check_stages(count: usize) -> Result<(), Unfit> {
    let detail = || format!("a network may have at most {MOST_STAGES} stages, this one has {count}");
    if count > MOST_STAGES { Err(Unfit::Unknown(detail())) } else { Ok(()) }
}

/// Settings that are open, each with its values.
#[derive(Debug, Clone)]
pub(super) struct Variants<'a> {
    given: &'a Settings,
    open: Vec<Vec<Settings>>,
}

impl<'a> Variants<'a> {
    /// Nothing is open so far; what is `given` has that value alone.
    pub(super) fn new(given: &'a Settings) -> Self {
        Self { given, open: Vec::new() }
    }

    /// With one more open setting, or several that belong together: their values, the most usual first.
    pub(super) fn with(mut self, values: impl IntoIterator<Item = Settings>) -> Self {
        let mut distinct: Vec<Settings> = Vec::new();
        for value in values {
            let value = value.overridden(self.given);
            if !distinct.contains(&value) {
                distinct.push(value);
            }
        }
        if !distinct.is_empty() {
            self.open.push(distinct);
        }
        self
    }

    /// The combinations, those that depart least from what is usual first.
    pub(super) fn combinations(&self) -> Vec<Settings> {
        let product = self.open.iter().map(Vec::len).try_fold(1_usize, usize::checked_mul);
        let departures = if product.is_some_and(|all| all <= ALL) { self.open.len() } else { DEPARTURES };
        let mut choices = vec![Vec::new()];
        for values in &self.open {
            let longer = |chosen: Vec<usize>| {
                let left = chosen.iter().filter(|value| **value > 0).count() < departures;
                let last = if left { values.len() } else { 1 };
                (0..last).map(move |value| [chosen.clone(), vec![value]].concat())
            };
            choices = choices.into_iter().flat_map(longer).collect();
        }
        choices.sort_by_key(|chosen: &Vec<usize>| {
            (chosen.iter().filter(|value| **value > 0).count(), chosen.iter().sum::<usize>())
        });
        choices.truncate(MOST);
        let merge = |chosen: &Vec<usize>| {
            let parts = self.open.iter().zip(chosen).map(|(values, value)| values[*value].clone());
            parts.fold(Settings::default(), Settings::or)
        };
        choices.iter().map(merge).collect()
    }
}

/// One value of the setting `activation` for each of these functions.
pub(super) fn activations(functions: &[Activation]) -> Vec<Settings> {
    functions.iter().map(|function| Settings { activation: Some(*function), ..Settings::default() }).collect()
}

/// One value of the setting `eps` for each of these numbers.
pub(super) fn epsilons(values: &[f64]) -> Vec<Settings> {
    values.iter().map(|eps| Settings { eps: Some(*eps), ..Settings::default() }).collect()
}

/// One value of the setting `summary` for each way.
pub(super) fn summaries() -> Vec<Settings> {
    [Summary::Mean, Summary::Max].map(|way| Settings { summary: Some(way), ..Settings::default() }).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eps(values: &[f64]) -> Vec<Settings> {
        values.iter().map(|eps| Settings { eps: Some(*eps), ..Settings::default() }).collect()
    }

    fn heads(values: std::ops::Range<usize>) -> Vec<Settings> {
        values.map(|heads| Settings { heads: Some(heads), ..Settings::default() }).collect()
    }

    #[test]
    fn the_usual_comes_first_and_what_is_given_is_all_there_is() {
        let none = Settings::default();
        let all = Variants::new(&none).with(eps(&[1e-5, 1e-3])).with(heads(1..4)).combinations();
        assert_eq!(all.len(), 6);
        assert_eq!((all[0].eps, all[0].heads), (Some(1e-5), Some(1)));
        assert_eq!((all[5].eps, all[5].heads), (Some(1e-3), Some(3)));
        let given = Settings { heads: Some(7), activation: Some(Activation::Relu), ..Settings::default() };
        let all = Variants::new(&given).with(eps(&[1e-5, 1e-3])).with(heads(1..4)).combinations();
        assert_eq!(all.iter().map(|settings| settings.heads).collect::<Vec<_>>(), [Some(7); 2]);
        assert!(all.iter().all(|settings| settings.activation.is_none()), "a setting that the family does not have");
    }

    #[test]
    fn too_many_are_cut_to_small_departures() {
        let none = Settings::default();
        let stride = |stride| Settings { stem_stride: Some(stride), ..Settings::default() };
        let variants = Variants::new(&none).with(eps(&[1.0, 2.0, 3.0])).with(heads(0..20)).with((0..20).map(stride));
        let all = variants.combinations();
        assert_eq!(all.len(), 1 + (2 + 19 + 19) + (2 * 19 + 2 * 19 + 19 * 19));
        assert!(all.iter().all(|settings| {
            [settings.eps == Some(1.0), settings.heads == Some(0), settings.stem_stride == Some(0)].contains(&true)
        }));
    }
}
