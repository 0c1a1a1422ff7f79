//! Training and evaluation against numbers computed elsewhere, and against themselves after an interruption.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::shared_data::shared;
use crate::formulas;
use engraft::data::augment::ImageShape;
use engraft::domain::epoch_choice::EpochChoice;
use engraft::domain::problem::{Code, Problem};
use engraft::exec::{CpuNetwork, EngineError, Inputs, OptimizerState, Update};
use engraft::kernels::loss::Targets;
use engraft::kernels::truth::Truth;
use engraft::model::families;
use engraft::model::graph::{Graph, Node, NodeId, Op, Window};
use engraft::settings::{Architecture, Augment, Finetune, Objective, Optimizer, Schedule, Teacher};
use engraft::tensors::{Checkpoint, StateDict, Weights};
use engraft::train::{
    Examples, Setup, Teach, TeacherLogits, TrainError, Trained, TrainingEvent, evaluate, init, latency, logits, score,
    train,
};

static NEVER: AtomicBool = AtomicBool::new(false);
static GO: &AtomicBool = &NEVER;

/// Examples in memory.
#[derive(Debug, Clone)]
struct Data {
    images: Vec<f32>,
    labels: Vec<u32>,
}

impl Examples for Data {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn example_len(&self) -> usize {
        self.images.len() / self.labels.len().max(1)
    }

    fn image_shape(&self) -> Option<ImageShape> {
        Some([1, 6, 6])
    }

    fn black(&self, _: usize) -> f32 {
        -0.5
    }

    fn truth(&self, index: usize) -> Truth<'_> {
        Truth::Class(self.labels[index])
    }

    fn fill(&self, indices: &[usize], images: &mut [f32]) {
        let len = self.example_len();
        for (image, index) in images.chunks_exact_mut(len).zip(indices) {
            image.copy_from_slice(&self.images[index * len..][..len]);
        }
    }
}

impl Data {
    /// Stripes of four kinds, 1 x 6 x 6, with reproducible noise.
    fn stripes(count: usize, salt: usize) -> Self {
        let noise = |i: usize| ((i * 2_654_435_761 + salt * 40_503) % 1009) as f32 / 1009.0 - 0.5;
        let labels: Vec<u32> = (0..count as u32).map(|i| i % 4).collect();
        let pixel = |i: usize| {
            let (label, y, x) = (labels[i / 36], i % 36 / 6, i % 6);
            let stripe = [y % 2, x % 2, (x + y) % 2, y / 3 % 2][label as usize];
            stripe as f32 + 1.5 * noise(i)
        };
        Self { images: (0..count * 36).map(pixel).collect(), labels }
    }
}

/// A chain of nodes, each reading the one before it.
fn chain(nodes: Vec<(&str, Op)>) -> Graph {
    let nodes = nodes.into_iter().enumerate().map(|(index, (name, op))| Node {
        name: name.to_owned(),
        op,
        inputs: index.checked_sub(1).map(NodeId).into_iter().collect(),
    });
    Graph::new(nodes.collect()).unwrap()
}

fn linear(in_features: usize, out_features: usize) -> Op {
    Op::Linear { in_features, out_features, bias: true }
}

fn convnet() -> Graph {
    chain(vec![
        ("input", Op::Input { shape: vec![1, 6, 6] }),
        ("conv", Op::conv2d(1, 4, Window::square(3, 1, 1), false)),
        ("bn", Op::BatchNorm { affine: true, features: 4, eps: 1e-5 }),
        ("relu", Op::Relu),
        ("pool", Op::max_pool2d(Window::square(2, 2, 0))),
        ("flatten", Op::Flatten),
        ("fc", linear(36, 4)),
    ])
}

/// The same with values that drop out.
fn with_dropout() -> Graph {
    let mut nodes = convnet().nodes().to_vec();
    let head = nodes.pop().unwrap();
    nodes.push(Node { name: "dropout".to_owned(), op: Op::Dropout { p: 0.2 }, inputs: head.inputs });
    nodes.push(Node { inputs: vec![NodeId(nodes.len() - 1)], ..head });
    Graph::new(nodes).unwrap()
}

