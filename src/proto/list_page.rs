//! The body of a page of the listing, written and read entry by entry.

use crate::proto::{ListedAs, MessageError};

/// A postcard list of [`Listed`](crate::proto::Listed) that grows.
#[derive(Debug, Default)]
pub struct ListPage {
    count: usize,
    entries: Vec<u8>,
}

impl ListPage {
    /// Adds what has the name `path`.
    pub fn push(&mut self, path: &str, what: &ListedAs<&str>) {
        let whole = std::mem::take(&mut self.entries);
        // Writing to a `Vec` does not fail.
        self.entries = postcard::to_extend(&(path, what), whole).unwrap_or_default();
        self.count += 1;
    }

    /// Bytes of the entries that were added.
    pub fn entries_len(&self) -> usize {
        self.entries.len()
    }

    /// The body.
    pub fn finish(self) -> Vec<u8> {
        let mut body = postcard::to_stdvec(&self.count).unwrap_or_default();
        body.extend_from_slice(&self.entries);
        body
    }

    /// Reads a body. No entry takes memory before it is read.
    ///
    /// # Errors
    /// [`MessageError::Malformed`] without a count.
    pub fn read(body: &[u8]) -> Result<ListedEntries<'_>, MessageError> {
        let (left, rest) = postcard::take_from_bytes(body).map_err(|_| MALFORMED)?;
        Ok(ListedEntries { left, rest })
    }
}

/// The names of a page, in its order, each with what has it. A name may be one that no file can have.
/// What is malformed is the last item.
#[derive(Debug)]
pub struct ListedEntries<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for ListedEntries<'a> {
    type Item = Result<(&'a str, ListedAs<&'a str>), MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match postcard::take_from_bytes(self.rest) {
            Ok((entry, rest)) => {
                self.rest = rest;
                Some(Ok(entry))
            }
            Err(_) => {
                self.left = 0;
                Some(Err(MALFORMED))
            }
        }
    }
}

const MALFORMED: MessageError = MessageError::Malformed("List");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Attributes, Digest, FileId, LinkTo, RelPath, Root};
    use crate::proto::{Listed, ListedFile, encode_body};

    const NOW_NS: i64 = 1_795_000_000_123_456_789;

    fn plain(i: u8) -> ListedFile<String> {
        let id = FileId { root: Root(Digest([i; 32])), len: 1 << (i % 64) };
        let attributes = Attributes { mtime_ns: NOW_NS, ..Attributes::default() };
        ListedFile { attributes, ..ListedFile::plain(id) }
    }

    fn what(i: u8) -> ListedAs<String> {
        let link = LinkTo { target: "../other".to_string(), mtime_ns: -1 };
        let attributes = Attributes { mtime_ns: i64::MIN, executable: true, link_group: u64::MAX };
        match i % 8 {
            0 => ListedAs::File(plain(i)),
            1 => ListedAs::File(ListedFile { attributes, ..plain(i) }),
            2 => ListedAs::File(ListedFile { is_copy: true, is_temporary: i > 8, ..plain(i) }),
            3 => ListedAs::File(ListedFile { link: Some(link), ..plain(i) }),
            4 | 5 => ListedAs::EmptyDir { mtime_ns: i64::MAX, is_copy: i.is_multiple_of(2) },
            _ => ListedAs::Link { to: link, is_copy: i.is_multiple_of(2) },
        }
    }

    fn page_of(all: &[Listed]) -> Vec<u8> {
        let mut page = ListPage::default();
        all.iter().for_each(|l| page.push(l.path.as_str(), &l.what.as_borrowed()));
        page.finish()
    }

    #[test]
    fn it_is_what_the_list_would_be() {
        let listed = |i: u8| Listed { path: RelPath::new(&format!("name {i}")).unwrap(), what: what(i) };
        for count in [0, 1, 127, 128, 200] {
            let all: Vec<Listed> = (0..count).map(listed).collect();
            let body = page_of(&all);
            assert_eq!(body, encode_body(&all));
            let read = ListPage::read(&body).unwrap().map(Result::unwrap);
            assert!(read.eq(all.iter().map(|l| (l.path.as_str(), l.what.as_borrowed()))));
        }
    }

    #[test]
    fn a_plain_file_costs_its_time_and_one_byte_more_than_its_content() {
        let listed = Listed { path: RelPath::new("a").unwrap(), what: ListedAs::File(plain(20)) };
        let content = encode_body(&(&listed.path, plain(20).id)).len();
        assert_eq!(encode_body(&listed).len(), content + 1 + 9);
    }

    #[test]
    fn a_page_that_is_cut_short_ends_with_the_error() {
        let all: Vec<Listed> = (0..8).map(|i| Listed { path: RelPath::new("a").unwrap(), what: what(i) }).collect();
        let body = page_of(&all);
        for cut in 1..body.len() {
            let read: Vec<_> = ListPage::read(&body[..cut]).unwrap().collect();
            assert!(read.last().is_some_and(|last| *last == Err(MALFORMED)), "cut to {cut}");
            assert!(read.iter().filter(|entry| entry.is_err()).count() == 1);
        }
        assert_eq!(ListPage::read(&[]).err(), Some(MALFORMED));
    }
}
