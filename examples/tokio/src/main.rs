//! GPB inside a program that has an async runtime, here tokio with one thread.
//!
//!     cargo run --manifest-path examples/tokio/Cargo.toml -- WHAT DIR [NETWORK [INTERFACE]]
//!
//! Two rules: what blocks goes to `spawn_blocking`, and what is to be awaited is told by `on_update`, whose callback only
//! sends. A fetch starts without blocking.

use std::error::Error;
use std::time::Duration;

use gpb::{Fetch, Node, Phase, Progress};
use tokio::sync::watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: gpb-in-tokio WHAT DIR [NETWORK [INTERFACE]]";
    let (what, dir) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let mut builder = Node::builder();
    if let Some(network) = args.next() {
        builder = builder.network(network);
    }
    if let Some(interface) = args.next() {
        builder = builder.interface(interface);
    }

    // Milliseconds, but files are opened: not on the thread of the runtime.
    let node = tokio::task::spawn_blocking(move || builder.start()).await??;
    let fetch = node.get(what).into_dir(dir).start()?;
    let mut progress = watched(&fetch);
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            changed = progress.changed() => {
                // The sender is dropped with the callback, which the fetch drops when it has ended.
                let at = *progress.borrow_and_update();
                println!("{:?}: {} of {} bytes", at.phase, at.bytes_done, at.bytes);
                if changed.is_err() || at.phase == Phase::Ended {
                    break;
                }
            }
            _ = clock.tick() => println!("other tasks go on"),
        }
    }
    // It has ended: this returns at once.
    let report = fetch.wait()?;
    println!("{} files, {} bytes", report.files, report.bytes);
    // The drop joins threads, some 10 ms.
    tokio::task::spawn_blocking(move || drop((fetch, node))).await?;
    Ok(())
}

/// The progress of a fetch, to be awaited.
fn watched(fetch: &Fetch) -> watch::Receiver<Progress> {
    let (sender, receiver) = watch::channel(Progress::default());
    fetch.on_update(move |at| _ = sender.send(at));
    receiver
}
