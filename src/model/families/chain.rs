//! Layers one after another: every order in which shapes fit and that their names allow. The order in which a file lists
//! them means nothing. Names put in order what they number (`fc1`, `fc2`; `block1.conv`, `block2.norm`), what they call the
//! first or the last, and a normalisation that has a layer's number.

use crate::model::families::modules::{Module, ModuleKind};
use crate::model::families::residual;
use crate::settings::NormPlace;

/// Most modules of a chain.
const MAX_MODULES: usize = 256;
/// Most steps of the search.
const MAX_STEPS: usize = 1_000_000;
/// Most orders that are candidates.
const MAX_ORDERS: usize = 24;

/// What people call the first layer.
const FIRST: [&str; 10] =
    ["input", "in", "inp", "first", "stem", "embed", "encoder", "features", "feature", "backbone"];
/// What they call the last.
const LAST: [&str; 10] = ["output", "out", "last", "final", "head", "classifier", "cls", "logits", "decoder", "top"];

/// A dense module with the normalisation behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) module: &'a Module,
    pub(super) norm: Option<&'a Module>,
}

/// Whether and how values run between two modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Start,
    Channels { width: usize, normalised: bool },
    Features { width: usize, normalised: bool },
}

impl Flow {
    /// The values behind `module`, if it can come next.
    fn through(self, module: &Module) -> Option<Self> {
        match (self, module.kind) {
            (Self::Start, ModuleKind::Conv { output, .. }) => Some(Self::Channels { width: output, normalised: false }),
            (Self::Start, ModuleKind::Linear { output, .. }) => {
                Some(Self::Features { width: output, normalised: false })
            }
            (Self::Channels { width, .. }, ModuleKind::Conv { input, output, .. }) if input == width => {
                Some(Self::Channels { width: output, normalised: false })
            }
            (Self::Channels { width, normalised: false }, ModuleKind::Norm { features }) if features == width => {
                Some(Self::Channels { width, normalised: true })
            }
            (Self::Channels { width, .. }, ModuleKind::Linear { input, output }) if input % width == 0 => {
                Some(Self::Features { width: output, normalised: false })
            }
            (Self::Features { width, .. }, ModuleKind::Linear { input, output }) if input == width => {
                Some(Self::Features { width: output, normalised: false })
            }
            (
                Self::Features { width, normalised: false },
                ModuleKind::Norm { features } | ModuleKind::LayerNorm { features },
            ) if features == width => Some(Self::Features { width, normalised: true }),
            _ => None,
        }
    }
}

/// Every order of `modules` (given in natural order) in which each reads what the one before it writes and that their names
/// allow; the order of `given` alone, where that is one.
pub(super) fn orders<'a>(modules: &'a [Module], given: Option<&[String]>) -> Result<Vec<Vec<Layer<'a>>>, String> {
    if modules.len() > MAX_MODULES {
        return Err(format!("a chain may have at most {MAX_MODULES} modules, this checkpoint has {}", modules.len()));
    }
    let names = modules.iter().map(|module| module.name.as_str());
    if let Some(name) = residual::first(names).filter(|_| given.is_none()) {
        return Err(format!("`{name}` tells of a block whose input is added to its output, which is no chain"));
    }
    let search = |before: Vec<Vec<usize>>| {
        let (partners, used) = (partners(modules), vec![false; modules.len()]);
        let mut search = Search { modules, before, partners, used, order: Vec::new(), found: Vec::new(), steps: 0 };
        search.extend(Flow::Start);
        search
    };
    let named = |words: bool| (0..modules.len()).map(|index| before(modules, index, words)).collect();
    let search = if let Some(order) = given {
        search(as_given(modules, order)?)
    } else {
        let by_words = search(named(true));
        // Words that the shapes contradict mean something else.
        if by_words.found.is_empty() && by_words.steps <= MAX_STEPS { search(named(false)) } else { by_words }
    };
    if search.found.len() > MAX_ORDERS || search.steps > MAX_STEPS {
        let detail = "the modules can stand in too many orders: give the names in order, as in \
                      `{\"architecture\": {\"order\": [\"fc1\", …]}}`";
        return Err(detail.to_owned());
    }
    if search.found.is_empty() {
        return Err("no order of the modules lets each read what the one before it writes".to_owned());
    }
    let list = |order: &Vec<usize>| layers(&order.iter().map(|&index| &modules[index]).collect::<Vec<_>>());
    Ok(search.found.iter().map(list).collect())
}

