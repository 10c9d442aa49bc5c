//! The body of a page of the listing, written entry by entry.

use crate::content::FileId;

/// A postcard list of [`Listed`](crate::proto::Listed) that grows.
#[derive(Debug, Default)]
pub struct ListPage {
    count: usize,
    entries: Vec<u8>,
}

impl ListPage {
    /// Adds the file `id` under the name `path`.
    pub fn push(&mut self, path: &str, id: &FileId) {
        let whole = std::mem::take(&mut self.entries);
        // Writing to a `Vec` does not fail.
        self.entries = postcard::to_extend(&(path, id), whole).unwrap_or_default();
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, RelPath, Root};
    use crate::proto::{Listed, encode_body};

    #[test]
    fn it_is_what_the_list_would_be() {
        let listed = |i: u8| {
            let id = FileId { root: Root(Digest([i; 32])), len: 1 << (i % 64) };
            Listed { path: RelPath::new(&format!("name {i}")).unwrap(), id }
        };
        for count in [0, 1, 127, 128, 200] {
            let all: Vec<Listed> = (0..count).map(listed).collect();
            let mut page = ListPage::default();
            all.iter().for_each(|l| page.push(l.path.as_str(), &l.id));
            assert_eq!(page.finish(), encode_body(&all));
        }
    }
}
