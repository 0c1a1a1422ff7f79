//! Packs datasets for the tests.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use zip::write::SimpleFileOptions;

/// A file that lives as long as this.
pub(crate) struct Packed(tempfile::NamedTempFile);

impl Packed {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("writes");
        Self(file)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

pub(crate) fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy_ordered(descr, false, shape, data)
}

pub(crate) fn npy_ordered(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Deflated, as by `numpy.savez_compressed`.
pub(crate) fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(String, &[u8])> =
        arrays.iter().map(|(name, bytes)| (format!("{name}.npy"), bytes.as_slice())).collect();
    pack_zip(files.iter().map(|(name, bytes)| (name.as_str(), *bytes)), zip::CompressionMethod::Deflated)
}

/// Stored, not deflated.
pub(crate) fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    pack_zip(files.iter().map(|(name, bytes)| (*name, bytes.as_slice())), zip::CompressionMethod::Stored)
}

fn pack_zip<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>, method: zip::CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name, SimpleFileOptions::default().compression_method(method)).expect("starts");
        zip.write_all(bytes).expect("writes");
    }
    zip.finish().expect("finishes").into_inner()
}

pub(crate) fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).expect("appends");
    }
    tar.into_inner().expect("finishes")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("writes");
    gzip.finish().expect("finishes")
}

/// `count` images, every pixel `value`.
pub(crate) fn idx_images(count: u32, height: u32, width: u32, value: u8) -> Vec<u8> {
    let pixels = vec![value; (count * height * width) as usize];
    [&[0, 0, 8, 3][..], &count.to_be_bytes(), &height.to_be_bytes(), &width.to_be_bytes(), &pixels].concat()
}

pub(crate) fn idx_labels(labels: &[u8]) -> Vec<u8> {
    [&[0, 0, 8, 1][..], &(labels.len() as u32).to_be_bytes(), labels].concat()
}

/// One colour all over: `[r, g, b]`, or `[grey]`.
pub(crate) fn picture(format: image::ImageFormat, width: u32, height: u32, colour: &[u8]) -> Vec<u8> {
    let pixels = colour.repeat((width * height) as usize);
    let mut bytes = std::io::Cursor::new(Vec::new());
    let kind = if colour.len() == 3 { image::ColorType::Rgb8 } else { image::ColorType::L8 };
    image::write_buffer_with_format(&mut bytes, &pixels, width, height, kind, format).expect("encodes");
    bytes.into_inner()
}

/// A PNG that promises a large image, and ends.
pub(crate) fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = picture(image::ImageFormat::Png, 1, 1, &[0]);
    // Signature, length and type of the first chunk take 16 bytes; its 13 bytes are followed by the checksum of type and content.
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut sum = flate2::Crc::new();
    sum.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.sum().to_be_bytes());
    bytes
}

/// A file in the safetensors format, little endian: name, element type, shape, bytes.
pub(crate) fn safetensors(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).to_owned(), serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}