/// For each module those that come before it in the given order, which must name every layer; normalisations may be left out.
fn as_given(modules: &[Module], order: &[String]) -> Result<Vec<Vec<usize>>, String> {
    let place = |module: &Module| order.iter().position(|name| *name == module.name);
    if let Some(unknown) = order.iter().find(|name| !modules.iter().any(|module| module.name == **name)) {
        return Err(format!("`order` names `{unknown}`, which is no module of the checkpoint"));
    }
    if let Some(absent) = modules.iter().find(|module| !module.is_norm() && place(module).is_none()) {
        return Err(format!("`order` must name every layer; `{}` is not in it", absent.name));
    }
    let earlier = |index: usize| {
        let own = place(&modules[index]);
        let others = (0..modules.len()).filter(|&other| match (own, place(&modules[other])) {
            (Some(own), Some(other)) => other < own,
            _ => other != index && precedes(&modules[other].name, &modules[index].name, false),
        });
        others.collect()
    };
    Ok((0..modules.len()).map(earlier).collect())
}

/// The modules that names put before the one at `index`, by their numbers and, if `words`, by words.
fn before(modules: &[Module], index: usize, words: bool) -> Vec<usize> {
    (0..modules.len()).filter(|&other| precedes(&modules[other].name, &modules[index].name, words)).collect()
}

/// Whether names put `a` before `b`: in the first part in which they differ by a number, or by a word for the first or the
/// last layer.
fn precedes(a: &str, b: &str, words: bool) -> bool {
    let Some((a, b)) = a.split('.').zip(b.split('.')).find(|(a, b)| a != b) else { return false };
    let (a, b) = (numbered(a), numbered(b));
    let (rank_a, rank_b) = (rank(a.0), rank(b.0));
    match (a, b) {
        ((stem_a, Some(a)), (stem_b, Some(b))) if stem_a == stem_b => a < b,
        _ => words && rank_a < rank_b,
    }
}

/// A part of a name without its number, and that number: `fc2`, `conv2d_3`, `7`.
fn numbered(part: &str) -> (&str, Option<u64>) {
    let stem = part.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, part[stem.len()..].parse().ok())
}

/// -1 for a word for the first layer, 1 for one for the last, 0 for every other.
fn rank(stem: &str) -> i8 {
    let words = stem.to_lowercase();
    let mut words = words.split('_');
    let has = |list: &[&str], words: &mut std::str::Split<'_, char>| words.any(|word| list.contains(&word));
    if has(&LAST, &mut words.clone()) {
        1
    } else if has(&FIRST, &mut words) {
        -1
    } else {
        0
    }
}

/// For each normalisation the one layer of its width that has its number and its place in the tree of names, if there is one.
fn partners(modules: &[Module]) -> Vec<Option<usize>> {
    let partner = |norm: &Module| {
        let Module { kind: ModuleKind::Norm { features } | ModuleKind::LayerNorm { features }, .. } = norm else {
            return None;
        };
        let (parent, part) = norm.name.rsplit_once('.').unwrap_or(("", &norm.name));
        let (stem, number) = numbered(part);
        let number = number.filter(|_| !stem.is_empty())?;
        let is_partner = |module: &Module| {
            let (other_parent, part) = module.name.rsplit_once('.').unwrap_or(("", &module.name));
            let width = match module.kind {
                ModuleKind::Linear { output, .. } | ModuleKind::Conv { output, .. } => output,
                ModuleKind::Norm { .. } | ModuleKind::LayerNorm { .. } => return false,
            };
            other_parent == parent && numbered(part).1 == Some(number) && width == *features
        };
        let mut matches = modules.iter().enumerate().filter(|(_, module)| is_partner(module));
        match (matches.next(), matches.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        }
    };
    modules.iter().map(partner).collect()
}

