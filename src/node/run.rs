//! From the parts of a node to its running services.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::client::{Client, ClientContext, SharedContents};
use crate::content::{Catalogue, Entry, RelPath};
use crate::discovery::{Discovery, DiscoverySetup};
use crate::limits::WAIT_MAX;
use crate::net::Tls;
use crate::node::board::CatalogueBoard;
use crate::node::fetch::RunningFetches;
use crate::node::fetch_starter::FetchStarter;
use crate::node::limits::TRUST_POLL;
use crate::node::mirror::{MirrorLoans, MirrorService};
use crate::node::offer::Offers;
use crate::node::open_files::OpenFiles;
use crate::node::parts::NodeParts;
use crate::node::sharers::Sharers;
use crate::node::{Config, Node, Services, Share, StartError};
use crate::peers::{Dialer, Directory, OwnAnnounce, OwnIdentity};
use crate::runtime::{EventSender, Shutdown, Throttle, Watch, Workers, no_thread};
use crate::server::{Server, ServerBounds, ServerConfig};
use crate::share::{ShareSetup, Sharer};
use crate::store::{FetchedFiles, OwnFiles, SharedRoot, SharedRoots};
use crate::swarm::Event;

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
        let NodeParts { config, keypair, trust, tls, listener, addrs, beacon, roots, own_files, sources } = parts;
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
        let board = Arc::new(CatalogueBoard::new(core.catalogue.clone()));
        let sharers = Arc::new(core.start_sharers(roots, &board, &own_files)?);
        let offers = Offers::new(board, core.events.clone());
        let dialer = Dialer::new(core.peers.clone(), tls.clone(), core.shutdown.clone());
        let hears = beacon.is_some();
        let discovery = Discovery::start(DiscoverySetup { dialer: dialer.clone(), beacon, sources })?;
        let server = match listener {
            Some(listener) => Some(core.start_server(listener, tls, &sharers, &offers)?),
            None => None,
        };
        let workers = core.start_workers()?;
        let client = core.client(dialer, hears, &sharers);
        let loans = MirrorLoans {
            own: id,
            client: client.clone(),
            sharers: sharers.clone(),
            catalogue: core.catalogue.clone(),
            own_files: own_files.clone(),
            used: Arc::default(),
        };
        let mirror = MirrorService::of(&core.config, loans)?;
        let NodeCore { config, catalogue, peers, upload, shutdown, .. } = core;
        let offering = Offers::threads(&shutdown);
        let services = Services {
            mirror,
            _revoking: revoking,
            discovery,
            sharers,
            offers,
            offering,
            upload,
            _server: server,
            _workers: workers,
        };
        let fetches = Arc::new(FetchStarter {
            client: client.clone(),
            own_files: own_files.clone(),
            state_dir: config.state.path().ok().flatten(),
            open_files: Arc::new(OpenFiles::new(client.clone(), &config)),
            running: RunningFetches::default(),
        });
        Ok(Node { id, config, addrs, catalogue, peers, shutdown, client, fetches, own_files, services })
    }
}

impl NodeCore {
    /// Keeps the catalogue true to the directories that are shared.
    fn start_sharers(
        &self,
        roots: SharedRoots,
        board: &Arc<CatalogueBoard>,
        own_files: &Arc<OwnFiles>,
    ) -> Result<Sharers, StartError> {
        let mut all = Vec::new();
        for SharedRoot { name, reader, index } in roots.all() {
            let dir = reader.path().to_path_buf();
            let (catalogue, sizes) = (Arc::new(Watch::new(Arc::new(Catalogue::default()))), Arc::downgrade(board));
            board.follow(name.clone(), catalogue.clone());
            let (named, number) = (name.clone(), all.len());
            let events = self.events.mapped(move |event| of_node(event, (number, named.as_ref()), &sizes));
            let setup = ShareSetup {
                dir: dir.clone(),
                index: index.clone(),
                records: self.config.state.path()?,
                reader: reader.clone(),
                own_files: if all.is_empty() { own_files.clone() } else { Arc::new(own_files.another()) },
                catalogue,
                events,
                shutdown: self.shutdown.clone(),
            };
            all.push(Sharer::start(setup).map_err(|e| share_failed(&dir, e))?);
        }
        Ok(Sharers::new(roots, all, board.clone()))
    }

