//! The file of the log: kept under its name when it is moved away, and bounded.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// A file that lines are appended to.
///
/// Before each write it looks at what lies under the name. If that is another file or none, as after
/// a rotation, it opens the name again, so that programs that rotate logs need not signal it. If the
/// file has its greatest length, it is renamed to [`older`], in the place of an older one, and a new
/// one is begun: lines that other hosts cause fill no disk. Both are done for regular files only.
/// What fails is left until the next write; meanwhile lines go to the open file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    len_max: u64,
    is_regular: bool,
}

impl LogFile {
    /// Opens or creates `path`; it grows to about `len_max` bytes.
    pub(super) fn open(path: &Path, len_max: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        let is_regular = file.metadata()?.is_file();
        // The name must stand for the same file if the program changes its directory.
        let path = std::path::absolute(path)?;
        Ok(LogFile { path, file, len_max, is_regular })
    }

    /// Sees to it that the open file is the one to write to.
    fn renew(&mut self) {
        if !self.is_regular {
            return;
        }
        let found = std::fs::metadata(&self.path);
        let Ok(own) = self.file.metadata() else { return };
        match found {
            Ok(found) if is_same(&found, &own) && found.len() < self.len_max => return,
            Ok(found) if is_same(&found, &own) && !self.put_aside(&own) => return,
            Ok(found) if is_same(&found, &own) => {}
            // Another file, which takes what follows.
            Ok(found) if !found.is_file() => return,
            _ => {}
        }
        if let Ok(file) = append_to(&self.path) {
            self.file = file;
        }
    }

    /// Renames the full file, or finds that another process has. Under a lock and after another
    /// look: two processes that both find it full would else rename the new one over the full one.
    fn put_aside(&self, own: &Metadata) -> bool {
        if self.file.try_lock().is_err() {
            return false;
        }
        // Behind a symlink lies what is renamed.
        let real = std::fs::canonicalize(&self.path);
        let done = match std::fs::metadata(&self.path) {
            Ok(found) if is_same(&found, own) => real.and_then(|real| std::fs::rename(&real, older(&real))).is_ok(),
            _ => true,
        };
        let _ = self.file.unlock();
        done
    }
}

impl Write for LogFile {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.renew();
        self.file.write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.renew();
        self.file.flush()
    }
}

/// Where the lines before the ones in `path` are.
pub(super) fn older(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

/// Does not wait: a FIFO that nothing reads would hold the program up at its start, and a full one at
/// each line.
fn append_to(path: &Path) -> io::Result<File> {
    refuse_key(path)?;
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().create(true).append(true).custom_flags(flags).open(path);
    opened.map_err(|e| match e.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NXIO) if is_socket(path) => io::Error::other("it is a socket"),
        Some(Errno::NXIO) => io::Error::other("nothing reads this FIFO"),
        _ => e,
    })
}

/// A file of keys is never appended to, whatever `path` says: its lines would be in the way of the key.
fn refuse_key(path: &Path) -> io::Result<()> {
    if !fs::metadata(path).is_ok_and(|file| file.is_file()) {
        return Ok(());
    }
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PEM_BEGIN.len() as u64).read_to_end(&mut begin));
    if read.is_ok() && begin == PEM_BEGIN { Err(io::Error::other("it is a file of keys")) } else { Ok(()) }
}

