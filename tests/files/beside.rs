//! Models that lie in several files: shards with their index, and ONNX models with data beside them; and files that are no such.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use engraft::export::{ExportFormat, ExportOptions, Packing, shards_of, write};
use engraft::model::formats::protobuf::{put_bytes, put_integer};
use engraft::model::formats::{beside, read_files, read_layout};
use engraft::tensors::{Checkpoint, CheckpointFiles};
use proptest::prelude::*;
use serde_json::json;

use crate::checkpoints::{compare, directory_entry};
use crate::onnx::model;

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder)
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn refusal(path: &Path) -> String {
    Checkpoint::open(path).expect_err("it is refused").to_string()
}

/// A folder with the shards of the fixture and their index.
fn shards() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let file = fs::File::open(fixtures("checkpoints/sharded.tar")).expect("the fixture");
    for entry in tar::Archive::new(file).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").file_name().map(PathBuf::from);
        if let (Some(name), true) = (name, entry.header().entry_type().is_file()) {
            entry.unpack(folder.path().join(name)).expect("unpacks");
        }
    }
    folder
}

const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

#[test]
fn a_model_in_several_files_is_the_one_in_one() {
    for (files, whole) in [
        ("beside/resnet.onnx", "resnet.trace.onnx"),
        ("beside/resnet.tar", "resnet.trace.onnx"),
        ("beside/resnet.zip", "resnet.trace.onnx"),
        ("beside/lenet.onnx", "lenet.trace.onnx"),
        ("beside/lenet_deflated.zip", "lenet.trace.onnx"),
    ] {
        let (found, expected) = (open(&fixtures("onnx").join(files)), open(&fixtures("onnx").join(whole)));
        compare(files, &found, &expected);
        assert_eq!(found.header().stated, expected.header().stated, "{files}");
        let is_deflated = files.contains("deflated");
        assert_eq!(found.header().copied_bytes > 0, is_deflated, "{files} is mapped where it can be");
    }
    let folder = shards();
    compare("an index", &open(&folder.path().join(INDEX)), &open(&fixtures("checkpoints/sharded.safetensors")));
}

#[test]
fn a_digest_is_that_of_all_files() {
    let folder = shards();
    let at = |name: &str| folder.path().join(name);
    let digest = |name: &str| CheckpointFiles::open(&at(name)).expect("opens").sha256().expect("reads");
    let whole = digest(INDEX);
    assert_ne!(whole, digest(FIRST));
    let files = CheckpointFiles::open(&at(INDEX)).expect("opens");
    let names: Vec<_> = files.paths.iter().map(|path| path.file_name().expect("a name").to_owned()).collect();
    assert_eq!(names, [INDEX, FIRST, SECOND]);
    let mut changed = fs::read(at(SECOND)).expect("reads");
    *changed.last_mut().expect("a byte") ^= 1;
    fs::write(at(SECOND), changed).expect("writes");
    assert_ne!(digest(INDEX), whole, "one bit of a shard");
}

#[test]
fn all_missing_files_are_named_at_once() {
    let folder = shards();
    for name in [FIRST, SECOND] {
        fs::remove_file(folder.path().join(name)).expect("removes");
    }
    let error = refusal(&folder.path().join(INDEX));
    assert!(error.contains(FIRST) && error.contains(SECOND) && error.contains("keep all in one folder"), "{error}");
    let alone = fs::read(fixtures("onnx/beside/resnet.onnx")).expect("the fixture");
    let error = read_layout(&alone).unwrap_err().to_string();
    assert!(error.contains("missing: `resnet.onnx.data`") && error.contains("pack the folder as one tar"), "{error}");
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let folder = shards();
    let at = |name: &str| folder.path().join(name);
    let outside = tempfile::tempdir().expect("a folder");
    let other = outside.path().join("shard");
    fs::rename(at(SECOND), &other).expect("moves");
    symlink(&other, at(SECOND)).expect("links");
    let error = refusal(&at(INDEX));
    assert!(error.contains(SECOND) && error.contains("a link out of its folder"), "{error}");
    fs::remove_file(at(SECOND)).expect("removes");
    fs::create_dir(at(SECOND)).expect("a folder");
    assert!(refusal(&at(INDEX)).contains("is no file"));
    fs::remove_dir(at(SECOND)).expect("removes");
    // A link within the folder is a file of it.
    fs::rename(&other, at("moved")).expect("moves");
    symlink("moved", at(SECOND)).expect("links");
    open(&at(INDEX));
    for name in ["../shard", "/etc/passwd", "sub/shard", "..", "a\\b"] {
        let index = json!({"weight_map": {"fc1.weight": name}});
        fs::write(at("bad.json"), index.to_string()).expect("writes");
        let error = refusal(&at("bad.json"));
        assert!(error.contains("is not the name of a file beside the index"), "{error}");
        let error = beside(&external(&[("location", name)])).unwrap_err().to_string();
        assert!(error.contains("no file beside the model"), "{error}");
    }
}