fn sgd(lr: f32, nesterov: bool, weight_decay: f32) -> Optimizer {
    Optimizer::Sgd { lr, momentum: 0.9, nesterov, weight_decay, decay_norms_and_biases: true }
}

fn finetune(epochs: usize, lr: f32) -> Finetune {
    let (objective, optimizer) = (Objective::CrossEntropy, sgd(lr, false, 1e-4));
    Finetune { epochs, objective, optimizer, batch_size: 16, ..Finetune::default() }
}

fn network(graph: &Graph) -> CpuNetwork {
    let mut network = CpuNetwork::compile(graph, 64, 2).unwrap();
    network.load(&init(graph, 11).unwrap()).unwrap();
    network
}

fn setup<'a>(finetune: &'a Finetune, data: &'a [Data; 2], folder: Option<&'a Path>) -> Setup<'a> {
    let [train, validation] = data;
    Setup {
        finetune,
        seed: 5,
        train,
        validation: Some(validation),
        choice: EpochChoice::Best,
        test: None,
        teacher: None,
        checkpoints: folder,
    }
}

fn data() -> [Data; 2] {
    [Data::stripes(200, 1), Data::stripes(80, 2)]
}

/// Every tensor as bits.
fn bits(weights: &StateDict) -> BTreeMap<String, Vec<u32>> {
    let float = |name: &&str| weights[*name].dtype().is_float();
    let values = |name: &str| weights.f32(name).unwrap().iter().map(|value| value.to_bits()).collect();
    let mut all: BTreeMap<String, Vec<u32>> =
        weights.names().into_iter().filter(float).map(|name| (name.to_owned(), values(name))).collect();
    for name in weights.names().into_iter().filter(|name| !float(name)) {
        all.insert(name.to_owned(), vec![weights.counter(name).unwrap() as u32]);
    }
    all
}

/// The numbers of a history that do not depend on the machine's speed.
fn scores(trained: &Trained) -> Vec<[Option<u64>; 5]> {
    let of = |value: Option<f64>| value.map(f64::to_bits);
    let row = trained.history.iter().map(|epoch| {
        let validation = epoch.validation;
        [
            of(epoch.train_loss),
            of(epoch.train_accuracy),
            of(epoch.lr),
            of(validation.map(|v| v.loss)),
            of(validation.map(|v| v.accuracy().unwrap())),
        ]
    });
    row.collect()
}

#[test]
fn a_small_network_learns_and_the_best_epoch_is_kept() {
    let (graph, data, finetune) = (convnet(), data(), finetune(8, 0.05));
    let mut network = network(&graph);
    let trained = train(&mut network, &setup(&finetune, &data, None), None, GO, &mut |_| {}).unwrap();
    assert_eq!(trained.history.len(), 9);
    let accuracy = |epoch: usize| trained.history[epoch].validation.unwrap().accuracy().unwrap();
    assert!(accuracy(0) < 0.5 && accuracy(trained.epoch) > 0.9, "{:?}", trained.history);
    assert!((0..9).all(|epoch| accuracy(epoch) <= accuracy(trained.epoch)));
    network.load(&trained.weights).unwrap();
    assert_eq!(evaluate(&mut network, &data[1], GO).unwrap(), trained.history[trained.epoch].validation.unwrap());
    assert_eq!(trained.weights.counter("bn.num_batches_tracked"), Some(12 * trained.epoch as i64));
    let all = logits(&mut network, &data[1], GO).unwrap();
    assert_eq!(score(&all, &data[1]).unwrap(), evaluate(&mut network, &data[1], GO).unwrap());
    let times = latency(&mut network, &data[1].images[..36], 5).unwrap();
    assert!(times.median.as_nanos() > 0 && times.p95 >= times.median);
}

