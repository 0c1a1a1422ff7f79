//! Checkpoints as PyTorch and NumPy write them, each compared with what it holds; what cannot be read says what to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use engraft::export::pytorch::write_pytorch;
use engraft::model::formats::{FormatError, read_layout};
use engraft::model::header::CheckpointHeader;
use engraft::tensors::{Checkpoint, Weights};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints")
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refusal(name: &str) -> String {
    Checkpoint::open(&folder().join("refused").join(name)).expect_err(name).to_string()
}

/// Checks that both hold the same tensors: names, types, shapes and every element.
pub(crate) fn compare(name: &str, found: &Checkpoint, expected: &Checkpoint) {
    let names = |header: &CheckpointHeader| header.tensors.iter().map(|info| info.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(found.header()), names(expected.header()), "{name}");
    for (found_info, info) in found.header().tensors.iter().zip(&expected.header().tensors) {
        assert_eq!(found_info, info, "{name}");
        if info.dtype.is_float() {
            let bits =
                |file: &Checkpoint| file.f32(&info.name).unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(found), bits(expected), "{name}: {}", info.name);
        } else {
            let integers = |file: &Checkpoint| file.integers(&info.name).unwrap();
            assert_eq!(integers(found), integers(expected), "{name}: {}", info.name);
        }
    }
}

#[test]
fn every_file_holds_what_its_writer_put_in() {
    let mut files = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !["pt", "npz", "zip", "tar"].contains(&extension) {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        // What wrappers put before names is compared away.
        let stem = name.rsplit_once('.').unwrap().0;
        compare(name, &open(name).with_prefix(""), &open(&format!("{stem}.safetensors")));
        files += 1;
    }
    assert!(files > 20, "only {files} files");
}

#[test]
fn what_was_chosen_of_several_is_said() {
    for (name, said) in [
        ("state_dict.pt", &[][..]),
        ("training.pt", &["entry `model_state_dict`", "not read: `epoch`, `optimizer`, `args`, `rng_state`"]),
        ("average.pt", &["entry `model`", "not those beside it: `ema`"]),
        ("only_average.pt", &["entry `state_dict_ema`"]),
        ("lightning.pt", &["entry `state_dict`"]),
        ("model_of_dict.pt", &["entry `model`", "not read: `best`"]),
        ("averaged.pt", &["`n_averaged`, the counter"]),
        ("evil_beside.pt", &["entry `state_dict`", "not read: `extra`"]),
    ] {
        let notes = open(name).header().notes.join("\n");
        assert_eq!(notes.is_empty(), said.is_empty(), "{name}: {notes}");
        assert!(said.iter().all(|part| notes.contains(part)), "{name}: {notes}");
    }
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    for (name, said) in [
        ("complex.pt", "ComplexFloatStorage"),
        ("float8.pt", "float8_e4m3fn"),
        ("sparse.pt", "tensor `w` is sparse: convert it"),
        ("quantised.pt", "tensor `w` is quantised: convert it"),
        ("list.pt", "(a list); save them with `torch.save(model.state_dict(), file)`"),
        ("tensor.pt", "(a single tensor)"),
        ("several.pt", "several sets of weights: `generator`, `discriminator`"),
        ("two_models.pt", "several sets of weights: `model`, `net`"),
        ("nothing.pt", "(a dict of `epoch`, `optimizer`)"),
        ("evil_alone.pt", "(an object of the class `posix.system`)"),
        ("torchscript.pt", "TorchScript: save its weights with"),
        ("exported.pt2", "`torch.export`: save its weights with"),
        ("pickle.pkl", "a pickle, not a checkpoint"),
        ("other.zip", "a zip archive that holds no checkpoint"),
        ("unindexed.zip", "several files of weights without an index"),
        ("lacks_a_shard.zip", "which are missing: `model-00002-of-00002.safetensors`"),
        ("lacks_a_shard.tar", "which are missing: `model-00002-of-00002.safetensors`"),
        ("within.zip", "in which `model/pytorch_model.bin` lies"),
        ("objects.npz", "array `w`: its element type is"),
        ("array.npy", "a single NumPy array"),
    ] {
        let error = refusal(name);
        assert!(error.contains(said), "{name}: {error}");
    }
    assert!(!Path::new("/tmp/engraft-was-here").exists(), "a pickle has run");
}

