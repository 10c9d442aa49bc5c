//! Replacing what lies at a final name by an own file, such that nothing else is lost that comes there
//! meanwhile.
//!
//! Between the look at a file and a rename over it, another program may save its own. So the two
//! names are exchanged, which is one step, and what came out is looked at: if it is not what was
//! looked at before, both go back. A file that is to be kept gets its second name first.
//!
//! Between the exchange and the look the process may be killed, or the power fail. Then the final name has
//! the new file, whole and durable, and the own name the one that was there. That one was to go, unless
//! another program saved it in the instant between the look and the exchange. A partial file has a mark in
//! its journal, so what lies under its name is set aside, whatever it is. One-chunk files, copies and links
//! have no journal: what is left under their names goes after
//! [`TEMP_STALE`](crate::store::limits::TEMP_STALE). A save and a kill within the same few microseconds are
//! not worth a further write for each of thousands of small files. For the same reason the mark is not
//! synced. Without it, after a power loss, the file under the own name is taken for a copy of the partial
//! one: its chunks are hashed, and fetched where they are wrong, so the result is right in any case.

use std::io;

use rustix::io::Errno;

use crate::limits::PATH_COMPONENT_LEN_MAX;
use crate::store::limits::{BACKUPS_MAX, ENCRYPTED_NAME_LEN_MAX};
use crate::store::placed::PlacedState;

/// An own name and a final one, and what can be done with both.
pub(crate) trait SwapNames {
    /// Lets both names change places.
    fn exchange(&self) -> io::Result<()>;

    /// Gives the own file the final name, whatever lies there.
    fn rename(&self) -> io::Result<()>;

    /// Gives the own file the final name if that is free.
    fn move_in(&self) -> io::Result<()>;

    /// Gives the file at the final name the own one instead, which is free.
    fn move_out(&self) -> io::Result<()>;

    /// Gives the own file the name `kept` beside the final one, if that is free.
    fn keep_own(&self, kept: &str) -> io::Result<()>;

    /// Gives the own file another name in the own directory, which nothing removes. Returns it.
    fn set_aside(&self) -> io::Result<String>;

    /// Gives the file at the final name the further name `kept`, if that is free.
    fn link(&self, kept: &str) -> io::Result<()>;

    /// Gives the file at the final name the name `kept` instead, if that is free.
    fn move_away(&self, kept: &str) -> io::Result<()>;

    /// Gives the file `kept` the final name again, if that is free.
    fn move_back(&self, kept: &str) -> io::Result<()>;

    /// Removes the own name.
    fn remove_own(&self) -> io::Result<()>;

    /// Removes the name `kept`.
    fn remove_kept(&self, kept: &str) -> io::Result<()>;

    /// The state of what lies at the own name.
    fn own_state(&self) -> Option<PlacedState>;

    /// The state of what lies at the final name.
    fn final_state(&self) -> Option<PlacedState>;

    /// The state of what lies at the name `kept`.
    fn kept_state(&self, kept: &str) -> Option<PlacedState>;

    /// The final name.
    fn name(&self) -> &str;
}

/// What came of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swapped {
    /// The own file has the final name.
    Done,
    /// Something else lies there than was expected, and both names are as they were.
    Changed,
}

/// Replaces the file at the final name, which is expected in the state `found`.
pub(crate) fn replace(names: &impl SwapNames, found: &PlacedState) -> io::Result<Swapped> {
    let new = names.own_state();
    if names.final_state() != Some(*found) {
        return Ok(Swapped::Changed);
    }
    match names.exchange() {
        // The file system cannot do it. The window between the look and the rename stays.
        Err(e) if is_unsupported(&e) => return names.rename().map(|()| Swapped::Done),
        Err(e) if is_gone(&e) && names.final_state().is_none() => return Ok(Swapped::Changed),
        exchanged => exchanged?,
    }
    if names.own_state().is_some_and(|out| out.is_renamed(found)) { Ok(finish(names)) } else { put_back(names, new) }
}

/// Replaces the file at the final name, which is expected to be the one of `found`, and keeps it under
/// another name: `NAME~`, or `NAME.~2~` and so on. That name is there at each moment at which the
/// final one has the new file.
pub(crate) fn replace_and_keep(names: &impl SwapNames, found: &PlacedState) -> io::Result<Swapped> {
    let new = names.own_state();
    let kept = match first_free(names.name(), |kept| names.link(kept)) {
        Ok(kept) => kept,
        Err(e) if is_gone(&e) && names.final_state().is_none() => return Ok(Swapped::Changed),
        Err(e) if is_unsupported(&e) || e.raw_os_error() == Some(Errno::MLINK.raw_os_error()) => {
            return move_and_keep(names);
        }
        Err(e) => return Err(e),
    };
    let is_it = |state: Option<PlacedState>| state.is_some_and(|s| (s.device, s.inode) == (found.device, found.inode));
    if !is_it(names.kept_state(&kept)) {
        names.remove_kept(&kept)?;
        return Ok(Swapped::Changed);
    }
    let swapped = match names.exchange() {
        Ok(()) if is_it(names.own_state()) => return Ok(finish(names)),
        Ok(()) => put_back(names, new),
        Err(e) if is_gone(&e) && names.final_state().is_none() => Ok(Swapped::Changed),
        Err(e) if is_unsupported(&e) => return names.rename().map(|()| Swapped::Done),
        Err(e) => Err(e),
    };
    // It lies at the final name as before, or another program has replaced it there.
    let _ = names.remove_kept(&kept);
    swapped
}

