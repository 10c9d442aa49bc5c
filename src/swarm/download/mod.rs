//! What a download asks of which peer, and over how many connections.

mod growth;
pub mod limits;
mod mesh;
mod picker;
mod reputation;
mod requester;
mod schedule;
mod task;

pub use growth::{Advice, Growth};
pub use mesh::{Dial, Ending, Mesh};
pub use picker::{Asked, ChunkPicker, ChunkState, Completed, PeerHandle};
pub use reputation::{Meter, Reputation, Window};
pub use requester::{Answer, AnswerError, Arrival, Head, Requester, SmallArrival, Step, Turn};
pub use schedule::{ChunkCame, Chunks, DownloadState, Held};
pub use task::{AnyOfTask, ChunkTask, FileNo, LayerTask, SmallTask, Task};
