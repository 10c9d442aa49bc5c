//! Finds peers, lists what they offer, and fetches it.

use std::io::{self, IsTerminal, Stdout};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpb::internals::cli::{
    self, ClientOptions, Command, Failure, LeftOut, Options, Output, ProgressDisplay, Screen, StopSignals, Verbosity,
};
use gpb::internals::client::{AskScope, FoundBare, Resolved, Tree};
use gpb::internals::limits::{DHT_WAIT, LIST_WAIT};
use gpb::internals::peers::Hindrance;
use gpb::internals::store::Disk;
use gpb::internals::swarm::PeerTable;
use gpb::{FailedFile, Fetch, FetchError, FileReport, FoundFile, Node, Overwrite, Phase, Report, Selection, Share};
use gpb::{Life, RelPath, Stopper, Update, Want};

use plan::Plan;

#[path = "client/plan.rs"]
mod plan;
#[path = "client/sync.rs"]
mod sync;
#[path = "client/verify.rs"]
mod verify;

fn main() -> ExitCode {
    cli::client(|options, screen| run(&options, screen))
}

fn run(options: &ClientOptions, screen: &Screen) -> Result<(), Failure> {
    let share = match options.command {
        Command::Get { share: true, .. } => Share::Fetched,
        Command::Sync(ref sync) if sync.share && !sync.dry_run => Share::Fetched,
        // Whether peers can dial this host shows only where it listens.
        Command::Doctor => Share::Fetched,
        _ => Share::Nothing,
    };
    let node = Node::start(options.node.config(share)?)?;
    let (stop, stopper, stopped) = (node.stopper(), node.stopper(), node.stopper());
    let signals = StopSignals::on_first(move || stop.stop()).map_err(Failure::from_signals)?;
    let mut output = Output::new(io::stdout(), options.node.report.json);
    let result = match &options.command {
        Command::Peers { wait } => peers(&node, *wait, &mut output),
        Command::List { patterns, select, wait } => {
            list(&node, (patterns, &select.selection(), *wait), &mut output, screen)
        }
        Command::Get { patterns, select, overwrite, dry_run, life, out, seed, attributes, .. } => {
            let (select, overwrite) = (select.selection(), *overwrite);
            let (node, options, life, attributes) = (&node, &options.node, *life, *attributes);
            let watching = Watching { options, screen };
            let get = GetCommand { node, options, screen, watching, stopper, select, overwrite, life, attributes };
            if *dry_run {
                return get.tell(patterns, out.as_deref(), &mut output);
            }
            get.run(patterns, out.as_deref(), *seed, &mut output)
        }
        Command::Sync(sync) => sync::run(&node, sync, &Watching { options: &options.node, screen }, &mut output),
        Command::Verify(verify) => {
            verify::run(&node, verify, &Watching { options: &options.node, screen }, &mut output)
        }
        Command::Doctor => doctor(&node, &mut output),
    };
    match result {
        Err(_) if stopped.defect().is_some() => Err(Failure::from_defect(&stopped.defect().unwrap_or_default())),
        // A failure without a message was reported before the signal came.
        Err(failure) if signals.asked() && !failure.message.is_empty() => Err(Failure::interrupted()),
        result => result.map_err(|failure| failure.with_left_out(&left_out(&node))),
    }
}

/// What may be why nothing was found.
fn left_out(node: &Node) -> LeftOut {
    let (directory, config) = (&node.client().ctx.peers, node.config());
    let finds_by_itself = config.multicast || config.dns_sd || config.dht.is_some();
    LeftOut {
        unreached: directory.read(PeerTable::unreached),
        nobody_named: !finds_by_itself && config.peers.is_empty() && config.peer_file.is_none(),
        untrusted: node.discovery_stats().untrusted,
        clocks_differ: directory.hindrance() == Some(Hindrance::ClocksDiffer),
    }
}

fn peers(node: &Node, wait: Duration, output: &mut Output<Stdout>) -> Result<(), Failure> {
    // Unlike a call of the library, the program fails where no peer is.
    output.peers(&node.client().peers(&AskScope::default(), wait)?).map_err(stdout_failed)
}

fn list(
    node: &Node,
    (patterns, selection, wait): (&[String], &Selection, Duration),
    output: &mut Output<Stdout>,
    screen: &Screen,
) -> Result<(), Failure> {
    let (found, mut bare) = node.client().list_names(patterns, &AskScope::default(), wait)?;
    selection.retain_shown(patterns, &mut bare, |(found, _)| found.path.as_str());
    let (shown, hidden) = selection.shown(patterns, found);
    patterns.iter().filter_map(|text| cli::unknown_root(text, &shown)).for_each(|hint| log::warn!("{hint}"));
    if let ([], [], Some(peer)) = (&shown[..], &bare[..], left_out(node).unreached.first()) {
        log::warn!("what a peer has that was not reached is not listed peer={} addr={}", peer.peer, peer.addr);
    }
    let listed = output.list(&shown, &bare).and_then(|()| output.hidden(hidden, &mut screen.clone()));
    listed.map_err(stdout_failed)
}