#[test]
fn a_shard_holds_what_the_index_says() {
    let folder = shards();
    let at = |name: &str| folder.path().join(name);
    for (map, said) in [
        (
            json!({"fc1.weight": FIRST, "fc1.bias": FIRST, "fc2.weight": SECOND, "fc2.bias": SECOND}),
            "holds the tensor `fc2.bias`, which it does not",
        ),
        (
            json!({"fc1.weight": FIRST, "fc2.weight": SECOND}),
            "holds the tensor `fc1.bias`, which the index does not name there",
        ),
        (json!({"fc1.weight": SECOND, "fc1.bias": FIRST, "fc2.weight": SECOND}), "different models"),
        (json!({"fc1.weight": INDEX}), "model.safetensors.index.json`:"),
    ] {
        fs::write(at(INDEX), json!({"weight_map": map}).to_string()).expect("writes");
        let error = refusal(&at(INDEX));
        assert!(error.contains(said), "{error}");
    }
    fs::write(at("other.json"), json!({"epochs": 3}).to_string()).expect("writes");
    assert!(refusal(&at("other.json")).contains("JSON"));
}

/// A linear layer of 2 inputs and 3 outputs, whose weight says of itself where its data lie.
fn external(entries: &[(&str, &str)]) -> Vec<u8> {
    let owned: Vec<_> = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let tensor = tensor_beside("fc.weight", &[2, 3], &owned);
    model(&[("MatMul", &["x", "fc.weight"], "y")], &[tensor], &[1, 2])
}

/// A tensor of floats that says where its data lie.
fn tensor_beside(name: &str, shape: &[i64], entries: &[(String, String)]) -> Vec<u8> {
    let mut tensor = Vec::new();
    for axis in shape {
        put_integer(&mut tensor, 1, *axis);
    }
    put_integer(&mut tensor, 2, 1);
    put_bytes(&mut tensor, 8, name.as_bytes());
    for (key, value) in entries {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        put_bytes(&mut entry, 2, value.as_bytes());
        put_bytes(&mut tensor, 13, &entry);
    }
    put_integer(&mut tensor, 14, 1);
    tensor
}

#[test]
fn data_lie_within_their_file() {
    let data = [0; 40];
    let read = |entries: &[(&str, &str)]| {
        let file = external(entries);
        read_files(&file, &[("d", &data)]).map(|layout| (file.len() as u64, layout)).map_err(|error| error.to_string())
    };
    for (entries, begin) in [
        (&[("location", "d")][..], 0),
        (&[("location", "d"), ("offset", "16")], 16),
        (&[("location", "d"), ("offset", "3"), ("length", "24"), ("checksum", "?")], 3),
    ] {
        let (front, layout) = read(entries).expect("a network");
        let place = format!("{:?}", layout.places[0]);
        assert!(place.contains(&format!("begin: {}", front + begin)), "{place}");
    }
    for (entries, said) in [
        (&[("location", "d"), ("offset", "17")][..], "end behind that file, which has 40"),
        (&[("location", "d"), ("offset", "9223372036854775808")], "end behind that file"),
        (&[("location", "d"), ("offset", "18446744073709551615")], "end behind that file"),
        (&[("location", "d"), ("offset", "-1")], "is no number"),
        (&[("location", "d"), ("length", "23")], "takes 24 bytes, but 23 lie"),
        (&[("location", "d"), ("length", "9223372036854775808")], "takes 24 bytes"),
        (&[("location", "e")], "missing: `e`"),
        (&[], "no file beside the model"),
    ] {
        let error = read(entries).expect_err("it is refused");
        assert!(error.contains(said), "{error}");
    }
    // At any byte.
    assert_eq!(read(&[("location", "d"), ("offset", "1")]).expect("a network").1.header.copied_bytes, 24, "transposed");
}

