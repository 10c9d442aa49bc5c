//! Indexing: keeps the catalogue equal to the content of the shared directory. Tier 6.
//!
//! One thread, the [`indexer`], decides what is offered. It takes hints of changes from the system
//! ([`watch`], [`change_hints`]), walks the directory for what these miss ([`scanner`]), inspects
//! each path ([`inspector`]), waits until a file is no longer written to ([`write_debounce`]), has
//! it hashed by a pool ([`hasher`]), records the digests ([`recorder`]) and publishes snapshots
//! ([`catalogue_draft`]).

mod callers;
mod catalogue_draft;
mod change_hints;
mod hash_job;
mod hasher;
mod indexer;
mod inspector;
pub mod limits;
mod link_look;
mod publish_error;
mod recorder;
mod scanner;
mod setup;
mod shared_dir;
mod sharer;
mod skip_log;
mod unnamed_paths;
mod watch;
mod wholeness;
mod withdrawn;
mod write_debounce;

pub use publish_error::PublishError;
pub use setup::ShareSetup;
pub use sharer::Sharer;

#[cfg(test)]
mod tests;
