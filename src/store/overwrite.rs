//! What a fetch does with files that are in the way.

/// What a fetch does with a different file that lies where a fetched one goes.
///
/// A file that has the wanted content already is kept in any case, and counted as there. What
/// fetches put in place is recorded in the node's state directory.
///
/// ```no_run
/// use gpb::Overwrite;
///
/// # let node = gpb::Node::builder().dir("/data").start()?;
/// // Unless it is told otherwise, a fetch refuses to replace.
/// let fetch = node.get("models").overwrite(Overwrite::Replace).start()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overwrite {
    /// It stays, and the fetch of it fails, unless an earlier fetch put it there and it did not
    /// change since.
    #[default]
    Refuse,
    /// It is replaced, once the fetched one is whole.
    Replace,
    /// It is replaced as well, and kept under another name: its own with `~` behind it, or
    /// `NAME.~2~` and so on where that is taken.
    Backup,
}
