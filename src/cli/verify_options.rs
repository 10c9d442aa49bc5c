//! The options of the command `verify`.

use std::ffi::OsString;
use std::time::Duration;

use crate::cli::sources::Settings;
use crate::cli::text::escape;
use crate::client::Overwrite;

/// What `verify` checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Names of files and directories; none is all.
    pub paths: Vec<String>,
    /// Whether to fetch what the disk has damaged.
    pub repair: bool,
    /// Whether to fetch also what was changed.
    pub force: bool,
    /// Longest wait for the group. Default 2 s.
    pub wait: Duration,
}

impl VerifyOptions {
    /// Reads the options; `free` is what was given without a flag.
    pub(crate) fn read(
        settings: &Settings,
        free: &[OsString],
        overwrite: Overwrite,
        wait: Duration,
    ) -> Result<Self, String> {
        let text = |path: &OsString| match path.to_str() {
            Some(path) => Ok(path.to_owned()),
            None => Err(format!("`{}` is not UTF-8", escape(&path.to_string_lossy()))),
        };
        let (repair, force) = (settings.switch("repair")?, overwrite == Overwrite::Replace);
        if force && !repair {
            return Err("--force of verify needs --repair".into());
        }
        Ok(VerifyOptions { paths: free.iter().map(text).collect::<Result<_, _>>()?, repair, force, wait })
    }
}
