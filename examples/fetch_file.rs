//! Fetches a file, a directory, a pattern or a root from everyone who has it, and shows how it gets on.
//!
//!     cargo run --example fetch_file -- WHAT DIR [NETWORK [INTERFACE]]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Duration;

use gpb::{Node, Share};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: fetch_file WHAT DIR [NETWORK [INTERFACE]]";
    let (what, dir) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    // While it fetches, a node serves what it has to others; with `Share::Nothing` it would not.
    let mut builder = Node::builder().dir(dir).share(Share::Fetched);
    if let Some(network) = args.next() {
        builder = builder.network(network);
    }
    if let Some(interface) = args.next() {
        builder = builder.interface(interface);
    }

    let node = builder.start()?;
    let fetch = node.fetch(what)?;
    while !fetch.wait_for(Duration::from_millis(200)) {
        let at = fetch.progress();
        println!("{:?}: {} of {} bytes from {} peers", at.phase, at.bytes_done, at.bytes, at.peers);
    }
    // Everything is verified and on disk now, or there is an error and the next run goes on from here.
    let report = fetch.wait()?;
    println!("{} files, {} bytes in {:.2} s", report.files, report.bytes, report.seconds);
    for (peer, bytes) in &report.peers {
        println!("{peer} gave {bytes} bytes");
    }
    Ok(())
}
