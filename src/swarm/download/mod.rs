//! What a download asks of which peer, and over how many connections.

mod growth;
pub mod limits;
mod mesh;
mod picker;
mod reputation;
mod schedule;

pub use growth::{Advice, Growth};
pub use mesh::{Dial, Ending, Mesh};
pub use picker::{Asked, ChunkPicker, ChunkState, Completed, PeerHandle};
pub use reputation::{Meter, Reputation, Window};
pub use schedule::{Chunks, FileNo, Held, Schedule, Work};
