//! What passes the gate and what does not.

use proptest::prelude::*;

use super::*;
use crate::model::formats::limits::MAX_TENSORS;

/// A file with `json` as its header and `data` zero bytes behind it.
fn file(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn gate(bytes: &[u8]) -> Result<Layout, FormatError> {
    read_layout(&mut &bytes[..], bytes.len() as u64)
}

fn tensor(shape: &str, begin: u64, end: u64) -> String {
    format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

fn two_tensors() -> String {
    let (second, tenth) = (tensor("[2,3]", 4, 28), tensor("[1]", 0, 4));
    format!(r#"{{"__metadata__":{{"format":"pt"}},"fc10.weight":{tenth},"fc2.weight":{second}}}  "#)
}

#[test]
fn a_sound_file_passes_in_natural_order() {
    let json = two_tensors();
    let layout = gate(&file(&json, 28)).unwrap();
    let names: Vec<_> = layout.header.tensors.iter().map(|info| (info.name.as_str(), info.shape.clone())).collect();
    assert_eq!(names, [("fc2.weight", vec![2, 3]), ("fc10.weight", vec![1])]);
    let start = 8 + json.len() as u64;
    let spans: Vec<_> = layout.spans().map(|(_, begin, end)| (begin, end)).collect();
    assert_eq!(spans, [(start + 4, start + 28), (start, start + 4)]);
    assert_eq!(layout.metadata["format"], "pt");
}

#[test]
fn only_the_header_is_read() {
    let whole = file(&two_tensors(), 28);
    let front = &whole[..whole.len() - 28];
    assert!(read_header(&mut &front[..], whole.len() as u64).is_ok());
}

#[test]
fn lengths_that_do_not_fit_are_named() {
    let whole = file(&two_tensors(), 28);
    let expected = whole.len() as u64;
    assert_eq!(gate(&[]), Err(FormatError::TooShort { len: 0 }));
    assert!(matches!(gate(&whole[..20]), Err(FormatError::HeaderOutside { len: 20, .. })));
    assert_eq!(gate(&whole[..whole.len() - 1]), Err(FormatError::Truncated { expected, len: expected - 1 }));
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(gate(&longer), Err(FormatError::TrailingBytes { expected, len: expected + 1 }));
    let huge = u64::MAX.to_le_bytes();
    assert!(matches!(gate(&huge), Err(FormatError::HeaderOutside { header: u64::MAX, .. })));
    let announced = (MAX_HEADER_BYTES + 1).to_le_bytes();
    assert_eq!(read_layout(&mut &announced[..], 1 << 40), Err(FormatError::HeaderTooLarge(MAX_HEADER_BYTES + 1)));
}

#[test]
fn a_body_cut_inside_the_header_is_truncated() {
    let whole = file(&two_tensors(), 28);
    let cut = read_layout(&mut &whole[..30], whole.len() as u64);
    assert!(matches!(cut, Err(FormatError::Truncated { len: 30, .. })), "{cut:?}");
}

/// Whether an error is the expected one.
type Expected = fn(&FormatError) -> bool;

#[test]
fn hostile_headers_are_refused() {
    let one = tensor("[1]", 0, 4);
    let cases: Vec<(String, usize, Expected)> = vec![
        (format!(r#"{{"a":{one},"a":{one}}}"#), 4, |e| matches!(e, FormatError::DuplicateName(n) if n == "a")),
        ("{}".to_owned(), 0, |e| *e == FormatError::NoTensors),
        (" {}".to_owned(), 0, |e| matches!(e, FormatError::Header(_))),
        ("[]".to_owned(), 0, |e| matches!(e, FormatError::Header(_))),
        (format!(r#"{{"a":{one}}}x"#), 4, |e| matches!(e, FormatError::Header(_))),
        (format!(r#"{{"":{one}}}"#), 4, |e| matches!(e, FormatError::BadName { len: 0, .. })),
        (format!(r#"{{"{}":{one}}}"#, "a".repeat(513)), 4, |e| matches!(e, FormatError::BadName { len: 513, .. })),
        (format!(r#"{{"a":{}}}"#, tensor("[1,1,1,1,1,1,1,1,1]", 0, 4)), 4, |e| {
            matches!(e, FormatError::RankTooHigh(_))
        }),
        (format!(r#"{{"a":{}}}"#, one.replace("F32", "F8")), 4, |e| matches!(e, FormatError::UnknownDtype { .. })),
        (format!(r#"{{"a":{}}}"#, tensor("[0,18446744073709551615]", 0, 0)), 0, |e| {
            matches!(e, FormatError::ShapeTooLarge { .. })
        }),
        (format!(r#"{{"a":{}}}"#, tensor("[4294967296,4294967296]", 0, 0)), 0, |e| {
            matches!(e, FormatError::ShapeTooLarge { .. })
        }),
        (format!(r#"{{"a":{}}}"#, tensor("[2]", 0, 4)), 4, |e| {
            matches!(e, FormatError::SizeMismatch { expected: 8, .. })
        }),
        (format!(r#"{{"a":{}}}"#, tensor("[1]", 4, 0)), 4, |e| matches!(e, FormatError::SizeMismatch { .. })),
        (format!(r#"{{"a":{}}}"#, tensor("[1]", 4, 8)), 8, |e| {
            matches!(e, FormatError::NotContiguous { expected: 0, .. })
        }),
        (format!(r#"{{"a":{one},"b":{one}}}"#), 8, |e| matches!(e, FormatError::NotContiguous { expected: 4, .. })),
        (format!(r#"{{"a":{}}}"#, one.replace("\"dtype\"", "\"dtype\":\"F32\",\"dtype\"")), 4, |e| {
            matches!(e, FormatError::Header(_))
        }),
        (format!(r#"{{"a":{}}}"#, one.replace("\"dtype\"", "\"x\":1,\"dtype\"")), 4, |e| {
            matches!(e, FormatError::Header(_))
        }),
        (format!(r#"{{"__metadata__":{{"k":"1","k":"2"}},"a":{one}}}"#), 4, |e| matches!(e, FormatError::Header(_))),
        (format!(r#"{{"__metadata__":{{}},"__metadata__":{{}},"a":{one}}}"#), 4, |e| {
            matches!(e, FormatError::Header(_))
        }),
        (format!(r#"{{"a":{}}}"#, "[".repeat(100_000)), 0, |e| matches!(e, FormatError::Header(_))),
    ];
    for (json, data, expected) in cases {
        let error = gate(&file(&json, data)).expect_err(&json[..json.len().min(120)]);
        assert!(expected(&error), "{}: {error}", &json[..json.len().min(120)]);
    }
}

#[test]
fn too_many_tensors_are_refused() {
    let entries: Vec<_> = (0..=MAX_TENSORS).map(|i| format!(r#""t{i}":{}"#, tensor("[0]", 0, 0))).collect();
    let json = format!("{{{}}}", entries.join(","));
    assert!((json.len() as u64) < MAX_HEADER_BYTES);
    assert_eq!(gate(&file(&json, 0)), Err(FormatError::TooManyTensors));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), len in any::<u64>()) {
        drop(gate(&bytes));
        drop(read_layout(&mut &bytes[..], len));
    }

    #[test]
    fn mutated_headers_never_panic_and_what_passes_fits(at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..40) {
        let mut bytes = file(&two_tensors(), 28);
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        if let Ok(layout) = gate(&bytes) {
            for (info, begin, end) in layout.spans() {
                prop_assert!(end <= bytes.len() as u64);
                prop_assert_eq!(end - begin, (info.elements() * info.dtype.size()) as u64);
            }
        }
    }
}
