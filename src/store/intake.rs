//! Takes the bytes of an upload: writes, hashes and looks at them on the way.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::model::formats::foreign::{RECOGNISED_BYTES, is_safetensors};
use crate::model::formats::safetensors::{PREFIX_BYTES, header_bytes, read_header};
use crate::model::formats::{Format, FormatError, index, read_layout, recognise};
use crate::model::header::CheckpointHeader;
use crate::tensors::{Checkpoint, CheckpointError, map};

/// Bytes between two syncs, unless said otherwise: what a crash of the machine can cost at most.
const SYNC_EVERY: u64 = 64 << 20;
const READ_CHUNK: usize = 1 << 20;

/// Why an upload cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The file system failed.
    #[error("staging file: {0}")]
    Io(#[from] std::io::Error),
    /// An earlier sync has failed, so that nobody knows what is on disk.
    #[error("staging file: an earlier sync has failed")]
    Unsound,
    /// The bytes are not a usable checkpoint.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A weight is no finite number.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
}

/// Looks at the front of a file.
#[derive(Debug)]
pub enum Gate {
    /// Lets everything pass.
    Open,
    /// Waits for the first bytes of a checkpoint of `total` bytes, if that is known.
    Checkpoint {
        /// The bytes so far.
        head: Vec<u8>,
        /// Length of the whole file.
        total: Option<u64>,
    },
    /// Waits for the whole header of a safetensors file.
    Safetensors {
        /// The bytes so far.
        head: Vec<u8>,
        /// Length of the whole file.
        total: Option<u64>,
    },
    /// The header was good.
    Passed(Box<CheckpointHeader>),
    /// A checkpoint whose header can be read only where all of it is there.
    Whole,
}

impl Gate {
    /// A gate for a checkpoint.
    #[must_use]
    pub fn checkpoint(total: Option<u64>) -> Self {
        Self::Checkpoint { head: Vec::new(), total }
    }

    /// Looks at the next bytes. What is no checkpoint is refused by its first bytes, and a bad header of safetensors as soon as
    /// it is there, if the file's length is known.
    fn look(&mut self, mut bytes: &[u8]) -> Result<(), FormatError> {
        if let Self::Checkpoint { head, total } = self {
            let enough = total.unwrap_or(u64::MAX).min(RECOGNISED_BYTES as u64);
            take(head, &mut bytes, enough);
            if (head.len() as u64) < enough && !is_safetensors(head) {
                return Ok(());
            }
            let head = std::mem::take(head);
            *self = match recognise(&head)? {
                Format::Safetensors => Self::Safetensors { head: Vec::new(), total: *total },
                Format::Zip | Format::Tar | Format::PyTorchLegacy | Format::Onnx | Format::Index => Self::Whole,
            };
            self.look(&head)?;
        }
        let Self::Safetensors { head, total } = self else { return Ok(()) };
        take(head, &mut bytes, PREFIX_BYTES);
        let Some(prefix) = head.first_chunk::<8>() else { return Ok(()) };
        let needed = header_bytes(*prefix, total.unwrap_or(u64::MAX))?;
        take(head, &mut bytes, needed);
        if let (true, Some(total)) = (head.len() as u64 == needed, *total) {
            *self = Self::Passed(Box::new(read_header(&mut head.as_slice(), total)?));
        }
        Ok(())
    }

    /// The header of the checkpoint `file`, which has ended after `length` bytes; none where none was looked for.
    fn end(self, file: &File, length: u64) -> Result<Option<CheckpointHeader>, IntakeError> {
        Ok(match self {
            Self::Open => None,
            Self::Passed(header) => Some(*header),
            Self::Safetensors { head, .. } => Some(read_header(&mut head.as_slice(), length)?),
            Self::Checkpoint { .. } | Self::Whole => Some(whole_header(file, length)?),
        })
    }
}

/// The header of a finished file of a format that is looked at as a whole.
fn whole_header(file: &File, length: u64) -> Result<CheckpointHeader, IntakeError> {
    read_through(file, length)?;
    let bytes = map(file)?;
    Ok(match recognise(&bytes).map_err(FormatError::from)? {
        // Its shards are files of their own here.
        Format::Index => CheckpointHeader::of_index(index::parse(&bytes).map_err(FormatError::from)?),
        _ => read_layout(&bytes)?.header,
    })
}

