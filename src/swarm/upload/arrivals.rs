//! The chunks of a growing file in the order in which they came: the source of new haves (HAVE, BEP
//! 3).

use crate::content::{Bitfield, ChunkIndex};
use crate::proto::Delta;

/// Which chunks of a growing file are there, and in which order they came.
///
/// A revision names a state by the number of chunks that had come; 0 is the state before any
/// knowledge. The order takes four bytes a chunk.
#[derive(Debug)]
pub struct Arrivals {
    have: Bitfield,
    order: Vec<u32>,
    /// The revision at which `order` began: larger than all revisions that counted chunks that are
    /// gone.
    base: u64,
}

impl Arrivals {
    /// The chunks in `have` came before all others.
    pub fn new(have: Bitfield) -> Self {
        Arrivals { order: have.iter().collect(), have, base: 1 }
    }

    /// All that are there.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// A chunk came; false if it was there.
    pub fn insert(&mut self, index: ChunkIndex) -> bool {
        let new = self.have.insert(index);
        if new {
            self.order.push(index.get());
        }
        new
    }

    /// Chunks are not there after all. Revisions that counted them become unknown, so that the
    /// whole set is sent again.
    pub fn remove(&mut self, chunks: impl IntoIterator<Item = ChunkIndex>) {
        let removed = chunks.into_iter().filter(|&index| self.have.remove(index)).count();
        if removed > 0 {
            self.base += self.order.len() as u64 + 1;
            self.order = self.have.iter().collect();
        }
    }

    /// Names the present state.
    pub fn revision(&self) -> u64 {
        self.base + self.order.len() as u64
    }

    /// At most `max` of the chunks that came after `since`. `None` when there are none, or when
    /// that state is unknown.
    pub fn news(&self, since: u64, max: usize) -> Option<Delta> {
        let new = self.order.get(usize::try_from(since.checked_sub(self.base)?).ok()?..)?;
        let told = &new[..new.len().min(max)];
        (!told.is_empty()).then(|| Delta::New { revision: since + told.len() as u64, chunks: told.to_vec() })
    }

    /// The difference between the state `since` and now, in the shorter form. `None` when nothing
    /// changed.
    pub fn delta(&self, since: u64) -> Option<Delta> {
        let revision = self.revision();
        if since == revision {
            return None;
        }
        // A number takes three bytes at most.
        let bytes = self.have.as_bytes();
        let few = revision.checked_sub(since).is_some_and(|n| n <= bytes.len() as u64 / 3);
        few.then(|| self.news(since, usize::MAX))
            .flatten()
            .or_else(|| Some(Delta::Full { revision, bits: bytes.to_vec() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Geometry;

    fn index(i: u32) -> ChunkIndex {
        Geometry::new(1 << 30).chunk(i).unwrap()
    }

    fn arrivals(chunks: &[u32]) -> Arrivals {
        let mut a = Arrivals::new(Bitfield::empty(64));
        chunks.iter().for_each(|&i| assert!(a.insert(index(i))));
        a
    }

    #[test]
    fn news_are_what_came_since() {
        let mut a = arrivals(&[5, 3]);
        let first = a.revision();
        assert_eq!(a.news(first, 9), None);
        assert!(a.insert(index(60)) && !a.insert(index(60)) && a.insert(index(0)));
        assert_eq!(a.news(first, 9), Some(Delta::New { revision: first + 2, chunks: vec![60, 0] }));
        assert_eq!(a.news(first, 1), Some(Delta::New { revision: first + 1, chunks: vec![60] }), "the rest comes next");
        assert_eq!(a.news(first + 1, 1), Some(Delta::New { revision: first + 2, chunks: vec![0] }));
        assert_eq!(a.delta(first), Some(Delta::New { revision: first + 2, chunks: vec![60, 0] }));
        assert_eq!(a.delta(a.revision()), None);
    }

    #[test]
    fn who_knows_nothing_or_something_else_is_told_all() {
        let a = arrivals(&[5, 3]);
        for since in [0, 77, u64::MAX] {
            assert_eq!(a.news(since, 9), None);
            assert!(matches!(a.delta(since), Some(Delta::Full { bits, .. }) if bits[0] == 0x14), "{since}");
        }
        let empty = arrivals(&[]);
        assert!(matches!(empty.delta(0), Some(Delta::Full { revision: 1, .. })));
        assert_eq!(empty.delta(1), None);
    }

    #[test]
    fn many_news_come_as_the_whole_set() {
        let mut a = arrivals(&[]);
        let before = a.revision();
        (0..40).for_each(|i| assert!(a.insert(index(i))));
        assert!(matches!(a.delta(before), Some(Delta::Full { .. })));
        assert!(matches!(a.delta(a.revision() - 2), Some(Delta::New { chunks, .. }) if chunks == [38, 39]));
    }

    #[test]
    fn what_was_told_and_is_gone_is_told_anew() {
        let mut a = arrivals(&[1, 2, 3]);
        let told = a.revision();
        a.remove([index(9)]);
        assert_eq!(a.revision(), told, "nothing was removed");
        a.remove([index(2)]);
        for since in 0..=told {
            assert!(matches!(a.delta(since), Some(Delta::Full { bits, .. }) if bits[0] == 0x50), "{since}");
            assert_eq!(a.news(since, 9), None);
        }
        assert!(a.insert(index(2)) && a.have().count() == 3);
        assert_eq!(a.delta(a.revision() - 1), Some(Delta::New { revision: a.revision(), chunks: vec![2] }));
    }
}
