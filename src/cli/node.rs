//! From options to the configuration of a node.

use std::path::{Path, PathBuf};

use crate::cli::Options;
use crate::cli::log_file::older;
use crate::cli::resolve::DEFAULT_DIR;
use crate::content::Pattern;
use crate::node::{Config, KeySource, Share, State};
use crate::runtime::keystore::{KeyError, Trust};

impl Options {
    /// The configuration of a node that runs with these options. Reads the trusted file.
    ///
    /// # Errors
    /// The trusted file cannot be used.
    pub fn config(&self, share: Share) -> Result<Config, KeyError> {
        let trust = self.trusted.as_ref().map(Trust::file).transpose()?.unwrap_or_default();
        Ok(Config {
            dir: Some(self.dir.clone()),
            dirs: Vec::new(),
            // A shared directory that is missing may be a file system that is not mounted.
            create_dir: share != Share::Directory || self.dir == Path::new(DEFAULT_DIR),
            share,
            bind: self.bind,
            port: self.port,
            state: State::Dir(self.state.clone()),
            key: match self.key == self.state.join("key.pem") {
                true => KeySource::State,
                false => KeySource::File(self.key.clone()),
            },
            trust,
            never_share: self.own_files(),
            peers: self.peers.clone(),
            peer_file: self.peer_file.clone(),
            remember: self.remember,
            multicast: self.multicast,
            interfaces: self.interfaces.clone(),
            hops: self.hops,
            dns_sd: self.dns_sd,
            dht: self.dht.then(|| self.dht_options.clone()),
            network: self.network.clone(),
            timeout: self.timeout,
            upload_limit: self.upload_limit.map(u64::from),
            download_limit: self.download_limit.map(u64::from),
            raise_file_limit: true,
            mirror: self.mirror.patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect(),
            mirror_from: self.mirror.from.clone(),
            retain: self.mirror.retain,
            quota: self.mirror.quota,
        })
    }

    /// The files of the program itself beside the node's. The shell may keep the output in a file
    /// of the shared directory, as `nohup` does.
    fn own_files(&self) -> Vec<PathBuf> {
        let outputs = ["/dev/stdout", "/dev/stderr"].map(PathBuf::from);
        let logs = self.report.log.file.iter().flat_map(|file| [file.clone(), older(file)]);
        logs.chain(self.config_file.clone()).chain(outputs).collect()
    }
}
