//! Image files to examples: read in archive order, decoded in parallel, put in the order of their names.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use rayon::prelude::*;

use super::archive::{Archive, Entry, shortened};
use super::arrays::unreadable;
use super::folders::{ImageLayout, ImageSlot};
use super::intake::{DatasetBuilder, SplitName};
use super::store::{PixelType, Pixels};
use super::{DatasetError, jpeg, jpeg_chroma};

/// An image file above this size is no training example.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// An image with more pixels neither; decoders need up to 16 bytes for each.
const MAX_PIXELS: usize = 1 << 25;

/// Files that are decoded together; fewer where files or images are large.
const GROUP: usize = 512;

/// Bytes, of files or of their pixels, that are decoded together.
const GROUP_BYTES: usize = 64 << 20;

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    width: u32,
    height: u32,
}

impl Size {
    fn pixels(self) -> usize {
        self.width as usize * self.height as usize
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A file on its way to the decoder.
struct File {
    place: ImageSlot,
    name: String,
    bytes: Vec<u8>,
}

/// Decoded: planes of grey, or of red, green and blue.
enum Planes {
    Grey(Vec<u8>),
    Colour(Vec<u8>),
}

/// Reads all images of `archive` into `intake`.
///
/// # Errors
/// When an image is damaged, or of another size than the first one.
pub(super) fn read(
    archive: Archive<'_>,
    plan: &ImageLayout,
    intake: &mut DatasetBuilder<'_>,
) -> Result<(), DatasetError> {
    let counts = plan.labels.iter().map(|(part, labels)| (*part, labels.len())).collect();
    let mut images = Images::new(&counts, intake);
    archive.visit(&mut |entry, source| match plan.places.get(entry.index).copied().flatten() {
        Some(place) => {
            let name = shortened(entry.name);
            let bytes = content(&name, entry, source)?;
            images.take(place, name, bytes)
        }
        None => Ok(()),
    })?;
    images.finish()?;
    intake.set_skipped(plan.skipped.clone());
    for (part, labels) in &plan.labels {
        intake.begin_labels(labels.len().saturating_mul(labels.width()))?;
        intake.set_labels_as_read(*part, labels.clone(), labels.is_real());
    }
    Ok(())
}

/// The bytes of a file in an archive.
fn content(name: &str, entry: Entry<'_>, source: &mut dyn Read) -> Result<Vec<u8>, DatasetError> {
    let mut bytes = Vec::new();
    source.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(name, error))?;
    match bytes.len() as u64 {
        length if length <= MAX_FILE_BYTES && length < entry.size => {
            Err(refused(name, &format!("it ends after {length} of {} bytes", entry.size)))
        }
        _ => Ok(bytes),
    }
}

/// Files on their way to examples of one size, in any order.
pub(super) struct Images<'a, 'f> {
    /// How many there will be of each part.
    counts: &'a BTreeMap<SplitName, usize>,
    intake: &'a mut DatasetBuilder<'f>,
    /// Name and size of the first image, which the others must have.
    first: Option<(String, Size)>,
    /// Whether any image so far had colours.
    colour: bool,
    waiting: Vec<File>,
    waiting_bytes: usize,
}

impl<'a, 'f> Images<'a, 'f> {
    /// For as many images as `counts` says of each part.
    pub(super) fn new(counts: &'a BTreeMap<SplitName, usize>, intake: &'a mut DatasetBuilder<'f>) -> Self {
        Self { counts, intake, first: None, colour: false, waiting: Vec::new(), waiting_bytes: 0 }
    }

    /// Takes in the file `name`; it is decoded once there are enough of them.
    ///
    /// # Errors
    /// When an image is damaged, or of another size than the first one.
    pub(super) fn take(&mut self, place: ImageSlot, name: String, bytes: Vec<u8>) -> Result<(), DatasetError> {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(refused(&name, &format!("it has more than {MAX_FILE_BYTES} bytes")));
        }
        if self.first.is_none() {
            self.begin(&name, &bytes)?;
        }
        self.waiting_bytes += bytes.len();
        self.waiting.push(File { place, name, bytes });
        let decoded = self.first.as_ref().map_or(1, |(_, size)| size.pixels() * 3);
        if self.waiting.len() >= GROUP.min(GROUP_BYTES / decoded) || self.waiting_bytes >= GROUP_BYTES {
            self.decode()?;
        }
        Ok(())
    }

