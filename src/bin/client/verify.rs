//! The command `verify`.

use std::collections::BTreeSet;
use std::io::{Stdout, Write};

use gpb::internals::cli::{Exit, Failure, Output, VerifyOptions, count};
use gpb::{CheckedFile, FailedFile, FileVerdict, Node, Report, Verified};

use super::{Told, Watching, stdout_failed};

/// Compares local files with what is known of them, and repairs what the disk has damaged.
pub(crate) fn run(
    node: &Node,
    verify: &VerifyOptions,
    watching: &Watching<'_>,
    output: &mut Output<Stdout>,
) -> Result<(), Failure> {
    let verified = node.verify(&verify.paths).look(verify.wait)?;
    if verified.is_index_in_use() {
        let _ = writeln!(
            watching.screen.clone(),
            "note: a node that runs uses the index; compared with what fetches recorded, and with the group"
        );
    }
    if let Some(error) = verified.group_error() {
        let _ = writeln!(watching.screen.clone(), "note: not compared with the group: {error}");
    }
    output.verified(verified.files(), verified.dir()).map_err(stdout_failed)?;
    let repaired = if verify.repair { repair(&verified, verify.force, watching, output)? } else { Report::default() };
    let replaced = repaired.fetched.iter().filter(|file| !file.skipped);
    let whole: BTreeSet<&str> = replaced.map(|file| file.out.as_str()).collect();
    let left: Vec<&CheckedFile> = verified.files().iter().filter(|file| !whole.contains(file.path.as_str())).collect();
    end(&left, &repaired, verify)
}

fn repair(
    verified: &Verified<'_>,
    force: bool,
    watching: &Watching<'_>,
    output: &mut Output<Stdout>,
) -> Result<Report, Failure> {
    let Some(repair) = verified.repair(force)? else { return Ok(Report::default()) };
    let mut told = Told { output, failed: None };
    watching.watch(repair.fetch(), &mut told);
    let report = repair.wait();
    match report.failed.is_empty() {
        true => told.tell(|output| output.done(&report)),
        false => {
            told.tell(|output| output.incomplete(&report));
            told.tell(|output| output.failed(&report.failed, &mut watching.screen.clone()));
        }
    }
    Ok(report)
}

/// The code says whether all is as it should be: 7 where the disk is at fault, 1 where a file was
/// changed, is gone, or differs from what the group offers.
fn end(left: &[&CheckedFile], repaired: &Report, verify: &VerifyOptions) -> Result<(), Failure> {
    let of = |verdicts: &[FileVerdict]| left.iter().filter(|file| verdicts.contains(&file.verdict)).count();
    let damaged = of(&[FileVerdict::Damaged]);
    let broken = damaged + of(&[FileVerdict::Unreadable, FileVerdict::Missing]);
    let changed = of(&[FileVerdict::Edited, FileVerdict::Differs, FileVerdict::Gone]);
    if let Some(error) = FailedFile::gravest(&repaired.failed) {
        return Err(Failure::of_fetch(error, repaired));
    }
    let step = match (damaged > 0, verify.repair) {
        (true, false) => "; --repair fetches what the disk has damaged",
        (true, true) => "; no peer offers what they held",
        _ => "",
    };
    match (broken, changed) {
        (0, 0) => Ok(()),
        (0, changed) => {
            let step = if verify.repair { "; --force replaces them as well" } else { "" };
            Err(Failure::new(
                Exit::Other,
                format!("changed, gone, or other than those of the group: {}{step}", count(changed as u64, "file")),
            ))
        }
        (broken, _) => Err(Failure::new(
            Exit::Storage,
            format!("damaged, unreadable or missing: {}{step}", count(broken as u64, "file")),
        )),
    }
}
