//! Shares a directory.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use gpb::cli::{self, Exit, Failure, Options, Output, StopSignals};
use gpb::internals::node::{Node, Share};

fn main() -> ExitCode {
    cli::server(|options, _| run(&options))
}

fn run(options: &Options) -> Result<(), Failure> {
    let node = Node::start(options.config(Share::Directory))?;
    let (stop, stopper) = (node.stopper(), node.stopper());
    let _signals = StopSignals::on_first(move || stop.stop()).map_err(|e| Failure::from_error(Exit::Other, &e))?;
    let mut output = Output::new(io::stdout(), options.report.json);
    for &addr in node.addrs() {
        output.listening(&node.id(), addr).map_err(|e| Failure::from_stdout(&e))?;
    }
    while !stopper.wait(Duration::ZERO) {
        if let Some((files, bytes)) = node.wait_ready(PATIENCE) {
            output.ready(files, bytes).map_err(|e| Failure::from_stdout(&e))?;
            break;
        }
    }
    while !stopper.wait(PATIENCE) {}
    Ok(())
}

/// One wait for something that may take any time.
const PATIENCE: Duration = Duration::from_secs(3600);
