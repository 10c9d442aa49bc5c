//! What to ask next, and of whom. Pure: time is an argument; floor 3.

mod event;
mod pace;
mod peer_table;
mod picker;
mod reputation;

pub use event::Event;
pub use peer_table::{PeerRecord, PeerTable, Via};
pub use picker::{Asked, ChunkPicker, ChunkState, Completed, PeerHandle};
pub use reputation::{Meter, Reputation, Window};
