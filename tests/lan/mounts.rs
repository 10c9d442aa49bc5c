//! Disks of a test: file systems in image files, mounted where no other process sees them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::net::Host;
use crate::process::Process;

/// Ends the test as skipped, unless nothing may be.
macro_rules! skip {
    ($($why:tt)*) => {{
        let why = format!($($why)*);
        assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "must not be skipped: {why}");
        println!("skipped: {}: {why}", std::thread::current().name().unwrap_or("a test"));
        return;
    }};
}

/// A process that holds a mount namespace open. What is mounted in it ends with it, also after `kill -9`.
pub struct MountSpace {
    holder: Child,
}

impl MountSpace {
    pub fn new() -> Self {
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "-m", "--propagation", "private", "sh", "-c", "echo up; read _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "a mount namespace could not be made");
        MountSpace { holder }
    }

    /// Runs a shell script inside; what it writes, or what it complains of.
    pub fn try_sh(&self, script: &str) -> Result<String, String> {
        let output = Command::new("nsenter")
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .args(["--", "bash", "-ec", script])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Runs a shell script inside, which must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script).unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// Starts a program inside, on `host`.
    pub fn spawn(&self, host: &Host, program: &str, args: &[&str]) -> Process {
        let space = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        let mut all = vec![space.as_str(), "--", program];
        all.extend(args);
        host.spawn("nsenter", &all)
    }

    /// Where an absolute path inside is for this process.
    pub fn path(&self, inside: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(inside.strip_prefix("/").unwrap())
    }
}

impl Drop for MountSpace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Why file systems of this kind cannot be made and mounted here.
pub fn lacks(kind: &str) -> Option<String> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|l| l.split_whitespace().last() == Some(kind)) {
        return Some(format!("the kernel has no {kind}"));
    }
    let tool = format!("mkfs.{kind}");
    let found = Command::new(&tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_err().then(|| format!("needs the program {tool}"))
}