    fn start_server(
        &self,
        listener: TcpListener,
        tls: Tls,
        sharers: &Arc<Sharers>,
        offers: &Arc<Offers>,
    ) -> Result<Server, StartError> {
        let (roots, offered) = (sharers.roots.clone(), offers.files.clone());
        let (sharers, offers) = (sharers.clone(), offers.clone());
        let report = move |entry: &Entry, doubt| {
            if !offers.doubt(entry) {
                sharers.doubt(entry, doubt);
            }
        };
        Ok(Server::start(ServerConfig {
            listeners: vec![listener],
            tls,
            directory: self.peers.clone(),
            catalogue: self.catalogue.clone(),
            roots,
            offered,
            fetched: self.fetched.clone(),
            report: Arc::new(report),
            upload: self.upload.clone(),
            events: self.events.clone(),
            shutdown: self.shutdown.clone(),
            bounds: ServerBounds::default(),
        })?)
    }

    fn start_workers(&self) -> io::Result<Workers> {
        let mut workers = Workers::ending(&self.shutdown);
        if self.peers.trust().follows_file() {
            let (peers, shutdown) = (self.peers.clone(), self.shutdown.clone());
            workers.spawn("gpb-trust", move || watch_trust(&peers, &shutdown))?;
        }
        Ok(workers)
    }

    fn client(&self, dialer: Dialer, hears: bool, sharers: &Sharers) -> Client {
        let shared = SharedContents { catalogue: self.catalogue.clone(), roots: sharers.roots.clone() };
        let context = ClientContext {
            peers: self.peers.clone(),
            hears,
            trust: self.peers.trust().clone(),
            fetched: (self.config.share != Share::Nothing).then(|| self.fetched.clone()),
            shared,
            throttle: Arc::new(Throttle::new(self.config.download_limit)),
            events: self.events.clone(),
            shutdown: self.shutdown.clone(),
            timeout: self.config.timeout.min(WAIT_MAX),
        };
        Client::new(context, dialer)
    }
}

/// An event of the directory `number`, with the `name`, as one of the node: by the names that other nodes
/// know, with the size of the whole catalogue, which is complete when all directories are.
fn of_node(event: Event, (number, name): (usize, Option<&RelPath>), board: &Weak<CatalogueBoard>) -> Event {
    match (event, name, board.upgrade()) {
        (Event::CatalogueChanged { complete, .. }, _, Some(board)) => {
            board.note_complete(number, complete);
            let (revision, files, bytes) = board.size();
            Event::CatalogueChanged { revision, files, bytes, complete: board.is_complete() }
        }
        (Event::FileWithdrawn { path, id }, Some(dir), _) => {
            let path = RelPath::new(&format!("{dir}/{path}")).unwrap_or(path);
            Event::FileWithdrawn { path, id }
        }
        (event, ..) => event,
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

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_complete_when_all_of_its_directories_are() {
        let empty = || Arc::new(Watch::new(Arc::new(Catalogue::default())));
        let board = Arc::new(CatalogueBoard::new(empty()));
        let names = [None, RelPath::new("m").ok()];
        for name in &names {
            board.follow(name.clone(), empty());
        }
        for (number, complete, all) in [(0, true, false), (1, true, true), (0, false, false), (0, true, true)] {
            let event = Event::CatalogueChanged { revision: 1, files: 1, bytes: 1, complete };
            let event = of_node(event, (number, names[number].as_ref()), &Arc::downgrade(&board));
            assert!(matches!(event, Event::CatalogueChanged { complete, .. } if complete == all), "{number}");
            assert_eq!(board.is_complete(), all, "for what is offered");
        }
    }

    #[test]
    fn a_missing_thread_is_not_the_directorys_fault() {
        let (dir, busy) = (Path::new("/d"), io::ErrorKind::WouldBlock);
        let again = share_failed(dir, no_thread("gpb-share", busy.into()));
        assert!(matches!(again, StartError::System(_)), "{again}");
        let denied = share_failed(dir, io::ErrorKind::PermissionDenied.into());
        assert!(matches!(denied, StartError::Dir { .. }), "{denied}");
    }
}
