use super::*;
use crate::content::FileId;
use crate::identity::{Keypair, PeerId};
use crate::limits::{BAD_REPORTS_PER_MIN, LIST_PAGE_LEN, SERVED_REMEMBERED, UPLOADS_MAX};
use crate::net::{Datagram, LinkId};
use crate::peers::fake::{directory_of, hello as signed_hello};
use crate::proto::{
    Delta, DialState, FramePrefix, Listed, PageHead, PeerHint, Problem, Reached, SignedAnnounce, decode_body,
    decode_header, encode_request,
};
use crate::server::tests::fake::{Files, id_of, layer_of, noise};
use crate::swarm::Way;
use crate::swarm::upload::limits::{LAYERS_PER_KEY_MAX, ON_ITS_WAY};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

const CHUNK: usize = 256 * 1024;

struct Desk {
    handler: Handler,
    files: Arc<Files>,
    peer: RemotePeer,
}

struct Answered {
    status: Status,
    header: Vec<u8>,
    body: Vec<u8>,
    closed: Option<Refusal>,
}

impl Desk {
    fn new(files: Files) -> Self {
        let files = Arc::new(files);
        let handler = Handler {
            content: files.clone(),
            directory: directory_of(Keypair::generate(), 5, TrustView::open()),
            trust: Arc::new(TrustView::open()),
            connections: ConnectionSlots::new(10, 2),
            gate: Mutex::default(),
            sent: Mutex::default(),
            log: LimitedLog::new(10),
            fetchers: Mutex::default(),
            bad_reports: Mutex::default(),
            dial_backs: DialBacks::new().0,
        };
        Desk { handler, files, peer: remote_peer() }
    }

    fn open(files: Files) -> Self {
        let mut desk = Desk::new(files);
        assert_eq!(desk.ask(&hello("gpb")).status, Status::Ok);
        desk
    }

    fn ask(&mut self, request: &Request) -> Answered {
        self.ask_at(request, Instant::now())
    }

    fn ask_at(&mut self, request: &Request, now: Instant) -> Answered {
        let mut frame = vec![];
        encode_request(request, &mut frame);
        let prefix = FramePrefix::from_bytes(*frame.first_chunk().unwrap());
        let (header, body) = frame[8..].split_at(prefix.header_len as usize);
        let mut out = vec![];
        let next = self
            .handler
            .answer(&mut self.peer, &RequestFrame { kind: prefix.kind, header, body }, now, &mut out)
            .unwrap();
        let next = match next {
            Reply::Listing(mut listing) => {
                while !listing.go_on(now) {}
                self.handler.listed(*listing, &mut out)
            }
            next => next,
        };
        let answer = FramePrefix::from_bytes(*out.first_chunk().unwrap());
        assert_eq!(answer.kind, prefix.kind);
        let mut body = out.split_off(8 + answer.header_len as usize);
        let mut closed = None;
        match next {
            Reply::Done => (),
            Reply::Close(why) => closed = Some(why),
            Reply::Listing(_) => unreachable!(),
            Reply::Wait => panic!("all slots are taken"),
            Reply::Body(mut rest, slot) => {
                self.handler.drop_slot(slot, now);
                assert_eq!(body.len() + rest.left(), answer.body_len as usize);
                let mut bytes = vec![0; rest.left() + 1];
                let (n, complete) = rest.fill(&mut bytes);
                assert!(complete);
                body.extend_from_slice(&bytes[..n]);
            }
        }
        assert_eq!(body.len(), answer.body_len as usize);
        let status = Status::from_u8(answer.status).unwrap();
        Answered { status, header: out.split_off(8), body, closed }
    }

    fn status(&mut self, request: &Request) -> Status {
        self.ask(request).status
    }
}

/// The key of all askers.
static KEYPAIR: LazyLock<Keypair> = LazyLock::new(Keypair::generate);

fn peer_of(id: PeerId, addr: SocketAddr) -> RemotePeer {
    RemotePeer::new(0, id, addr, &TrustView::open())
}

fn remote_peer() -> RemotePeer {
    peer_of(KEYPAIR.peer_id(), "127.0.0.1:5".parse().unwrap())
}

fn hello(network: &str) -> Request {
    hello_of(network, 3)
}

fn hello_of(network: &str, instance: u64) -> Request {
    let unix_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let hello = signed_hello(&KEYPAIR, instance, unix_ms);
    Request::Hello(Hello { network: network.into(), agent: "a\nb".into(), ..hello })
}