#[test]
fn weights_leave_in_shards_and_come_back() {
    let whole = open(&fixtures("onnx/resnet.trace.onnx"));
    let graph = serde_json::from_value(whole.header().stated.clone().expect("a network")).expect("a graph");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let exported = |options: &ExportOptions, format, graph| {
        let mut bytes = Vec::new();
        let packing = write(format, &whole, graph, options, &mut bytes).expect("writes");
        (packing, bytes)
    };
    for shards in [Some(3), None] {
        let options = ExportOptions { shards: shards.and_then(NonZeroUsize::new), ..ExportOptions::default() };
        let (packing, bytes) = exported(&options, ExportFormat::Shards, Some(&graph));
        assert_eq!(packing, Packing::Tar);
        fs::write(at("x.tar"), &bytes).expect("writes");
        let again = open(&at("x.tar"));
        compare("a tar of shards", &again, &whole);
        assert_eq!(again.header().stated, whole.header().stated);
        assert_eq!(shards_of(&again).map(NonZeroUsize::get), Some(shards.unwrap_or(1)));
        let unpacked = folder.path().join(format!("{shards:?}"));
        tar::Archive::new(&bytes[..]).unpack(&unpacked).expect("unpacks");
        compare("an index", &open(&unpacked.join(INDEX)), &whole);
    }
    // A model that is too large for one message, by a lower limit.
    let options = ExportOptions { onnx_bytes: 1000, ..ExportOptions::default() };
    let (packing, bytes) = exported(&options, ExportFormat::Onnx, Some(&graph));
    assert_eq!(packing, Packing::Tar);
    fs::write(at("y.tar"), &bytes).expect("writes");
    let again = open(&at("y.tar"));
    compare("a tar of a model and its data", &again, &whole);
    assert_eq!(again.header().copied_bytes, 0);
    let (packing, bytes) = exported(&ExportOptions::default(), ExportFormat::Onnx, Some(&graph));
    assert_eq!(packing, Packing::Alone);
    assert_eq!(read_layout(&bytes).expect("a model").header.stated, again.header().stated);
    assert_eq!(again.header().stated, whole.header().stated, "with every name");
}

