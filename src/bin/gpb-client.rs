//! Finds peers, lists what they offer, and fetches it.

use std::io::{self, Stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use gpb::cli::{
    self, Candidate, ClientOptions, Command, Exit, Failure, FileRow, Finding, Options, Output, PeerRow, Progress,
    Screen, Snapshot, StopSignals, Summary, Verbosity,
};
use gpb::internals::client::{FetchError, FoundFile, Report};
use gpb::internals::limits::LIST_WAIT;
use gpb::internals::node::{Fetch, Node, Share, Stopper};

fn main() -> ExitCode {
    cli::client(|options, screen| run(&options, screen))
}

fn run(options: &ClientOptions, screen: &Screen) -> Result<(), Failure> {
    let share = match options.command {
        Command::Get { share: true, .. } => Share::Fetched,
        _ => Share::Nothing,
    };
    let node = Node::start(options.node.config(share))?;
    let (stop, stopper) = (node.stopper(), node.stopper());
    let signals = StopSignals::on_first(move || stop.stop()).map_err(|e| Failure::from_error(Exit::Other, &e))?;
    let mut output = Output::new(io::stdout(), options.node.report.json);
    let result = match &options.command {
        Command::Peers { wait } => peers(&node, *wait, &mut output),
        Command::List { patterns, wait } => list(&node, patterns, *wait, &mut output),
        Command::Get { patterns, out, seed, .. } => {
            let get = Get { node: &node, options: &options.node, screen, stopper };
            get.run(patterns, out.as_deref(), *seed, &mut output)
        }
        Command::Doctor => doctor(&node, &mut output),
    };
    match result {
        Err(failure) if signals.asked() && failure.exit != Exit::Done => {
            Err(Failure::new(Exit::Interrupted, "interrupted; run it again to continue"))
        }
        result => result,
    }
}

fn peers(node: &Node, wait: Duration, output: &mut Output<Stdout>) -> Result<(), Failure> {
    let found = node.peers(wait)?;
    let row = |p: &gpb::internals::client::FoundPeer| PeerRow {
        peer: p.peer,
        addr: p.addr,
        files: p.files,
        age_ms: p.age_ms,
    };
    output.peers(&found.iter().map(row).collect::<Vec<_>>()).map_err(|e| Failure::from_stdout(&e))
}

fn list(node: &Node, patterns: &[String], wait: Duration, output: &mut Output<Stdout>) -> Result<(), Failure> {
    let found = node.list(patterns, wait)?;
    output.list(found.iter().map(row)).map_err(|e| Failure::from_stdout(&e))
}

fn row(file: &FoundFile) -> FileRow<'_> {
    FileRow { path: &file.path, id: &file.id, holders: file.holders.len() }
}

fn doctor(node: &Node, output: &mut Output<Stdout>) -> Result<(), Failure> {
    let findings = node.diagnose(LIST_WAIT)?;
    let rows = findings.iter().map(|f| Finding { check: &f.check, ok: f.ok, detail: &f.detail, advice: &f.advice });
    output.findings(&rows.collect::<Vec<_>>()).map_err(|e| Failure::from_stdout(&e))
}

/// The command `get`.
struct Get<'a> {
    node: &'a Node,
    options: &'a Options,
    screen: &'a Screen,
    stopper: Stopper,
}

impl Get<'_> {
    fn run(
        &self,
        patterns: &[String],
        out: Option<&Path>,
        seed: Option<Duration>,
        output: &mut Output<Stdout>,
    ) -> Result<(), Failure> {
        let fetch = self.node.fetch_to(patterns, out).map_err(|e| ambiguous(e, output))?;
        let report = self.watch(fetch, output)?;
        let summary = Summary {
            files: report.files as u64,
            bytes: report.bytes,
            seconds: report.seconds,
            retries: report.retries,
            wasted: report.wasted,
            peers: &report.peers,
        };
        output.done(&summary).map_err(|e| Failure::from_stdout(&e))?;
        if let Some(seed) = seed {
            self.stopper.wait(seed);
        }
        Ok(())
    }

    /// Shows how a fetch goes on until it has ended.
    fn watch(&self, fetch: Fetch, output: &mut Output<Stdout>) -> Result<Report, Failure> {
        let report = &self.options.report;
        let tells_files = report.json || report.log.verbosity != Verbosity::Quiet;
        let stdout = |e: io::Error| Failure::from_stdout(&e);
        let mut bar = Progress::new(report, self.screen);
        output.start(fetch.files() as u64, fetch.progress().bytes).map_err(stdout)?;
        let (mut seen, mut last) = (0, (0, Instant::now()));
        loop {
            let ended = fetch.wait_for(TICK);
            let at = fetch.progress();
            let now = Instant::now();
            if at.bytes_done != last.0 {
                last = (at.bytes_done, now);
            }
            let waiting = (now - last.1 > SILENCE).then(|| "waiting for a source".to_string());
            let snapshot = Snapshot {
                bytes: at.bytes_done,
                total: at.bytes,
                files_done: at.files_done as u64,
                files_total: at.files as u64,
                peers: at.peers,
                waiting,
            };
            bar.show(&snapshot, now).map_err(stdout)?;
            if tells_files {
                for f in fetch.fetched(&mut seen) {
                    output.file(&f.path, &f.id, &fetch.dir().join(f.out.as_str()), f.seconds).map_err(stdout)?;
                }
            }
            if ended {
                bar.finish();
                return Ok(fetch.wait()?);
            }
        }
    }
}

/// Lists what a name could mean before the error says that it means several things.
fn ambiguous(error: FetchError, output: &mut Output<Stdout>) -> Failure {
    if let FetchError::Ambiguous { candidates, .. } = &error {
        let rows = candidates.iter().map(|c| Candidate { path: &c.path, id: &c.id, holders: &c.holders });
        let rows: Vec<_> = rows.collect();
        if let Err(e) = output.candidates(&rows) {
            return Failure::from_stdout(&e);
        }
    }
    error.into()
}

/// How often a fetch is looked at.
const TICK: Duration = Duration::from_millis(100);
/// A fetch without a byte for so long waits for a source.
const SILENCE: Duration = Duration::from_secs(2);