/// Cause: whoever had been reached once was told that no offer is needed. Effect: a laptop that went behind a NAT gave
/// nothing, for a minute and more. Mend: a session that comes from another host has the node dialed again.
#[test]
fn who_comes_from_elsewhere_is_dialed_again_before_an_offer_is_declined() {
    let mut desk = Desk::new(Files::default());
    let (dial_backs, work) = DialBacks::new();
    desk.handler.dial_backs = dial_backs;
    assert_eq!(desk.ask(&hello("gpb")).status, Status::Ok);
    let (node, now, at) = (desk.peer.node(), Instant::now(), "127.0.0.1:4000".parse().unwrap());
    assert!(desk.handler.directory.welcome(node, &[], at, now).is_err(), "proved without an announce");
    assert_eq!(desk.ask(&Request::Turn).status, Status::NotModified);
    desk.peer.addr = "127.0.0.2:5".parse().unwrap();
    assert_eq!(desk.ask(&Request::Turn).status, Status::Busy);
    let (account, target) = work.queue.recv().unwrap();
    assert_eq!(target, (node, at));
    work.note(account, target, DialState::Reached);
    assert_eq!(desk.ask(&Request::Turn).status, Status::NotModified, "it has two addresses");
    work.note(account, target, DialState::Failed);
    assert_eq!(desk.ask(&Request::Turn).status, Status::Ok);
}

/// Cause: by chance nobody had dialed it for a while. Effect: on a healthy link, nodes that keep no state had a session with
/// each other for nothing. Mend: who is on a link is dialed, and sessions of those that are reached are not kept.
#[test]
fn who_is_on_a_link_and_makes_an_offer_is_dialed() {
    let mut desk = Desk::new(Files::default());
    let (dial_backs, work) = DialBacks::new();
    desk.handler.dial_backs = dial_backs;
    let hello = hello("gpb");
    let Request::Hello(Hello { announce, .. }) = &hello else { unreachable!() };
    let from = "127.0.0.1:27420".parse().unwrap();
    let from = Datagram { len: announce.len(), from, link: LinkId(0), way: Way::Group, local: false };
    desk.handler.directory.datagram(announce, &from, Instant::now()).unwrap();
    assert_eq!(desk.ask(&hello).status, Status::Ok);
    assert_eq!(desk.ask(&Request::Turn).status, Status::Ok);
    assert_eq!(work.queue.try_recv().unwrap().1, (desk.peer.node(), "127.0.0.1:4000".parse().unwrap()));
}

/// Only the address of the session is dialed, with the port that was announced.
#[test]
fn an_asker_is_told_what_is_seen_and_has_its_own_address_dialed() {
    let mut desk = Desk::new(Files::default());
    let (dial_backs, waiting) = DialBacks::new();
    desk.handler.dial_backs = dial_backs;
    let reach = |desk: &mut Desk| decode_header::<Reached>(&desk.ask(&Request::Reach).header, "Reach").unwrap();
    assert_eq!(desk.ask(&Request::Reach).status, Status::Refused, "before Hello");
    let hello = hello("gpb");
    assert_eq!(desk.ask(&hello).status, Status::Ok);
    // A friend names another port of the address, which comes before it when that fails.
    let Request::Hello(Hello { announce, .. }) = hello else { unreachable!() };
    let hint = PeerHint { announce, addrs: vec!["127.0.0.1:2222".parse().unwrap()] };
    let (node, now) = (desk.peer.node(), Instant::now());
    assert_eq!(desk.handler.directory.hints(&[hint], desk.peer.addr.ip(), now), [node]);
    desk.handler.directory.failed(node, "127.0.0.1:4000".parse().unwrap(), now);
    let first = desk.handler.directory.read(|t| t.peer(node)).unwrap().addrs[0];
    assert_eq!(first.port(), 2222, "the hint counts more now");
    let (seen, dialed) = (desk.peer.addr, DialState::Trying);
    assert_eq!(reach(&mut desk), Reached { seen, dialed });
    assert_eq!(waiting.queue.recv().unwrap().1, (node, "127.0.0.1:4000".parse().unwrap()));
    // A second session of the key, from another address: the account has had its try.
    desk.peer.addr = "127.0.0.2:5".parse().unwrap();
    assert_eq!(reach(&mut desk).seen, desk.peer.addr);
    assert_eq!(waiting.queue.recv().unwrap().1, (node, "127.0.0.2:4000".parse().unwrap()), "never elsewhere");
}