#[test]
fn archives_that_lie_about_sizes_are_refused() {
    let file = fs::read(fixtures("onnx/beside/lenet_deflated.zip")).expect("the fixture");
    for (size, said) in [(0xffff_fff0_u32, "pack them as a tar"), (1 << 20, "its length or its checksum is wrong")] {
        let mut lying = file.clone();
        let at = directory_entry(&lying, b"lenet.weights");
        lying[at + 24..at + 28].copy_from_slice(&size.to_le_bytes());
        let error = read_layout(&lying).expect_err("it is refused").to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn tensors_may_share_their_bytes() {
    let place =
        |offset: &str| [("location", "d"), ("offset", offset)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let tensors = [tensor_beside("w", &[2, 2], &place("0")), tensor_beside("b", &[2], &place("4"))];
    let file = model(&[("MatMul", &["x", "w"], "m"), ("Add", &["m", "b"], "y")], &tensors, &[1, 2]);
    let layout = read_files(&file, &[("d", &[0; 16])]).expect("a network");
    let bias = layout.spans().next().expect("a tensor that lies there");
    assert_eq!((bias.1, bias.2), (file.len() as u64 + 4, file.len() as u64 + 12));
    assert_eq!(layout.header.copied_bytes, 16, "the matrix alone, which is transposed");
}

#[test]
fn commands_take_and_give_models_in_several_files() {
    let folder = shards();
    let run = |arguments: &[&str]| {
        let program = Command::new(env!("CARGO_BIN_EXE_engraft")).current_dir(folder.path()).args(arguments).output();
        let output = program.expect("the program runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).expect("text"))
    };
    let (ok, shown) = run(&["inspect", INDEX, "--json"]);
    assert!(ok, "{shown}");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let files = CheckpointFiles::open(&folder.path().join(INDEX)).expect("opens");
    assert_eq!((&shown["bytes"], &shown["sha256"]), (&json!(files.bytes()), &json!(files.sha256().expect("reads"))));
    let (ok, said) = run(&["convert", INDEX, "one.safetensors"]);
    assert!(ok, "{said}");
    let (ok, said) = run(&["convert", INDEX, "again.tar"]);
    assert!(ok, "{said}");
    let again = open(&folder.path().join("again.tar"));
    compare("as many shards as before", &again, &open(&folder.path().join(INDEX)));
    assert_eq!(shards_of(&again).map(NonZeroUsize::get), Some(2));
    for over in [FIRST, SECOND, INDEX] {
        let (ok, said) = run(&["convert", INDEX, over, "--force"]);
        assert!(!ok, "{said}");
    }
    let fuse = ["fuse", "--member", INDEX, "--member", "one.safetensors", "--out"];
    for over in [FIRST, SECOND] {
        let (ok, said) = run(&[&fuse[..], &[over, "--force"]].concat());
        assert!(!ok && said.contains("would be written over the input"), "{said}");
    }
    let (ok, said) = run(&[&fuse[..], &["fused.tar"]].concat());
    assert!(ok, "{said}");
    let fused = open(&folder.path().join("fused.tar"));
    assert_eq!(fused.header().tensors, again.header().tensors);
    assert_eq!(shards_of(&fused).map(NonZeroUsize::get), Some(2), "as its first member");
}

/// The files of a model, the first of which names the others.
fn models() -> Vec<Vec<(String, Vec<u8>)>> {
    let read = |folder: &Path, names: &[&str]| {
        names.iter().map(|name| ((*name).to_owned(), fs::read(folder.join(name)).expect("a file"))).collect()
    };
    let folder = fixtures("onnx/beside");
    vec![
        read(&folder, &["resnet.onnx", "resnet.onnx.data"]),
        read(&folder, &["lenet.onnx", "lenet.weights"]),
        read(shards().path(), &[INDEX, FIRST, SECOND]),
        read(&folder, &["resnet.tar"]),
        read(&folder, &["lenet_deflated.zip"]),
    ]
}

proptest! {
    #[test]
    fn changed_files_never_panic(
        which in 0_usize..5,
        changes in proptest::collection::vec((any::<usize>(), any::<usize>(), any::<u8>()), 0..4),
        cut in any::<usize>(),
    ) {
        let mut files = models().swap_remove(which);
        let count = files.len();
        for (file, at, byte) in changes {
            let bytes = &mut files[file % count].1;
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if cut % 4 == 0 {
            let bytes = &mut files[cut / 4 % count].1;
            bytes.truncate(cut / 16 % (bytes.len() + 1));
        }
        let (main, others) = files.split_first().expect("a file");
        if let Ok(names) = beside(&main.1) {
            // What is named otherwise by now gets any bytes.
            let bytes_of = |name: &str| others.iter().find(|(other, _)| other == name).unwrap_or(&files[count - 1]);
            let given: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &bytes_of(name).1[..])).collect();
            let all = main.1.len() + given.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            if let Ok(layout) = read_files(&main.1, &given) {
                for (info, begin, end) in layout.spans() {
                    prop_assert!(end <= all as u64);
                    prop_assert_eq!((end - begin) as usize, info.elements() * info.dtype.size());
                }
            }
        }
    }
}
