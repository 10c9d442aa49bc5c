//! What a peer can do wrong.

use std::time::Duration;

/// What a [`FaultyPeer`](crate::testing::FaultyPeer) does wrong. One peer may have several faults.
///
/// ```
/// use gpb::FetchError;
/// use gpb::testing::{Fault, FaultyPeer, Lan, TestFile};
///
/// let lan = Lan::new()?;
/// let file = TestFile::random("a.bin", 100_000, 1)?;
/// let liar = FaultyPeer::start(&[file], &[Fault::WrongChunks])?;
/// lan.join(&liar);
/// let error = lan.node()?.fetch(&["a.bin"])?.wait().unwrap_err();
/// assert!(matches!(error, FetchError::OnlyLiars { .. }));
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
}
