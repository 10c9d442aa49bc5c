//! Targets: bytes on the wire to values and back.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use gpb::internals::content::{Attributes, LinkTo, RelPath};
use gpb::internals::identity::{Keypair, NodeId};
use gpb::internals::limits::{
    ANNOUNCE_LEN_MAX, ANY_OF_CHUNKS_MAX, DHT_ADDRS_MAX, DHT_VALUE_LEN_MAX, FRAME_HEADER_LEN_MAX, LOCATE_FILES_MAX,
    NETWORK_LEN_MAX, REQUEST_BODY_LEN_MAX, RESPONSE_BODY_LEN_MAX, TEXT_LEN_MAX,
};
use gpb::internals::proto::{
    Announce, ChunkAsk, ChunkHeader, ChunkRef, Delta, DhtItem, DhtNames, FRAME_PREFIX_LEN, Flags, FramePrefix, Hello,
    Holding, Kind, LayerRange, ListFrom, ListPage, Listed, ListedAs, ListedFile, PageHead, PeerHint, Problem, Request,
    SignedAnnounce, Since, Status, Welcome, decode_body, decode_dht_value, decode_header, encode_body,
    encode_dht_value, encode_request,
};
use gpb::internals::swarm::{DhtReach, open_announce, open_dht_item, parse_announce};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::input::Input;

/// A stream of frames, read as either side reads it.
pub fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((prefix, after)) = rest.split_first_chunk::<FRAME_PREFIX_LEN>() {
        let frame = FramePrefix::from_bytes(*prefix);
        assert_eq!(frame.to_bytes(), *prefix);
        let (header_len, body_len) = (frame.header_len as usize, frame.body_len as usize);
        let short = header_len <= FRAME_HEADER_LEN_MAX;
        assert_eq!(frame.check_request().is_ok(), short && body_len <= REQUEST_BODY_LEN_MAX);
        for max in [0, 1, REQUEST_BODY_LEN_MAX, RESPONSE_BODY_LEN_MAX] {
            let status = frame.check_response(max);
            // An answer other than `Ok` has no body.
            let body_max = if frame.status == Status::Ok as u8 { max } else { 0 };
            let known = Status::from_u8(frame.status).is_some();
            assert_eq!(status.is_ok(), short && body_len <= body_max && known, "{frame:?} {max}");
            assert!(status.is_err() || status.is_ok_and(|s| s as u8 == frame.status));
        }
        let Some((header, after)) = after.split_at_checked(header_len) else { return };
        let Some((body, after)) = after.split_at_checked(body_len) else { return };
        if frame.check_request().is_ok() {
            decoded_request(frame.kind, header, body);
        }
        rest = after;
    }
}

/// One request: its parts as they come, or a request that is built and then altered.
pub fn requests(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.flag() {
        let request = request(&mut input);
        let mut frame = Vec::new();
        encode_request(&request, &mut frame);
        let (prefix, header, body) = parts(&frame);
        assert!(prefix.check_request().is_ok(), "{request:?}");
        assert_eq!(Request::decode(prefix.kind, header, body).as_ref(), Ok(&request));
        // Fields of a later version are ignored, those of this one are needed.
        let longer = [header, input.rest()].concat();
        assert_eq!(Request::decode(prefix.kind, &longer, body).as_ref(), Ok(&request));
        if let Some(shorter) = header.len().checked_sub(1).filter(|_| !matches!(request, Request::Locate(_))) {
            assert!(Request::decode(prefix.kind, &header[..shorter], body).is_err(), "{request:?}");
        }
    } else {
        let (kind, header) = (input.byte(), input.slice(FRAME_HEADER_LEN_MAX));
        let body = input.rest();
        decoded_request(kind, header, &body[..body.len().min(REQUEST_BODY_LEN_MAX)]);
    }
}

fn decoded_request(kind: u8, header: &[u8], body: &[u8]) {
    let Ok(request) = Request::decode(kind, header, body) else { return };
    assert_eq!(request.kind() as u8, kind);
    match &request {
        Request::Locate(files) => assert!(files.len() <= LOCATE_FILES_MAX),
        Request::AnyOf(_, chunks) => assert!(chunks.len() <= ANY_OF_CHUNKS_MAX),
        Request::Hello(hello) => assert!(hello.network.len() <= TEXT_LEN_MAX && hello.agent.len() <= TEXT_LEN_MAX),
        _ => (),
    }
    let mut frame = Vec::new();
    encode_request(&request, &mut frame);
    let (prefix, header, body) = parts(&frame);
    assert!(prefix.check_request().is_ok(), "{request:?}");
    assert_eq!(Request::decode(prefix.kind, header, body), Ok(request));
}

fn parts(frame: &[u8]) -> (FramePrefix, &[u8], &[u8]) {
    let (prefix, rest) = frame.split_first_chunk().unwrap();
    let prefix = FramePrefix::from_bytes(*prefix);
    let (header, body) = rest.split_at(prefix.header_len as usize);
    assert_eq!(body.len(), prefix.body_len as usize);
    (prefix, header, body)
}

