//! A page of `List` in the making. A pattern can be slow and a catalogue long, so it is made in
//! steps.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::content::{Bare, Catalogue, CatalogueNotes, EntryRef, Pattern, PatternKind};
use crate::limits::LIST_PAGE_LEN;
use crate::proto::{ListPage, ListedAs, ListedFile, PageHead};
use crate::server::limits::LIST_CHECK_ENTRIES;

/// A page and where it stands in the catalogue that it is taken from.
pub(crate) struct Listing {
    catalogue: Arc<Catalogue>,
    pattern: Option<Pattern>,
    /// Positions of entries that are still to be looked at.
    files: Range<usize>,
    /// The same of the bare names.
    bare: Range<usize>,
    page: ListPage,
    /// The page is full, and something for the next one was found.
    more: bool,
}

impl Listing {
    /// The page of what `pattern` means (everything without one) behind the path `after`.
    pub(crate) fn new(catalogue: Arc<Catalogue>, pattern: Option<Pattern>, after: &str) -> Self {
        let bare_names = catalogue.bare();
        let (mut files, mut bare) = (0..catalogue.len(), 0..bare_names.all().len());
        // A plain name cannot match beyond itself and what lies below it.
        if let Some(PatternKind::Path { text, glob: None, prefix: None }) = pattern.as_ref().map(Pattern::kind) {
            let below = |own: Option<usize>, below: Range<usize>| {
                own.unwrap_or(below.start)..below.end.max(own.map_or(0, |p| p + 1))
            };
            files = below(catalogue.position(text), catalogue.positions_below(text));
            bare = below(bare_names.position(text), bare_names.positions_below(text));
        }
        if !after.is_empty() {
            files.start = files.start.max(catalogue.partition_point(|path| path <= after));
            bare.start = bare.start.max(bare_names.partition_point(|path| path <= after));
        }
        Listing { catalogue, pattern, files, bare, page: ListPage::default(), more: false }
    }

    /// Continues until the page is whole (then true) or it is later than `until`, but always some
    /// way.
    pub(crate) fn go_on(&mut self, until: Instant) -> bool {
        let catalogue = self.catalogue.clone();
        while !self.is_over() {
            self.step(&catalogue);
            if Instant::now() >= until {
                break;
            }
        }
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.files.is_empty() && self.bare.is_empty() || self.more
    }

    /// Looks at the next names, in the order of both lists.
    fn step(&mut self, catalogue: &Catalogue) {
        let mut files = catalogue.entries(self.files.start..self.files.end.max(self.files.start)).peekable();
        let bare_names = catalogue.bare().all();
        for _ in 0..LIST_CHECK_ENTRIES {
            let bare = bare_names.get(self.bare.clone()).and_then(|left| left.first());
            let order = match (files.peek(), bare) {
                (None, None) => return,
                (Some(file), Some((name, _))) => file.path.cmp(name.as_str()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
            };
            let file = files.next_if(|_| order.is_le());
            let bare = bare.filter(|_| order.is_ge());
            self.files.start += usize::from(file.is_some());
            self.bare.start += usize::from(bare.is_some());
            let pattern = self.pattern.as_ref();
            let (path, is_meant) = match (&file, bare) {
                (Some(file), _) => (file.path, pattern.is_none_or(|p| p.matches(file.path, &file.id))),
                (None, Some((name, _))) => (name.as_str(), pattern.is_none_or(|p| p.matches_path(name.as_str()))),
                (None, None) => return,
            };
            if !is_meant {
                continue;
            }
            if self.page.entries_len() >= LIST_PAGE_LEN {
                self.more = true;
                return;
            }
            if let Some(what) = listed(file, bare.map(|(_, bare)| bare)) {
                self.page.push(path, &what);
            }
        }
    }

    /// Memory that the page takes, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.page.entries_len()
    }

    /// Header and body of the answer.
    pub(crate) fn finish(self) -> (PageHead, Vec<u8>) {
        let CatalogueNotes { complete, unnamed } = self.catalogue.notes();
        let head = PageHead { revision: self.catalogue.revision(), more: self.more, complete, unnamed };
        (head, self.page.finish())
    }
}

