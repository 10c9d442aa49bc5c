//! From flags, variables, the configuration file and defaults to checked options.

use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::args::Typed;
use crate::cli::companions::refuse_ignored;
use crate::cli::limits::INTERFACES_MAX;
use crate::cli::mirror::MirrorOptions;
use crate::cli::report::{LogOptions, ReportOptions, Verbosity};
use crate::cli::select::{self, SelectOptions};
use crate::cli::sources::{Environment, Setting, Settings};
use crate::cli::spec::{COMMANDS, OPTIONS, Program, Scope, nearest};
use crate::cli::sync_options::SyncOptions;
use crate::cli::text::escape;
use crate::cli::value;
use crate::cli::verify_options::VerifyOptions;
use crate::client::Overwrite;
use crate::limits::{DHT_BOOTSTRAP_MAX, DHT_WAIT, LIST_WAIT, PORT, PROGRESS_TIMEOUT, STATIC_PEERS_MAX};
use crate::net::{Interface, PeerAddr};
use crate::node::DhtOptions;
use crate::store::Life;

/// The options of a server or a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The shared directory. Default `/tmp/dataset`.
    pub dir: PathBuf,
    /// TCP port to listen on, 0 for any. Default 27420 for the server, 0 for the client.
    pub port: u16,
    /// Address to listen on; none is dual-stack `[::]`, else `0.0.0.0`.
    pub bind: Option<IpAddr>,
    /// Where the key and the index are kept. Default `$XDG_STATE_HOME/gpb`.
    pub state: PathBuf,
    /// The file of the secret key, made when it is missing. Default `<state>/key.pem`.
    pub key: PathBuf,
    /// The file of trusted keys; none is an open group.
    pub trusted: Option<PathBuf>,
    /// The configuration file, whether it exists or not; none without a home directory.
    pub config_file: Option<PathBuf>,
    /// Peers to contact by address.
    pub peers: Vec<PeerAddr>,
    /// A file that names further ones.
    pub peer_file: Option<PathBuf>,
    /// Whether proved peers are remembered.
    pub remember: bool,
    /// Whether to send and receive multicast.
    pub multicast: bool,
    /// Interfaces to discover peers on; none is all.
    pub interfaces: Vec<Interface>,
    /// How far multicast goes, 1 to 32 hops. Default 1.
    pub hops: u8,
    /// Whether to publish and look by DNS-SD.
    pub dns_sd: bool,
    /// Whether to use a DHT, and how.
    pub dht: bool,
    /// See `dht`.
    pub dht_options: DhtOptions,
    /// Name of the network, 1 to 64 bytes. Default `gpb`.
    pub network: String,
    /// A transfer fails after this time without a byte. More than 0; default 10 s.
    pub timeout: Duration,
    /// Most bytes sent in a second; none is no limit.
    pub upload_limit: Option<NonZeroU64>,
    /// Most bytes received in a second; none is no limit.
    pub download_limit: Option<NonZeroU64>,
    /// What a server mirrors, and how long copies stay; nothing for a client.
    pub mirror: MirrorOptions,
    /// How results and logs are written.
    pub report: ReportOptions,
}

/// The options of `gpb-client`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientOptions {
    /// The options of its node.
    pub node: Options,
    /// The command with its own options.
    pub command: Command,
}

