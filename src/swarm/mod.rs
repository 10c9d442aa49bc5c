//! Decisions about peers and chunks: which nodes are there, what to ask of which peer, which peer to serve.
//!
//! Pure: time is an argument; tier 3. [`membership`] knows the nodes, [`download`] decides what is asked of them, and
//! [`upload`] decides what they are given.

mod event;
mod random;

pub mod download;
pub mod membership;
pub mod upload;

pub use download::*;
pub use event::Event;
pub use membership::*;
pub use upload::*;