    /// Makes room for all images, as large as the first one.
    fn begin(&mut self, name: &str, bytes: &[u8]) -> Result<(), DatasetError> {
        let decoder = decoder(name, bytes)?;
        let size = size_of(&decoder);
        self.colour = decoder.color_type().has_color();
        let shape = [if self.colour { 3 } else { 1 }, size.height as usize, size.width as usize];
        for (part, count) in self.counts {
            self.intake.begin(*part, *count, &shape, PixelType::U8)?;
        }
        self.first = Some((name.to_owned(), size));
        Ok(())
    }

    /// Decodes the last ones.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn finish(mut self) -> Result<(), DatasetError> {
        self.decode()
    }

    /// Decodes what is waiting.
    fn decode(&mut self) -> Result<(), DatasetError> {
        let Some(first) = &self.first else { return Ok(()) };
        self.waiting_bytes = 0;
        let files = std::mem::take(&mut self.waiting);
        let decoded: Vec<Result<Planes, DatasetError>> = files.par_iter().map(|file| decode(file, first)).collect();
        for (file, planes) in files.iter().zip(decoded) {
            let planes = planes?;
            if !self.colour && matches!(planes, Planes::Colour(_)) {
                self.intake.grey_to_colour()?;
                self.colour = true;
            }
            let pixels = match planes {
                Planes::Grey(grey) if self.colour => grey.repeat(3),
                Planes::Grey(pixels) | Planes::Colour(pixels) => pixels,
            };
            if let Some(examples) = self.intake.examples(file.place.part) {
                examples.put(file.place.index, Pixels::U8(&pixels))?;
            }
        }
        Ok(())
    }
}

fn refused(entry: &str, reason: &(impl ToString + ?Sized)) -> DatasetError {
    DatasetError::Image { entry: entry.to_owned(), reason: reason.to_string() }
}

fn size_of(decoder: &impl ImageDecoder) -> Size {
    let (width, height) = decoder.dimensions();
    Size { width, height }
}

/// A decoder that has read the image's header, chosen by the file's content.
fn decoder<'a>(name: &str, bytes: &'a [u8]) -> Result<impl ImageDecoder + 'a, DatasetError> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| refused(name, &error))?;
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp | ImageFormat::Pnm) => {}
        Some(ImageFormat::Jpeg) if jpeg::is_whole(bytes) => {}
        Some(ImageFormat::Jpeg) => return Err(refused(name, "the JPEG data ends early")),
        _ => return Err(refused(name, "it is none of PNG, JPEG, WebP, BMP and PPM, whatever its name says")),
    }
    let decoder = reader.into_decoder().map_err(|error| refused(name, &error))?;
    if decoder.color_type() == ColorType::L16 {
        return Err(refused(
            name,
            "it is grey of 16 bits, which torchvision's ImageFolder clips to 255: save it with 8 bits, or all as arrays (.npz)",
        ));
    }
    match size_of(&decoder).pixels() {
        0 => Err(refused(name, "it has no pixels")),
        pixels if pixels > MAX_PIXELS => {
            Err(refused(name, &format!("it has more than {MAX_PIXELS} pixels; resize it")))
        }
        _ => Ok(decoder),
    }
}

fn decode(file: &File, first: &(String, Size)) -> Result<Planes, DatasetError> {
    let decoder = decoder(&file.name, &file.bytes)?;
    let size = size_of(&decoder);
    if size != first.1 {
        return Err(DatasetError::ImageSize {
            entry: file.name.clone(),
            found: size.to_string(),
            first: first.0.clone(),
            expected: first.1.to_string(),
        });
    }
    if let Some(pixels) = jpeg_chroma::decode(&file.bytes) {
        let pixels = pixels.map_err(|error| refused(&file.name, &error))?;
        return Ok(colour(&pixels, 3, |value| value));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(|error| refused(&file.name, &error))?;
    // As Pillow converts to RGB: alpha is left out, and of 16 bits the higher 8 count.
    Ok(match image {
        DynamicImage::ImageRgb16(image) => colour(image.as_raw(), 3, high),
        DynamicImage::ImageRgba16(image) => colour(image.as_raw(), 4, high),
        DynamicImage::ImageLumaA16(image) => {
            Planes::Grey(image.as_raw().iter().step_by(2).map(|value| high(*value)).collect())
        }
        image if !image.color().has_color() => Planes::Grey(image.into_luma8().into_raw()),
        image => colour(image.into_rgb8().as_raw(), 3, |value| value),
    })
}

/// The planes of red, green and blue of pixels with `channels` values each.
fn colour<T: Copy>(values: &[T], channels: usize, byte: impl Fn(T) -> u8) -> Planes {
    Planes::Colour(
        (0..3).flat_map(|channel| values.iter().skip(channel).step_by(channels)).map(|value| byte(*value)).collect(),
    )
}

fn high(value: u16) -> u8 {
    (value >> 8) as u8
}