/// Depth-first search, natural order first.
struct Search<'a> {
    modules: &'a [Module],
    before: Vec<Vec<usize>>,
    partners: Vec<Option<usize>>,
    used: Vec<bool>,
    order: Vec<usize>,
    found: Vec<Vec<usize>>,
    steps: usize,
}

impl Search<'_> {
    fn extend(&mut self, flow: Flow) {
        if self.order.len() == self.modules.len() {
            if matches!(flow, Flow::Features { normalised: false, .. }) {
                self.found.push(self.order.clone());
            }
            return;
        }
        if self.cannot_finish(flow) {
            return;
        }
        for index in 0..self.modules.len() {
            self.steps += 1;
            if self.steps > MAX_STEPS || self.found.len() > MAX_ORDERS {
                return;
            }
            if self.used[index] || !self.may_come(index) {
                continue;
            }
            let Some(next) = flow.through(&self.modules[index]) else { continue };
            self.used[index] = true;
            self.order.push(index);
            self.extend(next);
            self.order.pop();
            self.used[index] = false;
        }
    }

    /// Whether names allow the module at `index` to come next.
    fn may_come(&self, index: usize) -> bool {
        let last = self.order.last();
        self.before[index].iter().all(|&other| self.used[other])
            && self.partners[index].is_none_or(|partner| last == Some(&partner))
    }

    /// Behind a matrix there is no way back to images.
    fn cannot_finish(&self, flow: Flow) -> bool {
        matches!(flow, Flow::Features { .. })
            && self
                .modules
                .iter()
                .zip(&self.used)
                .any(|(module, used)| !used && matches!(module.kind, ModuleKind::Conv { .. }))
    }
}

/// Room for modules without weights around a layer; `None` where names do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Between the layer and its normalisation; 0 where it has none.
    pub(super) before_norm: Option<usize>,
    /// Between what comes last of the two and the next layer.
    pub(super) behind: Option<usize>,
}

impl Room {
    /// Around `layer`, with `next` behind it.
    pub(super) fn between(layer: &Layer<'_>, next: &Layer<'_>) -> Self {
        Self {
            before_norm: layer.norm.map_or(Some(0), |norm| gap(layer.module, norm)),
            behind: gap(layer.norm.unwrap_or(layer.module), next.module),
        }
    }

    /// Places for modules without weights; `None` where names do not tell.
    pub(super) fn places(self) -> Option<usize> {
        Some(self.before_norm? + self.behind?)
    }

    /// Where the activation of a layer stands that has a normalisation, if names leave only one place; with `usual` where they
    /// leave two; none where they leave none.
    pub(super) fn activation(self, usual: NormPlace) -> Option<NormPlace> {
        let has = |room: Option<usize>| room.is_none_or(|places| places > 0);
        match (has(self.before_norm), has(self.behind)) {
            (true, true) => Some(usual),
            (true, false) => Some(NormPlace::AfterActivation),
            (false, true) => Some(NormPlace::BeforeActivation),
            (false, false) => None,
        }
    }
}

/// How many modules without weights stand between two modules of one sequence.
fn gap(a: &Module, b: &Module) -> Option<usize> {
    let ((parent, place), (next_parent, next)) = (a.sequence()?, b.sequence()?);
    if parent == next_parent { next.checked_sub(place)?.checked_sub(1) } else { None }
}