/// Reads a finished file before it is mapped: a disk that fails says so to a read, but ends the process that meets it in a map.
fn read_through(file: &File, length: u64) -> Result<(), IntakeError> {
    let mut block = vec![0; READ_CHUNK];
    let mut offset = 0;
    while offset < length {
        let part = usize::try_from(length - offset).unwrap_or(READ_CHUNK).min(READ_CHUNK);
        file.read_exact_at(&mut block[..part], offset)?;
        offset += part as u64;
    }
    Ok(())
}

/// Moves bytes over until `head` has `length` of them.
fn take(head: &mut Vec<u8>, bytes: &mut &[u8], length: u64) {
    let missing = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(head.len());
    let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
    head.extend_from_slice(taken);
    *bytes = rest;
}

/// A staging file that grows. Every method blocks.
#[derive(Debug)]
pub struct Intake {
    file: File,
    hasher: Sha256,
    gate: Gate,
    length: u64,
    synced: u64,
    /// Bytes between two syncs.
    sync_every: u64,
    /// Bytes at the front that the file lacks: neither the digest nor the gate has seen them.
    front: u64,
    /// A sync has failed: the system then takes what it could not write for written, so a later sync says nothing.
    unsound: bool,
}

/// A file that is complete and on disk. Its lock ends with `file`.
#[derive(Debug)]
pub struct Complete {
    /// The staging file.
    pub file: File,
    /// SHA-256 of all its bytes.
    pub sha256: [u8; 32],
    /// Its length.
    pub bytes: u64,
    /// Its header, where the gate looked for one.
    pub header: Option<CheckpointHeader>,
}