fn doctor(node: &Node, output: &mut Output<Stdout>) -> Result<(), Failure> {
    let wait = if node.config().dht.is_some() { DHT_WAIT } else { LIST_WAIT };
    output.findings(&node.diagnose(wait)?).map_err(stdout_failed)
}

/// The command `get`.
struct GetCommand<'a> {
    node: &'a Node,
    options: &'a Options,
    screen: &'a Screen,
    watching: Watching<'a>,
    stopper: Stopper,
    select: Selection,
    overwrite: Overwrite,
    life: Life,
    attributes: bool,
}

impl GetCommand<'_> {
    fn run(
        &self,
        patterns: &[String],
        out: Option<&Path>,
        seed: Option<Duration>,
        output: &mut Output<Stdout>,
    ) -> Result<(), Failure> {
        let mut told = Told { output, failed: None };
        let Resolved { files, bare, failed, hidden } = self.node.resolve(patterns, &self.select)?;
        if self.options.report.json || self.options.report.log.verbosity != Verbosity::Quiet {
            told.tell(|output| output.hidden(hidden, &mut self.screen.clone()));
        }
        let mut report = match files.is_empty() && bare.is_empty() {
            true => Report::default(),
            false => self.fetch((&files, &bare), &failed, out, &mut told)?,
        };
        report.failed.splice(..0, failed);
        let mut failure = FailedFile::gravest(&report.failed).map(|error| self.failed(error, &report, &mut told));
        if failure.is_none() {
            told.tell(|output| output.done(&report));
        }
        if let Some(seed) = seed.filter(|_| report.files > 0) {
            // What failed is known now, whatever ends the seeding.
            if let Some(failure) = &mut failure {
                *failure = failure.clone().with_left_out(&left_out(self.node));
                failure.print(self.options.report.json, &mut io::stdout(), &mut self.screen.clone());
                failure.message.clear();
            }
            self.stopper.wait(seed);
        }
        match failure {
            Some(failure) => Err(failure),
            None => told.failed.map_or(Ok(()), |error| Err(stdout_failed(error))),
        }
    }

    /// Fetches `files`, while other names `failed` to be found.
    fn fetch(
        &self,
        (files, bare): (&[FoundFile], &[FoundBare]),
        failed: &[FailedFile],
        out: Option<&Path>,
        told: &mut Told<'_>,
    ) -> Result<Report, Failure> {
        let get = self.node.get(Want::found(files, bare)).overwrite(self.overwrite).life(self.life);
        let get = if self.attributes { get } else { get.contents_only() };
        let get = match out {
            None => get,
            Some(out) if is_file(out, files.len(), bare.len() + failed.len()) => get.to_file(out),
            Some(out) => get.into_dir(out),
        };
        let (error, mut report) = match get.start() {
            Err(error) => (Arc::new(error), Report::default()),
            Ok(fetch) => {
                self.watching.watch(&fetch, told);
                match fetch.wait() {
                    Ok(report) => return Ok(Report::clone(&report)),
                    Err(failed) => (failed.error, Report::clone(&failed.report)),
                }
            }
        };
        match &*error {
            FetchError::Cancelled | FetchError::Stopped => Err(Failure::of(&error)),
            // They are shown with the names that were not found.
            _ if !report.failed.is_empty() => Ok(report),
            _ if failed.is_empty() => Err(Failure::of(&error)),
            _ => {
                let fail = |file: &FoundFile| FailedFile::new(file.path.as_str(), error.clone());
                report.failed = files.iter().map(fail).collect();
                Ok(report)
            }
        }
    }

    /// Says what a fetch would do.
    fn tell(&self, patterns: &[String], out: Option<&Path>, output: &mut Output<Stdout>) -> Result<(), Failure> {
        let Resolved { files, bare, mut failed, hidden } = self.node.resolve(patterns, &self.select)?;
        output.hidden(hidden, &mut self.screen.clone()).map_err(stdout_failed)?;
        let (dir, name) = match out {
            None => (self.options.dir.as_path(), None),
            Some(out) if is_file(out, files.len(), bare.len() + failed.len()) => {
                (out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")), out.file_name())
            }
            Some(out) => (out, None),
        };
        // Where it would be made, the room is that of the directory above.
        let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        let state = Some(self.options.state.as_path());
        let disk = Disk::open_guarded(there, false, self.overwrite, state).map_err(FetchError::from)?;
        let free = disk.free_bytes().map_err(FetchError::from)?;
        let tree = match self.attributes && name.is_none() {
            true => plan::tree_of(&files, bare),
            false => Tree::default(),
        };
        let mut plan = Plan::new((there == dir).then_some(&disk), tree);
        let name = name.and_then(|name| RelPath::new(&name.to_string_lossy()).ok());
        let places: Vec<&RelPath> = files.iter().map(|file| name.as_ref().unwrap_or(&file.path)).collect();
        let mut refused = self.node.refused(dir, places.iter().map(|place| place.as_str())).into_iter().peekable();
        for (at, (file, place)) in files.iter().zip(places).enumerate() {
            let forecast = match refused.next_if(|(refused, _)| *refused == at) {
                Some((_, error)) => Err(error),
                None => plan.forecast(file, place),
            };
            match forecast {
                Ok(forecast) => {
                    output.plan(file, &dir.join(place.as_str()), forecast).map_err(stdout_failed)?;
                    plan.count(file, forecast);
                }
                Err(e) => failed.push(FailedFile::new(file.path.as_str(), FetchError::from(e))),
            }
        }
        plan.tell_bare(dir, output, &mut failed, &|_| false).map_err(stdout_failed)?;
        let totals = plan.totals(free);
        output.planned(totals).map_err(stdout_failed)?;
        failed.extend(plan::hindrance(&disk, dir, &totals));
        let mut report = Report::default();
        (report.files, report.failed) = (totals.files as usize, failed);
        let Some(error) = FailedFile::gravest(&report.failed).cloned() else { return Ok(()) };
        output.failed(&report.failed, &mut self.screen.clone()).map_err(stdout_failed)?;
        Err(Failure::of_fetch(&error, &report))
    }

    /// Says what could not be fetched, and why the program fails.
    fn failed(&self, error: &FetchError, report: &Report, told: &mut Told<'_>) -> Failure {
        if report.files > 0 {
            told.tell(|output| output.incomplete(report));
        }
        told.tell(|output| output.failed(&report.failed, &mut self.screen.clone()));
        Failure::of_fetch(error, report)
    }
}

