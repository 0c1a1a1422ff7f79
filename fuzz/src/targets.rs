//! One function for each reader of foreign bytes. They take anything and say whether the reader accepts it: what they look for
//! are panics, overflows, inputs that take long or much memory, and forms that do not come back as they went.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use engraft::data::{self, Limits};
use engraft::export::onnx as export;
use engraft::model::costs::Costs;
use engraft::model::families;
use engraft::model::formats::{self, safetensors};
use engraft::model::graph;
use engraft::model::groups::Couplings;
use engraft::model::header::{CheckpointHeader, Dtype, TensorInfo};
use engraft::model::parameters;
use engraft::model::precision::Precision;
use engraft::plan::parse;
use engraft::process::protocol::{Command, Message, Task};
use engraft::settings::Architecture;
use engraft::tensors::Checkpoint;
use serde_json::Value;

/// A reader of foreign bytes; whether it accepts them.
pub type Target = fn(&[u8]) -> bool;

/// Every target with its name.
pub const TARGETS: [(&str, Target); 14] = [
    ("checkpoint", checkpoint),
    ("pytorch", pytorch),
    ("npz", npz),
    ("onnx", onnx),
    ("bundle", bundle),
    ("graph", graph),
    ("job", job),
    ("recipe_and_comparison", recipe_and_comparison),
    ("protocol", protocol),
    ("archive", archive),
    ("npy", npy),
    ("idx", idx),
    ("image", image),
    ("parquet", parquet),
];

/// What a dataset may unfold to.
const LIMITS: Limits = Limits { decoded_bytes: 1 << 20, entries: 64 };
/// Networks with more channels than this are read, but nothing is made of each channel.
const CHANNELS: usize = 1 << 14;
/// Elements of a checkpoint up to which they are looked at.
const ELEMENTS: usize = 1 << 16;
/// Jobs of a comparison that are looked at.
const JOBS: usize = 16;

/// A safetensors file: its header, and what network it is. The tensors behind the header need not be there.
pub fn checkpoint(bytes: &[u8]) -> bool {
    let stated = bytes.first_chunk().map_or(0, |prefix| u64::from_le_bytes(*prefix).saturating_add(8));
    let mut accepted = false;
    for length in [bytes.len() as u64, stated.saturating_add(data_bytes(bytes))] {
        if let Ok(layout) = safetensors::read_layout(&mut &*bytes, length) {
            let encoded = safetensors::encode_header(&layout.header.tensors, &layout.metadata);
            assert!(safetensors::header_bytes(*encoded.first_chunk().expect("a prefix"), u64::MAX).is_ok());
            let inspection = families::inspect(&layout.header);
            assert_ne!(inspection.network.is_some(), inspection.unrecognised.is_some());
            accepted = true;
        }
    }
    accepted
}

/// A file of `torch.save`, in either container.
pub fn pytorch(bytes: &[u8]) -> bool {
    layout(bytes)
}

/// An archive of arrays.
pub fn npz(bytes: &[u8]) -> bool {
    layout(bytes)
}

/// An ONNX model. What is read as a network is written and read again as one with the same tensors.
pub fn onnx(bytes: &[u8]) -> bool {
    let Ok(formats::Format::Onnx) = formats::recognise(bytes) else { return false };
    beside(bytes);
    let Ok(layout) = formats::read_layout(bytes) else { return false };
    let tensors = &layout.header.tensors;
    let Some(form) = layout.header.stated.clone() else { return true };
    let network = graph::json::parse(&form).expect("the network of a file has a form");
    assert!(parameters::compare(&network, &layout.header, "").is_empty());
    if tensors.iter().map(TensorInfo::elements).sum::<usize>() <= ELEMENTS {
        let written = in_memory(bytes, |path| {
            let file = Checkpoint::open(path).expect("its layout was read");
            let mut written = Vec::new();
            export::write_onnx(&network, &file, None, &mut written).ok().map(|()| written)
        });
        if let Some(written) = written {
            let again = formats::read_layout(&written).unwrap_or_else(|error| panic!("{form}: {error}"));
            assert_eq!(&again.header.tensors, tensors, "{form}");
        }
    }
    self::layout(bytes)
}

/// A folder of a model's files as one archive; and the same bytes as a file, an ONNX model or an index, and what it names beside it.
pub fn bundle(bytes: &[u8]) -> bool {
    beside(bytes);
    layout(bytes)
}

/// A file and those beside it that it names: parts of `bytes`, cut before the first byte that seven zeros follow, as the length of a
/// header in a file of safetensors does.
fn beside(bytes: &[u8]) {
    const ZEROS: &[u8] = &[0; 7];
    let zeros = bytes.windows(ZEROS.len()).position(|window| window == ZEROS);
    let cut = zeros.map_or(bytes.len(), |zeros| zeros.saturating_sub(1));
    for (file, rest) in [(bytes, bytes), (&bytes[..cut], &bytes[cut..])] {
        let Ok(names) = formats::beside(file) else { continue };
        assert!(names.iter().all(|name| formats::files::is_plain_name(name)));
        let others: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), rest)).collect();
        let Ok(layout) = formats::read_files(file, &others) else { continue };
        let all = (file.len() + others.len() * rest.len()) as u64;
        for (info, begin, end) in layout.spans() {
            assert!(end <= all && (end - begin) as usize == info.elements() * info.dtype.size());
        }
    }
}