/// A command of `gpb-client`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Lists the peers.
    Peers {
        /// Longest wait for answers. Default 2 s.
        wait: Duration,
    },
    /// Lists the files that peers offer.
    List {
        /// What to list, each a valid [`Pattern`](crate::content::Pattern); none is everything.
        patterns: Vec<String>,
        /// Which of them.
        select: SelectOptions,
        /// Longest wait for answers. Default 2 s.
        wait: Duration,
    },
    /// Fetches files.
    Get {
        /// What to fetch, each a valid [`Pattern`](crate::content::Pattern); at least one.
        patterns: Vec<String>,
        /// Which of the names that are found.
        select: SelectOptions,
        /// What happens to files that are in the way.
        overwrite: Overwrite,
        /// Whether nothing is fetched, only reported.
        dry_run: bool,
        /// How long what is fetched stays.
        life: Life,
        /// The file for exactly one file, else a directory; none keeps the relative path under the
        /// shared directory.
        out: Option<PathBuf>,
        /// Whether to serve what has arrived while the rest is fetched.
        share: bool,
        /// Whether attributes, links and empty directories are fetched as well.
        attributes: bool,
        /// How long to serve when all files are whole. Default none.
        seed: Option<Duration>,
    },
    /// Makes a directory equal to that of a peer.
    Sync(SyncOptions),
    /// Compares local files with what is known of them.
    Verify(VerifyOptions),
    /// Shows what discovery can and cannot do here.
    Doctor,
}

/// The options of `gpb-keygen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeygenOptions {
    /// The task.
    pub task: KeygenTask,
    /// How the result is written.
    pub report: ReportOptions,
}

/// A task of `gpb-keygen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeygenTask {
    /// Makes a key.
    Make {
        /// The file to write. Default as [`Options::key`].
        out: PathBuf,
        /// Whether to replace a file that is there.
        force: bool,
    },
    /// Prints the public half of a key.
    Show {
        /// The key file.
        file: PathBuf,
    },
}

/// Resolves what `gpb-keygen` was started with.
pub(crate) fn keygen(typed: &Typed, env: &Environment) -> Result<KeygenOptions, String> {
    refuse_free(Program::Keygen, &typed.free)?;
    let settings = Settings::gather(typed, env)?;
    // The shared part is checked although most of it is not used: a wrong configuration is wrong
    // for each program.
    let common = Common::read(Program::Keygen, &settings)?;
    let named = |name| settings.flag(name).map(path);
    let force = settings.flag("force").is_some();
    let task = match (named("show"), named("out")) {
        (Some(_), Some(_)) => return Err("--show and --out exclude each other".into()),
        (Some(_), None) if force => return Err("--show and --force exclude each other".into()),
        (Some(file), None) => KeygenTask::Show { file },
        (None, Some(out)) => KeygenTask::Make { out, force },
        (None, None) => KeygenTask::Make { out: key_path(&settings, env)?, force },
    };
    Ok(KeygenOptions { task, report: common.report })
}

/// Resolves what `gpb-server` was started with.
pub(crate) fn server(typed: &Typed, env: &Environment) -> Result<Options, String> {
    refuse_free(Program::Server, &typed.free)?;
    let settings = Settings::gather(typed, env)?;
    let options = Common::read(Program::Server, &settings)?.into_options(&settings, env)?;
    let mirror = MirrorOptions::read(&settings, options.trusted.as_deref())?;
    Ok(Options { mirror, ..options })
}

/// Resolves what `gpb-client` was started with.
pub(crate) fn client(typed: &Typed, env: &Environment) -> Result<ClientOptions, String> {
    let (name, free) = command_name(&typed.free)?;
    for spec in OPTIONS.iter().filter(|o| typed.has(o.name())) {
        if let Scope::Commands(commands) | Scope::Typed(commands) | Scope::Serving(commands) = spec.scope
            && !commands.contains(&name)
        {
            return Err(format!("{} belongs to `gpb-client {}`", spec.flag, commands.join("` and `gpb-client ")));
        }
    }
    let settings = Settings::gather(typed, env)?;
    let common = Common::read(Program::Client, &settings)?;
    let wait = common.wait;
    let select = SelectOptions::read(&settings, common.options.trusted.as_deref())?;
    let overwrite = match (settings.flag("force").is_some(), settings.switch("backup")?) {
        (_, true) => Overwrite::Backup,
        (true, false) => Overwrite::Replace,
        (false, false) => Overwrite::Refuse,
    };
    let command = match name {
        "get" => Command::Get {
            patterns: some_patterns(free)?,
            select,
            overwrite,
            dry_run: settings.switch("dry-run")?,
            life: if settings.switch("temporary")? { Life::Temporary } else { Life::Kept },
            out: settings.one("out").map(|s| value::out_file(&s.value)).transpose()?,
            share: !common.no_share,
            attributes: !settings.switch("no-attributes")?,
            seed: common.seed,
        },
        "sync" => Command::Sync(SyncOptions::read(&settings, free, select, overwrite, !common.no_share)?),
        "verify" => Command::Verify(VerifyOptions::read(&settings, free, overwrite, wait)?),
        "list" => Command::List { patterns: patterns(free)?, select, wait },
        _ if !free.is_empty() => {
            return Err(format!("`gpb-client {name}` takes no argument `{}`", escape(&free[0].to_string_lossy())));
        }
        "peers" => Command::Peers { wait },
        _ => Command::Doctor,
    };
    Ok(ClientOptions { node: common.into_options(&settings, env)?, command })
}

