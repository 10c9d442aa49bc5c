//! Every type of a public signature has a name that a program can write.
#![allow(clippy::type_complexity)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpb::error::{
    ConfigError, EventsError, Failed, FetchError, KeyError, KeypairError, OfferError, ParseDigestError,
    ParseInterfaceError, ParsePeerAddrError, ParsePeerIdError, PatternError, PublishError, RelPathError, ServerError,
    SourceError, StartError, StoreError, TrustError,
};
use gpb::testing::{Fault, FaultyPeer, Lan, TestFile};
use gpb::{
    BindAddr, Canceller, Candidate, Catalogue, Config, Digest, DiscoveryProblem, DiscoveryStats, Dropped, Entry,
    EntryRef, Event, Events, Fetch, FileId, FileReport, Finding, FoundFile, FoundPeer, Get, Interface, KeySource,
    Keypair, KnownPeer, Node, NodeBuilder, NodeId, Pattern, PeerAddr, PeerId, Phase, Progress, RelPath, Report, Root,
    Share, Stamp, State, Stopper, Trust, Update, Updates, Wait, Want,
};
use gpb::{
    Everything, FailedFile, FetchStats, KeyPrefix, NodeStats, Offered, OpenFile, OpenStats, Overwrite, PeerCounts,
    RefusalCause, Selection, ShareStats, Source, TrafficStats,
};

/// What a program may keep: fields for all that the methods of a node return.
#[derive(Debug)]
#[allow(dead_code)]
struct App {
    builder: NodeBuilder,
    node: Arc<Node>,
    stopper: Stopper,
    catalogue: Arc<Catalogue>,
    known: BTreeMap<NodeId, KnownPeer>,
    peers: Vec<FoundPeer>,
    files: Vec<FoundFile>,
    fetch: Option<Fetch>,
    open: Option<OpenFile>,
    events: Events,
    last_event: Result<Event, EventsError>,
    stats: DiscoveryStats,
    findings: Vec<Finding>,
    progress: Progress,
    canceller: Canceller,
    updates: Updates,
    update: Update,
    report: Result<Arc<Report>, Failed>,
}

