//! Whole networks and trainings on the emulated device.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::Value;

use super::*;
use crate::domain::epoch_choice::EpochChoice;
use crate::kernels::truth::Truth;
use crate::model::families;
use crate::settings::{Architecture, Augment, Finetune, Objective};
use crate::tensors::Checkpoint;
use crate::train::{Examples, Setup, TrainError, Trained, TrainingEvent, train};

#[path = "../../../../tests/training/formulas.rs"]
mod formulas;

/// A network of `pytorch.json` with the weights of the formulas.
fn stored_network(case: &Value) -> GpuNetwork<Emulated> {
    let list = |value: &Value| -> Vec<usize> { serde_json::from_value(value.clone()).unwrap() };
    let mut weights = StateDict::default();
    for tensor in case["tensors"].as_array().unwrap() {
        let (name, shape) = (tensor[0].as_str().unwrap(), list(&tensor[1]));
        weights.insert_f32(name, &shape, formulas::weight(name, &shape, tensor[2].as_u64().unwrap())).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    weights.save(&path, &BTreeMap::new()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let input = Some(list(&case["shape"]));
    let detected = families::detect(&[checkpoint.header()], &Architecture::default(), input.as_ref()).unwrap();
    compiled(&detected.graphs[0], &checkpoint, case["batch"].as_u64().unwrap() as usize, Storage::F32)
}

fn stored_case(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/training/pytorch.json")).unwrap();
    all[name].clone()
}

#[test]
fn gradients_of_whole_networks_are_pytorchs() {
    for name in ["mlp", "lenet", "resnet8"] {
        let case = stored_case(name);
        let mut network = stored_network(&case);
        let (images, labels) = formulas::batch(network.example_len(), 0, network.max_batch());
        let gradients = network.gradients(Inputs::Images(&images), Targets::of(&labels), DRAW).unwrap();
        let loss = gradients.step.loss;
        assert!((loss / case["losses"][0].as_f64().unwrap() - 1.0).abs() < 1e-5, "{name}: loss {loss}");
        let names: Vec<String> = network.learned().iter().map(|(name, _)| (*name).to_owned()).collect();
        let all = names.iter().map(|name| case["gradients"][name]["norm"].as_f64().unwrap());
        let floor = 1e-5 * all.map(|norm| norm * norm).sum::<f64>().sqrt();
        for (parameter, gradient) in names.iter().zip(&gradients.tensors) {
            let expected = &case["gradients"][parameter];
            let norm = expected["norm"].as_f64().unwrap();
            let got = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!((got - norm).abs() < 2e-4 * norm + floor, "{name} {parameter}: norm {got} for {norm}");
            let every = expected["every"].as_u64().unwrap() as usize;
            let typical = norm / (gradient.len() as f64).sqrt();
            for (got, expected) in gradient.iter().step_by(every).zip(expected["values"].as_array().unwrap()) {
                let (got, expected) = (f64::from(*got), expected.as_f64().unwrap());
                let tolerance = 1e-3 * expected.abs().max(typical) + floor;
                assert!((got - expected).abs() < tolerance, "{name} {parameter}: {got} for {expected}");
            }
        }
    }
}

#[test]
fn steps_lose_what_pytorch_loses() {
    let spared =
        Optimizer::AdamW { lr: 0.003, betas: [0.9, 0.95], eps: 1e-7, weight_decay: 0.1, decay_norms_and_biases: false };
    let plain =
        Optimizer::Sgd { lr: 0.01, momentum: 0.9, nesterov: false, weight_decay: 5e-4, decay_norms_and_biases: true };
    for (name, rule, clip_norm, smoothing, steps) in
        [("mlp_adamw", spared, Some(1.0), 0.1, 12), ("lenet", plain, None, 0.0, 12), ("resnet8", plain, None, 0.0, 4)]
    {
        let case = stored_case(name);
        let mut network = stored_network(&case);
        network.init_optimizer(&rule);
        for step in 0..steps {
            let (images, labels) = formulas::batch(network.example_len(), step, network.max_batch());
            let targets = Targets { smoothing, ..Targets::of(&labels) };
            network.step(Inputs::Images(&images), targets, Update { lr_scale: 1.0, clip_norm }, DRAW).unwrap();
        }
        let losses = network.take_steps(true).unwrap();
        assert_eq!(losses.len(), steps);
        for (step, (got, expected)) in losses.iter().zip(case["losses"].as_array().unwrap()).enumerate() {
            let (got, expected) = (got.loss, expected.as_f64().unwrap());
            assert!((got - expected).abs() < 1e-3, "{name}, step {step}: {got} for {expected}");
        }
    }
}

/// Images of bytes with a label each, which a device may hold.
#[derive(Debug)]
struct Bytes(Arc<Vec<u8>>);

impl Examples for Bytes {
    fn len(&self) -> usize {
        self.0.len() / 192
    }

    fn example_len(&self) -> usize {
        192
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        Some([3, 8, 8])
    }

    fn black(&self, channel: usize) -> f32 {
        super::seen(&super::stored(&self.0, 3), &[0], Some(&[[99, 99, 0]]))[channel * 64]
    }

    fn truth(&self, index: usize) -> Truth<'_> {
        Truth::Class(u32::from(self.0[index * 192]) % 7)
    }

    fn stored(&self) -> Option<StoredImages<'_>> {
        Some(super::stored(&self.0, 3))
    }

    fn fill(&self, indices: &[usize], images: &mut [f32]) {
        let indices: Vec<u32> = indices.iter().map(|index| *index as u32).collect();
        images.copy_from_slice(&super::seen(&super::stored(&self.0, 3), &indices, None));
    }
}

