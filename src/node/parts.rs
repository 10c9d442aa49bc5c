//! The parts of a node that may not be had: files, keys, sockets. No thread runs yet.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::content::RelPath;
use crate::discovery::{DhtPlan, DiscoverySources, PeerListFile};
use crate::identity::Keypair;
use crate::limits::{DHT_BOOTSTRAP_MAX, HOPS_MAX, STATIC_PEERS_MAX};
use crate::net::{Beacon, LinkOptions, Multicast, Tls};
use crate::node::limits::DIRS_MAX;
use crate::node::{Config, ConfigError, DhtOptions, KeySource, Share, StartError, State};
use crate::proto::Announce;
use crate::runtime::keystore::{KeyError, TrustView, load_or_create_key};
use crate::server::{listen, raise_file_limit};
use crate::store::{Index, OwnFiles, Reader, SharedRoot, SharedRoots, make_dirs, warn_of_risk};

/// What a node is made of before its threads start.
pub(super) struct NodeParts {
    pub(super) config: Config,
    pub(super) keypair: Keypair,
    pub(super) trust: Arc<TrustView>,
    pub(super) tls: Tls,
    /// Where the node serves; none with [`Share::Nothing`].
    pub(super) listener: Option<TcpListener>,
    /// The addresses of `listener`.
    pub(super) addrs: Vec<SocketAddr>,
    /// Carries announces; none without multicast.
    pub(super) beacon: Option<Box<dyn Beacon>>,
    /// The directories that are shared; only with [`Share::Directory`].
    pub(super) roots: SharedRoots,
    /// What is never offered and never overwritten.
    pub(super) own_files: Arc<OwnFiles>,
    /// Where peers are known from, besides announces.
    pub(super) sources: DiscoverySources,
}

impl NodeParts {
    /// Opens all that `config` names. `beacon` takes the place of multicast.
    pub(super) fn open(config: Config, beacon: Option<Box<dyn Beacon>>) -> Result<Self, StartError> {
        check(&config)?;
        if config.raise_file_limit {
            raise_file_limit();
        }
        let state = config.state.path()?;
        let places = config.places();
        let mut readers = Vec::with_capacity(places.len());
        for (name, dir) in &places {
            readers.push((name.clone(), open_reader(dir, &config)?));
        }
        let keypair = match (&config.key, &state) {
            (KeySource::Key(keypair), _) => keypair.clone(),
            (KeySource::File(file), _) => read_key(file)?,
            (KeySource::State, Some(state)) => read_key(&state.join("key.pem")).map_err(|e| of_state(state, e))?,
            (KeySource::State, None) => Keypair::try_generate().map_err(|source| KeyError::Generate { source })?,
        };
        let trust = Arc::new(TrustView::new(config.trust.clone(), keypair.peer_id()));
        let tls = Tls::new(&keypair).map_err(|e| StartError::Tls(e.into()))?;
        let listener = match config.share {
            Share::Nothing => None,
            _ => Some(listen(config.bind, config.port)?),
        };
        let addrs = listener.iter().map(|l| l.local_addr()).collect::<Result<Vec<_>, _>>()?;
        let beacon = match beacon {
            None if config.multicast => Some(open_multicast(&config, &addrs)?),
            beacon => beacon,
        };
        let own_files = Arc::new(own_files(&config, state.as_deref()));
        let mut roots: Vec<SharedRoot> = Vec::new();
        for (name, reader) in readers {
            if let (Some(reader), Share::Directory) = (reader, config.share) {
                let index = open_index(state.as_deref(), reader.path(), roots.first().map(|root| &*root.index))?;
                roots.push(SharedRoot { name, reader, index });
            }
        }
        let roots = SharedRoots::new(roots);
        let sources = DiscoverySources {
            peers: config.peers.clone(),
            peer_file: config.peer_file.as_deref().map(PeerListFile::open).transpose()?,
            state: state.filter(|_| config.remember),
            interfaces: config.interfaces.clone(),
            dns_sd: config.dns_sd.then(|| links(&config, &addrs)),
            dht: config.dht.clone().map(|DhtOptions { secret, bootstrap }| {
                let publishes = config.share == Share::Directory;
                DhtPlan { secret, bootstrap, links: links(&config, &addrs), publishes }
            }),
        };
        Ok(NodeParts { config, keypair, trust, tls, listener, addrs, beacon, roots, own_files, sources })
    }
}

