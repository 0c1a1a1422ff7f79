//! Layers one after another: their order by the natural order of names and the chaining of shapes. The order in which a
//! file lists them means nothing.

use crate::model::families::modules::{Module, ModuleKind};

/// Most modules of a chain.
const MAX_MODULES: usize = 256;
/// Most steps of the search.
const MAX_STEPS: usize = 1_000_000;

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
            (Self::Features { width, normalised: false }, ModuleKind::Norm { features }) if features == width => {
                Some(Self::Features { width, normalised: true })
            }
            _ => None,
        }
    }
}

/// Orders `modules` (given in natural order): the first order, by names, in which every shape fits the one before it.
pub(super) fn order(modules: &[Module]) -> Result<Vec<Layer<'_>>, String> {
    if modules.len() > MAX_MODULES {
        return Err(format!("a chain may have at most {MAX_MODULES} modules, this checkpoint has {}", modules.len()));
    }
    let mut search = Search { modules, used: vec![false; modules.len()], order: Vec::new(), steps: 0 };
    if search.extend(Flow::Start) {
        Ok(layers(&search.order.iter().map(|&index| &modules[index]).collect::<Vec<_>>()))
    } else {
        Err("no order of the modules lets each read what the one before it writes".to_owned())
    }
}

/// Depth-first search, natural order first.
struct Search<'a> {
    modules: &'a [Module],
    used: Vec<bool>,
    order: Vec<usize>,
    steps: usize,
}

impl Search<'_> {
    fn extend(&mut self, flow: Flow) -> bool {
        if self.order.len() == self.modules.len() {
            return matches!(flow, Flow::Features { normalised: false, .. });
        }
        if self.cannot_finish(flow) {
            return false;
        }
        for index in 0..self.modules.len() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return false;
            }
            if self.used[index] {
                continue;
            }
            let Some(next) = flow.through(&self.modules[index]) else { continue };
            self.used[index] = true;
            self.order.push(index);
            if self.extend(next) {
                return true;
            }
            self.order.pop();
            self.used[index] = false;
        }
        false
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

/// Joins each dense module with the normalisation behind it.
fn layers<'a>(ordered: &[&'a Module]) -> Vec<Layer<'a>> {
    let mut layers: Vec<Layer<'a>> = Vec::new();
    for module in ordered {
        match (module.kind, layers.last_mut()) {
            (ModuleKind::Norm { .. }, Some(layer)) => layer.norm = Some(module),
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
        let layers = order(modules).unwrap();
        let name = |layer: &Layer<'_>| {
            let norm = layer.norm.map_or(String::new(), |norm| format!("+{}", norm.name));
            format!("{}{norm}", layer.module.name)
        };
        layers.iter().map(name).collect()
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
        assert!(order(&[linear("a", 8, 4), linear("b", 5, 7)]).is_err());
        assert!(order(&[norm("bn", 4)]).is_err());
        assert!(order(&[]).is_err());
        let many: Vec<Module> = (0..200).map(|index| linear(&format!("l{index}"), 7, 7 + index % 2)).collect();
        assert!(order(&many).is_err());
    }
}