/// Any request within its bounds.
pub fn request(input: &mut Input<'_>) -> Request {
    match input.byte() % 10 {
        0 => Request::Hello(Hello {
            version: input.number() as u16,
            network: if input.flag() { "gpb".into() } else { input.text(TEXT_LEN_MAX) },
            instance: input.number(),
            announce: input.slice(ANNOUNCE_LEN_MAX).to_vec(),
            agent: input.text(TEXT_LEN_MAX),
        }),
        1 => Request::List(ListFrom { pattern: input.text(1024), after: input.text(1024), revision: input.number() }),
        2 => Request::Locate((0..input.below(LOCATE_FILES_MAX + 1)).map(|_| input.file_id()).collect()),
        3 => Request::Layer(LayerRange {
            file: input.file_id(),
            first: input.number() as u32,
            count: input.number() as u32,
        }),
        4 => Request::Chunk(ChunkAsk { chunk: chunk(input), since: input.number() }),
        5 => {
            let since = Since { file: input.file_id(), revision: input.number() };
            Request::AnyOf(since, (0..input.below(ANY_OF_CHUNKS_MAX + 1)).map(|_| input.number() as u32).collect())
        }
        6 => Request::Have(Since { file: input.file_id(), revision: input.number() }),
        7 => Request::Bad(chunk(input)),
        8 => Request::Peers(Some(input.file_id())),
        9 if input.flag() => Request::Turn,
        9 if input.flag() => Request::Reach,
        _ => Request::Peers(None),
    }
}

fn chunk(input: &mut Input<'_>) -> ChunkRef {
    ChunkRef { file: input.file_id(), index: input.number() as u32 }
}

/// One answer of each kind, out of the same bytes.
pub fn answers(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 8 {
        0 => header::<Welcome>(bytes),
        1 => header::<PageHead>(bytes),
        2 => header::<ChunkHeader>(bytes),
        3 => header::<Problem>(bytes),
        4 => header::<LayerRange>(bytes),
        5 => body::<Vec<Holding>>(bytes, |holdings, len| assert!(holdings.len() <= len)),
        6 => body::<Delta>(bytes, |delta, len| match delta {
            Delta::Whole => (),
            Delta::Full { bits, .. } => assert!(bits.len() <= len),
            Delta::New { chunks, .. } => assert!(chunks.len() <= len),
        }),
        // No list is longer than the bytes that it came in.
        _ => body::<Vec<PeerHint>>(bytes, |hints, len| {
            assert!(hints.iter().map(|h| 2 + h.announce.len() + h.addrs.len() * 6).sum::<usize>() <= len);
        }),
    }
}

fn header<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(FRAME_HEADER_LEN_MAX)];
    let Ok(value) = decode_header::<T>(bytes, "header") else { return };
    let encoded = encode_body(&value);
    assert!(encoded.len() <= bytes.len(), "{value:?}");
    assert_eq!(decode_header::<T>(&encoded, "header").as_ref(), Ok(&value));
}

fn body<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8], check: impl Fn(&T, usize)) {
    let Ok(value) = decode_body::<T>(bytes, "body") else { return };
    check(&value, bytes.len());
    let encoded = encode_body(&value);
    assert!(encoded.len() <= bytes.len(), "{value:?}");
    assert_eq!(decode_body::<T>(&encoded, "body").as_ref(), Ok(&value));
}

/// A page of a listing: one that comes, and one that is made.
pub fn pages(bytes: &[u8]) {
    let strict = decode_body::<Vec<Listed>>(bytes, "List");
    let lenient = ListPage::read(bytes).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    if let Ok(entries) = &lenient {
        assert!(entries.len() * 3 <= bytes.len());
        let valid = entries.iter().all(|(path, _)| RelPath::new(path).is_ok());
        assert_eq!(strict.is_ok(), valid);
    }
    if let Ok(listed) = strict {
        assert!(listed.iter().map(|l| (l.path.as_str(), l.what.as_borrowed())).eq(lenient.unwrap()));
        let mut page = ListPage::default();
        listed.iter().for_each(|l| page.push(l.path.as_str(), &l.what.as_borrowed()));
        let made = page.finish();
        assert!(made.len() <= bytes.len());
        assert_eq!(decode_body::<Vec<Listed>>(&made, "List"), Ok(listed));
    }
    let (mut input, mut page, mut all) = (Input::new(bytes), ListPage::default(), Vec::new());
    while !input.is_empty() && all.len() < 300 {
        let (path, what) = (input.text(300), listed_as(&mut input));
        page.push(&path, &what.as_borrowed());
        all.push((path, what));
    }
    let made = page.finish();
    let read = ListPage::read(&made).unwrap().map(Result::unwrap);
    assert!(read.eq(all.iter().map(|(path, what)| (path.as_str(), what.as_borrowed()))));
}

fn listed_as(input: &mut Input<'_>) -> ListedAs<String> {
    let kind = input.below(5);
    let mtime_ns = input.number() as i64;
    let mut link = || LinkTo { target: input.text(300), mtime_ns };
    match kind {
        0 => ListedAs::EmptyDir { mtime_ns, is_copy: input.flag() },
        1 => {
            let to = link();
            ListedAs::Link { to, is_copy: input.flag() }
        }
        _ => {
            let link = (kind == 2).then(link);
            let attributes = Attributes { mtime_ns, executable: input.flag(), link_group: input.number() };
            let (is_copy, is_temporary) = (input.flag(), input.flag());
            ListedAs::File(ListedFile { id: input.file_id(), attributes, is_copy, is_temporary, link })
        }
    }
}

