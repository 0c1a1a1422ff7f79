//! JPEG images whose chroma is padded, with the colours that libjpeg gives them.
//!
//! Chroma is kept at half the width, and often at half the height, in whole blocks of 8 x 8 samples. Where an image ends before its last
//! block does, the decoder interpolates the image's last column and row with the padding behind them, whatever that is. libjpeg
//! (`jdsample.c`), and so Pillow, takes the last sample as it is.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::jpeg;

/// Samples of a block, each way.
const BLOCK: usize = 8;

/// An image of 8 bits with chroma of which at least one side ends in padding.
struct Padded {
    width: usize,
    height: usize,
    /// Whether the last column is interpolated with padding.
    across: bool,
    /// Whether the last row is.
    down: bool,
}

impl Padded {
    /// By the header of the frame: precision, height, width, and the components, each with its name and its sampling.
    fn of(frame: &[u8]) -> Option<Self> {
        let &[8, h0, h1, w0, w1, 3, _, luma, _, _, 0x11, _, _, 0x11, _] = frame else { return None };
        let [height, width] = [[h0, h1], [w0, w1]].map(|side| usize::from(u16::from_be_bytes(side)));
        let padded = |side: usize| side.is_multiple_of(2) && !(side / 2).is_multiple_of(BLOCK);
        let across = matches!(luma, 0x21 | 0x22) && padded(width);
        let down = matches!(luma, 0x12 | 0x22) && padded(height);
        (across || down).then_some(Self { width, height, across, down })
    }

    /// Puts the last samples of chroma where they were interpolated with padding. `pixels` are luma and twice chroma each.
    fn mend(&self, pixels: &mut [[u8; 3]]) {
        if self.across {
            for row in pixels.chunks_exact_mut(self.width) {
                if let [.., second, before, end] = row {
                    *end = with_chroma(*end, *before, *second);
                } else if let [before, end] = row {
                    *end = with_chroma(*end, *before, *before);
                }
            }
        }
        if self.down {
            let row = |back: usize| (self.height - back) * self.width;
            for column in 0..self.width {
                let before = pixels[row(2) + column];
                let second = if self.height > 2 { pixels[row(3) + column] } else { before };
                let end = &mut pixels[row(1) + column];
                *end = with_chroma(*end, before, second);
            }
        }
    }
}

/// `pixel` with the last sample of chroma, of which the pixel `before` has three quarters and the one before that, `second`, a quarter.
fn with_chroma(pixel: [u8; 3], before: [u8; 3], second: [u8; 3]) -> [u8; 3] {
    let sample = |channel: usize| {
        let twice = 3 * i32::from(before[channel]) - i32::from(second[channel]);
        ((twice + 1) >> 1).clamp(0, 255) as u8
    };
    [pixel[0], sample(1), sample(2)]
}