/// What one name is: a file, a bare name, or a link whose content is offered, which is both.
fn listed<'c>(file: Option<EntryRef<'c>>, bare: Option<&'c Bare>) -> Option<ListedAs<&'c str>> {
    let link = match bare {
        Some(Bare::Link { to, .. }) => Some(to.as_borrowed()),
        _ => None,
    };
    if let Some(file) = file {
        let (attributes, is_copy, is_temporary) = (file.attributes(), file.marks.copy, file.marks.temporary);
        return Some(ListedAs::File(ListedFile { id: file.id, attributes, is_copy, is_temporary, link }));
    }
    match bare? {
        Bare::EmptyDir { mtime_ns, copy } => Some(ListedAs::EmptyDir { mtime_ns: *mtime_ns, is_copy: *copy }),
        Bare::Link { copy, .. } => link.map(|to| ListedAs::Link { to, is_copy: *copy }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::content::{BareNames, Digest, Entry, FileId, LinkTo, Marks, RelPath, Root, Stamp};
    use crate::proto::{Listed, decode_body};

    fn catalogue(names: impl Iterator<Item = String>) -> Arc<Catalogue> {
        let id = FileId { root: Root(Digest([1; 32])), len: 100 };
        let (stamp, marks) = (Stamp::default(), Marks::default());
        let entry = |name: String| Entry { path: RelPath::new(&name).unwrap(), id, stamp, marks };
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

    fn pages(all: &Arc<Catalogue>, pattern: &str) -> Vec<(String, ListedAs<String>)> {
        let (mut got, mut after) = (Vec::new(), String::new());
        loop {
            let pattern = (!pattern.is_empty()).then(|| Pattern::parse(pattern).unwrap());
            let mut listing = Listing::new(all.clone(), pattern, &after);
            while !listing.go_on(Instant::now()) {}
            let (head, body) = listing.finish();
            let page: Vec<Listed> = decode_body(&body, "List").unwrap();
            got.extend(page.into_iter().map(|l| (l.path.to_string(), l.what)));
            if !head.more {
                return got;
            }
            after = got.last().unwrap().0.clone();
        }
    }

    #[test]
    fn bare_names_come_in_their_order_on_every_page_and_a_link_with_its_content() {
        let name = |n: usize| format!("d/{n:05}{}", "x".repeat(200));
        let files = catalogue((0..3000).filter(|n| n % 3 != 2).map(name));
        let link = || Bare::Link { to: LinkTo { target: "../t".into(), mtime_ns: 5 }, copy: true };
        let bare = |n: usize| if n.is_multiple_of(2) { Bare::EmptyDir { mtime_ns: 7, copy: false } } else { link() };
        let path = |n| RelPath::new(&name(n)).unwrap();
        // Names that are files as well are links.
        let bare: BTreeMap<_, _> = (0..3000).filter(|n| n % 3 != 1).map(|n| (path(n), Some(bare(n)))).collect();
        let all = Arc::new((*files).clone().with_bare(Arc::new(BareNames::default().changed(&bare))));
        for pattern in ["", "d", "d/*"] {
            let got = pages(&all, pattern);
            assert!(got.iter().map(|(path, _)| path.as_str()).eq((0..3000).map(name)), "{pattern}");
            for (n, (_, what)) in got.into_iter().enumerate() {
                let is_link = n % 2 == 1;
                match what {
                    ListedAs::File(file) => assert_eq!((n % 3 == 2, file.link.is_some()), (false, n % 6 == 3), "{n}"),
                    ListedAs::EmptyDir { mtime_ns, is_copy } => {
                        assert!(mtime_ns == 7 && n % 3 == 2 && !is_link && !is_copy);
                    }
                    ListedAs::Link { to, is_copy } => {
                        assert!(to.target == "../t" && n % 3 == 2 && is_link && is_copy);
                    }
                }
            }
        }
        assert_eq!(pages(&all, &name(2)).len(), 1);
        assert_eq!(pages(&all, &"01".repeat(32)).len(), 2000, "a root means files alone");
    }
}