/// Refuses settings that no part of the node would refuse.
fn check(config: &Config) -> Result<(), ConfigError> {
    if !Announce::is_network_name(&config.network) {
        return Err(ConfigError::Network(config.network.clone()));
    }
    if config.timeout.is_zero() {
        return Err(ConfigError::Timeout(config.timeout));
    }
    if config.share == Share::Directory && config.dir.is_none() && config.dirs.is_empty() {
        return Err(ConfigError::NoDir);
    }
    if config.dirs.len() > DIRS_MAX {
        return Err(ConfigError::TooManyDirs(config.dirs.len()));
    }
    for (at, (name, _)) in config.dirs.iter().enumerate() {
        if RelPath::new(name).is_err() || name.contains('/') {
            return Err(ConfigError::DirName(name.clone()));
        }
        if config.dirs[..at].iter().any(|(other, _)| other == name) {
            return Err(ConfigError::SameDir(name.clone()));
        }
    }
    if !(1..=HOPS_MAX).contains(&config.hops) {
        return Err(ConfigError::Hops(config.hops));
    }
    if config.dns_sd && !cfg!(feature = "dns-sd") {
        return Err(ConfigError::NotBuilt("dns-sd"));
    }
    if let Some(dht) = &config.dht {
        check_dht(dht, config)?;
    }
    check_mirror(config)?;
    if config.peers.len() > STATIC_PEERS_MAX {
        return Err(ConfigError::TooManyPeers(config.peers.len()));
    }
    Ok(())
}

fn check_dht(dht: &DhtOptions, config: &Config) -> Result<(), ConfigError> {
    if !cfg!(feature = "dht") {
        return Err(ConfigError::NotBuilt("dht"));
    }
    if config.trust.is_open() && dht.secret.is_none() {
        return Err(ConfigError::DhtOpen);
    }
    if dht.bootstrap.len() > DHT_BOOTSTRAP_MAX {
        return Err(ConfigError::TooManyDhtNodes(dht.bootstrap.len()));
    }
    Ok(())
}

/// Refuses a mirror that could not keep to its word.
fn check_mirror(config: &Config) -> Result<(), ConfigError> {
    let mirrors = !config.mirror.is_empty();
    let keeps = mirrors || config.retain.is_some() || config.quota.is_some();
    if keeps && (config.share != Share::Directory || config.state == State::Memory) {
        return Err(ConfigError::MirrorPlace);
    }
    if mirrors && config.trust.is_open() && (config.mirror_from.is_empty() || config.quota.is_none()) {
        return Err(ConfigError::MirrorOpen);
    }
    Ok(())
}

fn read_key(file: &Path) -> Result<Keypair, StartError> {
    let (keypair, made) = load_or_create_key(file)?;
    if made {
        log::info!("key made peer={} path={}", keypair.peer_id(), file.display());
    }
    Ok(keypair)
}

/// A key in the state directory that can be neither read nor made because of that directory is an
/// error of the directory: another one can be used, and no key needs mending.
fn of_state(state: &Path, error: StartError) -> StartError {
    match error {
        StartError::Key(KeyError::Write { source, .. }) => StartError::State { path: state.into(), source },
        StartError::Key(KeyError::Read { source, .. }) if std::fs::read_dir(state).is_err() => {
            StartError::State { path: state.into(), source }
        }
        other => other,
    }
}

/// The interfaces that the listener covers: it may have IPv4 only.
fn links(config: &Config, addrs: &[SocketAddr]) -> LinkOptions {
    let bind = addrs.first().map(SocketAddr::ip).or(config.bind).unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    LinkOptions { interfaces: config.interfaces.clone(), bind, hops: config.hops }
}

fn open_multicast(config: &Config, addrs: &[SocketAddr]) -> Result<Box<dyn Beacon>, StartError> {
    Ok(Box::new(Multicast::open(links(config, addrs)).map_err(StartError::Multicast)?))
}

fn own_files(config: &Config, state: Option<&Path>) -> OwnFiles {
    let key = match &config.key {
        KeySource::File(file) => Some(file),
        KeySource::State | KeySource::Key(_) => None,
    };
    let followed = config.trust.path().into_iter().chain(config.peer_file.as_deref());
    let files = key.map(PathBuf::as_path).into_iter().chain(followed);
    let others = files.map(PathBuf::from).chain(config.never_share.iter().cloned());
    OwnFiles::new(state, others, config.places().iter().map(|(_, dir)| dir.as_path()))
}

/// Opens the directory for reading; none where it does not exist and need not.
fn open_reader(dir: &Path, config: &Config) -> Result<Option<Arc<Reader>>, StartError> {
    let dir_error = |source| StartError::Dir { path: dir.into(), source };
    let shares_dir = config.share == Share::Directory;
    if shares_dir && config.create_dir && config.dir.as_deref() == Some(dir) {
        make_dirs(dir, 0o777).map_err(dir_error)?;
    }
    if !shares_dir && !dir.exists() {
        return Ok(None);
    }
    if !std::fs::metadata(dir).map_err(dir_error)?.is_dir() {
        return Err(dir_error(io::ErrorKind::NotADirectory.into()));
    }
    if shares_dir {
        warn_of_risk(dir);
    }
    Reader::open(dir).map(|r| Some(Arc::new(r))).map_err(dir_error)
}

/// The index of `dir`, which further directories have in common with the `first` one.
fn open_index(state: Option<&Path>, dir: &Path, first: Option<&Index>) -> Result<Arc<Index>, StartError> {
    let Some(state) = state else {
        return Ok(Arc::new(Index::in_memory()?));
    };
    let state_error = |source| StartError::State { path: state.into(), source };
    let opened = first.map_or_else(|| Index::open(state, dir), |first| first.beside(dir));
    Ok(Arc::new(opened.map_err(state_error)?))
}
