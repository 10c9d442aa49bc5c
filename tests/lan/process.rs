//! A program that runs on a host: its lines as they come, its end, and signals to it and nothing else.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

use crate::net::PATIENCE;

/// A running program. Dropping it kills it.
pub struct Process {
    child: Child,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
    started: Instant,
}

/// How a program ended and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Lines of stdout.
    pub out: Vec<String>,
    /// Lines of stderr.
    pub err: Vec<String>,
    /// From start to end.
    pub took: Duration,
}

/// What a program has written so far.
pub struct Log {
    name: String,
    started: Instant,
    lines: Mutex<Vec<Line>>,
    changed: Condvar,
}

struct Line {
    is_err: bool,
    at: Duration,
    text: String,
}

impl Process {
    /// Starts `command`; `name` stands in front of its lines when a test fails.
    pub fn start(name: String, mut command: Command) -> Self {
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start {name}: {e}"));
        let log = Arc::new(Log { name, started, lines: Mutex::default(), changed: Condvar::new() });
        let readers = vec![
            follow(Arc::clone(&log), false, child.stdout.take().unwrap()),
            follow(Arc::clone(&log), true, child.stderr.take().unwrap()),
        ];
        Process { child, log, readers, started }
    }

    /// What it writes.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Waits for a line, of stdout or stderr, that contains all of `parts`, and returns it.
    pub fn wait_line(&mut self, parts: &[&str], within: Duration) -> String {
        let within = within * PATIENCE;
        let deadline = Instant::now() + within;
        loop {
            let ended = self.child.try_wait().unwrap();
            // What it wrote before its end may still be on its way.
            let is_all_read = self.readers.iter().all(JoinHandle::is_finished);
            if let Some(line) = self.log.wait(parts, Duration::from_millis(100)) {
                return line;
            }
            if let Some(status) = ended.filter(|_| is_all_read) {
                panic!("{} ended ({status}) without a line with {parts:?}", self.log.name);
            }
            assert!(Instant::now() < deadline, "{}: no line with {parts:?} within {within:?}", self.log.name);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process id, which is that of the last program that it became by `exec`.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Most memory that it has had until now, in bytes (`VmHWM`); `None` once it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
    }

    /// Waits for the end as [`wait`](Self::wait) does, and also returns the most memory that it had.
    pub fn wait_measured(mut self, within: Duration) -> (Ended, u64) {
        let (deadline, mut peak) = (Instant::now() + within * PATIENCE, 0);
        while self.is_running() && Instant::now() < deadline {
            peak = self.peak_memory().unwrap_or(0).max(peak);
            thread::sleep(Duration::from_millis(5));
        }
        (self.wait(Duration::ZERO), peak)
    }

    /// Number of lines so far that contain all of `parts`.
    pub fn count_lines(&self, parts: &[&str]) -> usize {
        self.log.lines.lock().unwrap().iter().filter(|l| parts.iter().all(|p| l.text.contains(p))).count()
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        // The id is ours as long as `wait` has not been called.
        if self.is_running() {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, signal).unwrap();
        }
    }

    /// Waits for the end.
    pub fn wait(mut self, within: Duration) -> Ended {
        let within = within * PATIENCE;
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{} still runs after {within:?}", self.log.name);
            thread::sleep(Duration::from_millis(5));
        };
        let took = self.started.elapsed();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let (out, err) = self.log.streams();
        Ended { code: status.code(), out, err, took }
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) -> Ended {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(5))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Ended {
    /// Everything that it wrote.
    pub fn text(&self) -> String {
        [self.out.join("\n"), self.err.join("\n")].join("\n")
    }

    /// Fails unless it ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code; it wrote:\n{}", self.text());
        self
    }
}

impl Log {
    /// Prints what was written, for somebody who reads why a test failed.
    pub fn print(&self) {
        println!("--- {}", self.name);
        for line in self.lines.lock().unwrap().iter() {
            let stream = if line.is_err { "err" } else { "out" };
            println!("{:8.3}s {stream} {}", line.at.as_secs_f64(), line.text);
        }
    }

    /// The lines so far that contain `part`.
    pub fn lines_with(&self, part: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|l| l.text.contains(part)).map(|l| l.text.clone()).collect()
    }

    fn wait(&self, parts: &[&str], within: Duration) -> Option<String> {
        let found =
            |lines: &Vec<Line>| lines.iter().find(|l| parts.iter().all(|p| l.text.contains(p))).map(|l| l.text.clone());
        let lines = self.lines.lock().unwrap();
        let (lines, _) = self.changed.wait_timeout_while(lines, within, |l| found(l).is_none()).unwrap();
        found(&lines)
    }

    fn streams(&self) -> (Vec<String>, Vec<String>) {
        let lines = self.lines.lock().unwrap();
        let of = |is_err| lines.iter().filter(|l| l.is_err == is_err).map(|l| l.text.clone()).collect();
        (of(false), of(true))
    }
}

fn follow(log: Arc<Log>, is_err: bool, stream: impl Read + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        for text in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&text).into_owned();
            log.lines.lock().unwrap().push(Line { is_err, at: log.started.elapsed(), text });
            log.changed.notify_all();
        }
    })
}
