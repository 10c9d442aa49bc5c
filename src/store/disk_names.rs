//! The names of a file on a disk while it takes the place of another one, or is removed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::store::OWN;
use crate::store::inspect::{kind_at, state_at};
use crate::store::limits::BACKUPS_MAX;
use crate::store::own_dir::OwnDir;
use crate::store::placed::PlacedState;
use crate::store::swap::{SAVED_SUFFIX, SwapNames};

/// An own name, and a final one in an open directory.
pub(crate) struct DiskNames<'a> {
    pub(crate) own_dir: &'a OwnDir,
    pub(crate) own: &'a str,
    pub(crate) at: BorrowedFd<'a>,
    pub(crate) name: &'a str,
}

impl DiskNames<'_> {
    /// Whether the file that has the final name, and was `found` there, has the bytes of the own one.
    pub(crate) fn is_same(&self, found: (FileType, PlacedState)) -> bool {
        let (kind, state) = found;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |at: BorrowedFd<'_>, name: &str| Ok(File::from(fs::openat(at, name, flags, Mode::empty())?));
        let both = || {
            let (own, other) = (self.own_dir.with(|o| open(o, self.own))?, open(self.at, self.name)?);
            Ok::<_, io::Error>(own.metadata()?.len() == state.len && are_equal(&own, &other)?)
        };
        kind == FileType::RegularFile && both().unwrap_or(false) && self.final_state() == Some(state)
    }
}

/// Renames a file where no other has the name. Where the file system does not know the flag, a look
/// tells.
fn rename_free(at: BorrowedFd<'_>, from: &str, to: &str) -> rustix::io::Result<()> {
    match fs::renameat_with(at, from, at, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match kind_at(at, to) {
            None => fs::renameat(at, from, at, to),
            Some(_) => Err(Errno::EXIST),
        },
        renamed => renamed,
    }
}

/// Gives the own file `own` another name in the own directory, which nothing removes. Returns it.
pub(crate) fn set_aside(own_dir: &OwnDir, own: &str) -> io::Result<String> {
    for n in 1..BACKUPS_MAX {
        let number = if n == 1 { String::new() } else { format!(".{n}") };
        let aside = format!("{own}{number}{SAVED_SUFFIX}");
        match own_dir.with(|o| rename_free(o, own, &aside)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => (),
            renamed => return renamed.map(|()| aside),
        }
    }
    Err(Errno::EXIST.into())
}

impl SwapNames for DiskNames<'_> {
    fn exchange(&self) -> io::Result<()> {
        self.own_dir.with(|o| fs::renameat_with(o, self.own, self.at, self.name, RenameFlags::EXCHANGE))
    }

    fn rename(&self) -> io::Result<()> {
        self.own_dir.with(|o| fs::renameat(o, self.own, self.at, self.name))
    }

    fn move_in(&self) -> io::Result<()> {
        match self.own_dir.with(|o| fs::renameat_with(o, self.own, self.at, self.name, RenameFlags::NOREPLACE)) {
            // The file system does not know the flag.
            Err(e) if is_taken_or_unknown(&e) && kind_at(self.at, self.name).is_none() => self.rename(),
            moved => moved,
        }
    }

    fn link(&self, kept: &str) -> io::Result<()> {
        Ok(fs::linkat(self.at, self.name, self.at, kept, AtFlags::empty())?)
    }

    fn move_out(&self) -> io::Result<()> {
        self.own_dir.with(|o| match fs::renameat_with(self.at, self.name, o, self.own, RenameFlags::NOREPLACE) {
            // The file system does not know the flag; the own name is new.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::renameat(self.at, self.name, o, self.own),
            moved => moved,
        })
    }

    fn keep_own(&self, kept: &str) -> io::Result<()> {
        self.own_dir.with(|o| match fs::renameat_with(o, self.own, self.at, kept, RenameFlags::NOREPLACE) {
            // The file system does not know the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if kind_at(self.at, kept).is_none() => {
                fs::renameat(o, self.own, self.at, kept)
            }
            moved => moved,
        })
    }

    fn set_aside(&self) -> io::Result<String> {
        set_aside(self.own_dir, self.own).map(|aside| format!("{OWN}/{aside}"))
    }

    fn move_away(&self, kept: &str) -> io::Result<()> {
        Ok(rename_free(self.at, self.name, kept)?)
    }

    fn move_back(&self, kept: &str) -> io::Result<()> {
        Ok(rename_free(self.at, kept, self.name)?)
    }

    fn remove_own(&self) -> io::Result<()> {
        self.own_dir.with(|o| fs::unlinkat(o, self.own, AtFlags::empty()))
    }

    fn remove_kept(&self, kept: &str) -> io::Result<()> {
        Ok(fs::unlinkat(self.at, kept, AtFlags::empty())?)
    }

    fn own_state(&self) -> Option<PlacedState> {
        self.own_dir.with(|o| Ok(state_at(o, self.own))).ok().flatten().map(|(_, state)| state)
    }

    fn final_state(&self) -> Option<PlacedState> {
        state_at(self.at, self.name).map(|(_, state)| state)
    }

    fn kept_state(&self, kept: &str) -> Option<PlacedState> {
        state_at(self.at, kept).map(|(_, state)| state)
    }

    fn name(&self) -> &str {
        self.name
    }
}

/// Whether two files of one length have the same bytes.
fn are_equal(mut a: &File, mut b: &File) -> io::Result<bool> {
    let mut buffers = [vec![0; COMPARE_LEN], vec![0; COMPARE_LEN]];
    loop {
        let [of_a, of_b] = &mut buffers;
        let len = a.read(of_a)?;
        if len == 0 {
            return Ok(b.read(of_b)? == 0);
        }
        b.read_exact(&mut of_b[..len])?;
        if of_a[..len] != of_b[..len] {
            return Ok(false);
        }
    }
}

/// Bytes of each of two files that are compared at once.
const COMPARE_LEN: usize = 64 << 10;

/// Whether a rename with `NOREPLACE` failed because the name is taken, or because the system does
/// not support it.
pub(crate) fn is_taken_or_unknown(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM))
}
