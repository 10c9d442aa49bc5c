//! The one table of what the programs make of an error: its exit code and the next step.
//!
//! The library says what is wrong and why; flags, programs and commands are named here alone.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::cli::{Exit, Failure};
use crate::client::{Failed, FetchError};
use crate::identity::{KeypairError, PeerId};
use crate::limits::PORT;
use crate::node::{ConfigError, DiscoveryProblem, StartError};
use crate::runtime::keystore::KeyError;
use crate::server::ServerError;
use crate::store::StoreError;
use crate::swarm::{RefusalCause, UnreachedPeer};

/// An exit code and the next step; an empty step is not shown.
type ExitAdvice = (Exit, Cow<'static, str>);

/// An error that the table has a line for.
trait Advised: Error + Sized + 'static {
    fn exit_advice(&self) -> ExitAdvice;
}

/// The exit code for `error`, and the next step: about the limit that is reached, if there is one, or
/// else about the operation that failed.
fn advice<E: Advised>(error: &E) -> ExitAdvice {
    let (exit, step) = error.exit_advice();
    (exit, limit_step(error).map_or(step, Cow::Borrowed))
}

impl<E: Advised> From<E> for Failure {
    fn from(error: E) -> Self {
        let (exit, step) = advice(&error);
        Failure::from_error(exit, &error, &step)
    }
}

impl Failure {
    /// The end with this error, its causes and the next step.
    pub fn of(error: &FetchError) -> Self {
        let (exit, step) = advice(error);
        Failure::from_error(exit, error, &step)
    }

    /// What to do next after `error`; nothing for some errors.
    pub(crate) fn step_after(error: &FetchError) -> String {
        advice(error).1.into_owned()
    }
}

impl From<&FetchError> for Exit {
    fn from(error: &FetchError) -> Self {
        error.exit_advice().0
    }
}

impl Advised for StartError {
    fn exit_advice(&self) -> ExitAdvice {
        match self {
            StartError::Config(e) => e.exit_advice(),
            StartError::Key(e) => e.exit_advice(),
            StartError::Listen(e) => e.exit_advice(),
            StartError::Dir { .. } => (Exit::Storage, "create it, or name another one with --dir".into()),
            StartError::State { .. } => (Exit::Storage, "name another one with --state DIR".into()),
            StartError::Tls(_) => (Exit::Other, "make another key with `gpb-keygen`".into()),
            StartError::Multicast(_) => (Exit::Other, "end other programs, or go without it (--no-multicast)".into()),
            StartError::System(e) => (Exit::Other, system_step(e).into()),
        }
    }
}

impl Advised for ConfigError {
    fn exit_advice(&self) -> ExitAdvice {
        let step = match self {
            ConfigError::Network(_) => "choose another one with --network",
            ConfigError::Timeout(_) => "raise --timeout",
            ConfigError::Peer(_) => "mend --peer",
            ConfigError::Bind(_) => "mend --bind",
            ConfigError::Interface(_) => "mend --interface",
            ConfigError::Hops(_) => "mend --hops",
            ConfigError::DhtOpen => "give one with --dht-secret, or close the group with --trusted",
            ConfigError::TooManyDhtNodes(_) => "name fewer with --dht-bootstrap",
            ConfigError::NotBuilt(_) => "build it with that feature, or go without",
            ConfigError::Mirror { .. } => "mend --mirror",
            ConfigError::MirrorPlace => "share a directory with --dir, and name one for the state with --state",
            ConfigError::MirrorOpen => "name them with --from and --quota, or close the group with --trusted",
            ConfigError::NoDir => "name one with --dir",
            ConfigError::DirName(_) | ConfigError::SameDir(_) | ConfigError::TooManyDirs(_) => "name other directories",
            ConfigError::NoState => "name one with --state",
            ConfigError::TooManyPeers(_) => "name fewer with --peer: each tells of the peers that it knows",
        };
        (Exit::Usage, step.into())
    }
}