fn chunk(file: FileId, index: u32) -> Request {
    Request::Chunk(ChunkAsk { chunk: ChunkRef { file, index }, since: 0 })
}

#[test]
fn hello_opens_and_nothing_else_does() {
    let mut desk = Desk::new(Files::new(&[("a", noise(10, 1))]));
    let list = Request::List(ListFrom { pattern: String::new(), after: String::new(), revision: 0 });
    let reply = desk.ask(&list);
    assert_eq!((reply.status, reply.closed), (Status::Refused, Some(Refusal::NoHello)));
    let reply = desk.ask(&hello("other"));
    assert_eq!((reply.status, reply.closed), (Status::Refused, Some(Refusal::OtherNetwork)));
    let problem: Problem = decode_header(&reply.header, "Problem").unwrap();
    assert_eq!(problem.reason, "another network");
    let reply = desk.ask(&hello("gpb"));
    let welcome: Welcome = decode_header(&reply.header, "Welcome").unwrap();
    assert_eq!((welcome.files, welcome.bytes, welcome.revision, welcome.instance), (1, 10, 7, 5));
    let (_, announce) = SignedAnnounce::open(&welcome.announce).unwrap();
    assert_eq!((announce.instance, announce.port, desk.peer.agent.as_str()), (5, 4000, "ab"));
    assert_eq!(desk.status(&list), Status::Ok);
}

#[test]
fn the_last_seat_taken_means_busy() {
    let mut desk = Desk::open(Files::default());
    let mut others: Vec<_> = (0..2).map(|_| remote_peer()).collect();
    for (asker, status) in others.iter_mut().zip([Status::Ok, Status::Busy]) {
        std::mem::swap(asker, &mut desk.peer);
        let reply = desk.ask(&hello("gpb"));
        assert_eq!(reply.status, status);
        if status == Status::Busy {
            let problem: Problem = decode_header(&reply.header, "Problem").unwrap();
            assert!(problem.retry_after_ms > 0 && reply.closed == Some(Refusal::Full));
        }
        std::mem::swap(asker, &mut desk.peer);
    }
}

#[test]
fn a_closed_group_refuses_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trusted");
    std::fs::write(&file, format!("{}\n", KEYPAIR.peer_id())).unwrap();
    let mut desk = Desk::new(Files::default());
    desk.handler.trust = Arc::new(TrustView::closed(&file, PeerId([1; 32])).unwrap());
    assert_eq!(desk.status(&hello("gpb")), Status::Ok);
    assert_eq!(desk.handler.account(&desk.peer), Account::Key(KEYPAIR.peer_id()));
    desk.peer = peer_of(PeerId([8; 32]), desk.peer.addr);
    let reply = desk.ask(&hello("gpb"));
    assert_eq!((reply.status, reply.closed), (Status::Refused, Some(Refusal::Untrusted)));
}

#[test]
fn list_pages_cover_everything_once() {
    let names: Vec<String> = (0..9000).map(|i| format!("dir/{i:05}-{}", "x".repeat(50))).collect();
    let files: Vec<_> = names.iter().map(|n| (n.as_str(), vec![])).collect();
    let mut desk = Desk::open(Files::new(&files));
    let (mut after, mut got, mut pages) = (String::new(), vec![], 0);
    loop {
        let from = ListFrom { pattern: "dir".into(), after: after.clone(), revision: 0 };
        let reply = desk.ask(&Request::List(from));
        let head: PageHead = decode_header(&reply.header, "PageHead").unwrap();
        let page: Vec<Listed> = decode_body(&reply.body, "List").unwrap();
        assert!(reply.body.len() <= LIST_PAGE_LEN + 2048 && !page.is_empty());
        after = page.last().unwrap().path.to_string();
        got.extend(page.into_iter().map(|l| l.path.to_string()));
        pages += 1;
        if !head.more {
            break;
        }
    }
    assert!(pages > 2 && got == names);
    let list =
        |pattern: &str, revision| Request::List(ListFrom { pattern: pattern.into(), after: String::new(), revision });
    assert_eq!(desk.status(&list("", 7)), Status::NotModified);
    assert_eq!(desk.status(&list("", 6)), Status::Ok);
    assert_eq!(desk.status(&list(&format!("{}:much", "ab".repeat(32)), 0)), Status::NotFound);
}

