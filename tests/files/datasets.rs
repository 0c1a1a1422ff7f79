//! Reads small datasets of every format that are packed here, broken ones, and the real ones where they are at hand.

use crate::common::packing::{self, Packed, gzip, idx_images, idx_labels, npy, npz, picture, safetensors, tar};
use crate::common::shared_data::shared;
use engraft::data::{Dataset, DatasetError, Limits, Pixels, inspect};
use engraft::domain::dataset::{DatasetFacts, DatasetFormat, LabelForm};
use image::ImageFormat::{Jpeg, Png};
use proptest::prelude::*;

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
    let dataset = Dataset::open(packed.path(), &std::env::temp_dir(), &Limits::default()).expect("usable");
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
    let Dataset { facts, train, test, .. } = open(&small_npz());
    assert_eq!(train.pixels(), Pixels::U8(&[0, 255].repeat(8)));
    assert_eq!(train.labels().classes(), [0, 2, 2, 1]);
    assert_eq!(test.expect("a test split").pixels(), Pixels::U8(&[1, 2, 3, 4]));
    assert_eq!((facts.format, facts.classes), (DatasetFormat::Npz, 4));
    assert_eq!(facts.example_shape, [1, 2, 2]);
    assert_eq!(facts.splits["train"].per_class, [1, 1, 2, 0]);
    assert_eq!(facts.splits["test"].per_class, [0, 0, 0, 1]);
    assert_eq!((facts.mean, facts.std, facts.byte_elements), (vec![0.5], vec![0.5], Some(true)));
}

#[test]
fn arrays_of_inputs_alone_have_no_labels() {
    let inputs = npy("<f4", "(2, 1)", &[0.5_f32, 1.5].map(f32::to_le_bytes).concat());
    let floats = [0.5_f32, 1.5].map(f32::to_le_bytes).concat();
    let tensors = safetensors(&[("x", "F32", &[2, 1], floats)]);
    for (file, format) in [
        (npz(&[("x", inputs.clone())]), DatasetFormat::Npz),
        (inputs.clone(), DatasetFormat::Npy),
        (tensors, DatasetFormat::Safetensors),
    ] {
        let Dataset { facts, train, .. } = open(&file);
        assert_eq!((facts.format, facts.classes, facts.labels), (format, 0, LabelForm::Absent));
        assert_eq!((train.len(), train.pixels(), train.labels().are_there()), (2, Pixels::F32(&[0.5, 1.5]), false));
        assert_eq!((facts.preview.len(), facts.preview[0].label), (2, None));
        assert!(facts.notes.iter().any(|note| note.contains("no labels")), "{:?}", facts.notes);
    }
    let two = open(&npz(&[("x", inputs.clone()), ("x_test", inputs.clone())]));
    assert_eq!(two.test.map(|test| (test.len(), test.labels().are_there())), Some((2, false)));
    // What some examples have all have.
    let mixed = npz(&[("x", inputs.clone()), ("x_test", inputs), ("y_test", npy("|u1", "(2,)", &[0, 1]))]);
    assert!(refusal(&mixed).contains("array `y` is missing"));
}

