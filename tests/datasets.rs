//! Reads small datasets of every format that are packed here, broken ones, and the real ones where they are at hand.

mod packing;

use engraft::data::{Dataset, DatasetError, Limits, Pixels, inspect};
use engraft::domain::dataset::{DatasetFacts, DatasetFormat};
use packing::{Packed, gzip, idx_images, idx_labels, npy, npz, shared, tar};

fn facts(bytes: &[u8]) -> Result<DatasetFacts, DatasetError> {
    inspect(Packed::new(bytes).path(), &Limits::default())
}

/// The message of the error that `bytes` give.
fn refusal(bytes: &[u8]) -> String {
    facts(bytes).expect_err("unusable").to_string()
}

/// The dataset in memory; its facts must be those of reading it through.
fn open(bytes: &[u8]) -> Dataset {
    let packed = Packed::new(bytes);
    let dataset = Dataset::open(packed.path(), &Limits::default()).expect("usable");
    assert_eq!(dataset.facts, inspect(packed.path(), &Limits::default()).expect("usable"));
    dataset
}

fn small_npz() -> Vec<u8> {
    npz(&[
        ("x", npy("|u1", "(4, 2, 2)", &[0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255])),
        ("y", npy("<i8", "(4,)", &[0_i64, 2, 2, 1].map(i64::to_le_bytes).concat())),
        ("x_test", npy("|u1", "(1, 2, 2)", &[1, 2, 3, 4])),
        ("y_test", npy("|u1", "(1,)", &[3])),
    ])
}

#[test]
fn npz_with_two_splits() {
    let Dataset { facts, train, test } = open(&small_npz());
    assert_eq!(*train.pixels(), Pixels::U8([0, 255].repeat(8)));
    assert_eq!(train.labels(), [0, 2, 2, 1]);
    assert_eq!(*test.expect("a test split").pixels(), Pixels::U8(vec![1, 2, 3, 4]));
    assert_eq!((facts.format, facts.classes), (DatasetFormat::Npz, 4));
    assert_eq!(facts.example_shape, [1, 2, 2]);
    assert_eq!(facts.splits["train"].per_class, [1, 1, 2, 0]);
    assert_eq!(facts.splits["test"].per_class, [0, 0, 0, 1]);
    assert_eq!((facts.mean, facts.std), (vec![0.5], vec![0.5]));
}

#[test]
fn npz_in_every_order_gives_the_same() {
    let values = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let columns = [1.0_f64, 4.0, 2.0, 5.0, 3.0, 6.0];
    let little = npy("<f4", "(2, 3)", &values.map(f32::to_le_bytes).concat());
    let big = npy(">f4", "(2, 3)", &values.map(f32::to_be_bytes).concat());
    let fortran = packing::npy_ordered(">f8", true, "(2, 3)", &columns.map(f64::to_be_bytes).concat());
    let integers = npy(">i2", "(2, 3)", &[1_i16, 2, 3, 4, 5, 6].map(i16::to_be_bytes).concat());
    let labels = npy(">u2", "(2, 1)", &[0, 0, 0, 1]);
    let read = |x: Vec<u8>| open(&npz(&[("x", x), ("y", labels.clone())]));
    let expected = read(little);
    assert_eq!((expected.facts.example_shape.as_slice(), expected.facts.mean[0]), (&[3][..], 3.5));
    assert_eq!(*expected.train.pixels(), Pixels::F32(values.to_vec()));
    assert_eq!(expected.train.labels(), [0, 1]);
    for other in [big, fortran, integers].map(read) {
        assert_eq!((other.facts, other.train), (expected.facts.clone(), expected.train.clone()));
    }
}

#[test]
fn idx_files_are_found_in_any_folder_gzipped_or_not() {
    let (images, labels) = (idx_images(3, 2, 2, 7), idx_labels(&[0, 1, 1]));
    let files = [
        ("./mnist/._train-images-idx3-ubyte", b"finder".to_vec()),
        ("./mnist/train-labels.idx1-ubyte", labels.clone()),
        ("./mnist/train-images.idx3-ubyte.gz", gzip(&images)),
        ("./mnist/t10k-images-idx3-ubyte", gzip(&images)),
        ("./mnist/t10k-labels-idx1-ubyte.gz", labels),
    ];
    for packed in [tar(&files), gzip(&tar(&files)), packing::zip(&files)] {
        let facts = facts(&packed).expect("usable");
        assert_eq!((facts.format, facts.classes), (DatasetFormat::Idx, 2));
        assert_eq!(facts.splits["test"].per_class, [1, 2]);
        assert!((facts.mean[0] - 7.0 / 255.0).abs() < 1e-12 && facts.std[0] == 0.0);
    }
}

