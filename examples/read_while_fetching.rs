//! Reads a file of the network while it is fetched: its beginning, its end, then all of it.
//!
//!     cargo run --example read_while_fetching -- NAME [NETWORK [INTERFACE]]
//!
//! This is what a player of films does, or a program that looks into an archive. The node has no directory of its own:
//! what is read lies in memory, and nothing is left behind.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{Read, Seek, SeekFrom};
use std::time::Instant;

use gpb::{Node, Share, State};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().ok_or("usage: read_while_fetching NAME [NETWORK [INTERFACE]]")?;
    let mut builder = Node::builder().share(Share::Nothing).state(State::Memory);
    if let Some(network) = args.next() {
        builder = builder.network(network);
    }
    if let Some(interface) = args.next() {
        builder = builder.interface(interface);
    }

    let node = builder.start()?;
    // Blocks until it is found; each read then blocks until its bytes are there and verified.
    let mut file = node.open(name.as_str())?;
    let begun = Instant::now();
    let mut head = [0; 16];
    let len = file.len().min(16) as usize;
    file.read_exact(&mut head[..len])?;
    println!("{} has {} bytes; the first after {:?}: {:?}", name, file.len(), begun.elapsed(), &head[..len]);

    let begun = Instant::now();
    file.seek(SeekFrom::End(-(len as i64)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    println!("the last after {:?}: {tail:?}", begun.elapsed());

    // Any writer takes all of it in order: a hash, a decoder, a pipe.
    file.rewind()?;
    let bytes = std::io::copy(&mut file, &mut std::io::sink())?;
    println!("{bytes} bytes read");
    Ok(())
}
