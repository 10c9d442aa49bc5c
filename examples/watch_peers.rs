//! Tells who comes and goes, until nothing happened for the given seconds.
//!
//!     cargo run --example watch_peers -- SECONDS [NETWORK [INTERFACE]]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Duration;

use gpb::{Event, Node, Share};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let seconds = args.next().ok_or("usage: watch_peers SECONDS [NETWORK [INTERFACE]]")?.parse()?;
    let mut builder = Node::builder().share(Share::Nothing);
    if let Some(network) = args.next() {
        builder = builder.network(network);
    }
    if let Some(interface) = args.next() {
        builder = builder.interface(interface);
    }

    let node = builder.start()?;
    while let Ok(event) = node.events().recv_timeout(Duration::from_secs(seconds)) {
        match event {
            Event::PeerJoined { peer, addr } => println!("{peer} joined at {addr}"),
            Event::PeerLeft { peer } => println!("{peer} left"),
            Event::PeerChanged { peer, revision } => println!("{peer} has something new, revision {revision}"),
            // There are more events, and later versions may add some.
            _ => {}
        }
    }
    Ok(())
}