#[test]
fn an_interrupted_training_ends_as_an_undisturbed_one() {
    let adamw = Finetune { optimizer: Optimizer::ADAMW, warmup_epochs: 1.5, clip_norm: Some(1.0), ..finetune(5, 0.05) };
    interrupt(&finetune(5, 0.05), &convnet());
    interrupt(&adamw, &with_dropout());
    interrupt(&Finetune { augment: Some(Augment { crop_padding: 2, flip: true }), ..finetune(5, 0.05) }, &convnet());
}

fn interrupt(finetune: &Finetune, graph: &Graph) {
    let data = data();
    let undisturbed_folder = tempfile::tempdir().unwrap();
    let mut network_1 = network(graph);
    let setup_1 = setup(finetune, &data, Some(undisturbed_folder.path()));
    let undisturbed = train(&mut network_1, &setup_1, None, GO, &mut |_| {}).unwrap();
    for (epoch, step) in [(1, 1), (3, 5), (5, 12)] {
        let folder = tempfile::tempdir().unwrap();
        let setup = setup(finetune, &data, Some(folder.path()));
        let (stop, mut last): (AtomicBool, Option<PathBuf>) = (AtomicBool::new(false), None);
        let stopped = train(&mut network(graph), &setup, None, &stop, &mut |event| match event {
            TrainingEvent::Step { epoch: e, step: s, .. } if (e, s) == (epoch, step) => {
                stop.store(true, Ordering::Relaxed);
            }
            TrainingEvent::Checkpoint { path, .. } => last = Some(path),
            _ => {}
        });
        assert!(matches!(stopped, Err(TrainError::Stopped)));
        let mut again = CpuNetwork::compile(graph, 64, 2).unwrap();
        let resumed = train(&mut again, &setup, last.as_deref(), GO, &mut |_| {}).unwrap();
        assert_eq!(bits(&resumed.weights), bits(&undisturbed.weights));
        assert_eq!(bits(&again.state_dict().unwrap()), bits(&network_1.state_dict().unwrap()));
        assert_eq!((scores(&resumed), resumed.epoch), (scores(&undisturbed), undisturbed.epoch));
        let checkpoint = |folder: &Path| bits(&StateDict::load(&folder.join("epoch-00005.safetensors")).unwrap());
        assert_eq!(checkpoint(folder.path()), checkpoint(undisturbed_folder.path()));
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "the checkpoints of the last two epochs");
    }
}

/// Remembers what it was shown.
#[derive(Debug, Default)]
struct Witness(std::sync::Mutex<Vec<Vec<f32>>>);

impl Teach for Witness {
    fn teach(&self, inputs: Inputs<'_>, logits: &mut [f32]) -> Result<(), EngineError> {
        let Inputs::Images(images) = inputs else { panic!("the processor holds no images") };
        self.0.lock().unwrap().push(images.to_vec());
        logits.iter_mut().enumerate().for_each(|(at, logit)| *logit = images[at / 4 * 36] * (at % 4) as f32);
        Ok(())
    }
}

#[test]
fn the_teacher_sees_the_images_that_the_network_sees() {
    let (graph, data, witness) = (convnet(), data(), Witness::default());
    let objective = Objective::Distill { temperature: 2.0, soft_weight: 0.5, teacher: Teacher::MeanLogits };
    let augment = Some(Augment { crop_padding: 1, flip: true });
    let settings = Finetune { objective, augment, ..finetune(2, 0.05) };
    let setup = Setup { teacher: Some(TeacherLogits::PerBatch(&witness)), ..setup(&settings, &data, None) };
    let run = || train(&mut network(&graph), &setup, None, GO, &mut |_| {}).unwrap();
    let first = run();
    let seen = std::mem::take(&mut *witness.0.lock().unwrap());
    assert_eq!(seen.len(), 2 * 12, "each batch of both epochs, once");
    // An image is a shifted and mirrored one of the data, with a border of what black becomes; most are.
    let images: Vec<&[f32]> = seen.iter().flat_map(|batch| batch.chunks(36)).collect();
    let as_stored = |image: &&&[f32]| data[0].images.chunks(36).any(|stored| stored == **image);
    let unchanged = images.iter().filter(as_stored).count();
    assert!(unchanged < images.len() / 8, "{unchanged} of {} images as stored; one in eighteen is", images.len());
    assert!(images.iter().filter(|image| image.contains(&-0.5)).count() > images.len() * 3 / 4);
    let again = run();
    assert_eq!((bits(&again.weights), scores(&again)), (bits(&first.weights), scores(&first)));
    assert_eq!(*witness.0.lock().unwrap(), seen, "the same seed gives the same images");
    let stored = Finetune { augment: None, ..settings.clone() };
    let taught = vec![0.0; 800];
    let setup = Setup { finetune: &stored, teacher: Some(TeacherLogits::Stored(&taught)), ..setup };
    let plain = train(&mut network(&graph), &setup, None, GO, &mut |_| {}).unwrap();
    assert_ne!(bits(&plain.weights), bits(&first.weights));
}