impl Intake {
    /// Goes on with `file` after its first `length` bytes, which are read again for the digest and the gate.
    ///
    /// # Errors
    /// When the file cannot be read, or its header is bad.
    pub fn resume(mut file: File, length: u64, mut gate: Gate) -> Result<Self, IntakeError> {
        file.set_len(length)?;
        file.seek(SeekFrom::Start(0))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; READ_CHUNK.min(usize::try_from(length).unwrap_or(READ_CHUNK))];
        let mut left = length;
        while left > 0 {
            let part = &mut buffer[..READ_CHUNK.min(usize::try_from(left).unwrap_or(READ_CHUNK))];
            file.read_exact(part)?;
            hasher.update(&*part);
            gate.look(part)?;
            left -= part.len() as u64;
        }
        Ok(Self { file, hasher, gate, length, synced: length, sync_every: SYNC_EVERY, front: 0, unsound: false })
    }

    /// Goes on after `length` bytes with a file that lacks the first `front` of them. They have to be there before [`Intake::again`].
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn behind(mut file: File, front: u64, length: u64) -> Result<Self, IntakeError> {
        file.seek(SeekFrom::Start(length))?;
        let hasher = Sha256::new();
        Ok(Self {
            file,
            hasher,
            gate: Gate::Open,
            length,
            synced: length,
            sync_every: SYNC_EVERY,
            front,
            unsound: false,
        })
    }

    /// The same with a sync every `bytes`.
    #[must_use]
    pub fn syncing_every(self, bytes: u64) -> Self {
        Self { sync_every: bytes, ..self }
    }

    /// Whether the file lacks bytes at its front.
    #[must_use]
    pub fn lacks_front(&self) -> bool {
        self.front > 0
    }

    /// Reads all of a file whose front has come, for the digest and the gate.
    ///
    /// # Errors
    /// When it cannot be read, or its header is bad.
    pub fn again(self, gate: Gate) -> Result<Self, IntakeError> {
        Self::resume(self.file, self.length, gate)
    }

    /// Writes more bytes. After an error nothing more may be appended.
    ///
    /// # Errors
    /// When they cannot be written, or show that the file cannot be used.
    pub fn append(&mut self, batch: &[Bytes]) -> Result<(), IntakeError> {
        for bytes in batch {
            self.gate.look(bytes)?;
            self.file.write_all(bytes)?;
            self.hasher.update(bytes);
            self.length += bytes.len() as u64;
        }
        if self.length - self.synced >= self.sync_every {
            self.sync()?;
        }
        Ok(())
    }

    /// Waits until all bytes are on disk.
    ///
    /// # Errors
    /// When the file system fails, now or at an earlier sync.
    pub fn sync(&mut self) -> Result<(), IntakeError> {
        if self.unsound {
            return Err(IntakeError::Unsound);
        }
        self.unsound = true;
        self.file.sync_data()?;
        self.unsound = false;
        self.synced = self.length;
        Ok(())
    }

    /// Bytes that are on disk for certain.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Bytes taken so far, those before a resumption included.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When it cannot be synced, is not a usable checkpoint, or holds a weight that is no finite number.
    pub fn finish(mut self) -> Result<Complete, IntakeError> {
        let header = std::mem::replace(&mut self.gate, Gate::Open).end(&self.file, self.length)?;
        self.sync()?;
        // An index has names only. What would be copied to memory is checked by the jobs that read it.
        if header.as_ref().is_some_and(|header| header.shards.is_empty() && header.copied_bytes == 0) {
            read_through(&self.file, self.length)?;
            Checkpoint::of_map(map(&self.file)?)?.check_finite()?;
        }
        Ok(Complete { file: self.file, sha256: self.hasher.finalize().into(), bytes: self.length, header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safetensors() -> Vec<u8> {
        let json = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        [&(json.len() as u64).to_le_bytes()[..], json, &[0; 8]].concat()
    }

    fn intake(total: Option<u64>) -> Intake {
        Intake::resume(tempfile::tempfile().expect("a file"), 0, Gate::checkpoint(total)).expect("begins")
    }

    fn parts(bytes: &[u8], size: usize) -> Vec<Bytes> {
        bytes.chunks(size).map(Bytes::copy_from_slice).collect()
    }

    #[test]
    fn a_file_in_pieces_of_any_size_gives_the_same_digest_and_header() {
        let file = safetensors();
        for (size, total) in [(1, None), (3, Some(file.len() as u64)), (1000, None)] {
            let mut intake = intake(total);
            intake.append(&parts(&file, size)).expect("good");
            let done = intake.finish().expect("complete");
            assert_eq!(done.sha256, <[u8; 32]>::from(Sha256::digest(&file)));
            assert_eq!(done.header.expect("a header").tensors[0].name, "a");
        }
    }

    #[test]
    fn a_resumed_file_equals_an_uncut_one() {
        let file = safetensors();
        let mut first = intake(None);
        first.append(&parts(&file[..20], 7)).expect("good");
        first.append(&parts(b"lost when the machine stopped", 7)).expect("not looked at yet");
        let mut second = Intake::resume(first.file, 20, Gate::checkpoint(None)).expect("reads the prefix");
        second.append(&parts(&file[20..], 7)).expect("good");
        let done = second.finish().expect("complete");
        assert_eq!((done.sha256, done.bytes), (Sha256::digest(&file).into(), file.len() as u64));
    }

    #[test]
    fn weights_that_are_not_finite_are_refused_by_name() {
        let mut file = safetensors();
        let end = file.len();
        file[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        let mut intake = intake(None);
        intake.append(&parts(&file, 1000)).expect("its header is good");
        match intake.finish() {
            Err(IntakeError::Weights(error)) => {
                assert!(error.to_string().starts_with("tensor `a` holds NaN at index 1"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bad_header_is_refused_as_soon_as_it_is_there() {
        let mut file = safetensors();
        let total = Some(file.len() as u64);
        file[30] = b'!';
        let header = file.len() - 8;
        let mut whole = intake(total);
        assert!(matches!(whole.append(&parts(&file[..header], 5)), Err(IntakeError::Format(_))));
        let mut endless = intake(None);
        assert!(
            matches!(endless.append(&parts(&[0xff; 512], 8)), Err(IntakeError::Format(_))),
            "an absurd header length"
        );
        let mut short = intake(None);
        short.append(&parts(&safetensors()[..30], 30)).expect("unknown yet");
        assert!(matches!(short.finish(), Err(IntakeError::Format(_))));
    }
}
