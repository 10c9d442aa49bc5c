//! Shares a directory with the local network until Enter is pressed.
//!
//!     cargo run --example share_directory -- DIR [NETWORK [INTERFACE]]
//!
//! With the interface `lo` it is seen on this machine only.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Duration;

use gpb::{Node, Share};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: share_directory DIR [NETWORK [INTERFACE]]")?;
    let mut builder = Node::builder().dir(dir).share(Share::Directory);
    if let Some(network) = args.next() {
        builder = builder.network(network);
    }
    if let Some(interface) = args.next() {
        builder = builder.interface(interface);
    }

    let node = builder.start()?;
    println!("{} listens at {:?}", node.id(), node.addrs());
    // Files are offered as they are hashed; nobody has to wait for all of them.
    let (files, bytes) = node.wait_ready(Duration::from_secs(24 * 3600)).ok_or("not all is hashed after a day")?;
    println!("shares {files} files of {bytes} bytes in all; press Enter to stop");
    std::io::stdin().read_line(&mut String::new())?;

    // Dropping the node says goodbye, so that others do not wait for it.
    drop(node);
    println!("stopped");
    Ok(())
}