#[test]
fn bytes_beside_floats_are_noted() {
    let mixed = npz(&[
        ("x", npy("<f4", "(2, 1)", &[0.5_f32, 255.0].map(f32::to_le_bytes).concat())),
        ("y", npy("|u1", "(2,)", &[0, 1])),
        ("x_test", npy("|u1", "(1, 1)", &[255])),
        ("y_test", npy("|u1", "(1,)", &[1])),
    ]);
    let facts = facts(&mixed).expect("usable");
    assert_eq!((facts.byte_elements, facts.notes.len()), (Some(false), 1));
    assert!(facts.notes[0].starts_with("the test split holds bytes"), "{:?}", facts.notes);
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
    assert_eq!(expected.train.pixels(), Pixels::F32(&values));
    assert_eq!(expected.train.labels().classes(), [0, 1]);
    for other in [big, fortran, integers].map(read) {
        assert_eq!(
            (other.train.pixels(), other.train.labels().classes()),
            (expected.train.pixels(), expected.train.labels().classes())
        );
        assert_eq!(other.facts, expected.facts);
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

/// Records of CIFAR's binary files: labels, then an image of one value.
fn records(labels: &[&[u8]]) -> Vec<u8> {
    let record = |(at, label): (usize, &&[u8])| [label.to_vec(), vec![at as u8; 3 * 32 * 32]].concat();
    labels.iter().enumerate().flat_map(record).collect()
}

#[test]
fn cifar_batches_are_put_in_the_order_of_their_numbers() {
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    let files = [
        ("cifar-10-batches-bin/data_batch_2.bin", records(&[&[9]])),
        ("cifar-10-batches-bin/test_batch.bin", records(&[&[3], &[4]])),
        ("cifar-10-batches-bin/batches.meta.txt", names.as_bytes().to_vec()),
        ("cifar-10-batches-bin/data_batch_1.bin", records(&[&[1], &[2]])),
    ];
    for packed in [gzip(&tar(&files)), packing::zip(&files)] {
        let Dataset { facts, train, test, .. } = open(&packed);
        assert_eq!((facts.format, facts.classes), (DatasetFormat::CifarBinary, 10));
        assert_eq!(facts.class_names.as_deref().map(|names| names[9].as_str()), Some("truck"));
        assert_eq!((facts.example_shape.as_slice(), train.labels().classes()), (&[3, 32, 32][..], &[1, 2, 9][..]));
        let pixels: Vec<u8> = [0, 1, 0].into_iter().flat_map(|value| vec![value; 3 * 32 * 32]).collect();
        assert_eq!(train.pixels(), Pixels::U8(&pixels));
        assert_eq!(test.expect("a test split").labels().classes(), [3, 4]);
    }
}

#[test]
fn the_finer_labels_of_cifar_100_count() {
    let facts = facts(&tar(&[("train.bin", records(&[&[1, 99], &[0, 5]]))])).expect("usable");
    assert_eq!((facts.classes, facts.class_names, facts.splits["train"].per_class[5]), (100, None, 1));
}

#[test]
fn what_is_wrong_with_cifar_batches_is_named() {
    let one = records(&[&[1]]);
    for (message, said) in [
        (refusal(&tar(&[("data_batch_1.bin", one[1..].to_vec())])), "3072 bytes, which is no whole number of records"),
        (refusal(&tar(&[("data_batch_1.bin", records(&[&[1], &[10]]))])), "`data_batch_1.bin[1]` is 10"),
        (refusal(&tar(&[("a/data_batch_1.bin", one.clone()), ("b/data_batch_1.bin", one.clone())])), "the same part"),
        (refusal(&tar(&[("test_batch.bin", one)])), "the train split is missing"),
    ] {
        assert!(message.contains(said), "{message}");
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
        (with_y(npy("<f4", "(2,)", &nan)), "`y[1]` is NaN"),
        (with_y(npy("<u4", "(2,)", &[65_535, 65_536].map(u32::to_le_bytes).concat())), "`y[1]` is 65536"),
        (with_y(npy("|u1", "(1,)", &[0])), "2 examples but 1 labels"),
        (with_y(npy("|u1", "(2, 3, 1)", &[0; 6])), "N x K, one number for each of K outputs"),
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

#[test]
fn safetensors_with_bytes_or_halves() {
    let bytes =
        safetensors(&[("x", "U8", &[2, 2], vec![0, 51, 102, 255]), ("y", "I32", &[2], vec![0, 0, 0, 0, 1, 0, 0, 0])]);
    let dataset = open(&bytes);
    assert_eq!((dataset.facts.format, dataset.facts.classes), (DatasetFormat::Safetensors, 2));
    assert_eq!(dataset.train.pixels(), Pixels::U8(&[0, 51, 102, 255]));
    // 1.0 and -2.0 as bfloat16.
    let halves = safetensors(&[("x", "BF16", &[2, 1], vec![0x80, 0x3f, 0x00, 0xc0]), ("y", "U8", &[2], vec![0, 1])]);
    assert_eq!(open(&halves).train.pixels(), Pixels::F32(&[1.0, -2.0]));
    assert!(refusal(&safetensors(&[("weight", "U8", &[1], vec![0])])).contains("found `weight`"));
    assert!(refusal(&bytes[..bytes.len() - 1]).contains("truncated"));
}

/// Two classes, two splits, PNG and JPEG, grey among colours.
fn small_folders() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("set/train/dog/1.png", picture(Png, 4, 3, &[9])),
        ("set/train/cat/b.png", picture(Png, 4, 3, &[1, 2, 3])),
        ("set/train/cat/a.jpg", picture(Jpeg, 4, 3, &[128, 128, 128])),
        ("set/test/dog/1.jpeg", picture(Png, 4, 3, &[7, 8, 9])),
        ("__MACOSX/set/train/cat/._a.jpg", b"finder".to_vec()),
    ]
}

#[test]
fn class_folders_in_every_archive() {
    let files = small_folders();
    for packed in [packing::zip(&files), tar(&files), gzip(&tar(&files))] {
        let Dataset { facts, train, test, .. } = open(&packed);
        assert_eq!((facts.format, facts.example_shape.as_slice()), (DatasetFormat::ClassFolders, &[3, 3, 4][..]));
        assert_eq!(facts.class_names.expect("names"), ["cat", "dog"]);
        assert!(facts.skipped.into_iter().eq([("of the operating system".to_owned(), 1)]));
        assert_eq!(
            (train.labels().classes(), test.as_ref().expect("a test split").labels().classes()),
            (&[0, 0, 1][..], &[1][..])
        );
        let planes = |colours: [u8; 3]| colours.map(|value| [value; 12]).concat();
        let expected = [planes([128; 3]), planes([1, 2, 3]), planes([9; 3])].concat();
        assert_eq!(train.pixels(), Pixels::U8(&expected));
        assert_eq!(test.expect("a test split").pixels(), Pixels::U8(&planes([7, 8, 9])));
    }
}

#[test]
fn an_empty_folder_is_a_class_and_one_class_alone_is_noted() {
    let files = [
        ("a/1.png", picture(Png, 2, 2, &[5])),
        ("b/", Vec::new()),
        ("c/1.jfif", picture(Jpeg, 2, 2, &[5])),
        ("c/.x", Vec::new()),
    ];
    for packed in [packing::zip(&files), tar(&files), gzip(&tar(&files))] {
        let Dataset { facts, train, .. } = open(&packed);
        assert_eq!((facts.classes, facts.class_names.as_deref()), (3, Some(&["a", "b", "c"].map(str::to_owned)[..])));
        assert_eq!((train.labels().classes(), train.classes(), facts.notes.len()), (&[0, 2][..], 3, 0));
        assert_eq!(facts.splits["train"].per_class, [1, 0, 1]);
    }
    let alone = facts(&packing::zip(&files[2..])).expect("usable");
    assert!(alone.notes[0].contains("the label 0 (`c`)"), "{:?}", alone.notes);
    let numbers = npz(&[("x", npy("|u1", "(2, 1)", &[1, 2])), ("y", npy("|u1", "(2,)", &[3, 3]))]);
    assert!(facts(&numbers).expect("usable").notes[0].contains("the label 3:"));
}

#[test]
fn grey_images_have_one_channel() {
    // Names that would leave a folder are only names.
    let dataset =
        open(&packing::zip(&[("../0/a.png", picture(Png, 2, 2, &[5])), ("../1/b.png", picture(Png, 2, 2, &[6]))]));
    assert_eq!(dataset.facts.example_shape, [1, 2, 2]);
    assert_eq!(dataset.train.pixels(), Pixels::U8(&[5, 5, 5, 5, 6, 6, 6, 6]));
}

#[test]
fn what_is_wrong_with_images_is_named() {
    let good = picture(Png, 4, 4, &[1, 2, 3]);
    let with = |bad: Vec<u8>| refusal(&packing::zip(&[("a/good.png", good.clone()), ("b/bad.jpg", bad)]));
    let jpeg = picture(Jpeg, 4, 4, &[1, 2, 3]);
    // Cut short behind its thumbnail, which is a whole JPEG.
    let (cut, thumbnail) = (&jpeg[..jpeg.len() - 20], u16::try_from(jpeg.len() + 2).expect("short").to_be_bytes());
    for (message, said) in [
        (with(picture(Png, 4, 5, &[1, 2, 3])), "`b/bad.jpg` has 4x5 pixels, but `a/good.png` has 4x4"),
        (with(good[..good.len() - 20].to_vec()), "`b/bad.jpg` cannot be used"),
        (with(jpeg[..jpeg.len() - 20].to_vec()), "`b/bad.jpg` cannot be used: the JPEG data ends early"),
        (
            with([&cut[..2], &[0xff, 0xe1], &thumbnail, &jpeg, &cut[2..]].concat()),
            "`b/bad.jpg` cannot be used: the JPEG data ends early",
        ),
        (with(b"GIF89a".to_vec()), "`b/bad.jpg` cannot be used: it is none of PNG, JPEG"),
        (with(Vec::new()), "`b/bad.jpg` cannot be used"),
        (with(packing::png_header(100_000, 100_000)), "more than 33554432 pixels"),
        (refusal(&packing::zip(&[("notes.txt", Vec::new())])), "found `notes.txt`"),
    ] {
        assert!(message.contains(said), "expected {said:?} in {message:?}");
    }
    let mut damaged = packing::zip(&[("a/good.png", good.clone())]);
    let at = damaged.windows(4).position(|bytes| bytes == b"IDAT").expect("a PNG chunk");
    damaged[at + 5] ^= 1;
    assert!(refusal(&damaged).contains("`a/good.png`"), "{}", refusal(&damaged));
}

#[test]
fn cifar_10_is_decoded_as_it_was_packed() {
    let Some(path) = shared("cifar_10_is_decoded_as_it_was_packed", "data/cifar10-jpeg.zip") else { return };
    // A thousandth of it, since decoding all takes a while in this profile.
    let mut whole = zip::ZipArchive::new(std::fs::File::open(path).expect("opens")).expect("a zip");
    let names: Vec<String> = whole.file_names().map(|name| name.expect("a name").into_owned()).collect();
    let files: Vec<(&str, Vec<u8>)> = names
        .iter()
        .filter(|name| name.ends_with("7.jpg"))
        .step_by(100)
        .map(|name| {
            let mut bytes = Vec::new();
            std::io::copy(&mut whole.by_name(name).expect("there"), &mut bytes).expect("reads");
            (name.as_str(), bytes)
        })
        .collect();
    let facts = open(&tar(&files)).facts;
    assert_eq!((facts.example_shape.as_slice(), facts.classes), (&[3, 32, 32][..], 10));
    assert_eq!(facts.class_names.expect("names")[..3], ["airplane", "automobile", "bird"]);
    assert_eq!(facts.splits["train"].examples + facts.splits["test"].examples, files.len());
}

/// Small valid files, one of each format.
fn samples() -> Vec<Vec<u8>> {
    let idx =
        [("train-images-idx3-ubyte", gzip(&idx_images(2, 2, 2, 7))), ("train-labels-idx1-ubyte", idx_labels(&[0, 1]))];
    vec![
        small_npz(),
        packing::zip(&[("x.npy", npy("<f4", "(2, 2)", &[0; 16])), ("y.npy", npy("<i8", "(2,)", &[0; 16]))]),
        safetensors(&[("x", "F32", &[2, 1], vec![0; 8]), ("y", "U8", &[2], vec![0, 1])]),
        tar(&idx),
        gzip(&tar(&idx)),
        packing::zip(&small_folders()),
        tar(&small_folders()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage anywhere ends in an answer, and never in a panic or in more memory than the limit.
    #[test]
    fn damaged_files_are_answered(
        sample in 0_usize..7,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = samples().swap_remove(sample);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let packed = Packed::new(&bytes);
        let limits = Limits { decoded_bytes: 1 << 20, entries: 100 };
        match (inspect(packed.path(), &limits), Dataset::open(packed.path(), &std::env::temp_dir(), &limits)) {
            (Ok(facts), Ok(dataset)) => prop_assert_eq!(facts, dataset.facts),
            (Err(one), Err(other)) => {
                prop_assert_eq!(one.to_string(), other.to_string());
                prop_assert!(!matches!(one, DatasetError::Io { .. }), "{}", one);
            }
            (one, other) => prop_assert!(false, "{:?} but {:?}", one, other.map(|dataset| dataset.facts)),
        }
    }
}
