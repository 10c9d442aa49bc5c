//! The pages of a faulty peer's listing.

use crate::content::{FileId, Pattern};
use crate::limits::LIST_PAGE_LEN;
use crate::proto::{Kind, ListFrom, ListPage, ListedAs, ListedFile, PageHead, Status, encode_frame};
use crate::testing::fault::Fault;

/// What a peer lists: its files, and names that a fault adds. A name may be one that no file can
/// have.
pub(super) struct FaultyListing {
    /// Sorted by name.
    files: Vec<(String, FileId)>,
    made_up: Option<MadeUpNames>,
    page_len: usize,
}

/// Names that are made as they are listed.
struct MadeUpNames {
    below: &'static str,
    count: u64,
    len: usize,
}

impl FaultyListing {
    pub(super) fn new(mut files: Vec<(String, FileId)>, faults: &[Fault]) -> Self {
        let mut made_up = None;
        let mut page_len = PAGE_LEN;
        for fault in faults {
            match *fault {
                Fault::Names { below, count, len } => made_up = Some(MadeUpNames { below, count, len: len.into() }),
                Fault::SlowLists(_) => page_len = 1,
                Fault::HostileNames => {
                    let hostile: Vec<_> = files.iter().flat_map(|(_, id)| hostile(*id)).collect();
                    files.extend(hostile);
                }
                _ => {}
            }
        }
        files.sort();
        FaultyListing { files, made_up, page_len }
    }

    /// Puts the page that begins at `from` into `out`. `None` if the pattern is malformed.
    pub(super) fn page(&self, from: &ListFrom, out: &mut Vec<u8>) -> Option<()> {
        let pattern = match from.pattern.as_str() {
            "" => None,
            text => Some(Pattern::parse(text).ok()?),
        };
        let meant = |entry: &&(String, FileId)| {
            entry.0 > from.after && pattern.as_ref().is_none_or(|p| p.matches(&entry.0, &entry.1))
        };
        let files = self.files.iter().filter(meant).cloned();
        let mut files = files.peekable();
        let mut made_up = self.made_up.iter().flat_map(|names| names.after(&from.after)).peekable();
        let (mut page, mut count) = (ListPage::default(), 0);
        while count < self.page_len && page.entries_len() < LIST_PAGE_LEN {
            let next = match (files.peek(), made_up.peek()) {
                (Some(file), Some(name)) if file.0 > name.0 => made_up.next(),
                (None, _) => made_up.next(),
                _ => files.next(),
            };
            let Some((name, id)) = next else { break };
            page.push(&name, &ListedAs::File(ListedFile::plain(id)));
            count += 1;
        }
        let more = files.next().is_some() || made_up.next().is_some();
        let head = PageHead { revision: 1, more, complete: false, unnamed: 0 };
        encode_frame(Kind::List, Status::Ok, &head, &page.finish(), out);
        Some(())
    }
}

impl MadeUpNames {
    /// The names behind `after`, in order.
    fn after(&self, after: &str) -> impl Iterator<Item = (String, FileId)> + '_ {
        let prefix = format!("{}/", self.below);
        let first = match after.strip_prefix(&prefix).and_then(|rest| rest.get(..DIGITS)) {
            Some(number) => number.parse().map_or(0, |n: u64| n + 1),
            None if after > prefix.as_str() => self.count,
            None => 0,
        };
        (first..self.count).map(move |number| (self.name(&prefix, number), made_up_id(number)))
    }

    fn name(&self, prefix: &str, number: u64) -> String {
        let mut name = format!("{prefix}{number:0DIGITS$}");
        while name.len() < self.len {
            // No component is longer than a file system takes.
            name.push(if name.len() % COMPONENT_LEN == 0 && name.len() + 1 < self.len { '/' } else { 'x' });
        }
        name
    }
}

/// The content of a made-up name: a different one for each.
fn made_up_id(number: u64) -> FileId {
    let mut id = FileId { root: crate::content::Root::EMPTY, len: 1 + number % 1000 };
    id.root.0.0[..8].copy_from_slice(&number.to_le_bytes());
    id
}

fn hostile(id: FileId) -> impl Iterator<Item = (String, FileId)> {
    let long = ["x".repeat(256), "x/".repeat(600) + "x", "y".repeat(5000)];
    let names = HOSTILE_NAMES.iter().map(|name| (*name).to_string()).chain(long);
    names.map(move |name| (name, id))
}

const HOSTILE_NAMES: &[&str] = &[
    "",
    ".",
    "..",
    "../escaped",
    "../../../../../../tmp/escaped",
    "/tmp/escaped",
    "//escaped",
    "a/../../escaped",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\u{1b}[2Jb",
    "a\u{202e}b",
    "C:\\escaped",
    "..\\escaped",
    "~/escaped",
    "$HOME/escaped",
    "-rf",
    ".gpb/escaped",
    ".bashrc",
    "**",
];

/// Entries in one page.
const PAGE_LEN: usize = 2000;
/// Digits of a made-up name: all of `u64::MAX`.
const DIGITS: usize = 20;
/// A made-up name has a separator after that many bytes.
const COMPONENT_LEN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::RelPath;

    #[test]
    fn made_up_names_can_be_names_and_advance() {
        let names = MadeUpNames { below: "dir", count: u64::MAX, len: 1024 };
        let first: Vec<_> = names.after("").take(3).collect();
        assert!(first.iter().all(|(name, _)| name.len() == 1024 && RelPath::new(name).is_ok()));
        assert_eq!(names.after(&first[1].0).next().as_ref(), first.get(2));
        assert!(names.after("e").next().is_none() && names.after("d").next().is_some());
    }
}