#[test]
fn chunks_layers_and_holdings() {
    let (big, small, part) = (noise(3 * CHUNK + 5, 1), noise(100, 2), noise(2 * CHUNK, 3));
    let ids = [&big, &small, &part].map(|b| id_of(b));
    let files = Files::new(&[("big", big.clone()), ("small", small.clone())]).with_part(part.clone(), &[1]);
    let mut desk = Desk::open(files);

    for (id, bytes) in [(ids[0], &big), (ids[1], &small)] {
        let mut got = vec![];
        for index in 0..Geometry::new(id.len).chunk_count() {
            let reply = desk.ask(&chunk(id, index));
            assert_eq!(reply.status, Status::Ok);
            let (trailer, data) = reply.body.split_last().unwrap();
            assert_eq!(*trailer, Request::GOOD);
            got.extend_from_slice(data);
        }
        assert!(got == *bytes);
    }
    assert_eq!(desk.status(&chunk(ids[0], 4)), Status::NotFound);
    assert_eq!(desk.status(&chunk(FileId { len: 3 * CHUNK as u64, ..ids[0] }, 0)), Status::NotFound);
    assert_eq!((desk.status(&chunk(ids[2], 0)), desk.status(&chunk(ids[2], 1))), (Status::NotFound, Status::Ok));

    let locate = Request::Locate(vec![ids[0], ids[2], FileId { len: 1, ..ids[0] }]);
    let holdings: Vec<Holding> = decode_body(&desk.ask(&locate).body, "Locate").unwrap();
    assert_eq!(holdings, [Holding::Whole, Holding::Partial(1), Holding::None]);

    let layer = |first, count| Request::Layer(LayerRange { file: ids[0], first, count });
    let reply = desk.ask(&layer(1, 3));
    assert_eq!(reply.body, layer_of(&big)[1..].iter().flat_map(|d| d.0).collect::<Vec<_>>());
    for (first, count, status) in [
        (1, 4, Status::NotFound),
        (u32::MAX, 2, Status::NotFound),
        (0, LAYER_DIGESTS_PER_ANSWER_MAX + 1, Status::TooLarge),
    ] {
        assert_eq!(desk.status(&layer(first, count)), status);
    }
    assert_eq!(desk.status(&Request::Layer(LayerRange { file: ids[1], first: 0, count: 1 })), Status::NotFound);
}

#[test]
fn few_lists_are_under_way_and_the_others_are_told_when_to_ask_again() {
    let bytes = noise(4 * CHUNK, 1);
    let id = id_of(&bytes);
    let mut desk = Desk::open(Files::new(&[("a", bytes)]));
    let now = Instant::now();
    let mut ask = |first| {
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        encode_request(&Request::Layer(LayerRange { file: id, first, count: 2 }), &mut frame);
        let prefix = FramePrefix::from_bytes(*frame.first_chunk().unwrap());
        let (header, body) = frame[8..].split_at(prefix.header_len as usize);
        let next = desk
            .handler
            .answer(&mut desk.peer, &RequestFrame { kind: prefix.kind, header, body }, now, &mut out)
            .unwrap();
        (next, FramePrefix::from_bytes(*out.first_chunk().unwrap()).status, out)
    };
    let mut under_way = Vec::new();
    let refused = loop {
        match ask(0) {
            (Reply::Body(_, Some(slot)), ..) => under_way.push(slot),
            (_, status, out) => break (status, out),
        }
    };
    assert_eq!(under_way.len(), LAYERS_PER_KEY_MAX);
    assert_eq!(refused.0, Status::Busy as u8);
    let problem: Problem = decode_header(&refused.1[8..], "Problem").unwrap();
    let wait = Duration::from_millis(problem.retry_after_ms.into());
    assert!((LAYER_RETRY / 2..LAYER_RETRY * 2).contains(&wait), "{wait:?}");
    assert!(matches!(ask(2), (Reply::Body(_, None), ..)), "whoever has the first part gets the rest");
    let range = LayerRange { file: id, first: 0, count: 2 };
    let other = |n: u8| peer_of(desk.peer.id, SocketAddr::from(([10, 0, 0, n], 1)));
    let of_others = (1..=200).map_while(|n| match desk.handler.layer(&other(n), range, now, &mut Vec::new()) {
        Reply::Body(_, slot) => slot,
        _ => None,
    });
    under_way.extend(of_others);
    assert!((LAYERS_PER_KEY_MAX + 1..=UPLOADS_MAX).contains(&under_way.len()), "{}", under_way.len());
    desk.handler.gate().ended(under_way.pop().unwrap(), true, now);
    assert!(matches!(desk.handler.layer(&other(201), range, now, &mut Vec::new()), Reply::Body(_, Some(_))));
    let twin = LayerRange { file: FileId { len: id.len + 1, ..id }, ..range };
    let mut out = Vec::new();
    desk.handler.layer(&other(202), twin, now, &mut out);
    let status = FramePrefix::from_bytes(*out.first_chunk().unwrap()).status;
    assert_eq!(status, Status::NotFound as u8, "whether there is a place or not");
}

