//! The reference implementation's fusions, tensor by tensor: same units in the same order, same values.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::shared_data::shared;
use engraft::fusion::reference::verify;
use engraft::fusion::{self, Ensemble, Fused, Member, align};
use engraft::model::families::{self, Detected};
use engraft::model::graph::{Graph, Shape};
use engraft::model::groups::{Couplings, GroupId};
use engraft::settings::{Architecture, OutputAlignment};
use engraft::tensors::{Checkpoint, StateDict, Weights};

/// Largest difference of two corresponding weights.
const TOLERANCE: f32 = 1e-6;

/// A case's folder; says so when it is absent.
fn folder(case: &str) -> Option<PathBuf> {
    shared(&format!("golden {case}"), &format!("golden/{case}"))
}

fn open(folder: &Path, name: &str) -> Checkpoint {
    Checkpoint::open(&folder.join(format!("{name}.safetensors"))).unwrap()
}

/// One golden case, its members recognised.
struct Case {
    folder: PathBuf,
    members: Vec<Checkpoint>,
    detected: Detected,
}

impl Case {
    fn open(name: &str) -> Option<Self> {
        let folder = folder(name)?;
        let count: usize = name.rsplit_once("_x").unwrap().1.parse().unwrap();
        let members: Vec<Checkpoint> = (0..count).map(|index| open(&folder, &format!("member{index}"))).collect();
        let input: Shape = open(&folder, "io").header().get("input").unwrap().shape[1..].to_vec();
        let headers: Vec<_> = members.iter().map(Checkpoint::header).collect();
        let detected = families::detect(&headers, &Architecture::default(), Some(&input)).unwrap();
        Some(Self { folder, members, detected })
    }

    fn members(&self) -> Vec<Member<'_>> {
        let pairs = self.detected.graphs.iter().zip(&self.members);
        pairs.map(|(graph, weights)| Member { graph, weights }).collect()
    }

    fn ensemble(&self) -> Ensemble<'_> {
        Ensemble::new(self.members()).unwrap()
    }

    /// Total width divided by the number of members, rounded down.
    fn targets(&self) -> Vec<usize> {
        let ensemble = self.ensemble();
        let widths = (0..ensemble.groups()).map(|group| ensemble.widths(GroupId(group)));
        widths.map(|widths| widths.iter().sum::<usize>() / widths.len()).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.folder.join(format!("{name}.safetensors")).exists()
    }

    /// Compares every tensor with the golden file `name`, and the logits with the golden logits.
    fn check(&self, name: &str, fused: &Fused) {
        self.check_within(TOLERANCE, name, fused);
    }

    fn check_within(&self, tolerance: f32, name: &str, fused: &Fused) {
        let golden = open(&self.folder, name);
        let names: Vec<&str> = golden.header().tensors.iter().map(|info| info.name.as_str()).collect();
        assert_eq!(fused.weights.names(), names, "{name}: names");
        for info in &golden.header().tensors {
            assert_eq!(fused.weights[&info.name].dims(), info.shape, "{name}: shape of {}", info.name);
            if info.dtype.is_float() {
                let (expected, got) = (golden.f32(&info.name).unwrap(), fused.weights.f32(&info.name).unwrap());
                close(&expected, &got, tolerance, &format!("{}: {name}: {}", self.folder.display(), info.name));
            } else {
                assert_eq!(golden.counter(&info.name), fused.weights.counter(&info.name), "{name}: {}", info.name);
            }
        }
        self.check_logits(name, &fused.graph, &fused.weights);
    }

    fn check_logits(&self, name: &str, graph: &Graph, weights: &dyn Weights) {
        let io = open(&self.folder, "io");
        let input = io.f32("input").unwrap();
        let batch = io.header().get("input").unwrap().shape[0];
        let expected = io.f32(&format!("logits.{name}")).unwrap();
        let got = verify::reference(Member { graph, weights }, &input, batch).unwrap();
        close(&expected, &got, 2e-5, &format!("{}: logits of {name}", self.folder.display()));
    }

    /// The virtual concatenation and the mean of the members are the golden concatenation's logits.
    fn check_virtual_concatenation(&self) {
        let io = open(&self.folder, "io");
        let input = io.f32("input").unwrap();
        let batch = io.header().get("input").unwrap().shape[0];
        let expected = io.f32("logits.concat").unwrap();
        let ensemble = self.ensemble();
        let stacked = verify::concatenation(&ensemble, &input, batch).unwrap();
        close(&expected, &stacked, 2e-5, "virtual concatenation");
        let mean = verify::mean_of_members(&ensemble, &input, batch).unwrap();
        assert!(verify::Agreement::of(&mean, &stacked).holds());
    }
}

/// Compares element by element, relative to 1 or the expected amount.
fn close(expected: &[f32], got: &[f32], tolerance: f32, what: &str) {
    assert_eq!(expected.len(), got.len(), "{what}: length");
    for (index, (e, g)) in expected.iter().zip(got).enumerate() {
        assert!((e - g).abs() <= tolerance * e.abs().max(1.0), "{what}: element {index}: expected {e}, got {g}");
    }
}

fn check_case(name: &str) {
    let Some(case) = Case::open(name) else { return };
    for index in 0..case.members.len() {
        case.check_logits(&format!("member{index}"), &case.detected.graphs[index], &case.members[index]);
    }
    case.check("concat", &fusion::materialise(&case.ensemble()).unwrap());
    case.check_virtual_concatenation();
    let targets = case.targets();
    case.check("nt", &fusion::joint(&case.members(), &targets).unwrap());
    if case.has("average") {
        case.check("average", &fusion::average(&case.ensemble()).unwrap().build().unwrap());
    }
    if case.has("nt_iterative") {
        case.check("nt_iterative", &fusion::iterative(&case.members(), &targets).unwrap());
    }
    if case.has("nt_hierarchical") {
        case.check("nt_hierarchical", &fusion::hierarchical(&case.members(), &targets).unwrap());
    }
}