#[test]
fn the_methods_of_a_node_take_and_return_what_can_be_named() {
    let _: fn(Config) -> Result<Node, StartError> = Node::start;
    let _: fn(&Node) -> PeerId = Node::id;
    let _: fn(&Node) -> &Config = Node::config;
    let _: fn(&Node) -> &[SocketAddr] = Node::addrs;
    let _: fn(&Node) -> Arc<Catalogue> = Node::catalogue;
    let _: fn(&Node, Duration) -> Option<(u64, u64)> = Node::wait_ready;
    let _: fn(&Node) -> Vec<KnownPeer> = Node::known_peers;
    let _: fn(&Node, Wait) -> Result<Vec<FoundPeer>, FetchError> = Node::peers;
    let _: fn(&Node, Want) -> Result<Vec<FoundFile>, FetchError> = Node::list;
    let _: fn(&Node, Want, Wait) -> Result<Vec<FoundFile>, FetchError> = Node::list_within;
    let _: fn(&Node, Want, Wait) -> Result<Vec<FoundFile>, FetchError> = Node::find;
    let _: fn(&Node, NodeId, Wait) -> Result<Vec<FoundFile>, FetchError> = Node::peer_files;
    let _: fn(&Node, Want) -> Result<Fetch, FetchError> = Node::fetch;
    let _: fn(&Node, Want, PathBuf) -> Result<Fetch, FetchError> = Node::fetch_to;
    let _: for<'n> fn(&'n Node, Want) -> Get<'n> = Node::get;
    let _: fn(&Node, Want) -> Result<OpenFile, FetchError> = Node::open;
    let _: fn(Get<'static>) -> Result<OpenFile, FetchError> = Get::open;
    let _: fn(&OpenFile, PathBuf) -> Result<Fetch, FetchError> = OpenFile::keep;
    let _: fn(&OpenFile) -> Canceller = OpenFile::canceller;
    let _: fn(&Node) -> Vec<Fetch> = Node::fetches;
    let _: fn(&Node) -> Events = Node::events;
    let _: fn(&Node, &'static str) -> Result<FileId, PublishError> = Node::publish;
    let _: fn(&Node, &'static str) -> Result<bool, PublishError> = Node::forget;
    let _: fn(&Node, &FileId) -> bool = Node::is_here;
    let _: fn(&Node, &'static str, Source) -> Result<Offered, OfferError> = Node::offer;
    let _: fn(&Offered) -> Result<FileId, OfferError> = Offered::wait;
    let _: fn(&Node, Option<u64>) = Node::set_upload_limit;
    let _: fn(&Node, Option<u64>) = Node::set_download_limit;
    let _: fn(&Node, SocketAddr) -> Result<(), ConfigError> = Node::add_peer;
    let _: fn(&Trust, PeerId) -> Result<bool, TrustError> = Trust::insert;
    let _: fn(&Node) -> DiscoveryStats = Node::discovery_stats;
    let _: fn(&Node) -> NodeStats = Node::stats;
    let _ = |s: NodeStats| -> (PeerCounts, TrafficStats, ShareStats, Vec<FetchStats>, Vec<OpenStats>) {
        (s.peers, s.traffic, s.share, s.fetches, s.open)
    };
    let _: fn(&Node, Wait) -> Result<Vec<Finding>, FetchError> = Node::diagnose;
    let _: fn(&Node) -> Stopper = Node::stopper;
    let _: fn(&Fetch) -> Result<Arc<Report>, Failed> = Fetch::wait;
    let _: fn(&Fetch) -> Canceller = Fetch::canceller;
    let _: fn(&Fetch) -> Updates = Fetch::updates;
    let _: fn(&Fetch) -> Progress = Fetch::progress;
    let _: fn(&Fetch) -> Vec<FileReport> = Fetch::fetched;
    let _: fn(&mut Updates) -> Option<Update> = Updates::try_recv;
    let _: fn(&Progress) -> Phase = |at| at.phase;
    let _: fn(&DiscoveryStats, Dropped) -> u64 = DiscoveryStats::dropped;
    let _: fn(&Lan, NodeBuilder) -> Result<Node, StartError> = Lan::start;
    let _: fn(&[TestFile], &[Fault]) -> std::io::Result<FaultyPeer> = FaultyPeer::start;
    let _: fn(std::net::IpAddr, &[TestFile], &[Fault]) -> std::io::Result<FaultyPeer> = FaultyPeer::start_at;
}

#[test]
fn what_fields_and_errors_hold_can_be_named() {
    let known =
        |k: KnownPeer| -> (NodeId, u64, Vec<SocketAddr>, Instant) { (k.node, k.revision, k.addrs, k.last_seen) };
    let file = |f: FoundFile| -> (RelPath, FileId, Arc<[NodeId]>) { (f.path, f.id, f.holders) };
    let finding = |f: Finding| -> Option<DiscoveryProblem> { f.problem };
    let entry = |e: Entry| -> (RelPath, FileId, Stamp) { (e.path, e.id, e.stamp) };
    let entry_ref = |e: EntryRef<'_>| -> Entry { e.to_entry() };
    let id = |f: FileId| -> (Root, Digest) { (f.root, f.root.0) };
    let config = |c: Config| -> (Option<PathBuf>, State, Share, KeySource, Trust, Vec<PeerAddr>, Vec<Interface>) {
        (c.dir, c.state, c.share, c.key, c.trust, c.peers, c.interfaces)
    };
    let start = |e: StartError| match e {
        StartError::Config(e) => drop::<ConfigError>(e),
        StartError::Key(e) => drop::<KeyError>(e),
        StartError::Listen(e) => drop::<ServerError>(e),
        _ => {}
    };
    let fetch = |e: FetchError| match e {
        FetchError::Storage(e) => drop::<StoreError>(e),
        FetchError::Pattern { source, .. } => drop::<PatternError>(source),
        FetchError::Out { source, .. } => assert_ne!(source, RelPathError::Empty),
        FetchError::Ambiguous { candidates, .. } => drop::<Vec<Candidate>>(candidates),
        _ => {}
    };
    let read = |text: &str| -> (
        Result<Root, ParseDigestError>,
        Result<PeerId, ParsePeerIdError>,
        Result<PeerAddr, ParsePeerAddrError>,
        Result<Interface, ParseInterfaceError>,
        Result<Pattern, PatternError>,
        Result<RelPath, RelPathError>,
        Result<Keypair, KeypairError>,
    ) {
        (
            text.parse(),
            text.parse(),
            text.parse(),
            text.parse(),
            Pattern::parse(text),
            RelPath::new(text),
            Keypair::try_generate(),
        )
    };
    let _ = (known, file, finding, entry, entry_ref, id, config, start, fetch);
    assert!(read("x").4.is_ok());
}

#[test]
fn handles_may_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Node>();
    crosses::<Fetch>();
    crosses::<Canceller>();
    crosses::<Updates>();
    crosses::<Failed>();
    crosses::<Want>();
    crosses::<Events>();
    crosses::<Stopper>();
    crosses::<Trust>();
    crosses::<Config>();
    crosses::<NodeBuilder>();
    crosses::<Event>();
    crosses::<ConfigError>();
    crosses::<KeyError>();
    crosses::<TrustError>();
    crosses::<FoundFile>();
    crosses::<Finding>();
    crosses::<Keypair>();
    crosses::<Pattern>();
    crosses::<DiscoveryStats>();
    crosses::<Arc<Catalogue>>();
    crosses::<(Progress, Phase, Report, FileReport, Update, FailedFile)>();
    crosses::<(FoundPeer, KnownPeer, Candidate, DiscoveryProblem, Entry, EntryRef<'static>, Stamp)>();
    crosses::<(Everything, Overwrite, Selection, Wait, RelPath, FileId, Root, Digest)>();
    crosses::<(PeerId, NodeId, KeyPrefix, PeerAddr, BindAddr, Interface, KeySource, State, Share)>();
    crosses::<(NodeStats, ShareStats, FetchStats, OpenStats, TrafficStats, PeerCounts, RefusalCause, Dropped)>();
    crosses::<(PublishError, KeypairError, StoreError, ServerError, EventsError, PatternError, RelPathError)>();
    crosses::<(Lan, FaultyPeer, TestFile, Fault)>();
    crosses::<(Offered, Source, OfferError, SourceError)>();
    crosses::<StartError>();
    crosses::<FetchError>();
}

/// With the feature, what a node reports can be written as JSON, keys and contents as their texts.
#[cfg(feature = "serde")]
#[test]
fn reports_have_a_text_form() {
    let lan = Lan::new().unwrap();
    let (server, node) = (lan.sharing(&[("a.bin", b"hello")]).unwrap(), lan.node().unwrap());
    let files = node.list_within("a.bin", Duration::from_secs(10)).unwrap();
    let json = serde_json::to_value(&files[0]).unwrap();
    assert_eq!(json["id"], files[0].id.to_string());
    assert_eq!(json["holders"][0]["peer"], server.id().to_string());
    let events = node.events();
    let report = serde_json::to_value(&*node.fetch(&files[0]).unwrap().wait().unwrap()).unwrap();
    assert_eq!((&report["bytes"], &report["fetched"][0]["path"]), (&5.into(), &"a.bin".into()), "{report}");
    assert_eq!(report["peers"][0][0], server.id().to_string());
    let failed = serde_json::to_value(node.fetch("b.bin").unwrap().wait().unwrap_err()).unwrap();
    assert!(failed["error"].as_str().is_some_and(|text| text.contains("b.bin")), "{failed}");
    assert_eq!(failed["report"]["failed"][0]["path"], "b.bin", "{failed}");
    let known = serde_json::to_value(events.try_recv().unwrap()).unwrap();
    assert_eq!(known["Known"][0]["node"]["peer"], server.id().to_string());
    let stats = serde_json::to_value(node.stats()).unwrap();
    assert_eq!(stats["traffic"]["received_from"][0][0], server.id().to_string());
    assert!(stats["announces"]["dropped"].is_object() && stats["peers"]["serving"] == 1, "{stats}");
}