/// A checkpoint of any format, recognised by its content; its tensors too, where they are few.
fn layout(bytes: &[u8]) -> bool {
    let Ok(layout) = formats::read_layout(bytes) else { return false };
    for (info, begin, end) in layout.spans() {
        assert!(end <= bytes.len() as u64 && (end - begin) as usize == info.elements() * info.dtype.size());
    }
    let _ = families::inspect(&layout.header);
    if layout.header.tensors.iter().map(TensorInfo::elements).sum::<usize>() <= ELEMENTS {
        let _ = in_memory(bytes, |path| Checkpoint::open(path).is_ok_and(|file| file.check_finite().is_ok()));
    }
    true
}

/// The last offset of a safetensors header.
fn data_bytes(bytes: &[u8]) -> u64 {
    let json = bytes.get(8..).unwrap_or_default();
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    let entries = value.as_object().into_iter().flat_map(serde_json::Map::values);
    entries.filter_map(|entry| entry["data_offsets"][1].as_u64()).max().unwrap_or_default()
}

/// The JSON form of a network, and what every network goes through.
pub fn graph(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return false };
    let Ok(graph) = graph::json::parse(&value) else { return false };
    let form = serde_json::to_value(&graph).expect("a graph has a form");
    assert_eq!(graph::json::parse(&form).expect("a graph's own form is read"), graph);
    let _ = Costs::of(&graph, &Precision::default());
    let channels = graph.iter().map(|(id, _)| graph.shape(id)[0]).fold(0_usize, usize::saturating_add);
    if channels <= CHANNELS {
        let _ = Couplings::of(&graph);
        recognised(&graph, form);
    }
    true
}

/// A checkpoint with the weights of `graph` is one of the network with this form.
fn recognised(graph: &graph::Graph, form: Value) {
    let info = |parameter: parameters::Parameter| TensorInfo {
        name: parameter.name,
        dtype: Dtype::F32,
        shape: parameter.shape,
    };
    let header = CheckpointHeader::new(parameters::of_graph(graph).into_iter().map(info).collect());
    let _ = families::detect(&[&header, &header], &Architecture::graph(form), None);
    let _ = families::inspect(&header);
}

/// The body of a job: written out in full, it is the same job.
pub fn job(bytes: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return false };
    let Ok(job) = parse::parse(&body) else { return false };
    let written = Value::from(job.clone());
    let again = parse::parse(&written).unwrap_or_else(|faults| panic!("{written}: {faults:?}"));
    assert_eq!(again, job, "{written}");
    true
}

/// A recipe of an ensemble, and a plan of jobs with the jobs themselves.
pub fn recipe_and_comparison(bytes: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return false };
    let mut accepted = parse::recipe(&body).is_ok();
    for quick in [false, true] {
        let Ok(mut grid) = parse::comparison(&body, quick) else { continue };
        grid.rename_files(|name| format!("./{name}"));
        assert!(grid.cells().take(JOBS).count() <= grid.runs());
        for cell in grid.cells().take(JOBS) {
            accepted |= grid.job(&cell).is_ok();
        }
    }
    accepted
}

/// A line between a computing process and its watcher.
pub fn protocol(bytes: &[u8]) -> bool {
    let message = serde_json::from_slice::<Message>(bytes);
    if let Ok(message) = &message {
        serde_json::to_string(message).expect("a message has a line");
    }
    let task = serde_json::from_slice::<Task>(bytes);
    if let Ok(task) = &task {
        let line = serde_json::to_string(task).expect("a task has a line");
        assert_eq!(serde_json::from_str::<Task>(&line).expect("a task's own line is read"), *task);
    }
    message.is_ok() || task.is_ok() || serde_json::from_slice::<Command>(bytes).is_ok()
}

/// A dataset of any format, recognised by its content.
pub fn archive(bytes: &[u8]) -> bool {
    inspect(bytes)
}

/// Two NumPy arrays, in a tar instead of a zip: its checksums would keep changes out.
pub fn npy(bytes: &[u8]) -> bool {
    let (x, y) = halves(bytes);
    inspect(&packed(&[("x.npy", x), ("y.npy", y)]))
}

/// Two IDX files.
pub fn idx(bytes: &[u8]) -> bool {
    let (images, labels) = halves(bytes);
    inspect(&packed(&[("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)]))
}

/// A PNG or JPEG file, of which there are two, one for each class.
pub fn image(bytes: &[u8]) -> bool {
    inspect(&packed(&[("a/1.png", bytes), ("b/1.jpg", bytes)]))
}

/// A Parquet file. Its marks need not be there.
pub fn parquet(bytes: &[u8]) -> bool {
    const MARK: &[u8; 4] = b"PAR1";
    let mut file = bytes.to_vec();
    if let Some(first) = file.first_chunk_mut() {
        *first = *MARK;
    }
    if let Some(last) = file.last_chunk_mut() {
        *last = *MARK;
    }
    inspect(&file)
}

/// The first file, whose length is in the first two bytes, and the second.
fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return (&[], &[]) };
    rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()))
}

fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).expect("packs");
    }
    tar.into_inner().expect("packs")
}

/// Reads a dataset through, from a file in memory.
fn inspect(bytes: &[u8]) -> bool {
    in_memory(bytes, |path| {
        let Ok(facts) = data::inspect(path, &LIMITS) else { return false };
        assert!(facts.splits.contains_key("train"));
        let _ = (facts.only_label(), facts.decoded_bytes());
        true
    })
}

/// What `read` says of a file in memory that holds `bytes`.
fn in_memory<T>(bytes: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static FILE: File = rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC).expect("a file").into();
    }
    FILE.with(|file| {
        file.set_len(0).expect("empties");
        file.write_all_at(bytes, 0).expect("writes");
        read(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
    })
}
