//! Requests and answers of a session. Headers are postcard; fields are only ever appended, and
//! bytes behind the known ones are ignored.

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::content::FileId;
use crate::limits::{ANY_OF_CHUNKS_MAX, FRAME_HEADER_LEN_MAX, LOCATE_FILES_MAX, TEXT_LEN_MAX};
use crate::proto::frame::{FRAME_PREFIX_LEN, FramePrefix, Kind, Status};

/// A request with its body decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Opens the session; anything else before it is refused.
    Hello(Hello),
    /// The listing, in pages.
    List(ListFrom),
    /// Asks which of these files are held; the postcard body of the answer has one [`Holding`]
    /// each.
    Locate(Vec<FileId>),
    /// A range of a layer; the body of the answer is 32 bytes for each digest.
    Layer(LayerRange),
    /// One chunk; the header of the answer is [`ChunkHeader`], the body the bytes of the chunk and
    /// one trailer byte, [`GOOD`](Request::GOOD) or [`GONE`](Request::GONE).
    Chunk(ChunkAsk),
    /// One of these chunks, the one that the holder has sent least (super-seeding, BEP 16);
    /// answered as `Chunk`. The chunks are a postcard body.
    AnyOf(Since, Vec<u32>),
    /// Asks which chunks are held (BEP 3); the postcard body of the answer is a [`Delta`].
    Have(Since),
    /// Reports that this chunk, served on this connection, does not match its digest. The answer
    /// has no content.
    Bad(ChunkRef),
    /// Peer exchange (PEX, BEP 11): asks for peers; with a file, for its fetchers, as a tracker
    /// returns them. The postcard body of the answer is a list of [`PeerHint`].
    Peers(Option<FileId>),
    /// Offers to answer on this session. After `Ok` the roles are exchanged: the side that accepted
    /// the connection asks, beginning with `Hello`, and the dialer only answers.
    Turn,
    /// Asks what the node sees of the asker; the header of the answer is [`Reached`].
    Reach,
}

/// Header of `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`WIRE_VERSION`](crate::limits::WIRE_VERSION) of the asker.
    pub version: u16,
    /// Network that the asker belongs to.
    pub network: String,
    /// The asker's instance: random per start.
    pub instance: u64,
    /// The asker's sealed announce, which makes it known without multicast; empty if it does not
    /// announce itself.
    pub announce: Vec<u8>,
    /// Program and version, for logs.
    pub agent: String,
}

/// Header of the answer to `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`WIRE_VERSION`](crate::limits::WIRE_VERSION) of the answerer.
    pub version: u16,
    /// The answerer's instance.
    pub instance: u64,
    /// Revision of its catalogue.
    pub revision: u64,
    /// Files that it offers.
    pub files: u64,
    /// Bytes that it offers.
    pub bytes: u64,
    /// Its sealed announce; empty if it does not announce itself.
    pub announce: Vec<u8>,
    /// Program and version, for logs.
    pub agent: String,
}

/// Header of `List`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFrom {
    /// A [`Pattern`](crate::content::Pattern); empty means everything.
    pub pattern: String,
    /// The last path of the page before; empty for the first page.
    pub after: String,
    /// The revision that the asker has seen whole, answered by `NotModified` if it is still
    /// current; 0 for none.
    pub revision: u64,
}

/// Header of the answer to `List`; the body is a postcard list of
/// [`Listed`](crate::proto::Listed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageHead {
    /// The revision that the page was taken from.
    pub revision: u64,
    /// Whether another page follows.
    pub more: bool,
    /// Whether the catalogue of that revision has all that the shared directory has: it was scanned
    /// whole, and nothing in it is unmounted, unreadable or still to be hashed.
    pub complete: bool,
    /// Files whose names cannot be shared, so that no listing has them.
    pub unnamed: u64,
}

/// How much of a file is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// Nothing.
    None,
    /// All of it.
    Whole,
    /// This number of chunks, while it is being downloaded.
    Partial(u32),
}