impl Advised for ServerError {
    fn exit_advice(&self) -> ExitAdvice {
        let step = match self {
            ServerError::PortInUse { .. } => "stop the program that listens there, or choose another port with --port",
            ServerError::Forbidden { .. } => "choose one above 1023 with --port",
            ServerError::NoSuchAddress(_) => "choose one of its addresses with --bind",
            ServerError::Listen { addr: SocketAddr::V6(v6), .. } if v6.ip().is_unicast_link_local() => {
                "leave --bind out and name the interface of this link-local address with --interface"
            }
            ServerError::Listen { .. } => "choose another address with --bind, or another port with --port",
            ServerError::Start(e) => system_step(e),
        };
        (Exit::Other, step.into())
    }
}

impl Advised for KeyError {
    fn exit_advice(&self) -> ExitAdvice {
        let step: Cow<'static, str> = match self {
            KeyError::KeyNotFound { file } => format!("make one with `gpb-keygen --out {}`", file.display()).into(),
            KeyError::TrustedNotFound { .. } => {
                "make it with one `ed25519:<base64> comment` a line (`gpb-keygen --show KEY` prints it)".into()
            }
            KeyError::Exposed { file, .. } => format!("run `chmod 600 {}`", file.display()).into(),
            KeyError::NotAFile { .. } => "name a regular file".into(),
            KeyError::TooLong { .. } => "name another".into(),
            KeyError::Malformed { .. } => "make one with `gpb-keygen`".into(),
            KeyError::Generate { .. } => "".into(),
            KeyError::Exists { .. } => "choose another file, or `--force` to lose that key".into(),
            KeyError::TrustedLine { .. } => "mend or remove the line".into(),
            KeyError::TooManyKeys { .. } => "remove some".into(),
            KeyError::Read { .. } => "make it readable, or name another file".into(),
            KeyError::Write { .. } => "make room or give the right to write there, or name another file".into(),
        };
        // A key that cannot be written is a trouble of the disk, not of the key.
        let exit = if matches!(self, KeyError::Write { .. }) { Exit::Storage } else { Exit::Usage };
        (exit, step)
    }
}

impl Advised for KeypairError {
    fn exit_advice(&self) -> ExitAdvice {
        (Exit::Other, "".into())
    }
}

impl Advised for FetchError {
    fn exit_advice(&self) -> ExitAdvice {
        let (exit, step) = match self {
            FetchError::NothingAsked => (Exit::Usage, "give a name, a directory, a pattern or a root"),
            FetchError::Pattern { .. } => (Exit::Usage, "give a name, a directory, a pattern or a root"),
            FetchError::Prefix { found, .. } if found.is_empty() => {
                (Exit::NoPeer, "see who is there with `gpb-client peers`")
            }
            FetchError::Prefix { .. } => (Exit::Usage, "give more letters of it"),
            FetchError::NoDirectory => (Exit::Usage, "name one with --dir or --out"),
            FetchError::Out { .. } => (Exit::Usage, "choose another name with --out"),
            FetchError::Name { .. } => (Exit::Usage, "give a file or a directory as it is below --dir"),
            FetchError::SeveralFiles { .. } | FetchError::SeveralDirs { .. } => {
                (Exit::Usage, "name a directory with --out")
            }
            FetchError::NotOneFile { .. } => (Exit::Usage, "ask for one of them"),
            FetchError::TooManyReaders(_) => (Exit::Other, "close some first"),
            FetchError::Writer(_) => (Exit::Other, "look at what takes the bytes"),
            FetchError::NoPeer(_) => (Exit::NoPeer, NO_PEER_STEP),
            FetchError::ClocksDiffer(_) => (Exit::NoPeer, CLOCK_STEP),
            FetchError::NotFound { what, .. } if is_root(what) => {
                (Exit::NotFound, "64 hex digits are a root; a file of that name is ./NAME")
            }
            FetchError::NotFound { .. } => (Exit::NotFound, "see what there is with `gpb-client list`"),
            FetchError::LongListing { .. } => {
                (Exit::NotFound, "ask for a directory of it, or prefer that peer with `get --from`")
            }
            FetchError::LinkAlone { .. } => (Exit::NotFound, "ask for what it leads to as well"),
            FetchError::Changed { .. } => (Exit::NotFound, "run it again: the source offers it when it is hashed"),
            FetchError::Ambiguous { .. } => (Exit::Ambiguous, "ask for one by its root"),
            FetchError::OnlyLiars { .. } => (Exit::Liars, "find another source"),
            FetchError::Storage(e) => return e.exit_advice(),
            FetchError::Silent { .. } => (Exit::Silent, "try again, or raise --timeout (`list`: --wait)"),
            FetchError::Full { .. } => (Exit::Silent, "try again later, or raise --timeout"),
            FetchError::Refused { peers } => (Exit::Refused, refusal_step(peers)),
            FetchError::HolderLeft { .. } => {
                (Exit::NoPeer, "run it again when a peer that has it is there: what arrived is kept")
            }
            FetchError::Cancelled | FetchError::Stopped => (Exit::Interrupted, RESUME),
            FetchError::Sockets(e) | FetchError::Threads(e) => (Exit::Other, system_step(e)),
        };
        (exit, step.into())
    }
}

