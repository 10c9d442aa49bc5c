//! What a fetch would do: one line a file, and the room that it needs.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::cli::output::{EventLine, Output, count};
use crate::cli::text::{bytes, escape};
use crate::client::FoundFile;
use crate::content::RelPath;
use crate::store::Forecast;

/// The sums of a fetch that is only planned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PlanTotals {
    /// Names that would be in place.
    pub files: u64,
    /// Names whose content would be fetched.
    pub fetch: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that the disk must have, copies included.
    pub needed: u64,
    /// Bytes that it has.
    pub free: u64,
    /// Links to directories, and empty directories, that would be made.
    pub make: u64,
    /// The bytes to fetch of contents that an earlier fetch put here under other names. What
    /// older versions have in common is known only to the fetch.
    pub reused: u64,
}

impl<W: Write> Output<W> {
    /// A file that would be put at `out`.
    pub fn plan(&mut self, file: &FoundFile, out: &Path, forecast: Forecast) -> io::Result<()> {
        let state = state_of(forecast);
        let (root, shown, holders) = (file.id.root.to_string(), out.to_string_lossy(), file.holders.len());
        let of = PlanLine { path: file.path.as_str(), root: &root, len: file.id.len, holders, out: &shown, state };
        self.row(&EventLine { event: "plan", of }, || {
            let holders = count(holders as u64, "holder");
            format!("{state:7}  {:>10}  {holders:10}  {}", bytes(file.id.len), escape(&shown))
        })
    }

    /// An empty directory that would be made at `out`, or a symbolic link with the text `target`.
    pub fn plan_bare(
        &mut self,
        path: &RelPath,
        target: Option<&str>,
        out: &Path,
        forecast: Forecast,
    ) -> io::Result<()> {
        let (state, out) = (state_of(forecast), out.to_string_lossy());
        let of = MakeLine { path: path.as_str(), out: &out, state, link: target, directory: target.is_none() };
        self.row(&EventLine { event: "make", of }, || {
            let (kind, shown) = match target {
                Some(target) => ("link", format!("{} -> {}", escape(&out), escape(target))),
                None => ("directory", format!("{}/", escape(&out))),
            };
            format!("{state:7}  {kind:>10}  {:10}  {shown}", "")
        })
    }

    /// The sums of all files.
    pub fn planned(&mut self, t: PlanTotals) -> io::Result<()> {
        self.line(&EventLine { event: "planned", of: t }, || {
            let fetch = format!("would fetch {} of {}, {}", t.fetch, count(t.files, "file"), bytes(t.bytes));
            let reused = if t.reused > 0 { format!(", of which {} lie here", bytes(t.reused)) } else { String::new() };
            let make = if t.make > 0 { format!(", links and directories to make {}", t.make) } else { String::new() };
            format!("{fetch}{reused}{make}; room needed {}, free {}", bytes(t.needed), bytes(t.free))
        })
    }
}

fn state_of(forecast: Forecast) -> &'static str {
    match forecast {
        Forecast::New => "new",
        Forecast::Here => "here",
        Forecast::Changed => "changed",
    }
}

#[derive(Serialize)]
struct MakeLine<'a> {
    path: &'a str,
    out: &'a str,
    state: &'a str,
    /// The text of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
    /// It is an empty directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    directory: bool,
}

#[derive(Serialize)]
struct PlanLine<'a> {
    path: &'a str,
    root: &'a str,
    len: u64,
    holders: usize,
    out: &'a str,
    state: &'a str,
}