/// The options that can be checked without a home directory.
struct Common {
    options: Options,
    report: ReportOptions,
    wait: Duration,
    no_share: bool,
    seed: Option<Duration>,
}

impl Common {
    fn read(program: Program, settings: &Settings) -> Result<Self, String> {
        let one = |name: &str| settings.one(name);
        let many = |name: &str, max: usize| {
            let all = settings.all(name);
            if all.len() > max { Err(format!("{}: more than {max} are given", all[max].source)) } else { Ok(all) }
        };
        let rate = |name: &str| one(name).map(|s| s.read(value::rate)).transpose();
        let default_port = if program == Program::Server { PORT } else { 0 };
        let report = ReportOptions {
            json: settings.switch("json")?,
            log: LogOptions {
                verbosity: verbosity(program, settings)?,
                level: one("log-level").map(|s| s.read(value::level)).transpose()?,
                file: one("log-file").map(path),
            },
        };
        let dht = settings.switch("dht")?;
        let default_wait = if dht { DHT_WAIT } else { LIST_WAIT };
        let nodes = many("dht-bootstrap", DHT_BOOTSTRAP_MAX)?;
        let dht_options = DhtOptions {
            secret: one("dht-secret").map(|s| s.read(value::dht_secret)).transpose()?,
            bootstrap: nodes.iter().map(|s| s.read(value::dht_node)).collect::<Result<_, _>>()?,
        };
        let options = Options {
            dir: one("dir").map_or_else(|| DEFAULT_DIR.into(), path),
            port: one("port").map_or(Ok(default_port), |s| s.read(value::port))?,
            bind: one("bind").map(|s| s.read(value::bind)).transpose()?,
            state: PathBuf::new(),
            key: PathBuf::new(),
            trusted: one("trusted").map(path),
            config_file: settings.config_file().map(Path::to_path_buf),
            peers: many("peer", STATIC_PEERS_MAX)?.iter().map(|s| s.read(value::peer)).collect::<Result<_, _>>()?,
            peer_file: one("peer-file").map(path),
            remember: !settings.switch("no-remember")?,
            multicast: !settings.switch("no-multicast")?,
            interfaces: many("interface", INTERFACES_MAX)?
                .iter()
                .map(|s| s.read(value::interface))
                .collect::<Result<_, _>>()?,
            hops: one("hops").map_or(Ok(1), |s| s.read(value::hops))?,
            dns_sd: settings.switch("dns-sd")?,
            dht,
            dht_options,
            network: one("network").map_or_else(|| Ok(DEFAULT_NETWORK.into()), |s| s.read(value::network))?,
            timeout: one("timeout").map_or(Ok(PROGRESS_TIMEOUT), |s| s.read(value::seconds_positive))?,
            upload_limit: rate("upload-limit")?,
            download_limit: rate("download-limit")?,
            mirror: MirrorOptions::default(),
            report: report.clone(),
        };
        let common = Common {
            options,
            report,
            wait: one("wait").map_or(Ok(default_wait), |s| s.read(value::seconds))?,
            no_share: settings.switch("no-share")?,
            seed: one("seed").map(|s| s.read(value::seconds)).transpose()?.filter(|s| !s.is_zero()),
        };
        // What makes keys discovers nothing.
        if program != Program::Keygen {
            refuse_ignored(settings)?;
        }
        Ok(common)
    }