#[test]
fn statistics_are_measured_anew_on_demand() {
    let (graph, data) = (convnet(), data());
    let plain = Finetune { batch_size: 50, ..finetune(6, 0.05) };
    let again = Finetune { batch_norm_reestimate: true, ..plain.clone() };
    let run = |settings: &Finetune| train(&mut network(&graph), &setup(settings, &data, None), None, GO, &mut |_| {});
    let (plain, again) = (run(&plain).unwrap(), run(&again).unwrap());
    let metrics = plain.history[plain.epoch].clone();
    assert_eq!((plain.scores, again.epoch), ([metrics.validation, None], plain.epoch));
    let tensor = |trained: &Trained, name: &str| trained.weights.f32(name).unwrap().to_vec();
    for name in ["conv.weight", "bn.weight", "fc.bias"] {
        assert_eq!(tensor(&plain, name), tensor(&again, name), "{name}");
    }
    // The mean of the means of equal batches is that of all examples, however they are shuffled.
    let mut direct = network(&graph);
    direct.load(&again.weights).unwrap();
    direct.reset_statistics();
    data[0].images.chunks(50 * 36).for_each(|images| direct.reestimate(images).unwrap());
    let expected = direct.state_dict().unwrap();
    for (name, tolerance) in [("bn.running_mean", 1e-5), ("bn.running_var", 0.02)] {
        for (got, expected) in tensor(&again, name).iter().zip(expected.f32(name).unwrap().iter()) {
            assert!((got - expected).abs() < tolerance * expected.abs().max(1.0), "{name}: {got} for {expected}");
        }
        assert_ne!(tensor(&plain, name), tensor(&again, name));
    }
    assert_eq!(again.weights.counter("bn.num_batches_tracked"), Some(4));
    direct.load(&again.weights).unwrap();
    assert_eq!(again.scores, [Some(evaluate(&mut direct, &data[1], GO).unwrap()), None]);
}

#[test]
fn the_last_epoch_is_kept_where_the_split_may_have_been_seen() {
    let (graph, data) = (convnet(), data());
    // At a constant rate this network is better after its first epoch than after its second.
    let settings = Finetune { schedule: Schedule::Constant, ..finetune(2, 0.05) };
    let setup = setup(&settings, &data, None);
    let best = train(&mut network(&graph), &setup, None, GO, &mut |_| {}).unwrap();
    let mut network = network(&graph);
    let last = train(&mut network, &Setup { choice: EpochChoice::Last, ..setup }, None, GO, &mut |_| {}).unwrap();
    assert_eq!((best.epoch, last.epoch), (1, 2), "{:?}", best.history);
    assert_eq!(last.scores[0], last.history[2].validation);
    assert_eq!(bits(&last.weights), bits(&network.state_dict().unwrap()));
}