impl Advised for Failed {
    fn exit_advice(&self) -> ExitAdvice {
        self.error.exit_advice()
    }
}

impl Failure {
    /// Names what was left out as well, where that may be why nothing was found.
    #[must_use]
    pub fn with_left_out(mut self, left: &LeftOut) -> Self {
        let is_alone = self.exit == Exit::NoPeer && self.message.starts_with(NO_PEER);
        let may_be_why = matches!(self.exit, Exit::NoPeer | Exit::NotFound | Exit::Refused);
        let mut causes = Vec::new();
        let tried = left.unreached.iter().filter(|peer| is_alone || self.exit == Exit::NotFound && peer.failed);
        if let [first, others @ ..] = tried.collect::<Vec<_>>().as_slice() {
            let more = if others.is_empty() { String::new() } else { format!(", nor {} more", others.len()) };
            let step = remedy(DiscoveryProblem::Unreached);
            causes.push(format!("a peer is known and was not reached at {}{more}: {step}", first.addr));
        }
        if is_alone && left.nobody_named {
            causes.push("multicast is off and no peer is named: name one with --peer".to_string());
        }
        if let Some(peer) = left.untrusted.filter(|_| is_alone) {
            causes.push(format!("{peer} is here and not trusted: add it to the file of --trusted, if you know it"));
        }
        if left.clocks_differ && may_be_why && !self.message.ends_with(CLOCK_STEP) {
            let cause = "a peer was left out, as its clock and that of this host differ by more than a day";
            causes.push(format!("{cause}: {CLOCK_STEP}"));
        }
        if !self.message.is_empty() && !causes.is_empty() {
            // There is a server.
            let said = self
                .message
                .strip_suffix(NO_PEER_STEP)
                .map_or(self.message.as_str(), |said| said.trim_end_matches("; "));
            self.message = format!("{said}; {}", causes.join("; "));
        }
        self
    }

    /// A signal ended the program.
    pub fn interrupted() -> Self {
        Failure::new(Exit::Interrupted, format!("interrupted; {RESUME}"))
    }
}

