//! Makes and shows the secret key that a node is known by.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use gpb::cli::{self, Exit, Failure, KeygenOptions, KeygenTask, Output};
use gpb::internals::identity::Keypair;
use gpb::internals::runtime::keystore::{KeyError, load_key, write_key};

fn main() -> ExitCode {
    cli::keygen(|options, _| run(&options))
}

fn run(options: &KeygenOptions) -> Result<(), Failure> {
    let mut output = Output::new(io::stdout().lock(), options.report.json);
    let told = match &options.task {
        KeygenTask::Make { out, force } => {
            let key = Keypair::try_generate().map_err(|e| Failure::from_error(Exit::Other, &e))?;
            write_key(out, &key, *force).map_err(failed)?;
            log::info!("key made peer={} file={}", key.peer_id(), out.display());
            output.key_made(&absolute(out), &key.peer_id())
        }
        KeygenTask::Show { file } => {
            let key = load_key(file).map_err(failed)?;
            output.key_shown(file, &key.peer_id(), &comment())
        }
    };
    told.map_err(|e| Failure::from_stdout(&e))
}

fn failed(error: KeyError) -> Failure {
    let exit = if error.is_storage() { Exit::Storage } else { Exit::Usage };
    Failure::from_error(exit, &error)
}

/// The path as it can be used from anywhere.
fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// `user@host`, as far as they are known: it helps people to tell lines of a trusted file apart.
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
