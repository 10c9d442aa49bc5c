//! Keeping the catalogue true: what is offered is what lies in the shared directory, hashed. Tier 6.
//!
//! One thread (`keeper`) decides; it is told of changes by the system (`watch`), walks the directory for what that
//! misses (`scan`), waits until files are quiet (`settle`), lets a pool hash them (`hasher`) and publishes snapshots
//! (`ledger`).

mod hasher;
mod keeper;
mod ledger;
pub mod limits;
mod look;
mod scan;
mod settle;
mod sharer;
mod skips;
mod watch;

pub use sharer::{ShareSetup, Sharer};

#[cfg(test)]
mod tests;
