//! From the parts of a node to its running services.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use crate::client::{Client, ClientContext};
use crate::content::{Catalogue, Entry};
use crate::discovery::{Discovery, DiscoverySetup};
use crate::limits::WAIT_MAX;
use crate::net::Tls;
use crate::node::fetch::RunningFetches;
use crate::node::limits::TRUST_POLL;
use crate::node::parts::NodeParts;
use crate::node::{Config, Node, Services, Share, StartError};
use crate::peers::{Dialer, Directory, OwnAnnounce, OwnIdentity};
use crate::runtime::{EventSender, Shutdown, Throttle, Watch, Workers, no_thread};
use crate::server::{FileDoubt, Server, ServerBounds, ServerConfig};
use crate::share::{ShareSetup, Sharer};
use crate::store::{FetchedFiles, Index, OwnFiles, Reader};

/// What the services of a node have in core.
struct NodeCore {
    config: Config,
    catalogue: Arc<Watch<Arc<Catalogue>>>,
    peers: Arc<Directory>,
    fetched: Arc<FetchedFiles>,
    upload: Arc<Throttle>,
    events: EventSender,
    shutdown: Shutdown,
}

impl Node {
    /// Starts the services over `parts`, each after the services that it uses.
    pub(super) fn run(parts: NodeParts) -> Result<Self, StartError> {
        let NodeParts { config, keypair, trust, tls, listener, addrs, beacon, reader, index, own_files } = parts;
        let id = keypair.peer_id();
        let events = EventSender::new();
        let shutdown = Shutdown::new();
        let catalogue = Arc::new(Watch::new(Arc::new(Catalogue::default())));
        let identity = OwnIdentity {
            keypair: Arc::new(keypair),
            instance: rand::random(),
            network: config.network.clone(),
            agent: concat!("gpb/", env!("CARGO_PKG_VERSION")).to_string(),
            port: addrs.first().map_or(0, |addr| addr.port()),
        };
        let peers = Directory::new(OwnAnnounce::new(identity, catalogue.clone()), trust, events.clone());
        let revoking = peers.trust().subscribe({
            let peers = Arc::downgrade(&peers);
            move || peers.upgrade().into_iter().for_each(|peers| peers.forget_untrusted())
        });
        // A wait for peers looks at the signal only when woken.
        shutdown.on_begin({
            let peers = peers.clone();
            move || peers.wake()
        });
        let (fetched, upload) = (Arc::new(FetchedFiles::new()), Arc::new(Throttle::new(config.upload_limit)));
        let core = NodeCore { config, catalogue, peers, fetched, upload, events, shutdown };
        let sharer = core.start_sharer(index.clone(), reader.clone(), &own_files)?;
        let dialer = Dialer::new(core.peers.clone(), tls.clone(), core.shutdown.clone());
        let named = core.config.peers.clone();
        let discovery = Discovery::start(DiscoverySetup { dialer: dialer.clone(), beacon, peers: named })?;
        let server = match listener {
            Some(listener) => Some(core.start_server(listener, tls, sharer.clone(), index, reader)?),
            None => None,
        };
        let workers = core.start_workers()?;
        let client = core.client(dialer);
        let NodeCore { config, catalogue, peers, upload, shutdown, .. } = core;
        let services = Services { _revoking: revoking, discovery, sharer, upload, _server: server, _workers: workers };
        let fetches = RunningFetches::default();
        Ok(Node { id, config, addrs, catalogue, peers, shutdown, client, fetches, own_files, services })
    }
}

impl NodeCore {
    /// Keeps the catalogue true to the directory, if that is shared.
    fn start_sharer(
        &self,
        index: Option<Arc<Index>>,
        reader: Option<Arc<Reader>>,
        own_files: &Arc<OwnFiles>,
    ) -> Result<Option<Arc<Sharer>>, StartError> {
        let (Some(index), Some(reader)) = (index, reader) else { return Ok(None) };
        let Some(dir) = self.config.dir.clone() else { return Ok(None) };
        let setup = ShareSetup {
            dir: dir.clone(),
            index,
            reader,
            own_files: own_files.clone(),
            catalogue: self.catalogue.clone(),
            events: self.events.clone(),
            shutdown: self.shutdown.clone(),
        };
        Ok(Some(Arc::new(Sharer::start(setup).map_err(|e| share_failed(&dir, e))?)))
    }

    fn start_server(
        &self,
        listener: TcpListener,
        tls: Tls,
        sharer: Option<Arc<Sharer>>,
        index: Option<Arc<Index>>,
        reader: Option<Arc<Reader>>,
    ) -> Result<Server, StartError> {
        let report = move |entry: &Entry, doubt| match (&sharer, doubt) {
            (Some(sharer), FileDoubt::Falsified) => sharer.withdraw(entry),
            (Some(sharer), FileDoubt::Changed) => sharer.recheck(entry),
            (None, _) => {}
        };
        Ok(Server::start(ServerConfig {
            listeners: vec![listener],
            tls,
            directory: self.peers.clone(),
            catalogue: self.catalogue.clone(),
            reader,
            index,
            fetched: self.fetched.clone(),
            report: Arc::new(report),
            upload: self.upload.clone(),
            events: self.events.clone(),
            shutdown: self.shutdown.clone(),
            bounds: ServerBounds::default(),
        })?)
    }

    fn start_workers(&self) -> io::Result<Workers> {
        let mut workers = Workers::default();
        if self.peers.trust().follows_file() {
            let (peers, shutdown) = (self.peers.clone(), self.shutdown.clone());
            workers.spawn("gpb-trust", move || watch_trust(&peers, &shutdown))?;
        }
        Ok(workers)
    }

    fn client(&self, dialer: Dialer) -> Client {
        let context = ClientContext {
            peers: self.peers.clone(),
            trust: self.peers.trust().clone(),
            fetched: (self.config.share != Share::Nothing).then(|| self.fetched.clone()),
            throttle: Arc::new(Throttle::new(self.config.download_limit)),
            events: self.events.clone(),
            shutdown: self.shutdown.clone(),
            timeout: self.config.timeout.min(WAIT_MAX),
        };
        Client::new(context, dialer)
    }
}

/// Reads the trusted file when it changes.
fn watch_trust(peers: &Directory, shutdown: &Shutdown) {
    while !shutdown.wait(TRUST_POLL) {
        peers.trust().reload();
    }
}

/// The error of a directory that is not shared: its own, or that of a missing thread.
fn share_failed(dir: &Path, source: io::Error) -> StartError {
    match (source.kind(), source.raw_os_error()) {
        (io::ErrorKind::WouldBlock, Some(_)) => StartError::System(no_thread("gpb-hash", source)),
        (io::ErrorKind::WouldBlock, None) => StartError::System(source),
        _ => StartError::Dir { path: dir.into(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_thread_is_not_the_directorys_fault() {
        let (dir, busy) = (Path::new("/d"), io::ErrorKind::WouldBlock);
        let again = share_failed(dir, no_thread("gpb-share", busy.into()));
        assert!(matches!(again, StartError::System(_)), "{again}");
        let denied = share_failed(dir, io::ErrorKind::PermissionDenied.into());
        assert!(matches!(denied, StartError::Dir { .. }), "{denied}");
    }
}
