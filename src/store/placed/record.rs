//! One record: which content a name got, in which state, and how long it is to stay.

use serde::{Deserialize, Serialize};

use crate::content::{FileId, Stamp};
use crate::limits::PATH_LEN_MAX;
use crate::store::storage::Storage;

/// How long a file stays that a fetch puts in place.
///
/// ```
/// use gpb::Life;
///
/// assert_eq!(Life::default(), Life::Kept);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Life {
    /// Until it is removed by hand.
    #[default]
    Kept,
    /// Until it expires, if a node that shares the directory lets such files expire.
    Temporary,
    /// As [`Temporary`](Life::Temporary), but its last holder keeps it.
    Mirrored,
}

/// What a record says of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlacedFile {
    /// The content that was put there.
    pub(crate) id: FileId,
    /// The state of the file then; `None` if only the intent is known.
    pub(crate) state: Option<PlacedState>,
    /// How long it stays.
    pub(crate) keeping: Keeping,
}

/// How long a file stays, and since when it was not used, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Keeping {
    Kept,
    Temporary {
        used_s: u64,
    },
    Mirrored {
        used_s: u64,
    },
    /// It has expired and is gone.
    Expired,
}

/// The state of a file on disk: any difference means that it may be another one, or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct PlacedState {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) len: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
}

impl PlacedState {
    /// Whether this is still what `before` was. It may have been renamed since, which sets the time of
    /// the last inode change alone.
    pub(crate) fn is_renamed(&self, before: &PlacedState) -> bool {
        PlacedState { ctime_ns: before.ctime_ns, ..*self } == *before
    }
}

/// A record as it is written.
#[derive(Serialize, Deserialize)]
pub(super) struct RecordLine<'a> {
    pub(super) name: &'a str,
    pub(super) id: FileId,
    pub(super) state: Option<PlacedState>,
    pub(super) keeping: Keeping,
}

impl Keeping {
    /// That of a file with this life which is put in place, or used, at `now_s`.
    pub(crate) fn new(life: Life, now_s: u64) -> Self {
        match life {
            Life::Kept => Keeping::Kept,
            Life::Temporary => Keeping::Temporary { used_s: now_s },
            Life::Mirrored => Keeping::Mirrored { used_s: now_s },
        }
    }

    /// How long the file stays; nothing of one that is gone.
    pub(crate) fn life(self) -> Option<Life> {
        match self {
            Keeping::Kept => Some(Life::Kept),
            Keeping::Temporary { .. } => Some(Life::Temporary),
            Keeping::Mirrored { .. } => Some(Life::Mirrored),
            Keeping::Expired => None,
        }
    }

    /// Whether the file goes when it was not used for long.
    pub(crate) fn may_expire(self) -> bool {
        matches!(self, Keeping::Temporary { .. } | Keeping::Mirrored { .. })
    }
}

impl PlacedState {
    /// The state as other parts keep it.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { mtime_ns: self.mtime_ns, ctime_ns: self.ctime_ns, inode: self.inode }
    }
}

impl RecordLine<'_> {
    /// What it says of its name.
    pub(super) fn file(&self) -> PlacedFile {
        PlacedFile { id: self.id, state: self.state, keeping: self.keeping }
    }
}

/// The record at `at`, if there is one.
pub(super) fn read_record<'b>(file: &dyn Storage, at: u64, buffer: &'b mut [u8]) -> Option<RecordLine<'b>> {
    let left = file.stat().ok()?.len.saturating_sub(at);
    let bytes = &mut buffer[..left.min(RECORD_LEN_MAX as u64) as usize];
    file.read_at(at, bytes).ok()?;
    postcard::take_from_bytes(bytes).ok().map(|(line, _)| line)
}

/// More than the longest record: a name, an identity, some numbers.
pub(super) const RECORD_LEN_MAX: usize = PATH_LEN_MAX + 160;
