//! Holes of files: bytes that are zeros without room on the disk.

use std::ops::Range;
use std::os::fd::AsFd;

use rustix::fs::{self, SeekFrom};
use rustix::io::Errno;

use crate::content::{Bitfield, Geometry};
use crate::store::limits::RESERVE_RANGES_MAX;

/// The first bytes of a file from `offset` on that may not lie in a hole, as
/// [`Storage::next_data`](crate::store::storage::Storage::next_data). Moves the position of the
/// file, which nothing else uses.
pub(crate) fn next_data(file: impl AsFd, offset: u64) -> Option<Range<u64>> {
    let start = match fs::seek(&file, SeekFrom::Data(offset)) {
        Ok(start) => start.max(offset),
        // Behind the end, or behind the last data.
        Err(Errno::NXIO) => return None,
        Err(_) => return Some(offset..u64::MAX),
    };
    match fs::seek(&file, SeekFrom::Hole(start)) {
        Ok(end) if end > start => Some(start..end),
        _ => Some(start..u64::MAX),
    }
}

/// Whether these bytes are zeros only.
pub(crate) fn is_zeros(bytes: &[u8]) -> bool {
    // Most contents end the search at once; the parts let the compiler compare many bytes together.
    bytes.chunks(PART_LEN).all(|part| part.first() == Some(&0) && part.iter().fold(0, |all, byte| all | byte) == 0)
}

/// The bytes of all chunks that are not in `zero_chunks`, one range for each run of them. `None` if
/// the runs are too many.
pub(crate) fn data_ranges(geometry: &Geometry, zero_chunks: &Bitfield) -> Option<Vec<Range<u64>>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for chunk in geometry.chunks().filter(|chunk| !zero_chunks.contains(*chunk)) {
        let span = geometry.span(chunk);
        let end = span.offset + u64::from(span.len);
        match ranges.last_mut() {
            Some(last) if last.end == span.offset => last.end = end,
            _ => ranges.push(span.offset..end),
        }
        if ranges.len() > RESERVE_RANGES_MAX {
            return None;
        }
    }
    Some(ranges)
}

/// Bytes of the chunks in `chunks`.
pub(crate) fn len_of(geometry: &Geometry, chunks: &Bitfield) -> u64 {
    let len = |index| geometry.chunk(index).map_or(0, |chunk| u64::from(geometry.span(chunk).len));
    if chunks.is_full() { geometry.len() } else { chunks.iter().map(len).sum() }
}

const PART_LEN: usize = 4096;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_runs_of_data_are_found() {
        let tmp = tempfile::tempfile().unwrap();
        assert_eq!(next_data(&tmp, 0), None, "an empty file has none");
        tmp.set_len(64 << 20).unwrap();
        tmp.write_all_at(&[1; 5000], 16 << 20).unwrap();
        let Some(data) = next_data(&tmp, 0) else { panic!("the data are not found") };
        assert!(data.start <= 16 << 20 && data.end >= (16 << 20) + 5000, "{data:?}");
        if data.start == 16 << 20 {
            assert_eq!(next_data(&tmp, 32 << 20), None, "behind them is a hole");
            assert_eq!(next_data(&tmp, (16 << 20) + 1).unwrap().start, (16 << 20) + 1);
        }
        assert_eq!(next_data(File::open("/dev/null").unwrap(), 7).map_or(7, |data| data.start), 7, "no file says all");
    }

    #[test]
    fn ranges_are_the_runs_of_chunks_with_bytes() {
        let geometry = Geometry::new((5 << 18) + 7);
        let mut zero_chunks = Bitfield::empty(6);
        assert_eq!(
            data_ranges(&geometry, &zero_chunks).unwrap().as_slice(),
            std::slice::from_ref(&(0..geometry.len()))
        );
        for index in [0, 2, 3] {
            zero_chunks.insert(geometry.chunk(index).unwrap());
        }
        assert_eq!(data_ranges(&geometry, &zero_chunks).unwrap(), [1 << 18..2 << 18, 4 << 18..(5 << 18) + 7]);
        assert_eq!(len_of(&geometry, &zero_chunks), 3 << 18);
        assert_eq!(len_of(&geometry, &Bitfield::full(6)), geometry.len());
    }

    #[test]
    fn one_byte_makes_the_difference() {
        assert!(is_zeros(&[]) && is_zeros(&[0; 10_000]));
        for at in [0, 1, 4095, 4096, 9999] {
            let mut bytes = [0; 10_000];
            bytes[at] = 1;
            assert!(!is_zeros(&bytes), "byte {at}");
        }
    }
}
