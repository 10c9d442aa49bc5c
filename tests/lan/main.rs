//! The programs on real hosts: a network namespace each, joined by a bridge, with links that have a rate, a length and
//! losses and can be cut, and processes that can be killed.
//!
//! Everything that a test sees, a person would see too: exit codes, lines, JSON, files and bytes on a wire. Needs root
//! and the tools `unshare`, `nsenter`, `setpriv`, `ip`, `tc`, `bridge` and `bash`, and for NAT `nft`. Without them a test says
//! `skipped: ...` and passes, unless `TESTS_REQUIRE_ALL=1` is set, which makes a skip a failure.
//!
//! Namespaces have no names and belong to a process that ends with the test, so nothing stays behind even after
//! `kill -9`.
#![cfg(target_os = "linux")]
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

#[macro_use]
mod net;
#[macro_use]
mod mounts;
mod attack;
mod clock;
mod content;
mod crowd;
mod discovery;
mod disk;
mod dns_sd;
mod edges;
mod exits;
mod failure;
mod group;
mod hostile;
mod hosts;
mod link;
mod load;
mod long;
mod members;
mod mirror;
mod nat;
mod power;
mod process;
mod rates;
mod reflink;
mod routed;
mod sites;
mod swarm;
mod trust;
mod way;