/// Where activations may stand beside normalisations, the usual place first: both, unless the names of all layers leave one.
pub(super) fn norm_places(layers: &[Layer<'_>]) -> Vec<NormPlace> {
    let usual = [NormPlace::BeforeActivation, NormPlace::AfterActivation];
    let rooms = layers.windows(2).filter(|pair| pair[0].norm.is_some()).map(|pair| Room::between(&pair[0], &pair[1]));
    let rooms: Vec<Room> = rooms.collect();
    if rooms.is_empty() {
        return Vec::new();
    }
    let possible = usual.into_iter().filter(|place| rooms.iter().any(|room| room.activation(*place) == Some(*place)));
    let possible: Vec<NormPlace> = possible.collect();
    if possible.is_empty() { vec![NormPlace::BeforeActivation] } else { possible }
}

/// Joins each dense module with the normalisation behind it.
fn layers<'a>(ordered: &[&'a Module]) -> Vec<Layer<'a>> {
    let mut layers: Vec<Layer<'a>> = Vec::new();
    for module in ordered {
        match (module.kind, layers.last_mut()) {
            (ModuleKind::Norm { .. } | ModuleKind::LayerNorm { .. }, Some(layer)) => layer.norm = Some(module),
            _ => layers.push(Layer { module, norm: None }),
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(name: &str, input: usize, output: usize) -> Module {
        Module { name: name.to_owned(), kind: ModuleKind::Linear { input, output }, bias: false }
    }

    fn conv(name: &str, input: usize, output: usize) -> Module {
        Module { name: name.to_owned(), kind: ModuleKind::Conv { input, output, kernel: [3, 3] }, bias: false }
    }

    fn norm(name: &str, features: usize) -> Module {
        Module { name: name.to_owned(), kind: ModuleKind::Norm { features }, bias: true }
    }

    fn names(modules: &[Module]) -> Vec<String> {
        let mut orders = orders(modules, None).unwrap();
        assert_eq!(orders.len(), 1);
        let layers = orders.remove(0);
        let name = |layer: &Layer<'_>| {
            let norm = layer.norm.map_or(String::new(), |norm| format!("+{}", norm.name));
            format!("{}{norm}", layer.module.name)
        };
        layers.iter().map(name).collect()
    }

    #[test]
    fn blocks_that_are_called_residual_are_no_chain_unless_their_order_is_given() {
        let modules =
            [conv("conv1.0", 3, 8), conv("res1.0.0", 8, 8), conv("res1.1.0", 8, 8), linear("classifier.3", 8, 4)];
        assert!(orders(&modules, None).unwrap_err().contains("`res1.0.0` tells of a block"));
        let given = modules.each_ref().map(|module| module.name.clone());
        assert_eq!(orders(&modules, Some(&given)).unwrap().len(), 1);
    }

    #[test]
    fn shapes_overrule_names() {
        assert_eq!(names(&[linear("a", 8, 4), linear("b", 16, 8)]), ["b", "a"]);
        assert_eq!(names(&[linear("classifier.1", 16, 4), conv("feature.0", 3, 4)]), ["feature.0", "classifier.1"]);
    }

    #[test]
    fn names_decide_among_equal_shapes() {
        let modules = [linear("fc1", 9, 8), linear("fc2", 8, 8), linear("fc3", 8, 8), linear("fc10", 8, 3)];
        assert_eq!(names(&modules), ["fc1", "fc2", "fc3", "fc10"]);
    }

    #[test]
    fn a_normalisation_follows_its_layer() {
        let modules = [norm("bn1", 4), norm("bn2", 4), conv("conv1", 3, 4), conv("conv2", 4, 4), linear("fc", 16, 2)];
        assert_eq!(names(&modules), ["conv1+bn1", "conv2+bn2", "fc"]);
    }

    #[test]
    fn modules_that_do_not_chain_are_refused() {
        assert!(orders(&[linear("a", 8, 4), linear("b", 5, 7)], None).is_err());
        assert!(orders(&[norm("bn", 4)], None).is_err());
        assert!(orders(&[], None).is_err());
        let many: Vec<Module> = (0..200).map(|index| linear(&format!("l{index}"), 7, 7 + index % 2)).collect();
        assert!(orders(&many, None).is_err());
    }
}