#[test]
fn training_ends_when_patience_does() {
    let (graph, data) = (convnet(), data());
    let settings = Finetune { patience: Some(2), ..finetune(60, 0.05) };
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(&settings, &data, Some(folder.path()));
    let trained = train(&mut network(&graph), &setup, None, GO, &mut |_| {}).unwrap();
    let last = trained.history.len() - 1;
    assert!(last < 60 && last == trained.epoch + 2, "{last} epochs, best {}", trained.epoch);
    let path = folder.path().join(format!("epoch-{last:05}.safetensors"));
    let again = train(&mut network(&graph), &setup, Some(&path), GO, &mut |_| {}).unwrap();
    assert_eq!(bits(&again.weights), bits(&trained.weights), "nothing is left to do");
    assert_eq!(again.history.len(), trained.history.len());
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let (graph, data, folder) = (convnet(), data(), tempfile::tempdir().unwrap());
    let short = finetune(1, 0.05);
    train(&mut network(&graph), &setup(&short, &data, Some(folder.path())), None, GO, &mut |_| {}).unwrap();
    let path = folder.path().join("epoch-00001.safetensors");
    let other = finetune(2, 0.05);
    let error = train(&mut network(&graph), &setup(&other, &data, None), Some(&path), GO, &mut |_| {}).unwrap_err();
    assert!(error.to_string().ends_with("is of a training with other settings, data or network"), "{error}");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = train(&mut network(&graph), &setup(&short, &data, None), Some(&path), GO, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint { .. }), "{error}");
}

#[test]
fn divergence_and_misfits_are_typed_errors() {
    let (graph, data) = (convnet(), data());
    let wild = finetune(3, 1e30);
    let error = train(&mut network(&graph), &setup(&wild, &data, None), None, GO, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { epoch: 1, .. }), "{error}");
    assert_eq!(Problem::from(error).code, Code::TrainingDiverged);
    let mut label = data.clone();
    label[1].labels[7] = 4;
    let tame = finetune(1, 0.1);
    let error = train(&mut network(&graph), &setup(&tame, &label, None), None, GO, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::Label { index: 7, label: 4, classes: 4 }), "{error}");
    let wide = Data { images: vec![0.0; 37], labels: vec![0] };
    let error = evaluate(&mut network(&graph), &wide, GO).unwrap_err();
    assert!(matches!(error, TrainError::Shape { expected: 36, got: 37 }), "{error}");
    let distill = Finetune {
        objective: Objective::Distill { temperature: 2.0, soft_weight: 1.0, teacher: Teacher::MeanLogits },
        ..tame
    };
    let error = train(&mut network(&graph), &setup(&distill, &data, None), None, GO, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::Teacher { expected: 800, got: 0 }), "{error}");
    let padded = Finetune { augment: Some(Augment { crop_padding: 6, flip: false }), ..finetune(1, 0.1) };
    let error = train(&mut network(&graph), &setup(&padded, &data, None), None, GO, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("less than the images' height and width, 6 x 6"), "{error}");
    let empty = Data { images: Vec::new(), labels: Vec::new() };
    assert!(matches!(evaluate(&mut network(&graph), &empty, GO), Err(TrainError::Empty(_))));
}