#[test]
fn requests_for_chunks_that_waited_too_long_are_deferred_and_others_are_not() {
    let bytes = noise(4 * CHUNK, 1);
    let id = id_of(&bytes);
    let mut desk = Desk::open(Files::new(&[("a", bytes)]));
    let any = Request::AnyOf(Since { file: id, revision: 0 }, vec![0, 1]);
    let have = Request::Have(Since { file: id, revision: 0 });
    desk.peer.is_deferred = true;
    for request in [chunk(id, 0), any.clone(), chunk(id, 1)] {
        assert_eq!(desk.status(&request), Status::NotModified);
    }
    assert_eq!([desk.status(&have), desk.status(&any), desk.status(&chunk(id, 0))], [Status::Ok; 3]);
}

#[test]
fn what_changed_on_disk_is_gone() {
    let (a, b) = (noise(100, 1), noise(100, 2));
    let mut files = Files::new(&[("a", a.clone()), ("b", b.clone())]);
    files.gone = Some(id_of(&a));
    files.changing = Some(id_of(&b));
    let mut desk = Desk::open(files);
    assert_eq!(desk.status(&chunk(id_of(&a), 0)), Status::Gone);
    assert_eq!(desk.ask(&chunk(id_of(&b), 0)).body[100], Request::GONE);
}

#[test]
fn what_cannot_be_read_now_is_asked_for_later() {
    let bytes = noise(100, 1);
    let mut files = Files::new(&[("a", bytes.clone())]);
    files.unreadable = Some(id_of(&bytes));
    let reply = Desk::open(files).ask(&chunk(id_of(&bytes), 0));
    assert_eq!(reply.status, Status::Busy);
    assert!(decode_header::<Problem>(&reply.header, "Problem").unwrap().retry_after_ms > 0);
}

#[test]
fn any_gives_what_is_lacked_and_was_sent_least() {
    let bytes = noise(20 * CHUNK, 1);
    let id = id_of(&bytes);
    let mut desk = Desk::open(Files::new(&[("a", bytes)]));
    (0..10).for_each(|i| assert_eq!(desk.status(&chunk(id, i)), Status::Ok));
    let any = |chunks: &[u32]| Request::AnyOf(Since { file: id, revision: 0 }, chunks.to_vec());
    for _ in 0..2 {
        // 8 and 9 were sent.
        let reply = desk.ask(&any(&[8, 9, 11, 14, 77]));
        let given: ChunkHeader = decode_header(&reply.header, "ChunkHeader").unwrap();
        assert!([11, 14].contains(&given.chunk.index) && reply.body.len() == CHUNK + 1, "{given:?}");
    }
    assert_eq!(desk.status(&any(&[])), Status::NotFound);
    assert_eq!(desk.status(&any(&[20, u32::MAX])), Status::NotFound, "they do not exist");
    let part = noise(2 * CHUNK, 3);
    let mut desk = Desk::open(Files::default().with_part(part.clone(), &[1]));
    let any = Request::AnyOf(Since { file: id_of(&part), revision: 0 }, vec![0, 1]);
    let given: ChunkHeader = decode_header(&desk.ask(&any).header, "ChunkHeader").unwrap();
    assert_eq!((given.chunk.index, given.new_haves), (1, None));
}