    /// Adds the directories, which may need `HOME`.
    fn into_options(self, settings: &Settings, env: &Environment) -> Result<Options, String> {
        let (state, key) = (state_dir(settings, env)?, key_path(settings, env)?);
        Ok(Options { state, key, ..self.options })
    }
}

fn state_dir(settings: &Settings, env: &Environment) -> Result<PathBuf, String> {
    let default = || env.xdg_dir("XDG_STATE_HOME", ".local/state");
    settings.one("state").map(path).or_else(default).ok_or_else(|| {
        "no place for key and index: neither HOME nor XDG_STATE_HOME is an absolute path; give --state DIR".into()
    })
}

fn key_path(settings: &Settings, env: &Environment) -> Result<PathBuf, String> {
    match settings.one("key") {
        Some(key) => Ok(path(key)),
        None => Ok(state_dir(settings, env)?.join(KEY_NAME)),
    }
}

/// `quiet` and `verbose` are one setting: the strongest source that sets either wins.
fn verbosity(program: Program, settings: &Settings) -> Result<Verbosity, String> {
    let default = if program == Program::Server { Verbosity::Info } else { Verbosity::Warn };
    let mut found = None;
    for layer in settings.layers() {
        let on = |name: &str| layer.get(name).and_then(|all| all.first()).map_or(Ok(false), |s| s.read(value::switch));
        let said = layer.contains_key("quiet") || layer.contains_key("verbose");
        let verbosity = match (on("quiet")?, on("verbose")?) {
            (true, true) => return Err("quiet and verbose exclude each other".into()),
            (true, false) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => default,
        };
        if said && found.is_none() {
            found = Some(verbosity);
        }
    }
    Ok(found.unwrap_or(default))
}

fn command_name(free: &[OsString]) -> Result<(&'static str, &[OsString]), String> {
    let all = COMMANDS.join(", ");
    let Some((first, rest)) = free.split_first() else {
        return Err(format!("which command? {all}; `gpb-client --help` explains them"));
    };
    let typed = first.to_string_lossy();
    match COMMANDS.iter().find(|c| **c == typed) {
        Some(command) => Ok((command, rest)),
        None => {
            let near = nearest(&typed, COMMANDS).unwrap_or_default();
            Err(format!("unknown command `{}`; the nearest is {near} (commands: {all})", escape(&typed)))
        }
    }
}

fn refuse_free(program: Program, free: &[OsString]) -> Result<(), String> {
    match free.first() {
        None => Ok(()),
        Some(arg) => Err(format!("{program} takes no argument `{}`", escape(&arg.to_string_lossy()))),
    }
}

fn some_patterns(free: &[OsString]) -> Result<Vec<String>, String> {
    if free.is_empty() {
        return Err("get what? name a file, a directory, a pattern or a root; `gpb-client list` shows them".into());
    }
    patterns(free)
}

fn patterns(free: &[OsString]) -> Result<Vec<String>, String> {
    let one = |arg: &OsString| {
        let text = arg.to_str().ok_or_else(|| format!("`{}` is not UTF-8", escape(&arg.to_string_lossy())))?;
        select::checked(text)
    };
    free.iter().map(one).collect()
}

fn path(setting: &Setting) -> PathBuf {
    PathBuf::from(&setting.value)
}

pub(crate) const DEFAULT_DIR: &str = "/tmp/dataset";
const DEFAULT_NETWORK: &str = "gpb";
const KEY_NAME: &str = "key.pem";

#[cfg(test)]
mod tests;