/// Header of `Layer`: digests `first .. first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRange {
    /// The file.
    pub file: FileId,
    /// First chunk.
    pub first: u32,
    /// Number of digests, at most
    /// [`LAYER_DIGESTS_PER_ANSWER_MAX`](crate::limits::LAYER_DIGESTS_PER_ANSWER_MAX).
    pub count: u32,
}

/// One chunk of one file: header of `Bad`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    /// The file.
    pub file: FileId,
    /// Number of the chunk.
    pub index: u32,
}

/// Header of `Chunk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkAsk {
    /// The chunk.
    pub chunk: ChunkRef,
    /// The revision of the last [`Delta`] of that file; 0 for none, and then no new haves are
    /// wanted.
    pub since: u64,
}

/// Header of the answer to `Chunk` and `AnyOf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkHeader {
    /// Which chunk the body is.
    pub chunk: ChunkRef,
    /// The new haves since the revision that the request named: no `Have` is needed while chunks
    /// flow.
    pub new_haves: Option<Delta>,
}

/// Header of `Have` and `AnyOf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// The file.
    pub file: FileId,
    /// The revision of the last [`Delta`]; 0 for none (in `AnyOf`: no new haves are wanted).
    pub revision: u64,
}

/// Body of the answer to `Have`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delta {
    /// All chunks.
    Whole,
    /// All held chunks, as the bytes of a [`Bitfield`](crate::content::Bitfield).
    Full {
        /// Names this state in the next request.
        revision: u64,
        /// One bit a chunk.
        bits: Vec<u8>,
    },
    /// The chunks that came since the revision of the request.
    New {
        /// Names this state in the next request.
        revision: u64,
        /// Numbers of the new chunks.
        chunks: Vec<u32>,
    },
}

/// A peer that another one knows. The addresses are hints until TLS proves the key there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHint {
    /// Its sealed announce.
    pub announce: Vec<u8>,
    /// Where it was reached.
    pub addrs: Vec<SocketAddr>,
}

/// Header of the answer to `Reach`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The source address of the session.
    pub seen: SocketAddr,
    /// Whether the node could dial that address with the announced port.
    pub dialed: DialState,
}

/// How the dial of an asker went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DialState {
    /// It was not dialed: it announced no port, or this is not its turn.
    NotTried,
    /// It is being dialed; ask again.
    Trying,
    /// It answered, with its key.
    Reached,
    /// It did not answer, or another key or instance did.
    Failed,
}

/// Header of every answer whose status is not `Ok`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// With `Busy`: when to ask again, in ms.
    pub retry_after_ms: u32,
    /// For people; only the reasons below choose between advices.
    pub reason: String,
}

impl Problem {
    /// The reason of a server that does not trust the key.
    pub const UNTRUSTED: &str = "key is not trusted";
    /// The reason of a server whose network has another name.
    pub const OTHER_NETWORK: &str = "another network";
    /// The reason of a server that does not speak this version of the protocol.
    pub const UNKNOWN_VERSION: &str = "unknown version";
}

/// A message that does not hold what its kind asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not the postcard form of the type.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A list or text over its bound.
    #[error("{0} over its bound")]
    TooLarge(&'static str),
    /// A kind of request that this version does not know.
    #[error("unknown kind {0}")]
    Unknown(u8),
}

impl Request {
    /// Trailer of a chunk body: the file is in the state that was hashed.
    pub const GOOD: u8 = 0;
    /// Trailer of a chunk body: the file changed while it was read; the bytes are worthless.
    pub const GONE: u8 = 1;

    /// The kind on the wire.
    pub fn kind(&self) -> Kind {
        match self {
            Request::Hello(_) => Kind::Hello,
            Request::List(_) => Kind::List,
            Request::Locate(_) => Kind::Locate,
            Request::Layer(_) => Kind::Layer,
            Request::Chunk(_) => Kind::Chunk,
            Request::AnyOf(..) => Kind::AnyOf,
            Request::Have(_) => Kind::Have,
            Request::Bad(_) => Kind::Bad,
            Request::Peers(_) => Kind::Peers,
            Request::Turn => Kind::Turn,
            Request::Reach => Kind::Reach,
        }
    }