/// Once the chunks of a file had been sent unequally often, several requests in flight were answered with the same one:
/// each further fetch of a file wasted more.
#[test]
fn requests_in_flight_bring_different_chunks_however_often_each_was_sent() {
    let bytes = noise(8 * CHUNK, 1);
    let id = id_of(&bytes);
    let mut desk = Desk::open(Files::new(&[("a", bytes)]));
    // All but the first were sent three times.
    for _ in 0..3 {
        (1..8).for_each(|i| assert_eq!(desk.status(&chunk(id, i)), Status::Ok));
    }
    let any = Request::AnyOf(Since { file: id, revision: 0 }, (0..8).collect());
    for fetch in 0..2 {
        let mut given: Vec<u32> = (0..8)
            .map(|_| decode_header::<ChunkHeader>(&desk.ask(&any).header, "ChunkHeader").unwrap().chunk.index)
            .collect();
        given.sort_unstable();
        assert_eq!(given, (0..8).collect::<Vec<_>>(), "{fetch}");
    }
}

#[test]
fn a_node_gets_no_chunk_on_two_sessions() {
    let bytes = noise(8 * CHUNK, 1);
    let id = id_of(&bytes);
    let mut desk = Desk::open(Files::new(&[("a", bytes)]));
    // All but the first were sent three times, before the node started again.
    for _ in 0..3 {
        (1..8).for_each(|i| assert_eq!(desk.status(&chunk(id, i)), Status::Ok));
    }
    let mut sessions: Vec<RemotePeer> = vec![];
    for session in 1..=2 {
        desk.peer = remote_peer();
        desk.peer.session = session;
        assert_eq!(desk.ask(&hello_of("gpb", 4)).status, Status::Ok);
        sessions.push(std::mem::replace(&mut desk.peer, remote_peer()));
    }
    let any = Request::AnyOf(Since { file: id, revision: 0 }, (0..8).collect());
    // What was sent before is on its way to nobody, also if the two nodes are not told apart.
    let begin = Instant::now() + 2 * ON_ITS_WAY;
    let mut ask = |n: usize, at: Instant| {
        std::mem::swap(&mut desk.peer, &mut sessions[n % 2]);
        let reply = desk.ask_at(&any, at);
        std::mem::swap(&mut desk.peer, &mut sessions[n % 2]);
        let given = decode_header::<ChunkHeader>(&reply.header, "ChunkHeader");
        (reply.status, given.map_or(u32::MAX, |given| given.chunk.index))
    };
    let mut given: Vec<u32> = (0..8).map(|n| ask(n, begin).1).collect();
    given.sort_unstable();
    assert_eq!(given, (0..8).collect::<Vec<_>>());
    assert_eq!(ask(0, begin).0, Status::NotModified, "all come on the other session, or came on this one");
    assert_eq!(ask(0, begin + ON_ITS_WAY).0, Status::Ok, "they did not come");
}

#[test]
fn a_chunk_of_a_download_comes_with_the_news_that_were_asked_for() {
    let (part, whole) = (noise(9 * CHUNK, 3), noise(2 * CHUNK, 4));
    let (id, whole_id) = (id_of(&part), id_of(&whole));
    let mut desk = Desk::open(Files::new(&[("w", whole)]).with_part(part, &[1, 8]));
    let mut news = |file, since| {
        let ask = ChunkAsk { chunk: ChunkRef { file, index: 1 }, since };
        decode_header::<ChunkHeader>(&desk.ask(&Request::Chunk(ask)).header, "ChunkHeader").unwrap().new_haves
    };
    assert_eq!(news(id, 0), None, "not asked for");
    assert_eq!(news(id, 3), None, "nothing came since");
    assert_eq!(news(id, 2), Some(Delta::New { revision: 3, chunks: vec![8] }));
    assert_eq!(news(id, 99), None, "another life of that node: `Have` tells");
    assert_eq!(news(whole_id, 1), Some(Delta::Whole), "it has become whole");
    let any = Request::AnyOf(Since { file: id, revision: 2 }, vec![1]);
    let given: ChunkHeader = decode_header(&desk.ask(&any).header, "ChunkHeader").unwrap();
    assert_eq!(given.new_haves, Some(Delta::New { revision: 3, chunks: vec![8] }));
}

