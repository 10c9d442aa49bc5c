//! The name and the form of a file of records: a header, then frames with a checksum each.

use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::limits::KIB;
use crate::store::limits::{PLACED_FRAME_LEN_MAX, PLACED_LEN_MAX};
use crate::store::placed::layers::is_slot_name;
use crate::store::storage::Storage;

/// The beginning of a file of records.
pub(super) struct Header {
    /// Its own length.
    pub(super) len: u64,
    /// Length of the file at its last compaction.
    pub(super) compacted_len: u64,
}

impl Header {
    /// The header of the records of `dir`; `None` if the file is empty or has another one.
    pub(super) fn read(file: &dyn Storage, dir: &Path) -> io::Result<Option<Self>> {
        let expected = Self::bytes(dir, 0);
        if file.stat()?.len < expected.len() as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; expected.len()];
        file.read_at(0, &mut bytes)?;
        let is_same = bytes[..8] == expected[..8] && bytes[16..] == expected[16..];
        let compacted_len = bytes[8..16].try_into().map_or(0, u64::from_le_bytes);
        Ok(is_same.then_some(Header { len: expected.len() as u64, compacted_len: compacted_len.min(PLACED_LEN_MAX) }))
    }

    /// Makes the file one of `dir`, without records. Returns where they begin.
    pub(super) fn write(file: &dyn Storage, dir: &Path, compacted_len: u64) -> io::Result<u64> {
        let bytes = Self::bytes(dir, compacted_len);
        if compacted_len == 0 {
            file.set_len(0)?;
        }
        file.write_at(0, &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn bytes(dir: &Path, compacted_len: u64) -> Vec<u8> {
        let path = dir.as_os_str().as_encoded_bytes();
        let len = (path.len() as u16).to_le_bytes();
        [&MAGIC[..], &compacted_len.to_le_bytes(), &len, path].concat()
    }
}

/// The name of the file with the records of `dir`.
pub(super) fn file_name(dir: &Path) -> String {
    let hash = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let hex: String = hash[..NAME_HEX_LEN / 2].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{NAME_PREFIX}{hex}")
}

/// Whether a file of records may have this name, for whichever directory, one that is about to
/// replace it, or one of a layer.
pub(crate) fn is_record_name(name: &str) -> bool {
    let hex = name.strip_suffix(NEW_SUFFIX).unwrap_or(name).strip_prefix(NAME_PREFIX);
    is_slot_name(name)
        || hex
            .is_some_and(|hex| hex.len() == NAME_HEX_LEN && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Records as a frame.
pub(super) fn frame(records: &[u8]) -> Vec<u8> {
    let (len, sum) = ((records.len() as u32).to_le_bytes(), hash_of(records).to_le_bytes());
    [&len[..], &sum, records].concat()
}

/// The records of the whole frame at `place`; `None` if there is none.
pub(super) fn read_frame(file: &dyn Storage, place: u64) -> io::Result<Option<Vec<u8>>> {
    let Some((len, sum)) = read_frame_head(file, place)? else { return Ok(None) };
    let mut records = vec![0; len];
    file.read_at(place + FRAME_HEAD_LEN as u64, &mut records)?;
    Ok((hash_of(&records) == sum).then_some(records))
}

/// Length and checksum of the frame at `place`, if it lies within the file.
pub(super) fn read_frame_head(file: &dyn Storage, place: u64) -> io::Result<Option<(usize, u64)>> {
    let left = file.stat()?.len.saturating_sub(place);
    if left < FRAME_HEAD_LEN as u64 {
        return Ok(None);
    }
    let mut head = [0; FRAME_HEAD_LEN];
    file.read_at(place, &mut head)?;
    Ok(parse_head(&head, left))
}

/// Length and checksum in a head that `left` bytes of the file begin with.
fn parse_head(head: &[u8], left: u64) -> Option<(usize, u64)> {
    let len = head.get(..4)?.try_into().map_or(0, u32::from_le_bytes) as usize;
    let sum = head.get(4..FRAME_HEAD_LEN)?.try_into().map_or(0, u64::from_le_bytes);
    let fits = len > 0 && len <= PLACED_FRAME_LEN_MAX && (FRAME_HEAD_LEN + len) as u64 <= left;
    fits.then_some((len, sum))
}

/// Where the whole frames from `place` on end. Only the last one is verified: one that was cut off
/// can only be the last. The file is read in long steps, since most frames are short.
pub(super) fn end_of_frames(file: &dyn Storage, mut place: u64) -> io::Result<u64> {
    let len = file.stat()?.len;
    let (mut seen, mut seen_at) = (Vec::new(), place);
    let mut head_at = |place: u64| -> io::Result<Option<(usize, u64)>> {
        let left = len.saturating_sub(place);
        if left < FRAME_HEAD_LEN as u64 {
            return Ok(None);
        }
        let is_seen = place >= seen_at && place + FRAME_HEAD_LEN as u64 <= seen_at + seen.len() as u64;
        if !is_seen {
            seen.resize(left.min(SCAN_STEP as u64) as usize, 0);
            file.read_at(place, &mut seen)?;
            seen_at = place;
        }
        Ok(parse_head(&seen[(place - seen_at) as usize..], left))
    };
    while let Some((frame_len, _)) = head_at(place)? {
        let next = place + (FRAME_HEAD_LEN + frame_len) as u64;
        if head_at(next)?.is_none() && read_frame(file, place)?.is_none() {
            break;
        }
        place = next;
    }
    Ok(place)
}

/// A quick hash (FNV-1a over words) against chance, not against intent: the state directory is the
/// user's alone.
pub(crate) fn hash_of(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    for part in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }
    hash
}

const NAME_PREFIX: &str = "placed-";
const NAME_HEX_LEN: usize = 32;
/// Of a file that is about to replace another one.
pub(super) const NEW_SUFFIX: &str = ".new";
const MAGIC: [u8; 8] = *b"gpbplac2";
pub(super) const FRAME_HEAD_LEN: usize = 12;
/// Bytes that are read at once to find the end of the frames.
const SCAN_STEP: usize = 64 * KIB;