/// ```python
/// import numpy as np
/// f = lambda n, a, m, s: ((np.arange(n) * a) % m - m // 2) / s
/// W1, b1, W2, b2 = f(12, 7, 11, 10).reshape(4, 3), f(4, 3, 5, 10), f(8, 5, 11, 10).reshape(2, 4), f(2, 1, 2, 10)
/// x, t, y = f(12, 5, 9, 4).reshape(4, 3), f(8, 3, 7, 2).reshape(4, 2), np.array([0, 1, 1, 0])
/// P = [W1, b1, W2, b2]; V = [np.zeros_like(p) for p in P]
/// soft = lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)
/// for step in range(3):
///     h = np.maximum(x @ P[0].T + P[1], 0); s = h @ P[2].T + P[3]
///     d = (.7 * 2 * (soft(s / 2) - soft(t / 2)) + .3 * (soft(s) - np.eye(2)[y])) / 4
///     dh = (d @ P[2]) * (h > 0)
///     G = [dh.T @ x, dh.sum(0), d.T @ h, d.sum(0)]
///     loss = (-.7 * 4 * (soft(t / 2) * np.log(soft(s / 2))).sum(1) - .3 * np.log(soft(s)[range(4), y])).mean()
///     for i in range(4):
///         g = G[i] + .01 * P[i]; V[i] = .9 * V[i] + g
///         P[i] = P[i] - .1 * (1 - step / 3) * (g + .9 * V[i])
///     print(loss)
/// print(P[2].ravel(), P[3])
/// ```
#[test]
fn distillation_with_nesterov_and_decay_equals_numpy() {
    let f = |count: usize, a: usize, m: usize, s: f32| -> Vec<f32> {
        (0..count).map(|i| ((i * a % m) as f32 - (m / 2) as f32) / s).collect()
    };
    let graph = chain(vec![
        ("input", Op::Input { shape: vec![3] }),
        ("fc1", linear(3, 4)),
        ("relu", Op::Relu),
        ("fc2", linear(4, 2)),
    ]);
    let mut weights = StateDict::default();
    weights.insert_f32("fc1.weight", &[4, 3], f(12, 7, 11, 10.0)).unwrap();
    weights.insert_f32("fc1.bias", &[4], f(4, 3, 5, 10.0)).unwrap();
    weights.insert_f32("fc2.weight", &[2, 4], f(8, 5, 11, 10.0)).unwrap();
    weights.insert_f32("fc2.bias", &[2], f(2, 1, 2, 10.0)).unwrap();
    let mut network = CpuNetwork::compile(&graph, 4, 1).unwrap();
    network.load(&weights).unwrap();
    let finetune = Finetune {
        epochs: 3,
        objective: Objective::Distill { temperature: 2.0, soft_weight: 0.7, teacher: Teacher::MeanLogits },
        optimizer: sgd(0.1, true, 0.01),
        schedule: Schedule::Linear,
        ..Finetune::default()
    };
    let data = Data { images: f(12, 5, 9, 4.0), labels: vec![0, 1, 1, 0] };
    let teacher = f(8, 3, 7, 2.0);
    let (validation, test, teacher) = (None, None, Some(TeacherLogits::Stored(&teacher)));
    let setup = Setup {
        finetune: &finetune,
        seed: 0,
        train: &data,
        validation,
        choice: EpochChoice::Best,
        test,
        teacher,
        checkpoints: None,
    };
    let trained = train(&mut network, &setup, None, GO, &mut |_| {}).unwrap();
    assert_eq!(trained.epoch, 3);
    let losses = trained.history.iter().filter_map(|epoch| epoch.train_loss);
    for (got, expected) in losses.zip([2.224_059_440_8, 2.183_381_081_4, 2.155_269_038_5]) {
        assert!((got - expected).abs() < 1e-5, "loss {got} for {expected}");
    }
    let expected = [
        -0.463_677_53,
        0.003_547_796_5,
        0.497_576_13,
        -0.080_407_46,
        0.364_162_3,
        -0.202_578_25,
        0.298_545_7,
        -0.317_653_45,
    ];
    let biases = [0.015_091_908, -0.114_607_13];
    for (name, expected) in [("fc2.weight", &expected[..]), ("fc2.bias", &biases[..])] {
        for (got, expected) in trained.weights.f32(name).unwrap().iter().zip(expected) {
            assert!((got - expected).abs() < 2e-6, "{name}: {got} for {expected}");
        }
    }
}

fn open(path: &Path, input: &[usize]) -> (Graph, Checkpoint) {
    let checkpoint = Checkpoint::open(path).unwrap();
    let detected = families::detect(&[checkpoint.header()], &Architecture::default(), Some(&input.to_vec())).unwrap();
    (detected.graphs.into_iter().next().unwrap(), checkpoint)
}

