//! Reads one file of the network into memory.
//!
//!     cargo run --example file_to_memory -- NAME [NETWORK [INTERFACE]]
//!
//! The node has no directory: what it fetches lies in memory, verified, and nothing is left behind.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::Read;
use std::time::Duration;

use gpb::{Node, Share, State};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().ok_or("usage: file_to_memory NAME [NETWORK [INTERFACE]]")?;
    let mut builder = Node::builder().share(Share::Nothing).state(State::Memory);
    if let Some(network) = args.next() {
        builder = builder.network(network);
    }
    if let Some(interface) = args.next() {
        builder = builder.interface(interface);
    }

    let node = builder.start()?;
    let files = node.list_within(name.as_str(), Duration::from_secs(5))?;
    let file = files.first().ok_or("no peer has it")?;
    let bytes = read(&node, file)?;
    println!("{} has {} bytes, the first is {:?}", file.path, bytes.len(), bytes.first());
    Ok(())
}

/// The content of a file that was listed.
fn read(node: &Node, file: &gpb::FoundFile) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    node.open(file)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
