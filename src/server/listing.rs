//! A page of `List` in the making. A pattern can be slow and a catalogue long, so it is made in
//! steps.

use std::sync::Arc;
use std::time::Instant;

use crate::content::{Catalogue, Pattern, PatternKind};
use crate::limits::LIST_PAGE_LEN;
use crate::proto::{ListPage, PageHead};
use crate::server::limits::LIST_CHECK_ENTRIES;

/// A page and where it stands in the catalogue that it is taken from.
pub(crate) struct Listing {
    catalogue: Arc<Catalogue>,
    pattern: Option<Pattern>,
    /// Positions of entries that are still to be looked at.
    at: usize,
    to: usize,
    page: ListPage,
    /// The page is full, and something for the next one was found.
    more: bool,
}

impl Listing {
    /// The page of what `pattern` means (everything without one) behind the path `after`.
    pub(crate) fn new(catalogue: Arc<Catalogue>, pattern: Option<Pattern>, after: &str) -> Self {
        let (mut at, mut to) = (0, catalogue.len());
        // A plain name cannot match beyond itself and what lies below it.
        if let Some(PatternKind::Path { text, glob: None, prefix: None }) = pattern.as_ref().map(Pattern::kind) {
            let below = catalogue.positions_below(text);
            let own = catalogue.position(text);
            at = own.unwrap_or(below.start);
            to = below.end.max(own.map_or(0, |p| p + 1));
        }
        if !after.is_empty() {
            at = at.max(catalogue.partition_point(|path| path <= after));
        }
        Listing { catalogue, pattern, at, to, page: ListPage::default(), more: false }
    }

    /// Continues until the page is whole (then true) or it is later than `until`, but always some
    /// way.
    pub(crate) fn go_on(&mut self, until: Instant) -> bool {
        while self.at < self.to && !self.more {
            let step = self.to.min(self.at + LIST_CHECK_ENTRIES);
            for entry in self.catalogue.entries(self.at..step) {
                self.at += 1;
                if self.pattern.as_ref().is_none_or(|p| p.matches(entry.path, &entry.id)) {
                    if self.page.entries_len() >= LIST_PAGE_LEN {
                        self.more = true;
                        break;
                    }
                    self.page.push(entry.path, &entry.id);
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        self.at >= self.to || self.more
    }

    /// Memory that the page takes, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.page.entries_len()
    }

    /// Header and body of the answer.
    pub(crate) fn finish(self) -> (PageHead, Vec<u8>) {
        let head = PageHead { revision: self.catalogue.revision(), more: self.more };
        (head, self.page.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Entry, FileId, RelPath, Root, Stamp};
    use crate::proto::{Listed, decode_body};

    fn catalogue(names: impl Iterator<Item = String>) -> Arc<Catalogue> {
        let id = FileId { root: Root(Digest([1; 32])), len: 100 };
        let entry = |name: String| Entry { path: RelPath::new(&name).unwrap(), id, stamp: Stamp::default() };
        Arc::new(Catalogue::new(1, names.map(entry).collect()))
    }

    #[test]
    fn a_slow_pattern_takes_many_steps_and_finds_the_same() {
        let all = catalogue((0..5000).map(|i| format!("{i:04}{}", "a".repeat(60))));
        let pattern = || Some(Pattern::parse("*a*a*a*a*a*7*a").unwrap());
        let (mut at_once, mut steps) = (Listing::new(all.clone(), pattern(), ""), 0);
        assert!(at_once.go_on(Instant::now() + std::time::Duration::from_secs(100)));
        let mut slow = Listing::new(all.clone(), pattern(), "");
        while !slow.go_on(Instant::now()) {
            steps += 1;
        }
        assert_eq!((steps, slow.finish().1), (5000_usize.div_ceil(LIST_CHECK_ENTRIES) - 1, at_once.finish().1));
    }

    #[test]
    fn plain_names_and_what_lies_below_them() {
        let all = catalogue(["d", "d-", "d/1", "d/2", "d0", "e"].map(String::from).into_iter());
        let paths = |pattern: &str, after: &str| {
            let pattern = (!pattern.is_empty()).then(|| Pattern::parse(pattern).unwrap());
            let mut listing = Listing::new(all.clone(), pattern, after);
            assert!(listing.go_on(Instant::now()));
            let page: Vec<Listed> = decode_body(&listing.finish().1, "List").unwrap();
            page.iter().map(|l| l.path.as_str().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths("d", ""), ["d", "d/1", "d/2"]);
        assert_eq!(paths("d", "d/1"), ["d/2"]);
        assert_eq!(paths("d/2", ""), ["d/2"]);
        assert_eq!(paths("d?", ""), ["d-", "d0"]);
        assert_eq!(paths("", "d/2"), ["d0", "e"]);
        assert!(paths("x", "").is_empty() && paths("d", "z").is_empty());
    }
}
