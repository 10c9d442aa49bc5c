//! Makes and shows the secret key that a node is known by.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use gpb::Keypair;
use gpb::internals::cli::{self, Failure, KeygenOptions, KeygenTask, Output};
use gpb::internals::runtime::keystore::{load_key, write_key};

fn main() -> ExitCode {
    cli::keygen(|options, _| run(&options))
}

fn run(options: &KeygenOptions) -> Result<(), Failure> {
    let mut output = Output::new(io::stdout().lock(), options.report.json);
    let written = match &options.task {
        KeygenTask::Make { out, force } => {
            let key = Keypair::try_generate()?;
            write_key(out, &key, *force)?;
            log::info!("key made peer={} file={}", key.peer_id(), out.display());
            output.key_made(&absolute(out), &key.peer_id())
        }
        KeygenTask::Show { file } => {
            let key = load_key(file)?;
            output.key_shown(file, &key.peer_id(), &comment())
        }
    };
    written.map_err(|e| Failure::from_stdout(&e))
}

/// The path as it can be used from anywhere.
fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// `user@host`, as far as they are known: a line of a trusted file then says whose key it is.
fn comment() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let host = ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|file| {
        let name = std::fs::read_to_string(file).ok()?.trim().to_string();
        (!name.is_empty()).then_some(name)
    });
    match (user, host) {
        (Some(user), Some(host)) => format!("{user}@{host}"),
        (None, Some(host)) => host,
        (Some(user), None) => user,
        (None, None) => "gpb".into(),
    }
}
