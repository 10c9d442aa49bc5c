//! What to ask next, and of whom. Pure: time is an argument; tier 3.

mod addresses;
mod admit;
mod arrivals;
mod demand;
mod departed;
mod event;
mod fair_queue;
mod growth;
mod mesh;
mod pace;
mod peer_table;
mod picker;
mod reputation;
mod schedule;
mod uploads;

pub use addresses::crosses;
pub use admit::{Dropped, open_announce, parse_announce};
pub use arrivals::Arrivals;
pub use demand::{Fetchers, Sent};
pub use event::Event;
pub use fair_queue::{FairQueue, Place};
pub use growth::{Advice, Growth};
pub use mesh::{Dial, Ending, Mesh};
pub use pace::{Outgoing, Pace, Way};
pub use peer_table::{Heard, PeerRecord, PeerTable, Via};
pub use picker::{Asked, ChunkPicker, ChunkState, Completed, PeerHandle};
pub use reputation::{Meter, Reputation, Window};
pub use schedule::{Chunks, FileNo, Held, Schedule, Work};
pub use uploads::{Upload, Uploads};

/// A node: one key may have several at once.
pub type PeerKey = (crate::identity::PeerId, u64);
