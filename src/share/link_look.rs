//! The text of a symbolic link, as far as it can be announced.

use std::path::Path;

use crate::content::{RelPath, follow_link};

/// The target of the link at `path` below `root`, if following it by its text alone ends `inside`, which
/// is where the system follows it to. So it means the same in any directory that it is made in.
pub(super) fn link_inside(root: &Path, path: &Path, inside: &Path) -> Option<Box<str>> {
    let text = |path: &Path| std::fs::read_link(path).ok()?.into_os_string().into_string().ok();
    let at = RelPath::new(path.strip_prefix(root).ok()?.to_str()?).ok()?;
    let target = text(path)?;
    let end = follow_link(&at, &target, &mut |path| text(&root.join(path))).ok()?;
    (Path::new(&end) == inside).then(|| target.into())
}