#[test]
fn pytorch_loads_what_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["every_dtype_2", "unsigned", "views", "model"] {
        let expected = folder.path().join("expected.safetensors");
        std::fs::copy(self::folder().join(format!("{name}.safetensors")), &expected).expect("copies");
        let source = Checkpoint::open(&expected).expect("a checkpoint");
        let mut names: Vec<&str> = source.header().tensors.iter().map(|info| info.name.as_str()).collect();
        names.sort_unstable();
        let tensors: Vec<_> = names.iter().map(|name| source.bytes(name).expect("a tensor")).collect();
        let written = folder.path().join("written.pt");
        write_pytorch(&tensors, &mut std::fs::File::create(&written).expect("a file")).expect("writes");
        compare(name, &Checkpoint::open(&written).expect("reads its own"), &source);
        let Ok(python) = std::env::var("ENGRAFT_TEST_TORCH") else {
            println!("SKIPPED: PyTorch itself; ENGRAFT_TEST_TORCH names a Python that has it");
            continue;
        };
        let load = self::folder().join("load.py");
        let loads = Command::new(python).arg(load).args([&written, &expected]).output().expect("runs");
        assert!(loads.status.success(), "{name}: {}", String::from_utf8_lossy(&loads.stderr));
    }
}

/// A pickle behind the first three of the old container, with no storages.
fn legacy(pickle: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    [&magic[..], b"\x80\x02M\xe9\x03.", b"\x80\x02}.", pickle, b"\x80\x02]."].concat()
}

/// The pickle of a dict with one tensor: of these sizes and strides, and a storage of `elements`.
fn tensor(elements: &[u8], offset: &[u8], sizes: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu";
    let end = b"\x89ccollections\nOrderedDict\n)RtRs.";
    [&storage[..], elements, b"tQ", offset, b"(", sizes, b"t(", strides, b"t", end].concat()
}

