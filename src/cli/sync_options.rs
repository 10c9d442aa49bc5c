//! The options of the command `sync`.

use std::ffi::OsString;

use crate::cli::select::SelectOptions;
use crate::cli::sources::{Setting, Settings};
use crate::cli::text::escape;
use crate::client::{MaxDelete, Overwrite};
use crate::content::RelPath;
use crate::identity::KeyPrefix;

/// What `sync` makes equal to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncOptions {
    /// The name of the directory there and here; `.` is all of it.
    pub dir: String,
    /// The peer.
    pub from: KeyPrefix,
    /// What is left out; the rest of it is not used.
    pub exclude: SelectOptions,
    /// Whether files of the user are replaced and removed.
    pub overwrite: Overwrite,
    /// The most that is removed.
    pub max_delete: MaxDelete,
    /// Whether nothing is changed, only reported.
    pub dry_run: bool,
    /// Whether to serve what has arrived while the rest is fetched.
    pub share: bool,
}

impl SyncOptions {
    /// Reads the options; `free` is what was given without a flag.
    pub(crate) fn read(
        settings: &Settings,
        free: &[OsString],
        select: SelectOptions,
        overwrite: Overwrite,
        share: bool,
    ) -> Result<Self, String> {
        let dir = match free {
            [dir] => dir.to_str().ok_or_else(|| format!("`{}` is not UTF-8", escape(&dir.to_string_lossy())))?,
            [] => return Err("sync what? name a directory that the peer shares, or `.` for all".into()),
            [_, more, ..] => {
                return Err(format!(
                    "`gpb-client sync` takes one directory, not `{}`",
                    escape(&more.to_string_lossy())
                ));
            }
        };
        if let name = dir.strip_prefix("./").unwrap_or(dir).trim_end_matches('/')
            && !matches!(name, "" | ".")
        {
            RelPath::new(name).map_err(|e| format!("`{}`: {e}; sync takes the name of a directory", escape(dir)))?;
        }
        let from =
            select.from.clone().ok_or("sync with whom? name the peer with --from; `gpb-client peers` shows them")?;
        let max = |setting: &Setting| setting.read(|text| text.parse::<MaxDelete>().map_err(|e| e.to_string()));
        Ok(SyncOptions {
            dir: dir.into(),
            from,
            exclude: select,
            overwrite,
            max_delete: settings.one("max-delete").map(max).transpose()?.unwrap_or_default(),
            dry_run: settings.switch("dry-run")?,
            share,
        })
    }
}
