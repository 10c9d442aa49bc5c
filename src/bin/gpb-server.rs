//! Shares a directory.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use gpb::internals::cli::{self, Failure, Options, Output, StopSignals};
use gpb::{Node, Share};

fn main() -> ExitCode {
    cli::server(|options, _| run(&options))
}

fn run(options: &Options) -> Result<(), Failure> {
    let node = Node::start(options.config(Share::Directory)?)?;
    if options.trusted.is_none() {
        let (network, dir) = (&options.network, options.dir.display());
        log::warn!(
            "open group network={network:?} dir={dir}: every node that reaches this host may fetch; --trusted FILE closes it"
        );
    }
    let (stop, stopper) = (node.stopper(), node.stopper());
    let _signals = StopSignals::of_service(move || stop.stop()).map_err(Failure::from_signals)?;
    let mut output = Output::new(io::stdout(), options.report.json);
    for &addr in node.addrs() {
        told(output.listening(&node.id(), addr));
    }
    while !stopper.wait(Duration::ZERO) {
        if let Some((files, bytes)) = node.wait_ready(PATIENCE) {
            told(output.ready(files, bytes, node.stats().share.unnamed));
            break;
        }
    }
    while !stopper.wait(PATIENCE) {}
    stopper.defect().map_or(Ok(()), |thread| Err(Failure::from_defect(&thread)))
}

/// A server outlives the reader of its output.
fn told(written: io::Result<()>) {
    if let Err(e) = written {
        log::warn!("cannot write to standard output error=\"{e}\"");
    }
}

/// Length of one wait for what may take any time.
const PATIENCE: Duration = Duration::from_secs(3600);