#[test]
fn have_tells_the_state_once() {
    let part = noise(9 * CHUNK, 3);
    let id = id_of(&part);
    let mut desk = Desk::open(Files::new(&[("w", noise(5, 1))]).with_part(part, &[1, 8]));
    let have = |revision| Request::Have(Since { file: id, revision });
    let delta: Delta = decode_body(&desk.ask(&have(0)).body, "Delta").unwrap();
    let Delta::Full { revision, bits } = delta else { panic!("{delta:?}") };
    assert_eq!(bits, [0x40, 0x80]);
    assert_eq!(desk.status(&have(revision)), Status::NotModified);
    assert_eq!(desk.status(&have(revision - 1)), Status::Ok);
    let whole = desk.ask(&Request::Have(Since { file: id_of(&noise(5, 1)), revision: 0 }));
    assert_eq!(decode_body::<Delta>(&whole.body, "Delta").unwrap(), Delta::Whole);
    assert_eq!(desk.status(&Request::Have(Since { file: FileId { len: 1, ..id }, revision: 0 })), Status::NotFound);
}

#[test]
fn only_served_chunks_can_be_reported_and_not_too_often() {
    let bytes = noise(2 * CHUNK, 1);
    let id = id_of(&bytes);
    let mut desk = Desk::open(Files::new(&[("a", bytes)]));
    let bad = |index| Request::Bad(ChunkRef { file: id, index });
    assert_eq!(desk.status(&bad(0)), Status::NotFound);
    desk.ask(&chunk(id, 0));
    assert_eq!((desk.status(&bad(1)), desk.status(&bad(2))), (Status::NotFound, Status::NotFound));
    let now = Instant::now();
    for _ in 0..BAD_REPORTS_PER_MIN {
        assert_eq!(desk.ask_at(&bad(0), now).status, Status::Ok);
    }
    assert_eq!(desk.ask_at(&bad(0), now).status, Status::Busy);
    // Connecting again changes nothing.
    desk.peer = remote_peer();
    desk.ask(&hello_of("gpb", 4));
    (0..1).for_each(|i| drop(desk.ask(&chunk(id, i))));
    assert_eq!(desk.ask_at(&bad(0), now).status, Status::Busy);
    assert_eq!(desk.files.audits.load(Ordering::Relaxed), BAD_REPORTS_PER_MIN as usize);
    assert_eq!(desk.ask_at(&bad(0), now + MINUTE).status, Status::Ok);
    // It is forgotten once enough others were served.
    (0..SERVED_REMEMBERED).for_each(|_| drop(desk.ask(&chunk(id, 1))));
    assert_eq!(desk.ask_at(&bad(0), now + MINUTE).status, Status::NotFound);
}

#[test]
fn peers_of_a_file_are_those_that_fetch_it() {
    let (bytes, small) = (noise(2 * CHUNK, 1), noise(5, 1));
    let (id, small_id) = (id_of(&bytes), id_of(&small));
    let mut desk = Desk::open(Files::new(&[("a", bytes), ("b", small)]));
    let peers = |desk: &mut Desk, file| -> usize {
        let hints: Vec<PeerHint> = decode_body(&desk.ask(&Request::Peers(file)).body, "Peers").unwrap();
        hints.len()
    };
    assert_eq!((peers(&mut desk, None), peers(&mut desk, Some(id))), (1, 0));
    desk.ask(&chunk(id, 0));
    desk.ask(&chunk(small_id, 0));
    assert_eq!(desk.handler.fetchers.lock().unwrap().some_of(&small_id, 9, 1), [], "one answer is all of it");
    assert_eq!(peers(&mut desk, Some(id)), 0, "it does not hear of itself");
    // Another node of the same user asks, while the first one is still there.
    let _first = std::mem::replace(&mut desk.peer, remote_peer());
    assert_eq!(desk.status(&hello_of("gpb", 4)), Status::Ok);
    assert_eq!((peers(&mut desk, Some(id)), peers(&mut desk, Some(small_id)), peers(&mut desk, None)), (1, 0, 2));
}

#[test]
fn unknown_kinds_are_answered_and_malformed_requests_are_not() {
    let mut desk = Desk::open(Files::default());
    let mut out = vec![];
    let next = desk
        .handler
        .answer(&mut desk.peer, &RequestFrame { kind: 77, header: &[1], body: &[] }, Instant::now(), &mut out)
        .unwrap();
    let prefix = FramePrefix::from_bytes(*out.first_chunk().unwrap());
    assert!(matches!(next, Reply::Done));
    assert_eq!((prefix.kind, prefix.status), (77, Status::Unsupported as u8));
    let bad = desk.handler.answer(
        &mut desk.peer,
        &RequestFrame { kind: Kind::Chunk as u8, header: &[1], body: &[] },
        Instant::now(),
        &mut out,
    );
    assert!(bad.is_err());
}
