//! A peer that serves files from memory, well or badly.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::content::FileId;
use crate::identity::{Keypair, NodeId, PeerId};
use crate::limits::WIRE_VERSION;
use crate::net::{Dialed, Tls};
use crate::proto::{Flags, Hello, Request, SignedAnnounce, Status, encode_request};
use crate::sync::lock;
use crate::testing::announces::{hint, sealed};
use crate::testing::answer::{Counts, FaultyServer};
use crate::testing::fault::Fault;
use crate::testing::file::TestFile;
use crate::testing::listing::FaultyListing;

/// A peer in this process that serves files from memory, with the faults that it is given. Without
/// any it is honest.
///
/// Nodes find it when it [joins](crate::testing::Lan::join) a LAN in memory, or by its
/// [address](Self::addr). It runs the thread `gpb-faulty` and one more for each connection;
/// dropping it closes its connections and joins them.
///
/// ```
/// use std::time::Duration;
/// use gpb::testing::{Fault, FaultyPeer, Lan, TestFile};
///
/// let file = TestFile::random("a.bin", 5_000_000, 1)?;
/// let honest = FaultyPeer::start(&[file.clone()], &[])?;
/// let slow_liar = FaultyPeer::start(&[file], &[Fault::WrongChunks, Fault::Delay(Duration::from_millis(1))])?;
/// let lan = Lan::new()?;
/// lan.join(&honest);
/// lan.join(&slow_liar);
/// let report = lan.node()?.fetch("a.bin")?.wait()?;
/// assert_eq!(report.peers, [(honest.id(), 5_000_000)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FaultyPeer {
    keypair: Keypair,
    addr: SocketAddr,
    server: Arc<FaultyServer>,
    accepting: Option<JoinHandle<()>>,
    /// The threads of the sessions that it offered.
    answering: Mutex<Vec<JoinHandle<()>>>,
}

