//! Text files that the user names. A pipe is one, too, so that a shell can generate the text.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Reads the text of `path`, or so much of it that it has more than `max` bytes. A pipe that no program has open to fill it
/// is waited for no longer than `wait`.
///
/// # Errors
/// The file cannot be read or is no UTF-8; [`ErrorKind::TimedOut`]: nobody opened the pipe.
pub(crate) fn read_text(path: &Path, max: u64, wait: Duration) -> io::Result<String> {
    // O_NONBLOCK, or opening a pipe would wait for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let (mut content, mut buffer) = (Vec::new(), [0; 8192]);
    let mut at_end = if file.metadata()?.is_file() { AtEnd::Stop } else { AtEnd::Wait };
    while content.len() as u64 <= max {
        match file.read(&mut buffer) {
            Ok(0) => match at_end {
                AtEnd::Stop => break,
                AtEnd::Wait => at_end = if is_readable(&file, Some(wait))? { AtEnd::Stop } else { AtEnd::Fail },
                AtEnd::Fail => {
                    return Err(io::Error::new(
                        ErrorKind::TimedOut,
                        "it is a pipe that nobody fills; fill it, or name a file",
                    ));
                }
            },
            Ok(len) => {
                at_end = AtEnd::Stop;
                content.extend_from_slice(&buffer[..len]);
            }
            // A program has it open to fill it, and takes its time: it may ask for a passphrase.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                at_end = AtEnd::Stop;
                is_readable(&file, None)?;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    String::from_utf8(content).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is no UTF-8 text"))
}

/// What the end of a file means.
#[derive(Clone, Copy)]
enum AtEnd {
    /// The end.
    Stop,
    /// That nobody has opened the pipe yet, or that whoever had it wrote nothing.
    Wait,
    /// That nobody opened it in time.
    Fail,
}

/// Whether there is something to read, or the end, within `wait`.
fn is_readable(file: &File, wait: Option<Duration>) -> io::Result<bool> {
    let until = wait.map(|wait| Instant::now() + wait);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() });
        match poll(&mut [PollFd::new(file, PollFlags::IN)], left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn files_and_filled_pipes_are_read_and_others_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        fs::write(&file, "a = 1\n").unwrap();
        assert_eq!(read_text(&file, 6, LONG).unwrap(), "a = 1\n");
        assert!(read_text(&file, 5, LONG).unwrap().len() > 5, "what is too long is seen to be");
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert_eq!(read_text(&file, 5, LONG).unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(read_text(dir.path(), 5, LONG).is_err() && read_text(&dir.path().join("none"), 5, LONG).is_err());
        assert!(read_text(Path::new("/dev/zero"), 100_000, LONG).unwrap().len() > 100_000);
        mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| fs::write(&pipe, "b = 2\n".repeat(20_000)).unwrap());
            assert_eq!(read_text(&pipe, 1 << 20, LONG).unwrap().len(), 120_000);
        });
    }

    /// Cause: a pipe was opened as a file is. Effect: a program whose configuration was a pipe without a writer waited for
    /// ever and said nothing. Mend: the wait has an end, and an error.
    #[test]
    fn a_pipe_that_nobody_fills_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        let error = read_text(&pipe, 100, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // A program that has it open may take its time.
        let held = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        io::Write::write_all(&mut { &held }, b"a").unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_text(&pipe, 100, Duration::ZERO));
            while rustix::io::ioctl_fionread(&held).unwrap() > 0 {
                std::thread::yield_now();
            }
            drop(held);
            assert_eq!(reader.join().unwrap().unwrap(), "a");
        });
    }
}