/// Whether a text that was asked for is a root, which a name may look like.
pub(crate) fn is_root(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The next step for the reason that peers gave for refusing this node.
fn refusal_step(peers: &[(PeerId, RefusalCause)]) -> &'static str {
    // Another network says least: such a peer was perhaps never meant.
    let is_other = |(_, cause): &&(PeerId, RefusalCause)| *cause == RefusalCause::OtherNetwork;
    let cause = peers.iter().find(|peer| !is_other(peer)).or(peers.first()).map(|(_, cause)| *cause);
    match cause {
        Some(RefusalCause::OtherNetwork) => "name the network that they are in with --network",
        Some(RefusalCause::OtherVersion) => "use the same version as they do",
        Some(RefusalCause::NotTrustedHere) => "add their key to the file of --trusted",
        _ => "have this node's key added to their trusted file",
    }
}

impl Advised for StoreError {
    fn exit_advice(&self) -> ExitAdvice {
        let step = match self {
            StoreError::NoSpace { .. } | StoreError::Quota { .. } => {
                "free some space or choose another directory (--dir)"
            }
            StoreError::NoInodes { .. } => "remove some files or choose another directory (--dir)",
            StoreError::OtherUser { .. } => "let that user end or remove them, or choose another directory (--dir)",
            StoreError::FileTooLarge { .. } => {
                "raise the limit of file size (ulimit -f) or choose another directory (--dir)"
            }
            StoreError::ReadOnly { .. } => "remount it or choose another directory (--dir)",
            StoreError::Permission { .. } => "change its owner or mode, or choose another directory (--dir)",
            StoreError::MissingDirectory { .. } => "create it or choose another one (--dir)",
            StoreError::NotADirectory { .. } => "choose another one (--dir)",
            StoreError::Busy { .. } => "wait for it or choose another directory (--dir)",
            StoreError::NameTaken { .. } => "move it away or choose another directory (--dir)",
            StoreError::OwnFile { .. } => "choose another name (--out) or another directory (--dir)",
            StoreError::Exists { .. } => "replace it with --force, or with --backup of `get`, which keeps it as well",
            StoreError::SameName { .. } => "fetch one of them under another name (--out)",
            StoreError::NotRegular { .. } => "choose another target (--out)",
            StoreError::OtherMount { .. } => "fetch into it with --dir or --out",
            StoreError::NoLinks { .. } => "choose a directory on another file system (--dir)",
            StoreError::NotWhole { .. } => "download it again to resume",
            StoreError::Io { source, .. } if is_of_a_name(source) => {
                "the disk may not take that name; fetch it under another one (--out)"
            }
            StoreError::Io { .. } => "check the disk and run again, what arrived is kept",
        };
        (Exit::Storage, step.into())
    }
}

/// Whether this is what file systems such as exFAT say of a name with `:` or `?`, and all of one that is too long.
fn is_of_a_name(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::INVAL | Errno::ILSEQ | Errno::NAMETOOLONG))
}

/// The next step for what `doctor` found.
pub(crate) fn remedy(problem: DiscoveryProblem) -> String {
    match problem {
        DiscoveryProblem::NoInterface => "bring an interface up, or look at --interface and --bind".into(),
        DiscoveryProblem::LinkFails => "look at the interface's address and routes".into(),
        DiscoveryProblem::PortTaken => {
            format!("end the program that uses it; `ss -ulpn sport = :{PORT}` shows which one")
        }
        DiscoveryProblem::LinkSilent => {
            "nothing comes back, not even the own packets: look at the firewall of this host".into()
        }
        DiscoveryProblem::OtherNetwork => "other networks are here; --network chooses one".into(),
        DiscoveryProblem::Untrusted => "their keys are not in the file of --trusted; add the ones that you know".into(),
        DiscoveryProblem::Refused => "have this node's key added to their trusted file".into(),
        DiscoveryProblem::OtherVersion => "other versions of gpb are here; update them".into(),
        DiscoveryProblem::Clock => "a clock is wrong; set it".into(),
        DiscoveryProblem::Unreached => {
            "open its TCP port in the firewalls; one behind NAT answers `get` and `sync` all the same, without --no-share".into()
        }
        DiscoveryProblem::NotReachable => {
            "open that TCP port in the firewalls, or choose an open one with --port".into()
        }
        DiscoveryProblem::DhtSilent => "let UDP out to the Internet, or name nodes with --dht-bootstrap".into(),
        DiscoveryProblem::DnsSdFails => "let this program use UDP port 5353, or leave --dns-sd out".into(),
        DiscoveryProblem::NoAnswer => format!("let UDP and TCP port {PORT} through the firewalls"),
    }
}