impl FaultyPeer {
    /// Starts a peer of the network `gpb` that serves `files` on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// The system gives no port or no thread.
    pub fn start(files: &[TestFile], faults: &[Fault]) -> io::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), files, faults)
    }

    /// As [`start`](Self::start), on a free port of another address of this host.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_at(ip: IpAddr, files: &[TestFile], faults: &[Fault]) -> io::Result<Self> {
        static INSTANCES: AtomicU64 = AtomicU64::new(1000);
        let keypair = Keypair::generate();
        let listener = TcpListener::bind((ip, 0))?;
        let longer = u64::from(faults.contains(&Fault::WrongLengths));
        let held_as = |f: &TestFile| FileId { len: f.id.len + longer, ..f.id };
        let listed = files.iter().map(|f| (f.path.as_str().to_string(), held_as(f)));
        let server = Arc::new(FaultyServer {
            tls: Tls::new(&keypair).map_err(io::Error::other)?,
            faults: faults.to_vec(),
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            files: files.iter().map(|f| (held_as(f), f.clone())).collect(),
            listing: FaultyListing::new(listed.collect(), faults),
            announce: Mutex::default(),
            hints: Mutex::default(),
            is_dead: AtomicBool::new(false),
            sockets: Mutex::default(),
            counts: Counts::default(),
        });
        let (addr, accepting) = (listener.local_addr()?, server.clone());
        let accepting = Builder::new().name("gpb-faulty".into()).spawn(move || accept(&listener, &accepting))?;
        let peer = FaultyPeer { keypair, addr, server, accepting: Some(accepting), answering: Mutex::default() };
        peer.welcome_with(peer.announce(Flags::default()).as_bytes());
        Ok(peer)
    }

    /// Its key.
    pub fn id(&self) -> PeerId {
        self.keypair.peer_id()
    }

    /// Its key and instance.
    pub fn node(&self) -> NodeId {
        NodeId::new(self.id(), self.server.instance)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Number of requests for chunks that it answered, rightly or wrongly.
    pub fn chunks(&self) -> u64 {
        self.server.counts.chunks.load(Ordering::SeqCst)
    }

    /// Number of times that a node reported a bad chunk to it.
    pub fn reported_bad(&self) -> u64 {
        self.server.counts.reported_bad.load(Ordering::SeqCst)
    }

    /// Number of requests that [`Fault::Busy`] took count of.
    pub fn deferred(&self) -> u64 {
        self.server.counts.deferred.load(Ordering::SeqCst)
    }

    /// Number of bytes that it sent, TLS included.
    pub fn sent(&self) -> u64 {
        self.server.counts.sent.load(Ordering::Relaxed)
    }

    /// Number of connections that it accepted.
    pub fn connections(&self) -> u64 {
        self.server.counts.connections.load(Ordering::SeqCst)
    }

    /// Opens a session with the node at `addr` and answers on it, with all its faults, once the node takes the offer.
    ///
    /// # Errors
    /// The node is not reached, or does not take the offer.
    pub fn offer_to(&self, addr: SocketAddr) -> io::Result<()> {
        let deadline = Instant::now() + OFFER_TIMEOUT;
        let mut dialed = Dialed::dial(addr, None, &self.server.tls, OFFER_TIMEOUT).map_err(io::Error::other)?;
        let hello = Hello {
            version: WIRE_VERSION,
            network: "gpb".into(),
            instance: self.server.instance,
            announce: self.announce(Flags::default()).as_bytes().to_vec(),
            agent: "gpb-testing".into(),
        };
        let mut frames = Vec::new();
        [Request::Hello(hello), Request::Turn].iter().for_each(|request| encode_request(request, &mut frames));
        dialed.send(&frames, deadline).map_err(io::Error::other)?;
        for _ in 0..2 {
            let prefix = dialed.read_head(&mut Vec::new(), deadline).map_err(io::Error::other)?;
            if prefix.status != Status::Ok as u8 {
                return Err(io::Error::other(format!("answered with {:?}", Status::from_u8(prefix.status))));
            }
        }
        let end = dialed.turn().map_err(io::Error::other)?;
        lock(&self.server.sockets).push(end.socket.try_clone()?);
        let server = self.server.clone();
        let answer = move || {
            server.serve_turned(end);
        };
        lock(&self.answering).push(Builder::new().name("gpb-faulty-conn".into()).spawn(answer)?);
        Ok(())
    }

    /// Names `other` to nodes that ask for peers while it is [busy](Fault::Busy).
    pub fn name_peer(&self, other: &FaultyPeer) {
        lock(&self.server.hints).push(hint(&other.announce(Flags::default()), other.addr));
    }

    /// Cuts its connections and accepts no more.
    pub fn kill(&self) {
        self.server.cut();
        // Wakes the accepting thread, which then closes the listener.
        drop(TcpStream::connect(self.addr));
    }

    /// What it says of itself, signed, as of now.
    pub(super) fn announce(&self, flags: Flags) -> SignedAnnounce {
        sealed(&self.keypair, self.server.instance, self.addr.port(), 1, flags)
    }

    /// What it announces when it joins a LAN.
    pub(super) fn announces(&self) -> Vec<SignedAnnounce> {
        let more = |fault: &Fault| if let Fault::Announces(count) = *fault { count } else { 0 };
        let more = self.server.faults.iter().map(more).sum();
        let instance = self.server.instance;
        let other = |n: u64| sealed(&self.keypair, instance + n * INSTANCE_STEP, self.addr.port(), n, Flags::default());
        (1..=more).map(other).chain([self.announce(Flags::default())]).collect()
    }

    /// Its key pair.
    #[doc(hidden)]
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// Replaces the sealed announce that its `Welcome` carries.
    #[doc(hidden)]
    pub fn welcome_with(&self, sealed: &[u8]) {
        *lock(&self.server.announce) = sealed.to_vec();
    }
}

impl Drop for FaultyPeer {
    fn drop(&mut self) {
        self.kill();
        if let Some(thread) = self.accepting.take() {
            // A panic was reported by the thread.
            let _ = thread.join();
        }
        lock(&self.answering).drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl fmt::Debug for FaultyPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyPeer")
            .field("id", &self.id())
            .field("addr", &self.addr)
            .field("faults", &self.server.faults)
            .finish_non_exhaustive()
    }
}

/// Accepts connections until the peer is dead, then joins their threads.
fn accept(listener: &TcpListener, server: &Arc<FaultyServer>) {
    let mut serving = Vec::new();
    while let Ok((socket, _)) = listener.accept() {
        if server.is_dead.load(Ordering::SeqCst) {
            break;
        }
        let nth = server.counts.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(copy) = socket.try_clone() else { continue };
        let mut sockets = lock(&server.sockets);
        // Connections that have ended need no descriptor.
        sockets.retain(|socket| socket.peer_addr().is_ok());
        sockets.push(copy);
        drop(sockets);
        let serving_of = server.clone();
        let serve = move || {
            serving_of.serve(socket, nth);
        };
        serving.extend(Builder::new().name("gpb-faulty-conn".into()).spawn(serve));
    }
    serving.into_iter().for_each(|thread| drop(thread.join()));
}

/// Longest time until an offer is taken.
const OFFER_TIMEOUT: Duration = Duration::from_secs(10);
/// Distance of the instances that one peer makes up.
const INSTANCE_STEP: u64 = 1 << 32;
