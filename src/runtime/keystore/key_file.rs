//! Reading and writing the file of a secret key.
//!
//! A key file is written whole or not at all, readable by its owner alone, and replaced only on
//! request.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::identity::{Keypair, KeypairError};
use crate::runtime::keystore::KeyError;
use crate::runtime::keystore::put_secret::{FileSystem, put_secret};
use crate::runtime::limits::KEY_FILE_LEN_MAX;

/// Reads a key file; refuses one that others can read (`chmod 600 FILE`).
///
/// # Errors
/// [`KeyError`]: not found, exposed, no file, too long, not readable, or no Ed25519 private key.
pub fn load_key(path: &Path) -> Result<Keypair, KeyError> {
    let not_found = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let (content, metadata) = match read_bounded(path, KEY_FILE_LEN_MAX, |m| refuse_exposed(path, m)) {
        Err(KeyError::Read { file, source }) if not_found(&source) => return Err(KeyError::KeyNotFound { file }),
        other => other?,
    };
    debug_assert!(metadata.is_file());
    let text = std::str::from_utf8(&content).map_err(|_| KeypairError::Malformed(BINARY.into()));
    let key = text.and_then(Keypair::from_pem);
    key.map_err(|source| KeyError::Malformed { file: path.into(), source })
}

/// Reads a key file, or makes it (0600, atomic, directories 0700) when there is none. True if it
/// was made.
///
/// Several processes may call it at once: all get the same key.
///
/// # Errors
/// [`KeyError`], as [`load_key`] and [`write_key`].
pub fn load_or_create_key(path: &Path) -> Result<(Keypair, bool), KeyError> {
    match load_key(path) {
        Err(KeyError::KeyNotFound { .. }) => {}
        other => return other.map(|key| (key, false)),
    }
    let key = Keypair::try_generate().map_err(|source| KeyError::Generate { source })?;
    match write_key(path, &key, false) {
        Ok(()) => Ok((key, true)),
        Err(KeyError::Exists { .. }) => load_key(path).map(|key| (key, false)),
        Err(e) => Err(e),
    }
}

/// Writes a key file with mode 0600, whole or not at all, and makes missing directories with mode
/// 0700.
///
/// `force` replaces a regular file that is there, or a link itself that leads to one or to nothing;
/// without it, it is left as it is.
///
/// # Errors
/// [`KeyError::Exists`]; [`KeyError::NotAFile`] for a directory, a device or a pipe; [`KeyError::Write`] when the disk
/// is full or read-only, or writing there is not permitted.
pub fn write_key(path: &Path, key: &Keypair, force: bool) -> Result<(), KeyError> {
    if fs::symlink_metadata(path).is_ok() {
        // What a link leads to counts: replacing `/dev/null`, or a link to it, would break the host.
        let what = fs::metadata(path).ok().and_then(|m| other_than_file(&m));
        match what {
            Some(what) => return Err(KeyError::NotAFile { file: path.into(), what }),
            None if !force => return Err(KeyError::Exists { file: path.into() }),
            None => {}
        }
    }
    put_secret(&FileSystem, path, key.to_pem().as_bytes(), force)
}

/// Reads a regular file of at most `max` bytes if `check` accepts its metadata. Check and content
/// are of the same open file, whatever happens to the name meanwhile.
pub(crate) fn read_bounded(
    path: &Path,
    max: u64,
    check: impl FnOnce(&fs::Metadata) -> Result<(), KeyError>,
) -> Result<(Secret, fs::Metadata), KeyError> {
    let unreadable = |source| KeyError::Read { file: path.into(), source };
    // O_NONBLOCK, or opening a pipe would wait for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if let Some(what) = other_than_file(&metadata) {
        return Err(KeyError::NotAFile { file: path.into(), what });
    }
    check(&metadata)?;
    if metadata.len() > max {
        return Err(KeyError::TooLong { file: path.into(), max });
    }
    // Capacity for one byte more than expected, so that the secret never moves to a larger buffer
    // and leaves a copy.
    let mut content = Secret::new(Vec::with_capacity(metadata.len() as usize + 1));
    (&mut file).take(max + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > max {
        return Err(KeyError::TooLong { file: path.into(), max });
    }
    Ok((content, metadata))
}

/// What is in the place of a regular file; none if it is one.
fn other_than_file(metadata: &fs::Metadata) -> Option<&'static str> {
    let what = if metadata.is_dir() { "a directory" } else { "a special file" };
    (!metadata.is_file()).then_some(what)
}