const MLPS: [&str; 6] = ["mlp_x2", "mlp_x3", "mlp_x4", "mlp_x5", "mlp_bias_x2", "mlp_bias_x3"];
const OF_DIFFERENT_WIDTHS: [&str; 2] = ["mlp_hetero_x2", "mlp_hetero_x3"];
const LENETS: [&str; 3] = ["lenet_cifar_x2", "lenet_cifar_x3", "lenet_mnist_x2"];
const VGGS: [&str; 3] = ["vgg_nobn_x2", "vgg_nobn_x4", "vgg_bn_x2"];
const RESNETS: [&str; 2] = ["resnet_cifar_x2", "resnet_cifar_x3"];

/// The cases with a result of optimal transport.
const TRANSPORTED: [&str; 8] =
    ["mlp_x2", "mlp_x3", "mlp_x4", "mlp_x5", "lenet_cifar_x2", "lenet_cifar_x3", "vgg_nobn_x2", "vgg_nobn_x4"];

/// The mean of the members after each was carried over to the first.
fn optimal_transport(case: &Case) -> Fused {
    let ensemble = case.ensemble();
    let permuted = align::permuted(&ensemble, align::transport(&ensemble, OutputAlignment::Transported).unwrap());
    let pairs = case.detected.graphs.iter().zip(&permuted);
    let aligned = Ensemble::new(pairs.map(|(graph, weights)| Member { graph, weights }).collect()).unwrap();
    fusion::average(&aligned).unwrap().build().unwrap()
}

#[test]
fn members_are_transported_as_the_reference_does() {
    for name in TRANSPORTED {
        let Some(case) = Case::open(name) else { continue };
        // The reference scales what it transports by 1 + 1e-7 per unit.
        case.check_within(1e-4, "ot", &optimal_transport(&case));
    }
}

#[test]
fn mlps_are_fused_as_the_reference_does() {
    MLPS.into_iter().for_each(check_case);
}

#[test]
fn members_of_different_widths_are_fused_as_the_reference_does() {
    OF_DIFFERENT_WIDTHS.into_iter().for_each(check_case);
}

#[test]
fn lenets_are_fused_as_the_reference_does() {
    LENETS.into_iter().for_each(check_case);
}

#[test]
fn vggs_are_fused_as_the_reference_does() {
    VGGS.into_iter().for_each(check_case);
}

#[test]
fn residual_networks_are_fused_as_the_reference_does() {
    RESNETS.into_iter().for_each(check_case);
}

/// Every file of every case is read by a test, but for the record of the reference's rounding.
#[test]
fn every_golden_file_is_checked() {
    let Some(root) = shared("golden cases", "golden") else { return };
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.to_string_lossy().into_owned()).collect()
    };
    let documents = BTreeSet::from(["README.md".to_owned(), "index.json".to_owned()]);
    let cases: BTreeSet<String> = names(&root).difference(&documents).cloned().collect();
    let lists = [&MLPS[..], &OF_DIFFERENT_WIDTHS, &LENETS, &VGGS, &RESNETS].concat();
    assert_eq!(lists.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), cases);
    let read = ["io", "concat", "nt", "average", "nt_iterative", "nt_hierarchical", "ot", "nt_reference_rounding"];
    for case in &cases {
        for file in names(&root.join(case)) {
            let name = file.strip_suffix(".safetensors").unwrap();
            let member = name.strip_prefix("member").is_some_and(|index| index.parse::<usize>().is_ok());
            assert!(member || read.contains(&name), "{case}: {file}");
            assert!(name != "ot" || TRANSPORTED.contains(&case.as_str()), "{case}: {file}");
        }
    }
}

/// Fuses two trained members and checks that the result has their names and shapes.
fn fuse_trained(ensemble: &str, input: &[usize]) {
    let Some(folder) = shared(&format!("members {ensemble}"), &format!("members/{ensemble}")) else { return };
    let members = [open(&folder, "m0"), open(&folder, "m1")];
    for member in &members {
        member.check_finite().unwrap();
    }
    let headers: Vec<_> = members.iter().map(Checkpoint::header).collect();
    let detected = families::detect(&headers, &Architecture::default(), Some(&input.to_vec())).unwrap();
    let list: Vec<Member<'_>> =
        detected.graphs.iter().zip(&members).map(|(graph, weights)| Member { graph, weights }).collect();
    let widths = Couplings::of(&detected.graphs[0]).unwrap().groups.iter().map(|group| group.width).collect::<Vec<_>>();
    let fused = fusion::joint(&list, &widths).unwrap();
    assert_eq!(fused.graph, detected.graphs[0]);
    let own = StateDict::from_checkpoint(&members[0]).unwrap();
    let shapes = |weights: &StateDict| weights.iter().map(|(n, t)| (n.clone(), t.dims().to_vec())).collect::<Vec<_>>();
    assert_eq!(shapes(&fused.weights), shapes(&own));
    for origin in &fused.provenance.groups {
        assert!(origin.units.iter().any(|unit| unit.0 == 0) && origin.units.iter().any(|unit| unit.0 == 1));
    }
}

#[test]
fn trained_members_load_and_fuse() {
    fuse_trained("mnist-mlp", &[1, 28, 28]);
    fuse_trained("cifar-mlp", &[3, 32, 32]);
    fuse_trained("cifar-lenet", &[3, 32, 32]);
    fuse_trained("cifar-resnet16", &[3, 32, 32]);
}
