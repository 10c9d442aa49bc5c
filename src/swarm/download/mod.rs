//! What a download asks of which peer, and over how many connections.
//!
//! [`DownloadState`] knows the files and their holders and hands out [`Task`]s; [`ChunkPicker`]
//! chooses chunks. A [`Requester`] is the conversation of one connection. [`Mesh`] decides which
//! peers are connected, [`ConnectionScaler`] over how many connections, and [`Window`] how much
//! each connection asks for at once.

pub mod limits;
mod mesh;
mod meter;
mod number_map;
mod pace;
mod picker;
mod read_ahead;
mod reputation;
mod requester;
mod round_trip;
mod scaler;
mod state;
mod task;
mod window;

pub use mesh::{ConnectionEnd, Dial, Mesh};
pub use meter::Meter;
pub use pace::AnswerPace;
pub use picker::{ChunkPicker, ChunkRequest, ChunkState, Completed, PeerHandle, ReadOrder, ReadWindow};
pub use read_ahead::ReadAhead;
pub use reputation::Reputation;
pub use requester::{
    Answer, AnswerError, AnswerStep, Arrival, ConnectionTurn, Haves, HavesError, Head, Requester, ShortBody,
    SmallArrival,
};
pub use round_trip::RoundTrip;
pub use scaler::{ConnectionScaler, ScalerAdvice};
pub use state::{ChunkCame, Chunks, DownloadState, Extent};
pub use task::{AnyOfTask, ChunkTask, FileNo, LayerTask, SmallTask, Task};
pub use window::Window;