/// What was left out of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Peers that are known and were not reached.
    pub unreached: Vec<UnreachedPeer>,
    /// Whether nothing was tried: multicast and all that finds peers besides are off, and no peer is named.
    pub nobody_named: bool,
    /// A key that is not trusted and whose announces came.
    pub untrusted: Option<PeerId>,
    /// Whether announces were dropped, as the clock of their sender and that of this host differ too much.
    pub clocks_differ: bool,
}

/// How the error begins that no peer answered at all.
const NO_PEER: &str = "no peer reachable";
/// The next step then.
const NO_PEER_STEP: &str = "check that a server runs in this network, or name one with --peer";
/// The next step where clocks differ.
const CLOCK_STEP: &str = "set the clock, or name the peer with --peer";
/// The next step after an interruption.
pub(crate) const RESUME: &str = "run it again to continue";
impl Failure {
    /// The handlers of signals cannot be set up.
    pub fn from_signals(error: io::Error) -> Self {
        let error = io::Error::new(error.kind(), NoSignals(error));
        Failure::from_error(Exit::Other, &error, system_step(&error))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot wait for signals")]
struct NoSignals(#[source] io::Error);

/// The next step where the system does not give a thread, a socket or a descriptor.
fn system_step(error: &io::Error) -> &'static str {
    limit_step(error).unwrap_or_else(threads_step)
}

/// The limit of the system to raise, if one of the causes of `error` is that it is reached. It goes
/// before what the operation that failed would advise: a directory that cannot be opened for want of
/// a descriptor need not be made.
fn limit_step(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        match errno.map(Errno::from_raw_os_error) {
            Some(Errno::MFILE) => return Some("raise the limit of open files (ulimit -n)"),
            Some(Errno::NFILE) => return Some("raise the limit of open files of the system (fs.file-max)"),
            Some(Errno::NOMEM) => return Some("end other programs, or raise the limit of memory (ulimit -v)"),
            _ => cause = error.source(),
        }
    }
    None
}

/// The next step where there is no thread. The stack of one counts as memory, and as data, too.
fn threads_step() -> &'static str {
    let [memory, data] = [Resource::As, Resource::Data].map(|limit| getrlimit(limit).current.is_some());
    step_of_limits(memory, data)
}

