//! From options to a node, and from its errors to exit codes.

use crate::cli::{Exit, Failure, Interface, Options, PeerAddr};
use crate::client::FetchError;
use crate::node::{Config, KeySource, Share, StartError};

impl Options {
    /// The configuration of a node that runs with these options.
    pub fn config(&self, share: Share) -> Config {
        Config {
            dir: self.dir.clone(),
            share,
            bind: self.bind,
            port: self.port,
            state: self.state.clone(),
            key: KeySource::File(self.key.clone()),
            trusted: self.trusted.clone(),
            never_share: self.report.log.file.iter().chain(&self.config_file).cloned().collect(),
            peers: self.peers.iter().map(PeerAddr::to_string).collect(),
            multicast: self.multicast,
            interfaces: self.interfaces.iter().map(Interface::to_string).collect(),
            network: self.network.clone(),
            timeout: self.timeout,
            upload_limit: self.upload_limit.map(u64::from),
            download_limit: self.download_limit.map(u64::from),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Config(_) => Exit::Usage,
            StartError::Key(e) if e.is_storage() => Exit::Storage,
            StartError::Key(_) => Exit::Usage,
            StartError::Dir { .. } | StartError::State { .. } => Exit::Storage,
            StartError::Tls(_) | StartError::Listen(_) | StartError::System(_) => Exit::Other,
        };
        Failure::from_error(exit, &error)
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let exit = match &error {
            FetchError::Pattern { .. } | FetchError::Out { .. } => Exit::Usage,
            FetchError::NoPeer(_) => Exit::NoPeer,
            FetchError::NotFound { .. } => Exit::NotFound,
            FetchError::Ambiguous { .. } => Exit::Ambiguous,
            FetchError::OnlyLiars { .. } => Exit::Liars,
            FetchError::Storage(_) => Exit::Storage,
            FetchError::Silent { .. } => Exit::Silent,
            FetchError::Refused { .. } => Exit::Refused,
            FetchError::Interrupted => Exit::Interrupted,
            FetchError::Threads(_) => Exit::Other,
        };
        Failure::from_error(exit, &error)
    }
}