#[test]
fn hostile_pickles_are_refused() {
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    let negative = b"J\xff\xff\xff\xff";
    let one = b"K\x01";
    let lists = b"]q\0".iter().chain(b"(h\0h\0h\0h\0e".repeat(1000).iter()).copied().collect::<Vec<u8>>();
    let names = tensor(one, b"K\0", one, one);
    let at = names.iter().position(|byte| *byte == b'w').expect("a name");
    let long = [&names[..at - 4], &1_000_000_u32.to_le_bytes(), &vec![b'w'; 1_000_000], &names[at + 1..]].concat();
    let compiled = b"\x80\x02ctorch._dynamo.eval_frame\nOptimizedModule\ncm\nM\n)\x81}(X\x08\0\0\0_modules}X\x0b\0\0\0_parameters}ubN\x86R.";
    assert!(read_layout(b"").unwrap_err().to_string().contains("empty"));
    for (what, pickle, said) in [
        ("elements that are not there", tensor(one, b"K\0", one, one), "the file does not hold"),
        ("2^63 elements", tensor(huge, b"K\0", huge, one), "the file does not hold"),
        ("negative sizes", tensor(one, b"K\0", negative, one), "below 0"),
        ("negative strides", tensor(one, b"K\0", one, negative), "below 0"),
        ("a negative offset", tensor(one, negative, one, one), "below 0"),
        ("a size without a stride", tensor(one, b"K\0", b"K\x01K\x01", one), "not as many strides"),
        ("a name without end", long, "`wwwwwwww"),
        ("too many axes", tensor(one, b"K\0", &b"K\x01".repeat(99), &b"K\x01".repeat(99)), "too many axes"),
        ("an empty stack", b"\x80\x020.".to_vec(), "its stack is empty"),
        ("no mark", b"\x80\x02t.".to_vec(), "no mark"),
        ("nothing kept", b"\x80\x02h\x07.".to_vec(), "not kept"),
        ("an unknown operation", b"\x80\x02\xff.".to_vec(), "0xff at byte 2"),
        ("a persistent id of nothing", b"\x80\x02NQ.".to_vec(), "described in an unknown way"),
        ("a text that ends behind the file", b"\x80\x02X\xff\xff\xff\xff".to_vec(), "truncated"),
        ("a list in itself", [b"\x80\x02", &lists[..], b"."].concat(), "(a list)"),
        ("a call of a call", b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R\x85R.".to_vec(), "damaged"),
        ("a compiled model without parameters", compiled.to_vec(), "a model without parameters"),
        ("a system call", b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.".to_vec(), "class `os.system`"),
    ] {
        let error = read_layout(&legacy(&pickle)).map(|_| ()).expect_err(what).to_string();
        assert!(error.contains(said) && error.len() < 1000, "{what}: {error}");
    }
}

/// Where the directory of the zip archive `file` has the entry whose name ends with `name`.
pub(crate) fn directory_entry(file: &[u8], name: &[u8]) -> usize {
    let is = |at: &usize| {
        let length = usize::from(file[at + 28]);
        file[*at..].starts_with(b"PK\x01\x02") && file[at + 46..at + 46 + length].ends_with(name)
    };
    (0..file.len() - 46).find(is).expect("an entry")
}

#[test]
fn hostile_archives_are_refused() {
    let read = |name: &str| std::fs::read(folder().join(name)).expect("a fixture");
    // A storage that would be 4 GB when unpacked, and is not.
    let mut bomb = read("deflated.pt");
    let at = directory_entry(&bomb, b"data/0");
    bomb[at + 24..at + 28].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    assert!(matches!(read_layout(&bomb), Err(FormatError::CopiesTooLarge { bytes: 0xffff_fff0.., .. })));
    // Two storages of one name.
    let mut twice = read("unaligned.pt");
    let at = directory_entry(&twice, b"data/1");
    let last = at + 46 + usize::from(twice[at + 28]) - 1;
    twice[last] = b'0';
    let error = read_layout(&twice).unwrap_err().to_string();
    assert!(error.contains("data/0` twice"), "{error}");
    // A storage with fewer bytes than its tensors: all of it is there, but in another entry.
    let mut short = read("unaligned.pt");
    let at = directory_entry(&short, b"data/0");
    for field in [20, 24] {
        short[at + field..at + field + 4].copy_from_slice(&4_u32.to_le_bytes());
    }
    let error = read_layout(&short).unwrap_err().to_string();
    assert!(error.contains("shorter than the pickle says"), "{error}");
    // What is unpacked is not what was packed.
    let mut damaged = read("deflated.pt");
    let at = directory_entry(&damaged, b"data/0");
    damaged[at + 16] ^= 1;
    let path = tempfile::tempdir().expect("a folder");
    std::fs::write(path.path().join("damaged.pt"), &damaged).expect("writes");
    let error = Checkpoint::open(&path.path().join("damaged.pt")).unwrap_err().to_string();
    assert!(error.contains("its checksum is wrong"), "{error}");
}

#[test]
fn pickles_that_explode_are_refused_in_time() {
    let begun = std::time::Instant::now();
    // Dicts of one long list, over and over.
    let pairs = b"K\x01K\x02\x86".repeat(10_000);
    let many = b"ccollections\nOrderedDict\nh\0\x85R".repeat(10_000);
    let dicts = [&b"\x80\x02]q\0("[..], &pairs, b"e", &many, b"."].concat();
    assert!(
        matches!(read_layout(&legacy(&dicts)), Err(FormatError::PyTorch(error)) if error.to_string().contains("more than"))
    );
    // Modules that each hold the one before twice: 2^40 names.
    let module = |parts: &str| format!("cm\nM\n)\u{81}}}(X\x08\0\0\0_modules}}({parts}uX\x0b\0\0\0_parameters}}ub");
    let mut bytes = b"\x80\x02".to_vec();
    let latin = |text: String| text.chars().map(|c| c as u8).collect::<Vec<u8>>();
    bytes.extend(latin(module("")));
    bytes.extend(b"q\x01");
    for _ in 0..40 {
        bytes.extend(latin(module("X\x01\0\0\0ah\x01X\x01\0\0\0bh\x01")));
        bytes.extend(b"q\x01");
    }
    bytes.push(b'.');
    let error = read_layout(&legacy(&bytes)).unwrap_err().to_string();
    assert!(error.contains("more than 100000 modules"), "{error}");
    // A module in itself.
    let own =
        latin("cm\nM\n)\u{81}q\x01}(X\x08\0\0\0_modules}(X\x01\0\0\0ah\x01uX\x0b\0\0\0_parameters}ub.".to_owned());
    let error = read_layout(&legacy(&[b"\x80\x02", &own[..]].concat())).unwrap_err().to_string();
    assert!(error.contains("nested deeper"), "{error}");
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

proptest! {
    #[test]
    fn changed_files_never_panic(file in 0_usize..64, changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), cut in any::<usize>()) {
        let names: Vec<PathBuf> = [folder(), folder().join("refused")].iter().flat_map(|folder| {
            let mut names: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
            names.sort();
            names
        }).collect();
        let mut bytes = std::fs::read(&names[file % names.len()]).unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if cut % 4 == 0 {
            bytes.truncate(cut / 4 % (bytes.len() + 1));
        }
        if let Ok(layout) = read_layout(&bytes) {
            for (info, begin, end) in layout.spans() {
                prop_assert!(end <= bytes.len() as u64);
                prop_assert_eq!((end - begin) as usize, info.elements() * info.dtype.size());
            }
        }
    }
}
