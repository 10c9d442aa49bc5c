//! Fetches like a window would: draws the state when it changes, and cancels when a button is pressed.
//!
//!     cargo run --example progress_window -- WHAT DIR [NETWORK [INTERFACE]]
//!
//! The thread that draws waits for news instead of polling, and any other part of the program ends the fetch.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::thread;
use std::time::Duration;

use gpb::{FetchError, Node, Overwrite, Update};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: progress_window WHAT DIR [NETWORK [INTERFACE]]";
    let (what, dir) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let mut builder = Node::builder();
    if let Some(network) = args.next() {
        builder = builder.network(network);
    }
    if let Some(interface) = args.next() {
        builder = builder.interface(interface);
    }

    let node = builder.start()?;
    let fetch = node.get(what).into_dir(dir).overwrite(Overwrite::Replace).start()?;
    println!("press Enter to cancel");
    // The button: it works while the fetch searches, too. It does not keep the fetch alive.
    let canceller = fetch.canceller();
    thread::spawn(move || {
        if std::io::stdin().read_line(&mut String::new()).is_ok_and(|n| n > 0) {
            canceller.cancel();
        }
    });

    // The window: it draws when there is news, and at least each second.
    let mut updates = fetch.updates();
    loop {
        match updates.recv_timeout(Duration::from_secs(1)) {
            Some(Update::Progress(at)) => println!("{:?}: {} of {} bytes", at.phase, at.bytes_done, at.bytes),
            Some(Update::File(file)) => println!("{} is there", file.out),
            Some(Update::Ended) => break,
            _ => println!("..."),
        }
    }
    match fetch.wait() {
        Ok(report) => println!("{} files are in {}", report.files, report.dir.display()),
        // What arrived stays, and the next run goes on from there.
        Err(failed) if matches!(*failed.error, FetchError::Cancelled) => {
            println!("cancelled; {} files are there", failed.report.files);
        }
        Err(failed) => return Err(failed.into()),
    }
    Ok(())
}
