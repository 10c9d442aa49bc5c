//! What a sync would do, and what it did.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::cli::output::{EventLine, Output, count};
use crate::cli::text::{bytes, escape};
use crate::client::{KeptFile, SyncPlan};
use crate::content::RelPath;
use crate::node::SyncReport;

impl<W: Write> Output<W> {
    /// What would be removed below `dir`, and what would stay.
    pub fn sync_plan(&mut self, plan: &SyncPlan, dir: &Path) -> io::Result<()> {
        for path in &plan.remove {
            self.sync_name("remove", path, dir)?;
        }
        self.sync_kept(&plan.kept, dir)
    }

    /// What was removed below `dir`, and what stays.
    pub fn sync_names(&mut self, report: &SyncReport, dir: &Path) -> io::Result<()> {
        for path in &report.removed {
            self.sync_name("removed", path, dir)?;
        }
        self.sync_kept(&report.kept, dir)
    }

    /// The sums of a sync.
    pub fn synced(&mut self, report: &SyncReport) -> io::Result<()> {
        let (removed, kept) = (report.removed.len(), report.kept.len());
        let hindrance = report.hindrance.map(|hindrance| hindrance.to_string());
        let of = SyncedLine { removed, removed_bytes: report.removed_bytes, kept, hindrance: hindrance.as_deref() };
        self.line(&EventLine { event: "synced", of }, || {
            let text = format!("removed {}, {}", count(removed as u64, "file"), bytes(report.removed_bytes));
            let kept = if kept == 0 { String::new() } else { format!("; kept {}", count(kept as u64, "file")) };
            let why = hindrance.as_ref().map_or(String::new(), |why| format!("; nothing else was removed: {why}"));
            format!("{text}{kept}{why}")
        })
    }

    fn sync_kept(&mut self, kept: &[KeptFile], dir: &Path) -> io::Result<()> {
        for KeptFile { path, reason, .. } in kept {
            let (out, reason) = (dir.join(path.as_str()), reason.to_string());
            let of = KeptLine { path: path.as_str(), out: &out.to_string_lossy(), reason: &reason };
            self.row(&EventLine { event: "kept", of }, || {
                format!("kept     {}: {reason}", escape(&out.to_string_lossy()))
            })?;
        }
        self.flush()
    }

    fn sync_name(&mut self, event: &'static str, path: &RelPath, dir: &Path) -> io::Result<()> {
        let out = dir.join(path.as_str());
        let of = RemovedLine { path: path.as_str(), out: &out.to_string_lossy() };
        self.row(&EventLine { event, of }, || format!("{event:7}  {}", escape(&out.to_string_lossy())))
    }
}

#[derive(Serialize)]
struct RemovedLine<'a> {
    path: &'a str,
    out: &'a str,
}

#[derive(Serialize)]
struct KeptLine<'a> {
    path: &'a str,
    out: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct SyncedLine<'a> {
    removed: usize,
    removed_bytes: u64,
    kept: usize,
    /// Why nothing was removed, or nothing more.
    #[serde(skip_serializing_if = "Option::is_none")]
    hindrance: Option<&'a str>,
}