#[test]
fn a_training_goes_to_its_end_and_on_from_a_checkpoint() {
    static NEVER: AtomicBool = AtomicBool::new(false);
    let data = Bytes(Arc::new((0..15 * 192).map(|at| (at * at % 239) as u8).collect()));
    let finetune = Finetune {
        epochs: 3,
        batch_size: BATCH,
        objective: Objective::CrossEntropy,
        augment: Some(Augment { crop_padding: 1, flip: true }),
        ..Finetune::default()
    };
    let (graph, folder) = (small(), tempfile::tempdir().unwrap());
    let run = |network: &mut dyn Engine, folder: Option<&Path>, resume: Option<&Path>| -> Result<Trained, TrainError> {
        let setup = Setup {
            finetune: &finetune,
            seed: 5,
            train: &data,
            validation: Some(&data),
            choice: EpochChoice::Last,
            test: None,
            teacher: None,
            checkpoints: folder,
        };
        network.load(&init(&graph, 2).unwrap()).unwrap();
        train(network, &setup, resume, &NEVER, &mut |_: TrainingEvent| {})
    };
    let network = || compiled(&graph, &init(&graph, 2).unwrap(), BATCH, Storage::F32);
    let whole = run(&mut network(), Some(folder.path()), None).unwrap();
    assert_eq!(whole.history.len(), 4);
    let path = folder.path().join("epoch-00002.safetensors");
    let on = run(&mut network(), None, Some(&path)).unwrap();
    let bits = |trained: &Trained| -> Vec<u32> {
        let weights = trained.weights.keys().filter(|name| !name.ends_with("tracked"));
        weights
            .flat_map(|name| trained.weights.f32(name).unwrap().iter().map(|w| w.to_bits()).collect::<Vec<_>>())
            .collect()
    };
    assert_eq!(bits(&whole), bits(&on));
    // The processor computes other bits, so it does not go on from there.
    let mut cpu = CpuNetwork::<f32>::compile(&graph, BATCH, 1).unwrap();
    assert!(matches!(run(&mut cpu, None, Some(&path)), Err(TrainError::Checkpoint { .. })));
    let beside = run(&mut cpu, None, None).unwrap();
    for (own, expected) in whole.history.iter().zip(&beside.history) {
        let [own, expected] = [own, expected].map(|metrics| metrics.validation.unwrap().loss);
        assert!((own - expected).abs() < 1e-3 * expected, "{own} for {expected}");
    }
}