/// Shows how far a fetch is.
struct Watching<'a> {
    options: &'a Options,
    screen: &'a Screen,
}

impl Watching<'_> {
    /// Shows the progress of a fetch until it has ended.
    fn watch(&self, fetch: &Fetch, told: &mut Told<'_>) {
        let report = &self.options.report;
        let shows_files = report.json || report.log.verbosity != Verbosity::Quiet;
        let mut display = ProgressDisplay::new(report, self.screen);
        let (mut updates, mut started, mut last) = (fetch.updates(), false, (0, Instant::now()));
        loop {
            let ended = fetch.wait_for(TICK);
            let (at, now) = (fetch.progress(), Instant::now());
            if !started && at.phase != Phase::Searching {
                started = true;
                told.tell(|output| output.start(at.files as u64, at.bytes));
            }
            if at.bytes_done != last.0 {
                last = (at.bytes_done, now);
            }
            told.tell(|_| display.show(&at, now - last.1 > SILENCE, now));
            if shows_files {
                let news = std::iter::from_fn(|| updates.try_recv().filter(|news| *news != Update::Ended));
                let file = |news| if let Update::File(file) = news { Some(file) } else { None };
                let files: Vec<FileReport> = news.filter_map(file).collect();
                if !files.is_empty() {
                    let tell = |file| told.tell(|output| output.file(file, fetch.dir()));
                    // Only where both are on one terminal; a reader that pauses must not hold up the log.
                    if io::stdout().is_terminal() {
                        self.screen.above(|| files.iter().for_each(tell));
                    } else {
                        files.iter().for_each(tell);
                    }
                }
            }
            if ended {
                display.finish();
                return;
            }
        }
    }
}

/// What a fetch writes. When the reader of it goes away, the fetch goes to its end all the same, so
/// that the exit code says whether everything is there.
struct Told<'a> {
    output: &'a mut Output<Stdout>,
    /// Why nothing more is written.
    failed: Option<io::Error>,
}

impl Told<'_> {
    fn tell(&mut self, write: impl FnOnce(&mut Output<Stdout>) -> io::Result<()>) {
        if self.failed.is_none() {
            self.failed = write(self.output).err();
        }
    }
}

/// Whether `out` names the file of a fetch of so many `files` and `others`: empty directories, links and
/// what is not there. A directory is one whatever others share.
fn is_file(out: &Path, files: usize, others: usize) -> bool {
    (files, others) == (1, 0) && !out.is_dir() && !out.to_string_lossy().ends_with('/')
}

fn stdout_failed(error: io::Error) -> Failure {
    Failure::from_stdout(&error)
}

/// Time between two looks at a fetch.
const TICK: Duration = Duration::from_millis(100);
/// A fetch without a byte for this long waits for a source.
const SILENCE: Duration = Duration::from_secs(2);