    /// Reads a request. Bounds of lists and texts are checked here; whether the values make sense
    /// is for the handler.
    ///
    /// # Errors
    /// [`MessageError::Unknown`] is answered `Unsupported`; the others close the connection.
    pub fn decode(kind: u8, header: &[u8], body: &[u8]) -> Result<Self, MessageError> {
        Ok(match Kind::from_u8(kind).ok_or(MessageError::Unknown(kind))? {
            Kind::Hello => {
                let hello: Hello = decode_header(header, "Hello")?;
                if hello.network.len() > TEXT_LEN_MAX || hello.agent.len() > TEXT_LEN_MAX {
                    return Err(MessageError::TooLarge("Hello"));
                }
                Request::Hello(hello)
            }
            Kind::List => Request::List(decode_header(header, "List")?),
            Kind::Locate => {
                let files: Vec<FileId> = decode_body(body, "Locate")?;
                if files.len() > LOCATE_FILES_MAX {
                    return Err(MessageError::TooLarge("Locate"));
                }
                Request::Locate(files)
            }
            Kind::Layer => Request::Layer(decode_header(header, "Layer")?),
            Kind::Chunk => Request::Chunk(decode_header(header, "Chunk")?),
            Kind::AnyOf => {
                let chunks: Vec<u32> = decode_body(body, "AnyOf")?;
                if chunks.len() > ANY_OF_CHUNKS_MAX {
                    return Err(MessageError::TooLarge("AnyOf"));
                }
                Request::AnyOf(decode_header(header, "AnyOf")?, chunks)
            }
            Kind::Have => Request::Have(decode_header(header, "Have")?),
            Kind::Bad => Request::Bad(decode_header(header, "Bad")?),
            Kind::Peers => Request::Peers(decode_header(header, "Peers")?),
            Kind::Turn => Request::Turn,
            Kind::Reach => Request::Reach,
        })
    }
}

/// Appends the whole frame of `request` to `out`.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    let kind = request.kind();
    match request {
        Request::Hello(h) => encode_frame(kind, Status::Ok, h, &[], out),
        Request::List(h) => encode_frame(kind, Status::Ok, h, &[], out),
        Request::Locate(files) => encode_frame(kind, Status::Ok, &(), &encode_body(files), out),
        Request::Layer(h) => encode_frame(kind, Status::Ok, h, &[], out),
        Request::Chunk(h) => encode_frame(kind, Status::Ok, h, &[], out),
        Request::Bad(h) => encode_frame(kind, Status::Ok, h, &[], out),
        Request::AnyOf(h, chunks) => encode_frame(kind, Status::Ok, h, &encode_body(chunks), out),
        Request::Have(h) => encode_frame(kind, Status::Ok, h, &[], out),
        Request::Peers(h) => encode_frame(kind, Status::Ok, h, &[], out),
        Request::Turn => encode_frame(kind, Status::Ok, &(), &[], out),
        Request::Reach => encode_frame(kind, Status::Ok, &(), &[], out),
    }
}

/// Appends a frame with a postcard `header` and a `body` to `out`.
pub fn encode_frame<H: Serialize>(kind: Kind, status: Status, header: &H, body: &[u8], out: &mut Vec<u8>) {
    encode_head(kind, status, header, body.len() as u32, out);
    out.extend_from_slice(body);
}