/// The logits in `../shared/golden` were computed by PyTorch.
#[test]
fn logits_equal_pytorch() {
    for case in ["mlp_bias_x2", "lenet_cifar_x2", "lenet_mnist_x2", "vgg_nobn_x2", "vgg_bn_x2", "resnet_cifar_x2"] {
        let Some(folder) = shared("logits_equal_pytorch", &format!("golden/{case}")) else { return };
        let io = Checkpoint::open(&folder.join("io.safetensors")).unwrap();
        let shape = &io.header().get("input").unwrap().shape;
        for model in ["member0", "member1", "nt"] {
            let (graph, weights) = open(&folder.join(format!("{model}.safetensors")), &shape[1..]);
            let mut network: CpuNetwork = CpuNetwork::compile(&graph, shape[0], 2).unwrap();
            network.load(&weights).unwrap();
            let got = network.forward(&io.f32("input").unwrap()).unwrap();
            let expected = io.f32(&format!("logits.{model}")).unwrap();
            assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().zip(expected.iter()) {
                assert!(
                    (got - expected).abs() < 2e-5 * expected.abs().max(1.0),
                    "{case} {model}: {got} for {expected}"
                );
            }
        }
    }
}

/// The first 2,000 test images of MNIST, normalised.
fn mnist(folder: &Path) -> Data {
    let read = |name: &str, skip: usize| -> Vec<u8> {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(File::open(folder.join(name)).unwrap()).read_to_end(&mut bytes).unwrap();
        bytes.split_off(skip)
    };
    let pixels = read("t10k-images-idx3-ubyte.gz", 16);
    let labels = read("t10k-labels-idx1-ubyte.gz", 8);
    let images = pixels[..2000 * 784].iter().map(|pixel| (f32::from(*pixel) / 255.0 - 0.1307) / 0.3081).collect();
    Data { images, labels: labels[..2000].iter().map(|label| u32::from(*label)).collect() }
}

/// ```python
/// # x: the first 2,000 test images / 255, minus 0.1307, divided by 0.3081, as f64; w: the member's tensors; y: labels
/// for i in range(1, 5):
///     x = x @ w[f"fc{i}.weight"].T
///     x = np.maximum(x, 0) if i < 4 else x
/// print((x.argmax(1) == y).sum(), -(x - np.log(np.exp(x).sum(1, keepdims=True)))[range(2000), y].mean())
/// ```
#[test]
fn members_reach_their_accuracy() {
    let Some(folder) = shared("members_reach_their_accuracy", "data/mnist") else { return };
    let data = mnist(&folder);
    for (member, correct, loss) in [("m0", 1934, 0.100_956_519), ("m1", 1947, 0.092_314_820)] {
        let Some(path) = shared("members_reach_their_accuracy", &format!("members/mnist-mlp/{member}.safetensors"))
        else {
            return;
        };
        let (graph, weights) = open(&path, &[1, 28, 28]);
        let mut network: CpuNetwork = CpuNetwork::compile(&graph, 256, 2).unwrap();
        network.load(&weights).unwrap();
        let score = evaluate(&mut network, &data, GO).unwrap();
        assert_eq!((score.accuracy().unwrap() * 2000.0).round() as i32, correct);
        assert!((score.loss - loss).abs() < 1e-5, "{} for {loss}", score.loss);
    }
}

