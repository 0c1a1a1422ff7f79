//! Checkpoints as PyTorch and NumPy write them, each compared with what it holds; what cannot be read says what to do.

use std::path::{Path, PathBuf};

use engraft::model::header::CheckpointHeader;
use engraft::tensors::{Checkpoint, Weights};

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
fn compare(name: &str, found: &Checkpoint, expected: &Checkpoint) {
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
        if !path.extension().is_some_and(|extension| extension == "pt" || extension == "npz") {
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
        ("training.pt", &["entry `model_state_dict`", "`optimizer`, `args`, `rng_state` beside it is not read"]),
        ("average.pt", &["entry `model`", "`ema` beside it holds weights too"]),
        ("only_average.pt", &["entry `state_dict_ema`"]),
        ("lightning.pt", &["entry `state_dict`"]),
        ("model_of_dict.pt", &["entry `model`", "`best` beside it"]),
        ("averaged.pt", &["`n_averaged`, the counter"]),
        ("evil_beside.pt", &["entry `state_dict`", "`extra` beside it is not read"]),
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
        ("objects.npz", "array `w`: its element type is"),
        ("array.npy", "a single NumPy array"),
    ] {
        let error = refusal(name);
        assert!(error.contains(said), "{name}: {error}");
    }
    assert!(!Path::new("/tmp/engraft-was-here").exists(), "a pickle has run");
}
