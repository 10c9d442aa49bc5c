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
    let events = node.events();
    while let Ok(event) = events.recv_timeout(Duration::from_secs(seconds)) {
        match event {
            // The first event: the peers that are there. From then on, joins and leaves are all.
            Event::Known(peers) => {
                println!("{} peers are there", peers.len());
                peers.iter().for_each(|known| println!("{} is there", known.node.peer));
            }
            Event::PeerJoined { node, addr } => println!("{} joined at {addr}", node.peer),
            Event::PeerLeft { node } => println!("{} left", node.peer),
            Event::PeerChanged { node, revision } => println!("{} has something new, revision {revision}", node.peer),
            // There are more events, and later versions may add some.
            _ => {}
        }
    }
    Ok(())
}