/// A network of `pytorch.json` with the weights of the formulas.
fn stored_network(case: &serde_json::Value) -> CpuNetwork {
    let list = |value: &serde_json::Value| -> Vec<usize> { serde_json::from_value(value.clone()).unwrap() };
    let mut weights = StateDict::default();
    for tensor in case["tensors"].as_array().unwrap() {
        let (name, shape) = (tensor[0].as_str().unwrap(), list(&tensor[1]));
        weights.insert_f32(name, &shape, formulas::weight(name, &shape, tensor[2].as_u64().unwrap())).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    weights.save(&path, &BTreeMap::new()).unwrap();
    let (graph, weights) = open(&path, &list(&case["shape"]));
    let batch = case["batch"].as_u64().unwrap() as usize;
    let mut network = CpuNetwork::compile(&graph, batch, 2).unwrap();
    network.load(&weights).unwrap();
    network
}

fn stored(case: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/training/pytorch.json");
    let all: serde_json::Value = serde_json::from_reader(File::open(path).unwrap()).unwrap();
    all[case].clone()
}

#[test]
fn gradients_of_whole_networks_equal_pytorch() {
    for name in ["mlp", "lenet", "vgg_bn", "resnet18", "resnet8"] {
        let case = stored(name);
        let mut network = stored_network(&case);
        let (images, labels) = formulas::batch(network.example_len(), 0, network.max_batch());
        let loss = network.gradients(&images, Targets::of(&labels)).unwrap().loss;
        assert!((loss / case["losses"][0].as_f64().unwrap() - 1.0).abs() < 1e-5, "{name}: loss {loss}");
        let all = case["gradients"].as_object().unwrap().values().map(|tensor| tensor["norm"].as_f64().unwrap());
        // Gradients that are zero but for rounding, of biases before a BatchNorm, are held to the size of the others.
        let floor = 1e-6 * all.map(|norm| norm * norm).sum::<f64>().sqrt();
        let mut seen = 0;
        network.update(|parameters| {
            for parameter in parameters {
                let expected = &case["gradients"][&parameter.name];
                let (_, gradient) = parameter.values_and_gradient();
                let gradient = gradient.to_vec();
                let gradient = parameter.to_pytorch(&gradient);
                let norm = expected["norm"].as_f64().unwrap();
                let every = expected["every"].as_u64().unwrap() as usize;
                let got = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                assert!((got - norm).abs() < 1e-4 * norm + floor, "{name} {}: norm {got} for {norm}", parameter.name);
                let typical = norm / (gradient.len() as f64).sqrt();
                for (got, expected) in gradient.iter().step_by(every).zip(expected["values"].as_array().unwrap()) {
                    let (got, expected) = (f64::from(*got), expected.as_f64().unwrap());
                    let tolerance = 1e-4 * expected.abs().max(typical) + floor;
                    assert!((got - expected).abs() < tolerance, "{name} {}: {got} for {expected}", parameter.name);
                    seen += 1;
                }
            }
        });
        assert!(seen > 100, "{name}: {seen} values compared");
    }
}

#[test]
fn fifty_steps_lose_what_pytorch_loses() {
    let spared =
        Optimizer::AdamW { lr: 0.003, betas: [0.9, 0.95], eps: 1e-7, weight_decay: 0.1, decay_norms_and_biases: false };
    let nesterov =
        Optimizer::Sgd { lr: 0.01, momentum: 0.8, nesterov: true, weight_decay: 0.01, decay_norms_and_biases: false };
    let plain = sgd(0.01, false, 5e-4);
    let cases = [
        ("mlp", plain, None, 0.0),
        ("lenet", plain, None, 0.0),
        ("vgg_bn", plain, None, 0.0),
        ("resnet18", sgd(1e-4, false, 5e-4), None, 0.0),
        ("resnet8", plain, None, 0.0),
        ("mlp_adamw", spared, Some(1.0), 0.1),
        ("mlp_sgd", nesterov, None, 0.0),
    ];
    for (name, optimizer, clip_norm, smoothing) in cases {
        let case = stored(name);
        let mut network = stored_network(&case);
        let mut optimizer = OptimizerState::new(&optimizer, network.parameters());
        for (step, expected) in case["losses"].as_array().unwrap().iter().enumerate() {
            let (images, labels) = formulas::batch(network.example_len(), step, network.max_batch());
            let targets = Targets { smoothing, ..Targets::of(&labels) };
            let (loss, expected) = (network.gradients(&images, targets).unwrap().loss, expected.as_f64().unwrap());
            assert!((loss - expected).abs() < 1e-3, "{name}, step {step}: {loss} for {expected}");
            network.update(|parameters| optimizer.step(parameters, Update { lr_scale: 1.0, clip_norm }));
        }
    }
}
