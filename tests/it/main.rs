//! One binary for all tests of the library and the programs on one host.
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod attributes;
mod bench;
mod cli;
mod client;
mod dht;
mod directory;
mod discovery;
mod documents;
mod examples;
mod fetch;
mod front;
mod fuzz;
mod guest;
mod house;
mod join;
mod keys;
mod known_peers;
mod merkle_oracle;
mod mirror;
mod names;
mod node;
mod offering;
mod open;
mod outputs;
mod own_files;
mod partial_success;
mod programs;
mod refusals;
mod release;
mod replacing;
mod reuse;
mod running;
mod server;
mod share_back;
mod sim;
mod sync;
mod terminal;
mod tree_changes;
mod trees;
mod turned;
mod verify;
