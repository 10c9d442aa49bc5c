//! How a program ends a call that blocks, or a fetch, without ending the node.

use std::sync::Arc;
use std::time::Duration;

use crate::identity::{NodeId, PeerId};
use crate::limits::WAIT_MAX;
use crate::runtime::Shutdown;

/// Ends a [`Fetch`](crate::Fetch), or a call that looks for peers and files, from another thread.
/// The node keeps running.
///
/// Clones end the same. [`Fetch::canceller`](crate::Fetch::canceller) returns the one of a fetch;
/// [`new`](Self::new) makes one for calls that take a [`Wait`].
///
/// ```
/// use std::time::Duration;
/// use gpb::{Canceller, Everything, FetchError};
///
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.node()?;
/// let canceller = Canceller::new();
/// let button = canceller.clone();
/// std::thread::spawn(move || button.cancel());
/// let files = node.list_within(Everything, canceller.within(Duration::from_secs(60)));
/// assert!(matches!(files, Err(FetchError::Cancelled)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Canceller(Shutdown);

impl Canceller {
    /// One that ends nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends all that it was given to: a call returns [`FetchError::Cancelled`] within
    /// milliseconds. Later calls change nothing, and what it is given to afterwards ends at once.
    /// Does not block.
    ///
    /// [`FetchError::Cancelled`]: crate::FetchError::Cancelled
    pub fn cancel(&self) {
        self.0.begin();
    }

    /// Whether it was used.
    pub fn is_cancelled(&self) -> bool {
        self.0.has_begun()
    }

    /// A wait of at most `time`, which this ends.
    pub fn within(&self, time: Duration) -> Wait {
        Wait { canceller: self.clone(), ..Wait::from(time) }
    }

    /// The signal behind it.
    pub(crate) fn signal(&self) -> &Shutdown {
        &self.0
    }
}

/// How long a call blocks at most: a [`Duration`], or what [`Canceller::within`] returns.
///
/// ```
/// use std::time::Duration;
///
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.node()?;
/// assert!(node.peers(Duration::from_millis(100))?.is_empty());
/// assert!(node.peers(gpb::Canceller::new().within(Duration::from_millis(100)))?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Wait {
    pub(crate) time: Duration,
    pub(crate) canceller: Canceller,
}

impl From<Duration> for Wait {
    fn from(time: Duration) -> Self {
        Wait { time: time.min(WAIT_MAX), canceller: Canceller::new() }
    }
}

/// Which peers a survey asks, and what ends it early. By default it asks all.
#[derive(Debug, Clone, Default)]
pub struct AskScope {
    /// The only nodes that are asked.
    pub nodes: Option<Arc<[NodeId]>>,
    /// Ends the survey.
    pub canceller: Canceller,
}

impl AskScope {
    /// Whether `node` is asked.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(&node))
    }

    /// Whether a node with this key is asked.
    pub(crate) fn has_key(&self, key: &PeerId) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.iter().any(|node| node.peer == *key))
    }
}