/// What a key in PEM begins with.
const PEM_BEGIN: &[u8] = b"-----BEGIN ";

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Lab {
        dir: tempfile::TempDir,
        log: LogFile,
    }

    impl Lab {
        fn new(len_max: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let log = LogFile::open(&dir.path().join("log"), len_max).unwrap();
            Lab { dir, log }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap()
        }
    }

    /// As the log does: whole lines at once.
    fn line(log: &mut LogFile, text: &str) {
        log.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// The program wrote on into the file that had been rotated away.
    #[test]
    fn a_file_that_was_moved_away_or_removed_is_begun_anew() {
        let mut lab = Lab::new(1000);
        line(&mut lab.log, "one");
        fs::rename(lab.path("log"), lab.path("moved")).unwrap();
        line(&mut lab.log, "two");
        assert_eq!((lab.read("moved").as_str(), lab.read("log").as_str()), ("one\n", "two\n"));
        fs::remove_file(lab.path("log")).unwrap();
        lab.log.flush().unwrap();
        assert_eq!(lab.read("log"), "", "without a line");
        // A rotation that makes the new file, and one that copies and cuts off.
        fs::rename(lab.path("log"), lab.path("moved")).unwrap();
        fs::write(lab.path("log"), "made\n").unwrap();
        line(&mut lab.log, "three");
        assert_eq!(lab.read("log"), "made\nthree\n");
        File::options().write(true).open(lab.path("log")).unwrap().set_len(0).unwrap();
        line(&mut lab.log, "four");
        assert_eq!(lab.read("log"), "four\n");
    }

    /// Cause: opening a FIFO waits for its reader. Effect: a program with such a log file said nothing
    /// and did nothing. Mend: it ends with an error, and lines that a reader does not take are lost.
    #[test]
    fn a_fifo_takes_lines_while_it_is_read_and_holds_nobody_up() {
        use std::io::Read as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let error = LogFile::open(&path, 100).unwrap_err();
        assert_eq!(error.to_string(), "nothing reads this FIFO");
        // Cause: the system has one error for both. Effect: a socket was called a FIFO. Mend: its kind is looked at.
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let error = LogFile::open(&dir.path().join("socket"), 100).unwrap_err();
        assert_eq!(error.to_string(), "it is a socket");
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut reader = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
        let mut log = LogFile::open(&path, 100).unwrap();
        log.write_all(b"line\n").unwrap();
        let mut read = [0; 5];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"line\n");
        let full = (0..100_000).find_map(|_| log.write(&[b'x'; 4096]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn lines_go_to_the_open_file_while_its_name_cannot_be_opened() {
        let mut lab = Lab::new(1000);
        fs::rename(lab.path("log"), lab.path("moved")).unwrap();
        fs::create_dir(lab.path("log")).unwrap();
        line(&mut lab.log, "one");
        assert_eq!(lab.read("moved"), "one\n");
        fs::remove_dir(lab.path("log")).unwrap();
        line(&mut lab.log, "two");
        assert_eq!((lab.read("moved").as_str(), lab.read("log").as_str()), ("one\n", "two\n"));
    }

    /// Two processes that both found it full lost it: the second one renamed the new file over it.
    #[test]
    fn a_full_file_is_put_aside_by_one_process_at_a_time() {
        let mut lab = Lab::new(10);
        line(&mut lab.log, "long enough");
        let own = lab.log.file.metadata().unwrap();
        let other = File::open(lab.path("log")).unwrap();
        other.lock().unwrap();
        line(&mut lab.log, "while another one has it");
        assert!(!lab.path("log.1").exists());
        // That one did what is to be done.
        fs::rename(lab.path("log"), lab.path("log.1")).unwrap();
        fs::write(lab.path("log"), "new\n").unwrap();
        other.unlock().unwrap();
        assert!(lab.log.put_aside(&own));
        assert_eq!((lab.read("log").as_str(), lab.read("log.1").lines().count()), ("new\n", 2));
    }

    /// Strangers can cause lines, half a gigabyte of them a day.
    #[test]
    fn a_full_file_is_kept_once_and_begun_anew() {
        let mut lab = Lab::new(100);
        let mut other = LogFile::open(&lab.path("log"), 100).unwrap();
        for n in 0..1000 {
            line(if n % 3 == 0 { &mut other } else { &mut lab.log }, &format!("line {n:03}"));
            assert!(lab.read("log").len() < 120);
        }
        let all = lab.read("log.1") + &lab.read("log");
        let lines: Vec<_> = all.lines().collect();
        assert_eq!(lines.last(), Some(&"line 999"));
        assert!(lines.len() > 10 && lines.windows(2).all(|pair| pair[0] < pair[1]), "{all}");
        assert_eq!(fs::read_dir(lab.dir.path()).unwrap().count(), 2);
    }

    /// Cause: any file was appended to. Effect: `--log-file STATE/key.pem` wrote lines behind the own key, and at 64 MiB
    /// renamed it away. Mend: what begins as keys do is refused.
    #[test]
    fn a_file_of_keys_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key.pem");
        fs::write(&key, "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n").unwrap();
        let before = fs::read(&key).unwrap();
        assert_eq!(LogFile::open(&key, 100).unwrap_err().to_string(), "it is a file of keys");
        // In the place of the log of a program that runs, too.
        let path = dir.path().join("log");
        let mut log = LogFile::open(&path, 100).unwrap();
        fs::rename(&key, &path).unwrap();
        log.write_all(b"line\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_link_stays_and_what_is_no_regular_file_is_left_alone() {
        let lab = Lab::new(100);
        std::os::unix::fs::symlink("log", lab.path("link")).unwrap();
        let mut log = LogFile::open(&lab.path("link"), 10).unwrap();
        (0..4).for_each(|n| line(&mut log, &format!("line {n}")));
        assert!(lab.path("link").is_symlink());
        assert_eq!((lab.read("log.1").as_str(), lab.read("link").as_str()), ("line 0\nline 1\n", "line 2\nline 3\n"));

        let mut null = LogFile::open(Path::new("/dev/null"), 0).unwrap();
        line(&mut null, "nothing");
        assert!(!Path::new("/dev/null.1").exists());
    }
}