/// The next step where there is no thread, by whether memory and data are limited.
fn step_of_limits(memory: bool, data: bool) -> &'static str {
    match (memory, data) {
        (false, false) => "end other programs, or raise the limit of processes (ulimit -u)",
        (true, false) => "raise the limit of memory (ulimit -v) or of processes (ulimit -u)",
        (false, true) => "raise the limit of data (ulimit -d) or of processes (ulimit -u)",
        (true, true) => "raise the limits of memory and data (ulimit -v, -d) or of processes (ulimit -u)",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::content::{PatternError, RelPathError};

    fn io_error() -> io::Error {
        io::Error::other("the cause")
    }

    /// An error of each kind with what the programs make of it.
    fn all() -> Vec<(Failure, Exit, &'static str)> {
        let (path, what) = (PathBuf::from("/d/x"), || "x".to_string());
        let (one, file) = (Duration::from_secs(1), path.clone());
        let refused = |cause| FetchError::Refused { peers: vec![(PeerId([1; 32]), cause)] };
        let several = FetchError::SeveralFiles { what: what(), files: 2, path: path.clone() };
        let long = FetchError::LongListing { what: what(), peer: PeerId([1; 32]), len_max: 1 << 20 };
        let failed = Failed { error: Arc::new(FetchError::Cancelled), report: Arc::default() };
        let full = StoreError::NoSpace { path: path.clone(), needed: 2, free: 1 };
        let near = ServerError::Listen { addr: "[fe80::1]:1".parse().unwrap(), source: io_error() };
        vec![
            (near.into(), Exit::Other, "--interface"),
            (ConfigError::Network(what()).into(), Exit::Usage, "--network"),
            (ConfigError::Timeout(one).into(), Exit::Usage, "--timeout"),
            (StartError::from(ConfigError::TooManyPeers(9)).into(), Exit::Usage, "--peer"),
            (KeyError::KeyNotFound { file: file.clone() }.into(), Exit::Usage, "gpb-keygen --out /d/x"),
            (KeyError::TrustedNotFound { file: file.clone() }.into(), Exit::Usage, "gpb-keygen --show"),
            (KeyError::Exposed { file: file.clone(), mode: 0o644 }.into(), Exit::Usage, "chmod 600 /d/x"),
            (KeyError::Exists { file: file.clone() }.into(), Exit::Usage, "--force"),
            (KeyError::Write { file: file.clone(), source: io_error() }.into(), Exit::Storage, "the cause; "),
            (KeyError::Read { file, source: io_error() }.into(), Exit::Usage, "the cause; "),
            (StartError::Dir { path: path.clone(), source: io_error() }.into(), Exit::Storage, "--dir"),
            (StartError::State { path: path.clone(), source: io_error() }.into(), Exit::Storage, "--state"),
            (StartError::Multicast(io_error()).into(), Exit::Other, "the cause; end other programs"),
            (StartError::from(io_error()).into(), Exit::Other, "ulimit -u"),
            (StartError::from(io::Error::from(Errno::MFILE)).into(), Exit::Other, "ulimit -n"),
            (ServerError::Start(Errno::MFILE.into()).into(), Exit::Other, "ulimit -n"),
            (StartError::Dir { path: path.clone(), source: Errno::MFILE.into() }.into(), Exit::Storage, "ulimit -n"),
            (
                StartError::State { path: path.clone(), source: Errno::NFILE.into() }.into(),
                Exit::Storage,
                "fs.file-max",
            ),
            (KeyError::Read { file: path.clone(), source: Errno::MFILE.into() }.into(), Exit::Usage, "ulimit -n"),
            (FetchError::no_socket(Errno::MFILE.raw_os_error()).into(), Exit::Other, "open connections: Too many open"),
            (StoreError::Io { path: path.clone(), source: Errno::MFILE.into() }.into(), Exit::Storage, "ulimit -n"),
            (StoreError::Io { path: path.clone(), source: Errno::NOMEM.into() }.into(), Exit::Storage, "ulimit -v"),
            (ServerError::Forbidden { port: 80 }.into(), Exit::Other, "--port"),
            (ServerError::NoSuchAddress([10, 0, 0, 1].into()).into(), Exit::Other, "--bind"),
            (ServerError::PortInUse { addr: [0, 0, 0, 0].into(), port: 9 }.into(), Exit::Other, "--port"),
            (FetchError::Pattern { text: what(), source: PatternError::Length }.into(), Exit::Usage, "; give"),
            (FetchError::NoPeer(one).into(), Exit::NoPeer, "--peer"),
            (FetchError::ClocksDiffer(one).into(), Exit::NoPeer, "set the clock"),
            (FetchError::NotFound { what: what(), answered: 1 }.into(), Exit::NotFound, "`gpb-client list`"),
            (FetchError::NotFound { what: "ab".repeat(32), answered: 1 }.into(), Exit::NotFound, "./NAME"),
            (long.into(), Exit::NotFound, "x: the listing of"),
            (
                FetchError::LinkAlone { what: what(), target: "y".into() }.into(),
                Exit::NotFound,
                "x: a link to \"y\", which was not asked for; ask for what it leads to as well",
            ),
            (FetchError::Changed { what: what() }.into(), Exit::NotFound, "x: changed at the source; run it again"),
            (FetchError::Ambiguous { what: what(), candidates: vec![] }.into(), Exit::Ambiguous, "root"),
            (FetchError::OnlyLiars { what: what(), peers: vec![] }.into(), Exit::Liars, "another source"),
            (FetchError::Out { path: path.clone(), source: RelPathError::Empty }.into(), Exit::Usage, "--out"),
            (FetchError::Name { path: path.clone(), source: RelPathError::Empty }.into(), Exit::Usage, "below --dir"),
            (FetchError::Storage(full).into(), Exit::Storage, "; free some space or choose another directory (--dir)"),
            (FetchError::from(StoreError::Io { path, source: io_error() }).into(), Exit::Storage, "x: the cause; "),
            (FetchError::Silent { what: what(), wait: one }.into(), Exit::Silent, "--timeout"),
            (FetchError::Full { full: 2, wait: one }.into(), Exit::Silent, "is full (2 of them), for 1s; try again"),
            (refused(RefusalCause::OtherNetwork).into(), Exit::Refused, "--network"),
            (refused(RefusalCause::OtherVersion).into(), Exit::Refused, "version as they"),
            (refused(RefusalCause::NotTrustedThere).into(), Exit::Refused, "added to their trusted file"),
            (refused(RefusalCause::NotTrustedHere).into(), Exit::Refused, "--trusted"),
            (refused(RefusalCause::Unstated).into(), Exit::Refused, "trusted file"),
            (FetchError::HolderLeft { what: what(), had: 1, of: 2 }.into(), Exit::NoPeer, "is kept"),
            (FetchError::NothingAsked.into(), Exit::Usage, "; give"),
            (several.into(), Exit::Usage, "--out"),
            (FetchError::Stopped.into(), Exit::Interrupted, "run it again to continue"),
            (Failure::interrupted(), Exit::Interrupted, "interrupted; run it again to continue"),
            (failed.into(), Exit::Interrupted, "cancelled; run it again to continue"),
            (FetchError::Threads(io_error()).into(), Exit::Other, "the cause; end other programs"),
        ]
    }

    #[test]
    fn each_error_has_its_exit_code_and_next_step_on_one_line() {
        for (failure, exit, part) in all() {
            assert_eq!(failure.exit, exit, "{failure:?}");
            assert!(failure.message.contains(part) && !failure.message.contains('\n'), "{part}: {failure:?}");
            assert!(failure.message.contains("; "), "no next step: {failure:?}");
        }
    }

    #[test]
    fn a_wrong_clock_is_named_where_it_may_be_the_cause() {
        let left = LeftOut { clocks_differ: true, ..LeftOut::default() };
        for (failure, exit, part) in all() {
            assert_eq!(failure.clone().with_left_out(&LeftOut::default()), failure);
            let named = failure.clone().with_left_out(&left);
            let may_be_why = [Exit::NoPeer, Exit::NotFound, Exit::Refused].contains(&exit);
            assert_eq!(named.message.matches(CLOCK_STEP).count(), usize::from(may_be_why), "{named:?}");
            assert!(
                named.exit == exit && (exit == Exit::NoPeer || named.message.starts_with(&failure.message)),
                "{part}"
            );
        }
        let none = Failure { exit: Exit::NoPeer, message: String::new() };
        assert_eq!(none.clone().with_left_out(&left), none, "it was told before");
    }

    /// A server that was heard all the time was looked for in vain, and so was one whose key was not trusted.
    #[test]
    fn whoever_is_heard_and_gives_nothing_is_named() {
        let (wait, peer) = (Duration::from_secs(2), PeerId([1; 32]));
        let unreached = |failed| UnreachedPeer { peer, addr: "10.0.0.9:27420".parse().unwrap(), failed };
        let said = |error: FetchError, left: &LeftOut| Failure::from(error).with_left_out(left).message;
        let heard = LeftOut { unreached: vec![unreached(false), unreached(true)], ..LeftOut::default() };
        let text = said(FetchError::NoPeer(wait), &heard);
        let begin =
            "no peer reachable within 2 s; a peer is known and was not reached at 10.0.0.9:27420, nor 1 more: open";
        assert!(text.starts_with(begin), "{text}");
        let left = LeftOut { untrusted: Some(peer), ..LeftOut::default() };
        let text = said(FetchError::NoPeer(wait), &left);
        assert!(text.contains(&format!("within 2 s; {peer} is here and not trusted")), "{text}");
        let left = LeftOut { nobody_named: true, ..LeftOut::default() };
        let text = said(FetchError::NoPeer(wait), &left);
        assert!(text.ends_with("within 2 s; multicast is off and no peer is named: name one with --peer"), "{text}");
        let left = LeftOut { untrusted: Some(peer), ..left };
        let missing = || FetchError::NotFound { what: "x".into(), answered: 1 };
        assert_eq!(said(missing(), &left), said(missing(), &LeftOut::default()), "another group is no cause");
        assert!(!said(missing(), &heard).contains("nor 1 more"), "one of them is still being tried");
        let lost = FetchError::HolderLeft { what: "x".into(), had: 1, of: 2 };
        assert!(!said(lost, &heard).contains("10.0.0.9"));
    }

    /// Cause: of the limits on memory only that of addresses was looked at, and signals without a thread had no next
    /// step. Effect: under `ulimit -d` the advice was to raise `ulimit -u`. Mend: the limits that are set are named.
    #[test]
    fn where_there_is_no_thread_the_limits_that_are_set_are_named() {
        let named = |memory, data| ["-v", "-d", "-u"].map(|limit| step_of_limits(memory, data).contains(limit));
        assert_eq!(named(false, false), [false, false, true]);
        assert_eq!(named(true, false), [true, false, true]);
        assert_eq!(named(false, true), [false, true, true]);
        assert_eq!(named(true, true), [true, true, true]);
        let signals = Failure::from_signals(Errno::AGAIN.into());
        assert!(signals.message.contains("; ") && signals.message.contains("ulimit -u"), "{signals:?}");
    }

    /// Cause: what a disk says of a name with `:` or `?` was taken for a trouble of the disk. Effect: "check the disk and
    /// run again", for ever. Mend: the name is named as the cause.
    #[test]
    fn a_name_that_a_disk_does_not_take_is_fetched_under_another_one() {
        let step = |errno: Errno| StoreError::Io { path: "d/a:b".into(), source: errno.into() }.exit_advice();
        for errno in [Errno::INVAL, Errno::ILSEQ, Errno::NAMETOOLONG] {
            assert!(matches!(step(errno), (Exit::Storage, step) if step.contains("another one (--out)")));
        }
        assert!(matches!(step(Errno::IO), (Exit::Storage, step) if step.starts_with("check the disk")));
    }

    #[test]
    fn a_cause_is_said_once() {
        for (failure, ..) in all() {
            assert!(failure.message.matches("the cause").count() <= 1, "{failure:?}");
        }
    }

    #[test]
    fn a_limit_goes_before_the_advice_of_the_operation_in_each_form() {
        let error = || FetchError::from(StoreError::Io { path: "/d/x".into(), source: Errno::MFILE.into() });
        let named = [Failure::of(&error()).message, Failure::from(error()).message, Failure::step_after(&error())];
        assert!(named.iter().all(|text| text.contains("ulimit -n")), "{named:?}");
    }

    #[test]
    fn a_problem_has_a_remedy_on_one_line() {
        assert!(
            remedy(DiscoveryProblem::NoAnswer).contains("27420")
                && remedy(DiscoveryProblem::OtherNetwork).contains("--network")
        );
    }
}