/// A datagram, and an announce that is sealed and then altered.
pub fn announces(bytes: &[u8]) {
    if let Ok((signed, announce)) = parse_announce(bytes, "gpb") {
        assert!(bytes.len() <= ANNOUNCE_LEN_MAX && signed.as_bytes() == bytes && announce.network == "gpb");
        assert_eq!(SignedAnnounce::open(bytes).is_ok(), signed.verify().is_ok());
        let node = NodeId::new(announce.peer, announce.instance);
        assert_eq!(open_announce(bytes, "gpb", node).is_ok(), signed.verify().is_ok());
    }
    dht_item(bytes);
    let (mut input, key) = (Input::new(bytes), LazyLock::force(&KEY));
    let announce = announce(&mut input, key);
    let sealed = SignedAnnounce::seal(&announce, key);
    assert!(sealed.as_bytes().len() <= ANNOUNCE_LEN_MAX / 2);
    assert_eq!(SignedAnnounce::open(sealed.as_bytes()), Ok((sealed.clone(), announce)));
    // No bit of it can change, and none can be added or left out.
    let mut altered = sealed.as_bytes().to_vec();
    let bit = input.below(altered.len() * 8);
    altered[bit / 8] ^= 1 << (bit % 8);
    assert!(SignedAnnounce::open(&altered).is_err(), "bit {bit}");
    let cut = input.below(sealed.as_bytes().len());
    assert!(SignedAnnounce::open(&sealed.as_bytes()[..cut]).is_err(), "cut at {cut}");
    let rest = input.rest();
    let longer = [sealed.as_bytes(), rest].concat();
    assert_eq!(SignedAnnounce::open(&longer).is_ok(), rest.is_empty());
}

/// The value of an item of a DHT, and one that is signed: only the key says where it answers, and nothing is dialed that
/// strangers must not choose.
fn dht_item(bytes: &[u8]) {
    if let Ok(hint) = decode_dht_value(bytes) {
        assert!(bytes.len() <= DHT_VALUE_LEN_MAX && hint.addrs.len() <= DHT_ADDRS_MAX);
    }
    let (mut input, key, names) = (Input::new(bytes), LazyLock::force(&KEY), DhtNames::new("gpb", None));
    let unix_ms = 1_800_000_000_000;
    let fresh = Announce { network: "gpb".into(), seq: unix_ms, ..announce(&mut input, key) };
    let addrs: Vec<SocketAddr> = (0..input.below(6))
        .map(|_| match input.flag() {
            true => (std::array::from_fn::<u8, 4, _>(|_| input.byte()), input.number() as u16).into(),
            false => (std::array::from_fn::<u8, 16, _>(|_| input.byte()), input.number() as u16).into(),
        })
        .collect();
    let value = encode_dht_value(&SignedAnnounce::seal(&fresh, key), &addrs);
    let seq = input.number() as i64;
    let mut item = DhtItem { seq, signature: key.sign(&names.signed_part(seq, &value)), value };
    for reach in [DhtReach::Host, DhtReach::Site, DhtReach::Internet] {
        let open = |item: &DhtItem| open_dht_item(item, (key.peer_id(), "gpb", &names), reach, i64::MIN, unix_ms);
        let found = open(&item).unwrap_or_default();
        assert!(found.len() <= DHT_ADDRS_MAX && found.iter().all(|addr| addr.port() >= 1024 && reach.allows(*addr)));
        let is_private = |addr: &SocketAddr| matches!(addr.ip(), IpAddr::V4(ip) if ip.is_private() || ip.is_loopback());
        assert!(reach != DhtReach::Internet || !found.iter().any(is_private), "{found:?}");
        let bit = input.below(item.value.len() * 8);
        item.value[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&item).is_err(), "bit {bit}");
        item.value[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Any announce of `key` in a network with a proper name.
pub fn announce(input: &mut Input<'_>, key: &Keypair) -> Announce {
    let name = input.text(NETWORK_LEN_MAX);
    Announce {
        version: Announce::VERSION,
        network: if Announce::is_network_name(&name) { name } else { "gpb".into() },
        peer: key.peer_id(),
        instance: input.number(),
        seq: input.number(),
        ttl_s: input.number() as u16,
        port: input.number() as u16,
        revision: input.number(),
        flags: Flags(input.number() as u16),
    }
}

/// Another one in each process; no input depends on it.
static KEY: LazyLock<Keypair> = LazyLock::new(Keypair::generate);

/// All kinds of request.
pub const KINDS: [Kind; 11] = [
    Kind::Hello,
    Kind::List,
    Kind::Locate,
    Kind::Layer,
    Kind::Chunk,
    Kind::AnyOf,
    Kind::Have,
    Kind::Bad,
    Kind::Peers,
    Kind::Turn,
    Kind::Reach,
];
