//! What a page of the listing says of one name.

use serde::{Deserialize, Serialize};

use crate::content::{Attributes, FileId, LinkTo, RelPath};

/// One entry of a `List` page, with its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub path: RelPath,
    /// What has that name.
    pub what: ListedAs<String>,
}

/// What has a name in a listing. `T` is the text of a link's target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ListedForm<T>", into = "ListedForm<T>")]
#[serde(bound(serialize = "T: Clone + Serialize", deserialize = "T: Deserialize<'de>"))]
pub enum ListedAs<T> {
    /// A file.
    File(ListedFile<T>),
    /// A directory with nothing in it.
    EmptyDir {
        /// Modification time, ns since the Unix epoch.
        mtime_ns: i64,
        /// Whether the node has it from others, as [`ListedFile::is_copy`].
        is_copy: bool,
    },
    /// A symbolic link to what the listing has no content of, such as a directory.
    Link {
        /// Where it leads.
        to: LinkTo<T>,
        /// Whether the node has it from others.
        is_copy: bool,
    },
}

/// A file in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile<T> {
    /// Its content.
    pub id: FileId,
    /// What it is besides that; of a symbolic link, what the file is that it leads to.
    pub attributes: Attributes,
    /// Whether the node has it from others, by a fetch or as their mirror. What a node shares of its
    /// own wins over it.
    pub is_copy: bool,
    /// Whether it is a copy that expires when unused for long, even if no other node has it.
    pub is_temporary: bool,
    /// The link, where the name is a symbolic one.
    pub link: Option<LinkTo<T>>,
}

impl<T: AsRef<str>> ListedAs<T> {
    /// The same with borrowed texts.
    pub fn as_borrowed(&self) -> ListedAs<&str> {
        match self {
            ListedAs::File(file) => ListedAs::File(ListedFile {
                id: file.id,
                attributes: file.attributes,
                is_copy: file.is_copy,
                is_temporary: file.is_temporary,
                link: file.link.as_ref().map(LinkTo::as_borrowed),
            }),
            ListedAs::EmptyDir { mtime_ns, is_copy } => ListedAs::EmptyDir { mtime_ns: *mtime_ns, is_copy: *is_copy },
            ListedAs::Link { to, is_copy } => ListedAs::Link { to: to.as_borrowed(), is_copy: *is_copy },
        }
    }
}

impl<T> ListedFile<T> {
    /// A file of which only the content is known.
    pub fn plain(id: FileId) -> Self {
        ListedFile { id, attributes: Attributes::default(), is_copy: false, is_temporary: false, link: None }
    }
}

/// The form on the wire. Most files are plain, so that their form has nothing that is empty.
#[derive(Clone, Serialize, Deserialize)]
enum ListedForm<T> {
    Plain(FileId, i64),
    Marked { id: FileId, mtime_ns: i64, marks: u8, link_group: u64, link: Option<LinkTo<T>> },
    EmptyDir { mtime_ns: i64 },
    Link(LinkTo<T>),
    CopiedDir { mtime_ns: i64 },
    CopiedLink(LinkTo<T>),
}

impl<T> From<ListedForm<T>> for ListedAs<T> {
    fn from(form: ListedForm<T>) -> Self {
        match form {
            ListedForm::Plain(id, mtime_ns) => {
                let attributes = Attributes { mtime_ns, ..Attributes::default() };
                ListedAs::File(ListedFile { attributes, ..ListedFile::plain(id) })
            }
            ListedForm::Marked { id, mtime_ns, marks, link_group, link } => {
                let attributes = Attributes { mtime_ns, executable: marks & EXECUTABLE != 0, link_group };
                let (is_copy, is_temporary) = (marks & COPY != 0, marks & TEMPORARY != 0);
                ListedAs::File(ListedFile { id, attributes, is_copy, is_temporary, link })
            }
            ListedForm::EmptyDir { mtime_ns } => ListedAs::EmptyDir { mtime_ns, is_copy: false },
            ListedForm::Link(to) => ListedAs::Link { to, is_copy: false },
            ListedForm::CopiedDir { mtime_ns } => ListedAs::EmptyDir { mtime_ns, is_copy: true },
            ListedForm::CopiedLink(to) => ListedAs::Link { to, is_copy: true },
        }
    }
}

impl<T> From<ListedAs<T>> for ListedForm<T> {
    fn from(listed: ListedAs<T>) -> Self {
        match listed {
            ListedAs::File(ListedFile { id, attributes, is_copy, is_temporary, link }) => {
                let Attributes { mtime_ns, executable, link_group } = attributes;
                let marks = (u8::from(executable) * EXECUTABLE)
                    | (u8::from(is_copy) * COPY)
                    | (u8::from(is_temporary) * TEMPORARY);
                if marks == 0 && link_group == 0 && link.is_none() {
                    return ListedForm::Plain(id, mtime_ns);
                }
                ListedForm::Marked { id, mtime_ns, marks, link_group, link }
            }
            ListedAs::EmptyDir { mtime_ns, is_copy: false } => ListedForm::EmptyDir { mtime_ns },
            ListedAs::EmptyDir { mtime_ns, is_copy: true } => ListedForm::CopiedDir { mtime_ns },
            ListedAs::Link { to, is_copy: false } => ListedForm::Link(to),
            ListedAs::Link { to, is_copy: true } => ListedForm::CopiedLink(to),
        }
    }
}

/// Marks of a file; others belong to a later version and are ignored.
const EXECUTABLE: u8 = 1;
const COPY: u8 = 2;
const TEMPORARY: u8 = 4;