/// Red, green and blue of luma and chroma, rounded as libjpeg does (`jdcolor.c`, factors of BT.601).
fn rgb([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    const BITS: u32 = 16;
    let fixed = |factor: f64| (factor * f64::from(1 << BITS) + 0.5) as i32;
    let rounded = |sum: i32| (sum + (1 << (BITS - 1))) >> BITS;
    let [luma, blue, red] = [i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128];
    let green = rounded(-fixed(0.344_14) * blue - fixed(0.714_14) * red);
    [luma + rounded(fixed(1.402) * red), luma + green, luma + rounded(fixed(1.772) * blue)]
        .map(|value| value.clamp(0, 255) as u8)
}

/// The pixels of the JPEG image `file`, red, green and blue each, row by row; none where its chroma is not padded, or it has none.
///
/// # Errors
/// What the decoder says of a damaged file.
pub(super) fn decode(file: &[u8]) -> Option<Result<Vec<u8>, DecodeErrors>> {
    let padded = Padded::of(jpeg::frame(file)?)?;
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::YCbCr);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    if let Err(error) = decoder.decode_headers() {
        return Some(Err(error));
    }
    if decoder.input_colorspace() != Some(ColorSpace::YCbCr)
        || decoder.dimensions() != Some((padded.width, padded.height))
    {
        return None;
    }
    Some(decoder.decode().map(|mut values| {
        let (pixels, _) = values.as_chunks_mut::<3>();
        padded.mend(pixels);
        for pixel in pixels {
            *pixel = rgb(*pixel);
        }
        values
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images of 6 x 4 and 6 x 6 pixels, of halves across, and across and down; and Pillow's pixels of them.
    ///
    /// ```python
    /// random = numpy.random.default_rng(3)
    /// for size, subsampling in ((4, 6), 1), ((6, 6), 2):
    ///     image = PIL.Image.fromarray(random.choice([0, 255], (*size, 3)).astype("u1"))
    ///     image.save(file, "JPEG", quality=60, subsampling=subsampling, optimize=True)
    ///     numpy.asarray(PIL.Image.open(file))
    /// ```
    const ACROSS: [&str; 2] = [
        "\
        ffd8ffe000104a46494600010100000100010000ffdb0043000d090a0b0a080d0b0a0b0e0e0d0f13201513121213271c1e17202e\
        2931302e292d2c333a4a3e333646372c2d405741464c4e525352323e5a615a50604a51524fffdb0043010e0e0e13111326151526\
        4f352d354f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f\
        4f4fffc00011080004000603012100021101031101ffc4001500010100000000000000000000000000000003ffc4001d10000104\
        0301010000000000000000000001020304110512210031ffc4001501010100000000000000000000000000000506ffc400211100\
        02010303050000000000000000000001020300112104055122718291d1ffda000c03010002110311003f00ae2f1eccd852dd4a9d\
        8c5a9218408eb292109df9b1b576ec8ba27bf6c9792819c2f49b78afbca9cf3537addc845205921490d865835fb6187de4d7ffd9",
        "\
        7935644e0b1dffcaa41f00003e59248ac2930023357fbaff320094c74bffffc9ff3900bbceffae88ce8f72c8c7000f2ebdbedc48\
        2b4900d69d006b370061347dd8b996ffff65ebea",
    ];
    const BOTH: [&str; 2] = [
        "\
        ffd8ffe000104a46494600010100000100010000ffdb0043000d090a0b0a080d0b0a0b0e0e0d0f13201513121213271c1e17202e\
        2931302e292d2c333a4a3e333646372c2d405741464c4e525352323e5a615a50604a51524fffdb0043010e0e0e13111326151526\
        4f352d354f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f\
        4f4fffc00011080006000603012200021101031101ffc4001500010100000000000000000000000000000005ffc4001c10000201\
        05010000000000000000000000010203000405112112ffc4001501010100000000000000000000000000000506ffc4001f110002\
        01020700000000000000000000000102030004121321223141b1ffda000c03010002110311003f00a5802f7918bac5a18ad8a192\
        1512087cabb329529e1c70c3c3b27475c1a50a52a7ef24c2e36a9d3b553e834fdbc11e5824735fffd9",
        "\
        030e007e8831495104ffffba9fa13cdadc6ed8da8f3e3f00ffffd3a59f6f100400fbedacfff5d3c9b59d120000ffeeff663c527a\
        4c66c0a28a5d3b31ba8fa0daa4c8ffe7ffffd5fff7d0a9fff5d887504b2e0000b06262923e3c380c002a0000ffefdd974f43ffd4\
        c0ffc0a7",
    ];

    #[test]
    fn edges_have_the_colours_of_pillow() {
        for [file, expected] in [ACROSS, BOTH] {
            let [file, expected] = [file, expected].map(|text| hex::decode(text).unwrap());
            let farthest = |pixels: &[u8]| {
                assert_eq!(pixels.len(), expected.len());
                pixels.iter().zip(&expected).map(|(got, expected)| got.abs_diff(*expected)).max().unwrap()
            };
            let mended = decode(&file).expect("padded").unwrap();
            assert!(farthest(&mended) <= 5, "{}", farthest(&mended));
            let as_it_is = image::load_from_memory_with_format(&file, image::ImageFormat::Jpeg).unwrap().into_rgb8();
            assert!(farthest(as_it_is.as_raw()) > 5, "the decoder stops at the image: nothing is left to mend");
        }
    }

    #[test]
    fn only_padded_chroma_is_mended() {
        let frame = |height: u8, width: u8, luma: u8| [8, 0, height, 0, width, 3, 1, luma, 0, 2, 0x11, 1, 3, 0x11, 1];
        let sides = |frame: &[u8]| Padded::of(frame).map(|padded| (padded.across, padded.down));
        for (height, width, luma, expected) in [
            (28, 28, 0x22, Some((true, true))),
            (28, 32, 0x22, Some((false, true))),
            (32, 28, 0x21, Some((true, false))),
            (28, 28, 0x12, Some((false, true))),
            (32, 32, 0x22, None),
            (27, 29, 0x22, None),
            (28, 28, 0x11, None),
            (28, 28, 0x41, None),
        ] {
            assert_eq!(sides(&frame(height, width, luma)), expected, "{height} x {width}, {luma:#x}");
        }
        assert_eq!(sides(&frame(28, 28, 0x22)[..14]), None);
        assert!(decode(b"\xff\xd8\xff\xd9").is_none() && decode(b"\x89PNG\xff\xc0").is_none());
    }

    #[test]
    fn two_pixels_share_one_sample() {
        let padded = Padded { width: 2, height: 2, across: true, down: true };
        let mut pixels = [[1, 50, 60], [2, 0, 0], [3, 7, 8], [4, 9, 9]];
        padded.mend(&mut pixels);
        assert_eq!(pixels, [[1, 50, 60], [2, 50, 60], [3, 50, 60], [4, 50, 60]]);
    }
}