/// Appends the prefix and the postcard header of a frame whose body of `body_len` bytes the caller
/// sends itself.
pub fn encode_head<H: Serialize>(kind: Kind, status: Status, header: &H, body_len: u32, out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + FRAME_PREFIX_LEN, 0);
    // Serializing plain data into a Vec cannot fail.
    let bytes = postcard::to_stdvec(header).unwrap_or_default();
    debug_assert!(bytes.len() <= FRAME_HEADER_LEN_MAX);
    out.extend_from_slice(&bytes);
    let prefix = FramePrefix { kind: kind as u8, status: status as u8, header_len: bytes.len() as u16, body_len };
    out[at..at + FRAME_PREFIX_LEN].copy_from_slice(&prefix.to_bytes());
}

/// Reads a postcard header; trailing bytes belong to a later version and are ignored.
///
/// # Errors
/// [`MessageError::Malformed`] with `what`.
pub fn decode_header<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, MessageError> {
    postcard::take_from_bytes(bytes).map(|(value, _)| value).map_err(|_| MessageError::Malformed(what))
}

/// The postcard form of a body.
pub fn encode_body<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Reads a postcard body; trailing bytes are ignored.
///
/// # Errors
/// [`MessageError::Malformed`] with `what`.
pub fn decode_body<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, MessageError> {
    decode_header(bytes, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};
    use crate::limits::{REQUEST_BODY_LEN_MAX, WIRE_VERSION};

    fn file(byte: u8) -> FileId {
        FileId { root: Root(Digest([byte; 32])), len: u64::MAX }
    }

    fn all() -> Vec<Request> {
        let chunk = ChunkRef { file: file(1), index: u32::MAX };
        vec![
            Request::Hello(Hello {
                version: WIRE_VERSION,
                network: "gpb".into(),
                instance: u64::MAX,
                announce: vec![1; 512],
                agent: "gpb/0".into(),
            }),
            Request::List(ListFrom { pattern: "*".into(), after: "a/b".into(), revision: 9 }),
            Request::Locate(vec![file(2); LOCATE_FILES_MAX]),
            Request::Layer(LayerRange { file: file(3), first: 1, count: 2 }),
            Request::Chunk(ChunkAsk { chunk, since: u64::MAX }),
            Request::AnyOf(Since { file: file(4), revision: 8 }, vec![u32::MAX; ANY_OF_CHUNKS_MAX]),
            Request::Have(Since { file: file(5), revision: 7 }),
            Request::Bad(chunk),
            Request::Peers(Some(file(6))),
            Request::Peers(None),
            Request::Turn,
            Request::Reach,
        ]
    }

    fn parts(frame: &[u8]) -> (FramePrefix, &[u8], &[u8]) {
        let prefix = FramePrefix::from_bytes(frame[..8].try_into().unwrap());
        let (header, body) = frame[8..].split_at(prefix.header_len as usize);
        assert_eq!(body.len(), prefix.body_len as usize);
        (prefix, header, body)
    }

    #[test]
    fn every_request_survives_the_wire_within_its_bounds() {
        for request in all() {
            let mut frame = Vec::new();
            encode_request(&request, &mut frame);
            let (prefix, header, body) = parts(&frame);
            prefix.check_request().unwrap();
            assert!(body.len() <= REQUEST_BODY_LEN_MAX);
            assert_eq!(Request::decode(prefix.kind, header, body).unwrap(), request);
        }
    }

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        for request in all() {
            let mut frame = Vec::new();
            encode_request(&request, &mut frame);
            let (prefix, header, body) = parts(&frame);
            let longer = [header, b"later"].concat();
            assert_eq!(Request::decode(prefix.kind, &longer, body).unwrap(), request);
        }
    }

    #[test]
    fn truncated_requests_are_errors() {
        for request in all() {
            let mut frame = Vec::new();
            encode_request(&request, &mut frame);
            let (prefix, header, _) = parts(&frame);
            for n in 0..header.len() {
                assert!(Request::decode(prefix.kind, &header[..n], &[]).is_err(), "{request:?} cut to {n}");
            }
        }
        assert_eq!(Request::decode(77, &[], &[]), Err(MessageError::Unknown(77)));
    }
}
