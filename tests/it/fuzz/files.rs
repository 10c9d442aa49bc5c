//! Targets: what the program itself wrote, as a disk may give it back.

use gpb::internals::content::{Bitfield, Digest, FileId, Geometry, Root, Stamp};
use gpb::internals::store::{Indexed, JournalText};

use super::input::Input;

/// A journal as it comes, and one that is written and then damaged.
pub fn journal(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let id = FileId { root: Root(Digest([5; 32])), len: [0, 1, 300 << 18, 9 << 18, 1 << 45, u64::MAX][input.below(6)] };
    let count = Geometry::new(id.len).chunk_count();
    read(input.peek(), &id, count);

    let records: Vec<Vec<u32>> = (0..if count == 0 { 0 } else { input.below(8) })
        .map(|_| (0..1 + input.below(count.min(20) as usize)).map(|_| input.number() as u32 % count).collect())
        .collect();
    let mut have = Bitfield::empty(count);
    for chunk in records.iter().flatten().filter_map(|n| Geometry::new(id.len).chunk(*n)) {
        have.insert(chunk);
    }
    let stamp = Stamp { mtime_ns: input.number() as i64, ctime_ns: input.number() as i64, inode: INODE };
    let sealed = input.flag().then_some((&stamp, &have));
    let whole = JournalText::write(&id, INODE, &records, sealed);
    let text = read(&whole, &id, count).expect("as it was written");
    assert_eq!(text.sealed, sealed.map(|(s, h)| (s.mtime_ns, s.ctime_ns, h.clone())));
    assert_eq!(text.claimed, have);
    assert!(JournalText::read(&whole, &id, INODE + 1).is_none(), "another file");
    assert!(JournalText::read(&whole, &FileId { len: id.len ^ 1, ..id }, INODE).is_none(), "another content");

    // Whatever is lost or altered, no chunk is claimed that was not.
    let mut damaged = whole.clone();
    match input.byte() % 4 {
        0 => damaged.truncate(input.number() as usize % (whole.len() + 1)),
        1 => damaged.extend_from_slice(input.rest()),
        2 => {
            let at = input.number() as usize % whole.len();
            damaged[at] ^= input.byte();
        }
        _ => {
            let at = input.number() as usize % whole.len();
            let new = input.rest();
            let end = damaged.len().min(at + new.len());
            damaged.splice(at..end, new.iter().copied());
        }
    }
    if let Some(text) = read(&damaged, &id, count) {
        assert!(text.claimed.iter().all(|n| have.bit(n)), "{:?}", text.claimed);
        assert!(text.sealed.is_none_or(|(_, _, proved)| proved == have));
    }
}

fn read(bytes: &[u8], id: &FileId, count: u32) -> Option<JournalText> {
    let text = JournalText::read(bytes, id, INODE)?;
    assert!(text.end <= bytes.len() && text.claimed.len() == count && text.claimed.count() <= count);
    assert!(text.sealed.as_ref().is_none_or(|(_, _, have)| have.len() == count));
    // The records alone say the same; so a seal that is cut off costs the proof and nothing else.
    let records = JournalText::read(&bytes[..text.end], id, INODE)?;
    assert_eq!(records, JournalText { sealed: None, ..text.clone() });
    Some(text)
}

/// Records of the index.
pub fn index(bytes: &[u8]) {
    if let Some(indexed) = Indexed::from_record(bytes) {
        assert_eq!(indexed.to_record().as_slice(), bytes, "a record has one form");
    } else {
        assert_ne!(bytes.len(), 64);
    }
    if let Some(layer) = Indexed::layer_from_record(bytes) {
        assert_eq!(Indexed::layer_to_record(&layer), bytes);
    }
    let layer: Vec<Digest> = bytes.chunks_exact(32).map(|c| Digest(c.try_into().unwrap())).collect();
    let mut record = Indexed::layer_to_record(&layer);
    assert_eq!(Indexed::layer_from_record(&record), Some(layer));
    let mut input = Input::new(bytes);
    let (at, with) = (input.number() as usize % record.len(), input.byte());
    record[at] ^= with;
    assert_eq!(Indexed::layer_from_record(&record).is_some(), with == 0, "a damaged record is none");
}

const INODE: u64 = 77;
