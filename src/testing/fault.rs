//! What a peer can do wrong.

use std::time::Duration;

/// What a [`FaultyPeer`](crate::testing::FaultyPeer) does wrong. One peer may have several faults.
///
/// Faults of chance take a share in percent, and the seed of their dice: the same seed hits the
/// same requests, counted over all connections of the peer.
///
/// ```
/// use gpb::FetchError;
/// use gpb::testing::{Fault, FaultyPeer, Lan, TestFile};
///
/// let lan = Lan::new()?;
/// let file = TestFile::random("a.bin", 100_000, 1)?;
/// let liar = FaultyPeer::start(&[file], &[Fault::WrongChunks])?;
/// lan.join(&liar);
/// let failed = lan.node()?.fetch("a.bin")?.wait().unwrap_err();
/// assert!(matches!(*failed.error, FetchError::OnlyLiars { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Every chunk has a wrong byte, and the trailer that says it is good.
    WrongChunks,
    /// Every layer of chunk digests has a wrong byte.
    WrongLayers,
    /// Every chunk is a byte too short.
    ShortChunks,
    /// Every chunk is a byte too long.
    LongChunks,
    /// Every chunk has the trailer that says that it changed while it was read.
    ChangingChunks,
    /// Answers all but requests for layers and chunks.
    Stall,
    /// Sends a byte a second of each layer.
    DripLayers,
    /// Sends a byte a second of each chunk.
    DripChunks,
    /// Answers `Hello`, and no request.
    Mute,
    /// Accepts connections, and never says a word, not even of TLS.
    Deaf,
    /// Answers `Hello` only when another request has come.
    LateWelcome,
    /// Refuses each node.
    Refuse,
    /// Cuts all connections at the request for a chunk after this number of them, and cannot be
    /// reached again.
    CutAfter(u64),
    /// Waits for this time before each chunk.
    Delay(Duration),
    /// Holds only every second chunk.
    HalfHeld,
    /// Defers layers and chunks: the answer comes after this number of `Busy` or `NotModified`.
    /// Meanwhile it names other peers, see
    /// [`FaultyPeer::name_peer`](crate::testing::FaultyPeer::name_peer).
    Busy(u64),
    /// This share of the chunks has a wrong byte, and the trailer that says it is good.
    WrongSome {
        /// Share of the chunks.
        percent: u8,
        /// Seed of the dice.
        seed: u64,
    },
    /// Cuts the connection in the middle of this share of the chunks. The next one is accepted.
    CutSome {
        /// Share of the chunks.
        percent: u8,
        /// Seed of the dice.
        seed: u64,
    },
    /// Leaves this share of the requests for chunks unanswered, and all that follow on that
    /// connection.
    StallSome {
        /// Share of the chunks.
        percent: u8,
        /// Seed of the dice.
        seed: u64,
    },
    /// Answers with the right bytes of another chunk, if the file has several.
    OtherChunks,
    /// Every layer lacks its last digest.
    ShortLayers,
    /// Lists every file as a byte longer than it is, and holds it under that identity.
    WrongLengths,
    /// Says that it holds every file, and answers `NotFound` to each request for its bytes.
    Empty,
    /// The first `sessions` connections end after this number of bytes that the peer sent, TLS
    /// included.
    EndAfter {
        /// Bytes until the end.
        bytes: u64,
        /// Connections that end so; later ones are whole.
        sessions: u64,
    },
    /// Sends only half of each layer and chunk, and then the next answer as if nothing were missing.
    HalfFrames,
    /// Sends each answer but `Welcome` twice.
    Twice,
    /// Sends random bytes in place of each answer but `Welcome`.
    Garbage(u64),
    /// Sends a byte a second of each page of a listing.
    DripLists,
    /// Sends a byte a second of each answer but `Welcome`, from the first byte of its head on.
    DripAll,
    /// Sends the bytes of chunks in steps of this length, one every 10 ms.
    SlowChunks(u32),
    /// Lists one name a page, each after this time.
    SlowLists(Duration),
    /// Lists so many made-up names besides its files, whatever it is asked for.
    Names {
        /// The directory of the names.
        below: &'static str,
        /// Number of names; `u64::MAX` for a list without end.
        count: u64,
        /// Length of each name in bytes, at least that of the directory and 21 more.
        len: u16,
    },
    /// Lists each file also under names that lead out of a directory, that no file can have, or
    /// that would change what a terminal shows.
    HostileNames,
    /// Has no place: answers `Hello` with `Busy` that number of times, then welcomes once, and so
    /// on.
    Full(u64),
    /// Sends a body of that many zero bytes where there is none: behind `Welcome`, and behind every
    /// status but `Ok`. What it [holds half of](Fault::HalfHeld) it tells with so many bytes, too.
    FatAnswers(u32),
    /// Announces itself that number of times when it [joins](crate::testing::Lan::join) a LAN, each
    /// time as another instance with another revision.
    Announces(u64),
    /// Names 16 peers that do not exist whenever it is asked for peers, each time others.
    MadeUpPeers,
}
