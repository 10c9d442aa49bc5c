//! The parts of a node that may not be had: files, keys, sockets. No thread runs yet.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::identity::Keypair;
use crate::limits::STATIC_PEERS_MAX;
use crate::net::{Beacon, LinkOptions, Multicast, Tls};
use crate::node::{Config, ConfigError, KeySource, Share, StartError};
use crate::proto::Announce;
use crate::runtime::keystore::{KeyError, TrustView, load_or_create_key};
use crate::server::listen;
use crate::store::{Index, OwnFiles, Reader, warn_of_risk};

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
    /// Reads the directory; none where a client has no directory yet.
    pub(super) reader: Option<Arc<Reader>>,
    /// What was hashed before; only with [`Share::Directory`].
    pub(super) index: Option<Arc<Index>>,
    /// What is never offered and never overwritten.
    pub(super) own_files: Arc<OwnFiles>,
}

impl NodeParts {
    /// Opens all that `config` names. `beacon` takes the place of multicast.
    pub(super) fn open(config: Config, beacon: Option<Box<dyn Beacon>>) -> Result<Self, StartError> {
        check(&config)?;
        let shares_dir = config.share == Share::Directory;
        if shares_dir || config.dir.exists() {
            check_dir(&config)?;
        }
        if shares_dir {
            warn_of_risk(&config.dir);
        }
        let keypair = match &config.key {
            KeySource::Key(keypair) => keypair.clone(),
            KeySource::State => read_key(&config.state.join("key.pem")).map_err(|e| of_state(&config.state, e))?,
            KeySource::File(file) => read_key(file)?,
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
        let own_files = Arc::new(own_files(&config));
        let reader = open_reader(&config)?;
        let index = shares_dir.then(|| open_index(&config)).transpose()?;
        Ok(NodeParts { config, keypair, trust, tls, listener, addrs, beacon, reader, index, own_files })
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
    if config.peers.len() > STATIC_PEERS_MAX {
        return Err(ConfigError::TooManyPeers(config.peers.len()));
    }
    Ok(())
}

/// Refuses a directory that is not there or is something else.
fn check_dir(config: &Config) -> Result<(), StartError> {
    let meta = std::fs::metadata(&config.dir).map_err(|e| dir_error(config, e))?;
    if !meta.is_dir() {
        return Err(dir_error(config, io::ErrorKind::NotADirectory.into()));
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

/// Multicast on the interfaces that the listener covers: it may have IPv4 only.
fn open_multicast(config: &Config, addrs: &[SocketAddr]) -> Result<Box<dyn Beacon>, StartError> {
    let bind = addrs.first().map(SocketAddr::ip).or(config.bind).unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    let options = LinkOptions { interfaces: config.interfaces.clone(), bind };
    Ok(Box::new(Multicast::open(options).map_err(StartError::Multicast)?))
}

fn own_files(config: &Config) -> OwnFiles {
    let key = match &config.key {
        KeySource::File(file) => Some(file),
        KeySource::State | KeySource::Key(_) => None,
    };
    let files = key.map(PathBuf::as_path).into_iter().chain(config.trust.path());
    let others = files.map(PathBuf::from).chain(config.never_share.iter().cloned());
    OwnFiles::new(&config.state, others, &config.dir)
}

/// Opens the directory for reading; none where it does not exist and need not.
fn open_reader(config: &Config) -> Result<Option<Arc<Reader>>, StartError> {
    if config.share != Share::Directory && !config.dir.exists() {
        return Ok(None);
    }
    Reader::open(&config.dir).map(|r| Some(Arc::new(r))).map_err(|e| dir_error(config, e))
}

fn open_index(config: &Config) -> Result<Arc<Index>, StartError> {
    let state_error = |source| StartError::State { path: config.state.clone(), source };
    Ok(Arc::new(Index::open(&config.state, &config.dir).map_err(state_error)?))
}

fn dir_error(config: &Config, source: io::Error) -> StartError {
    StartError::Dir { path: config.dir.clone(), source }
}