#[test]
fn what_is_wrong_with_arrays_is_named() {
    let x = npy("<f4", "(2, 1)", &[0; 8]);
    let y = npy("|u1", "(2,)", &[0, 1]);
    let with_y = |y: Vec<u8>| refusal(&npz(&[("x", x.clone()), ("y", y)]));
    let with_x = |x: Vec<u8>| refusal(&npz(&[("x", x), ("y", y.clone())]));
    let nan = [1.0, f32::NAN].map(f32::to_le_bytes).concat();
    for (message, said) in [
        (refusal(b""), "empty"),
        (refusal(b"hello, world"), "68 65 6c 6c"),
        (refusal(&npz(&[("arr_0", x.clone())])), "array `x` and array `y` is missing; found `arr_0`"),
        (refusal(&npz(&[("x", x.clone()), ("y", y.clone()), ("x_test", x.clone())])), "array `y_test` is missing"),
        (refusal(&npz(&[("x", x.clone()), ("x_train", x.clone()), ("y", y.clone())])), "the same part"),
        (with_y(npy("|i1", "(2,)", &[0, 255])), "`y[1]` is -1"),
        (with_y(npy("<f4", "(2,)", &[0.0, 1.5].map(f32::to_le_bytes).concat())), "`y[1]` is 1.5"),
        (with_y(npy("<u4", "(2,)", &[65_535, 65_536].map(u32::to_le_bytes).concat())), "`y[1]` is 65536"),
        (with_y(npy("|u1", "(1,)", &[0])), "2 examples but 1 labels"),
        (with_y(npy("|u1", "(2, 3)", &[0; 6])), "argmax"),
        (with_x(npy("<f4", "(2, 1)", &nan)), "`x[1, 0]` is NaN"),
        (with_x(npy("<f8", "(2, 1)", &[1e300, 0.0].map(f64::to_le_bytes).concat())), "`x[0, 0]` is 1"),
        (with_x(npy("<f4", "(2, 2)", &[0; 8])), "should hold 16 bytes by its shape and element type, but holds 8"),
        (with_x(npy("<f4", "(2,)", &[0; 8])), "N x C x H x W"),
        (with_x(npy("|O", "(2, 1)", &[0; 8])), "ragged"),
        (with_x(npy("|u1", "(4294967296, 4294967296, 4294967296)", &[0; 8])), "18446744073709551615 bytes"),
    ] {
        assert!(message.contains(said), "expected {said:?} in {message:?}");
    }
}

#[test]
fn what_is_wrong_with_idx_files_is_named() {
    let (images, labels) = (idx_images(2, 2, 2, 7), idx_labels(&[0, 1]));
    let read = |images: &[u8], labels: &[u8]| {
        refusal(&tar(&[("train-images-idx3-ubyte", images.to_vec()), ("train-labels-idx1-ubyte", labels.to_vec())]))
    };
    let zipped = gzip(&images);
    for (message, said) in [
        (read(&labels, &labels), "begins with 00 00 08 01"),
        (read(&images[..images.len() - 1], &labels), "should hold 8 bytes"),
        (read(&[&images[..], &[0]].concat(), &labels), "holds more"),
        (read(&images, &idx_labels(&[1])), "2 examples but 1 labels"),
        (read(&zipped[..zipped.len() - 9], &labels), "cannot be read"),
        (refusal(&tar(&[("train-images-idx3-ubyte", images.clone())])), "train-labels-idx1-ubyte is missing"),
        (
            refusal(&tar(&[
                ("train-images-idx3-ubyte", images.clone()),
                ("a/train-images.idx3-ubyte", images.clone()),
                ("train-labels-idx1-ubyte", labels.clone()),
            ])),
            "`train-images-idx3-ubyte` and",
        ),
    ] {
        assert!(message.contains(said), "expected {said:?} in {message:?}");
    }
}

#[test]
fn limits_hold_whatever_headers_promise() {
    let limits = Limits { decoded_bytes: 64, entries: 3 };
    let at = |bytes: &[u8]| inspect(Packed::new(bytes).path(), &limits).expect_err("too much").to_string();
    let labels = npy("|u1", "(2,)", &[0, 1]);
    let message = at(&npz(&[("x", npy("|u1", "(2, 40)", &[0; 80])), ("y", labels)]));
    assert!(message.contains("more than 64 bytes"), "{message}");
    let bomb = gzip(&tar(&[("zeros", vec![0; 100_000])]));
    let message = at(&bomb);
    assert!(message.contains("more than 64 bytes"), "{message}");
    let many: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| (name, Vec::new())).into();
    for packed in [packing::zip(&many), tar(&many)] {
        let message = at(&packed);
        assert!(message.contains("more than 3 files"), "{message}");
    }
}

#[test]
fn mnist_has_its_known_statistics() {
    let Some(folder) = shared("mnist_has_its_known_statistics", "data/mnist") else { return };
    let names = [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ];
    let files = names.map(|name| (name, std::fs::read(folder.join(name)).expect("readable")));
    let facts = facts(&tar(&files)).expect("usable");
    assert_eq!((facts.example_shape.as_slice(), facts.classes), (&[1, 28, 28][..], 10));
    assert_eq!((facts.splits["train"].examples, facts.splits["test"].examples), (60_000, 10_000));
    assert!((facts.mean[0] - 0.1307).abs() < 5e-5 && (facts.std[0] - 0.3081).abs() < 5e-5, "{facts:?}");
}