fn refuse_exposed(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyError> {
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 { Err(KeyError::Exposed { file: path.into(), mode }) } else { Ok(()) }
}

/// Bytes that are wiped on drop.
type Secret = ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing<Vec<u8>>;

const BINARY: &str = "binary, not PEM (for DER: `openssl pkey -inform DER -in FILE -out NEW`)";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::chain::Chain;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/gpb/key.pem");
        let (made, new) = load_or_create_key(&path).unwrap();
        assert!(new);
        let (read, new) = load_or_create_key(&path).unwrap();
        assert!(!new && made.peer_id() == read.peer_id());
        assert_eq!((mode(&path), mode(path.parent().unwrap()), mode(&dir.path().join("state"))), (0o600, 0o700, 0o700));
        assert_eq!(names(path.parent().unwrap()), ["key.pem"]);
    }

    #[test]
    fn processes_that_start_together_end_up_with_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let all = std::thread::scope(|s| {
            let threads: Vec<_> = (0..8).map(|_| s.spawn(|| load_or_create_key(&path).unwrap())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(all.iter().all(|(k, _)| k.peer_id() == all[0].0.peer_id()));
        assert_eq!(all.iter().filter(|(_, new)| *new).count(), 1);
        assert_eq!(names(dir.path()), ["key.pem"]);
    }

    #[test]
    fn a_key_is_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let (old, new) = (Keypair::generate(), Keypair::generate());
        write_key(&path, &old, false).unwrap();
        assert!(matches!(write_key(&path, &new, false), Err(KeyError::Exists { .. })));
        assert_eq!(load_key(&path).unwrap().peer_id(), old.peer_id());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_key(&path, &new, true).unwrap();
        assert_eq!((load_key(&path).unwrap().peer_id(), mode(&path)), (new.peer_id(), 0o600));
        assert_eq!(names(dir.path()), ["key.pem"]);
    }

    #[test]
    fn a_dangling_link_is_no_free_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(write_key(&path, &Keypair::generate(), false), Err(KeyError::Exists { .. })));
        assert_eq!(names(dir.path()), ["key.pem"]);
    }

    #[test]
    fn a_key_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_key(&path, &Keypair::generate(), false).unwrap();
        for bad in [0o640, 0o620, 0o604, 0o602, 0o644, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bad)).unwrap();
            let text = load_key(&path).unwrap_err().to_string();
            assert!(text.contains(path.to_str().unwrap()), "{text}");
            assert!(text.contains(&format!("{bad:o}")), "{text}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(load_key(&path).is_ok());
    }

    #[test]
    fn what_is_no_key_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let said = |path: &Path| Chain(&load_key(path).unwrap_err()).to_string();
        assert!(said(&dir.path().join("none")).contains("not found"));
        assert!(said(dir.path()).contains("a directory"));
        assert!(said(Path::new("/dev/null")).contains("a special file"));
        assert!(said(&put("long", &vec![b'x'; KEY_FILE_LEN_MAX as usize + 1])).contains("longer than 16384 bytes"));
        assert!(said(&put("der", &[0x30, 0xff, 0xfe])).contains("binary, not PEM"));
        assert!(said(&put("empty", b"")).contains("empty"));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(said(&pipe).contains("a special file"));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_a_trouble_of_storage() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let e = write_key(&dir.path().join("file/key.pem"), &Keypair::generate(), false).unwrap_err();
        assert!(matches!(e, KeyError::Write { .. }), "{e}");
        let e = write_key(dir.path(), &Keypair::generate(), true).unwrap_err();
        assert!(matches!(e, KeyError::NotAFile { .. }), "{e}");
    }

    /// A link to nothing is a directory that is there, in which none can be made: the search for what is
    /// missing went up and down between the two without an end.
    #[test]
    fn a_directory_below_a_link_to_nothing_is_a_trouble_of_storage() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for place in [link.join("x/key.pem"), link.join("x/y/z/key.pem")] {
            let e = write_key(&place, &Keypair::generate(), false).unwrap_err();
            assert!(matches!(e, KeyError::Write { .. }), "{e}");
            assert!(Chain(&e).to_string().contains("no directory can be made in"), "{e:?}");
        }
        assert_eq!(names(dir.path()), ["link"]);
    }

    /// A device or a pipe in the place of a key became a regular file.
    #[test]
    fn only_a_regular_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name| dir.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        std::os::unix::fs::symlink("pipe", at("to-pipe")).unwrap();
        fs::write(at("file"), b"mine").unwrap();
        std::os::unix::fs::symlink("file", at("to-file")).unwrap();
        for place in [at("pipe"), at("to-pipe")] {
            let before = fs::symlink_metadata(&place).unwrap().ino();
            let e = write_key(&place, &Keypair::generate(), true).unwrap_err();
            assert!(matches!(e, KeyError::NotAFile { what: "a special file", .. }), "{e}");
            assert_eq!(fs::symlink_metadata(&place).unwrap().ino(), before);
        }
        write_key(&at("to-file"), &Keypair::generate(), true).unwrap();
        assert!(fs::symlink_metadata(at("to-file")).unwrap().is_file());
        assert_eq!(fs::read(at("file")).unwrap(), b"mine");
        assert_eq!(names(dir.path()), ["file", "pipe", "to-file", "to-pipe"]);
    }
}