/// Removes the final name of the file that is expected there in the state `found`. It is taken away
/// under the own name, which is free, and looked at: if it is another one, it is put back.
pub(crate) fn remove(names: &impl SwapNames, found: &PlacedState) -> io::Result<Swapped> {
    if names.final_state() != Some(*found) {
        return Ok(Swapped::Changed);
    }
    match names.move_out() {
        Err(e) if is_gone(&e) && names.final_state().is_none() => return Ok(Swapped::Changed),
        moved => moved?,
    }
    if names.own_state().is_some_and(|out| out.is_renamed(found)) {
        return Ok(finish(names));
    }
    match names.move_in() {
        // Yet another file took the name meanwhile.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let kept = first_free(names.name(), |kept| names.keep_own(kept));
            kept.map(|_| Swapped::Changed).map_err(|e| keep_saved(names, &e))
        }
        moved => moved.map(|()| Swapped::Changed).map_err(|e| keep_saved(names, &e)),
    }
}

/// As [`replace_and_keep`] where a file has one name only: for a moment none has the final name.
fn move_and_keep(names: &impl SwapNames) -> io::Result<Swapped> {
    let kept = first_free(names.name(), |kept| names.move_away(kept))?;
    let moved = names.move_in();
    if moved.is_err() {
        // It keeps its new name if another file took the old one meanwhile.
        let _ = names.move_back(&kept);
    }
    moved.map(|()| Swapped::Done)
}

/// The old file has the own name: it goes. What stays of it is removed as another leftover.
fn finish(names: &impl SwapNames) -> Swapped {
    let _ = names.remove_own();
    Swapped::Done
}

/// Exchanges both names again, after something else came out than was expected. If meanwhile yet
/// another file took the final name, it has replaced the `new` one there: it stays, as the last one
/// that was saved, and what it would have replaced goes. Where the exchange fails, or what came out
/// cannot be looked at, the own file may be one that was saved: it gets a name under which it stays.
fn put_back(names: &impl SwapNames, new: Option<PlacedState>) -> io::Result<Swapped> {
    let exchange = || names.exchange().map_err(|e| keep_saved(names, &e));
    exchange()?;
    match (names.own_state(), new) {
        (Some(own), Some(new)) if (own.device, own.inode) == (new.device, new.inode) => return Ok(Swapped::Changed),
        (Some(_), Some(_)) => exchange()?,
        _ => return Err(keep_saved(names, &io::Error::other("it cannot be looked at"))),
    }
    names.remove_own()?;
    Err(io::Error::other("another program replaced the file at the same moment"))
}

/// The own file is one that another program saved, and it cannot be put back because of `cause`. It
/// leaves the own name, whose file is removed after an error. Returns an error that says where it is.
fn keep_saved(names: &impl SwapNames, cause: &io::Error) -> io::Error {
    let kept = first_free(names.name(), |kept| names.keep_own(kept)).or_else(|_| names.set_aside());
    io::Error::other(match kept {
        Ok(kept) => format!("what another program saved there is now {kept}, as it cannot be put back: {cause}"),
        Err(e) => format!("what another program saved there cannot be put back: {cause}; nor be kept: {e}"),
    })
}

/// Takes the first of the names for a replaced file that is free. A name that would be too long is cut.
fn first_free(name: &str, take: impl Fn(&str) -> io::Result<()>) -> io::Result<String> {
    let suffixes = || std::iter::once("~".to_owned()).chain((2..BACKUPS_MAX).map(|n| format!(".~{n}~")));
    // The second length is what file systems take that encrypt names.
    let all = [PATH_COMPONENT_LEN_MAX, ENCRYPTED_NAME_LEN_MAX];
    let mut last = Errno::EXIST.into();
    'len: for len in all {
        for suffix in suffixes() {
            let kept = format!("{}{suffix}", cut(name, len - suffix.len()));
            match take(&kept) {
                Ok(()) => return Ok(kept),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = e,
                Err(e) if e.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) => {
                    last = e;
                    continue 'len;
                }
                Err(e) => return Err(e),
            }
        }
        break;
    }
    Err(last)
}

/// The beginning of the last component of `name`, with all that stands before it, such that the component
/// has at most `len` bytes.
fn cut(name: &str, len: usize) -> &str {
    let from = name.rfind('/').map_or(0, |at| at + 1);
    let end = (from..=name.len().min(from + len)).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(from)]
}

/// Whether the system or the file system lacks the call. `PERM` stands for hard links that it does
/// not permit, or for a sandbox that does not know the call.
fn is_unsupported(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM))
}

fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound
}

/// Ends the name of an own file that another program saved.
pub(crate) const SAVED_SUFFIX: &str = ".saved";

#[cfg(test)]
mod tests;
