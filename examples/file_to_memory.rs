//! Reads one file of the network into memory.
//!
//!     cargo run --example file_to_memory -- NAME [NETWORK [INTERFACE]]
//!
//! Every chunk is verified before it is written, so a file passes through a directory: here one in memory where the
//! system has it, which is gone at the end. The node has no directory of its own and leaves nothing behind.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
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
    let memory = Path::new("/dev/shm");
    let above = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let dir = above.join(format!("file-to-memory-{}", std::process::id()));
    let place = dir.join("file");
    let fetched = node.get(file).to_file(&place).start()?.wait();
    let bytes = fetched.map_err(Box::from).and_then(|_| Ok(std::fs::read(&place)?));
    std::fs::remove_dir_all(&dir)?;
    bytes
}
