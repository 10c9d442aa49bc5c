//! What a check of local files found.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::cli::output::{EventLine, Output, count};
use crate::cli::text::{bytes, escape};
use crate::node::{CheckedFile, FileVerdict};

impl<W: Write> Output<W> {
    /// The files that were checked below `dir`.
    pub fn verified(&mut self, files: &[CheckedFile], dir: &Path) -> io::Result<()> {
        for file in files {
            let (out, state) = (dir.join(&file.path), state_of(file.verdict));
            let (shown, root) = (out.to_string_lossy(), file.id.map(|id| id.root.to_string()));
            let of = CheckedLine {
                path: &file.path,
                out: &shown,
                state,
                len: file.len,
                root: root.as_deref(),
                index: file.in_index,
                group: file.in_group,
            };
            self.row(&EventLine { event: "verify", of }, || format!("{state:10}  {}", escape(&shown)))?;
        }
        let len = files.iter().map(|file| file.len).sum();
        let number = |test: &dyn Fn(&&CheckedFile) -> bool| files.iter().filter(test).count() as u64;
        let of = CheckedSums {
            files: files.len() as u64,
            bytes: len,
            index: number(&|file| file.in_index == Some(true)),
            group: number(&|file| file.in_group == Some(true)),
            neither: number(&|file| file.in_index != Some(true) && file.in_group != Some(true)),
            damaged: number(&|file| file.verdict == FileVerdict::Damaged),
        };
        self.line(&EventLine { event: "verified", of }, || {
            let CheckedSums { index, group, neither, damaged, .. } = of;
            let all = format!("verified {}, {}", count(files.len() as u64, "file"), bytes(len));
            format!("{all}: {index} match the index, {group} the group, {neither} neither; {damaged} damaged")
        })
    }
}

fn state_of(verdict: FileVerdict) -> &'static str {
    match verdict {
        FileVerdict::Good => "ok",
        FileVerdict::Damaged => "damaged",
        FileVerdict::Edited => "edited",
        FileVerdict::Differs => "differs",
        FileVerdict::Gone => "gone",
        FileVerdict::Unknown => "unknown",
        FileVerdict::Unreadable => "unreadable",
        FileVerdict::Missing => "missing",
    }
}

#[derive(Serialize)]
struct CheckedLine<'a> {
    path: &'a str,
    out: &'a str,
    state: &'a str,
    len: u64,
    root: Option<&'a str>,
    index: Option<bool>,
    group: Option<bool>,
}

#[derive(Serialize, Clone, Copy)]
struct CheckedSums {
    files: u64,
    bytes: u64,
    index: u64,
    group: u64,
    neither: u64,
    damaged: u64,
}
