//! The segments of a JPEG file: what its frame is, and whether it is whole, for decoders fill what is missing of one that was cut short with
//! grey.

/// Start of an image, its end, and the start of a scan.
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
/// Start of a frame: baseline, extended or progressive.
const SOF_FIRST: u8 = 0xc0;
const SOF_LAST: u8 = 0xc2;

/// Whether `file` goes on to the end of its image: a marker of the end behind the data of at least one scan. Segments are
/// stepped over by their length, so those of a thumbnail inside do not count.
pub(super) fn is_whole(file: &[u8]) -> bool {
    let (mut rest, mut scanned) = (file, false);
    while let Some((marker, behind)) = next_marker(rest) {
        match marker {
            EOI => return scanned,
            SOI => rest = behind,
            _ => {
                let Some(segment) = segment_behind(behind) else { return false };
                (rest, scanned) = (segment, scanned || marker == SOS);
            }
        }
    }
    false
}

/// The header of the first frame of `file`, baseline, extended or progressive: precision, height, width, and the components.
pub(super) fn frame(file: &[u8]) -> Option<&[u8]> {
    let mut rest = file.strip_prefix(&[0xff, SOI])?;
    while let Some((marker, behind)) = next_marker(rest) {
        rest = match marker {
            SOF_FIRST..=SOF_LAST => {
                let length = u16::from_be_bytes(*behind.first_chunk()?);
                return behind.get(2..usize::from(length));
            }
            EOI => return None,
            SOI => behind,
            _ => segment_behind(behind)?,
        };
    }
    None
}

/// The next marker that is neither data (a stuffed zero, a restart) nor fill, and what follows it.
fn next_marker(file: &[u8]) -> Option<(u8, &[u8])> {
    let mut rest = file;
    loop {
        let at = rest.iter().position(|byte| *byte == 0xff)?;
        let (marker, behind) = rest[at + 1..].split_first()?;
        match marker {
            // TEM and the restarts stand alone, too.
            0x00 | 0x01 | 0xd0..=0xd7 => rest = behind,
            0xff => rest = &rest[at + 1..],
            _ => return Some((*marker, behind)),
        }
    }
}

/// What follows a segment whose length `file` begins with.
fn segment_behind(file: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes(*file.first_chunk()?);
    file.get(usize::from(length)..)
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, ImageFormat, RgbImage, load_from_memory_with_format};

    use super::*;

    /// One scan with restart markers, and six scans of a progressive file with them.
    ///
    /// ```python
    /// image = PIL.Image.new("L", (24, 16)); image.putdata([x * y * 5 % 256 for y in range(16) for x in range(24)])
    /// image.save(file, "JPEG", quality=20, optimize=True, restart_marker_blocks=1, progressive=progressive)
    /// ```
    const RESTARTS: &str = "\
        ffd8ffe000104a46494600010100000100010000ffdb004300281c1e231e19282321232d2b28303c64413c37373c7b585d496491\
        8099968f808c8aa0b4e6c3a0aadaad8a8cc8ffcbdaeef5ffffff9bc1fffffffaffe6fdfff8ffc0000b080010001801011100ffc4\
        0017000003010000000000000000000000000001020304ffc4002610000102050303050000000000000000000102110003041231\
        1321517181f02232334182ffdd00040001ffda0008010100003f00c54949aedb3c7fffd090a7a71f1cbd56f729d923bc7fffd143\
        2a4a495694a29047d3b7e9c08fffd295386a44231a99560048cf9d63ffd30a55c11e801205c12a1b01c9e49e3c3fffd42aca6fbb\
        032370fd31d83ecf1fffd9";
    const PROGRESSIVE: &str = "\
        ffd8ffe000104a46494600010100000100010000ffdb004300281c1e231e19282321232d2b28303c64413c37373c7b585d496491\
        8099968f808c8aa0b4e6c3a0aadaad8a8cc8ffcbdaeef5ffffff9bc1fffffffaffe6fdfff8ffc2000b080010001801011100ffc4\
        0017000100030000000000000000000000000002000103ffdd00040001ffda0008010100000001c3ffd01fffd13fffd21fffd3af\
        ffd49fffc400191000030003000000000000000000000000000211011232ffda000801010001050255a7ffd0d54fffd1983fffd2\
        5e7fffd33fffd43fffc400191001000203000000000000000000000000000111213171ffda0008010100063f027fffd0c45bffd1\
        d43fffd2ebffd37fffd47fffc4001d10000202020301000000000000000000000001112131416191b1f0ffda0008010100013f21\
        3fffd0f40f47ffd186e8fb67ffd2c2bb707fffd36e62ab30cfffd47a993fffda0008010100000010ff00ffd0ff00ffd1ff00ffd2\
        ff00ffd3ff00ffd4ff00ffc4001e1001000104030101000000000000000000011100213151417181f091ffda0008010100013f10\
        b7b4d7ffd003479207b5ffd158cb09c4c7e82bffd2118fcb0019fbbaffd3816c0402c1b76baf9fffd4cb48c9727ac784da6bffd9";

    fn encoded() -> Vec<u8> {
        let image = RgbImage::from_fn(20, 12, |x, y| image::Rgb([x * 12, y * 20, x * y].map(|value| value as u8)));
        let mut file = std::io::Cursor::new(Vec::new());
        DynamicImage::from(image).write_to(&mut file, ImageFormat::Jpeg).unwrap();
        file.into_inner()
    }

    /// `file` with another one in a segment of its own, as cameras keep thumbnails (APP1) and what programs note (COM).
    fn with_inside(file: &[u8], marker: u8, inside: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inside.len() + 8).unwrap().to_be_bytes();
        [&file[..2], &[0xff, marker], &length, b"Exif\0\0", inside, &file[2..]].concat()
    }

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        let [restarts, progressive] = [RESTARTS, PROGRESSIVE].map(|file| hex::decode(file).unwrap());
        vec![
            ("a thumbnail", with_inside(&encoded(), 0xe1, &restarts)),
            ("a thumbnail in a progressive file", with_inside(&progressive, 0xe1, &restarts)),
            ("two files inside", with_inside(&with_inside(&restarts, 0xfe, &progressive), 0xe1, &encoded())),
            ("fill bytes", [&restarts[..2], &[0xff; 3], &restarts[2..]].concat()),
            ("something behind it", [&restarts, &progressive[..50]].concat()),
            ("nothing else", encoded()),
            ("restart markers", restarts),
            ("scans", progressive),
        ]
    }

    #[test]
    fn what_is_cut_short_is_not_whole_or_has_the_same_pixels() {
        let decoded = |file: &[u8]| load_from_memory_with_format(file, ImageFormat::Jpeg).map(DynamicImage::into_bytes);
        for (name, file) in files() {
            assert!(is_whole(&file), "{name}");
            let pixels = decoded(&file).unwrap();
            let whole: Vec<usize> = (0..file.len()).filter(|length| is_whole(&file[..*length])).collect();
            let behind = if name == "something behind it" { 50 } else { 0 };
            assert_eq!(whole.len(), behind, "{name}: {whole:?} of {}", file.len());
            for length in whole {
                assert_eq!(decoded(&file[..length]).unwrap(), pixels, "{name}: {length} bytes");
            }
        }
    }

    #[test]
    fn nonsense_is_not_whole() {
        for file in [&b""[..], &[0xff], &[0xff, SOI, 0xff, EOI], &[0xff, SOI, 0xff, SOS, 0, 0], &[0xff, 0xe1, 0xff]] {
            assert!(!is_whole(file), "{file:?}");
        }
    }
}
