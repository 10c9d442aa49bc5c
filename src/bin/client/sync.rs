//! The command `sync`.

use std::io::{Stdout, Write};
use std::path::Path;

use gpb::internals::cli::{Exit, Failure, Output, SyncOptions};
use gpb::internals::store::{Disk, Forecast};
use gpb::{FailedFile, FetchError, KeptReason, Node, PlannedSync, Report, SyncHindrance, SyncReport};

use super::plan::{self, Plan, tree_of};
use super::{Told, Watching, stdout_failed};

/// Makes the directory equal to that of a peer, or says what that would do.
pub(crate) fn run(
    node: &Node,
    sync: &SyncOptions,
    watching: &Watching<'_>,
    output: &mut Output<Stdout>,
) -> Result<(), Failure> {
    if sync.dir.trim_end_matches('/').is_empty() {
        // As an unset variable of a script gives it.
        let _ = writeln!(watching.screen.clone(), "warning: `{}` means all of --dir, as `.` does", sync.dir);
    }
    let planned = node
        .sync(&sync.dir, sync.from.clone())
        .exclude(sync.exclude.selection().exclude)
        .overwrite(sync.overwrite)
        .max_delete(sync.max_delete)
        .look(watching.options.timeout)?;
    if sync.dry_run {
        return tell(&planned, sync, watching, output);
    }
    let dir = planned.dir().to_path_buf();
    let running = planned.start()?;
    let mut told = Told { output, failed: None };
    if let Some(fetch) = running.fetch() {
        watching.watch(fetch, &mut told);
    }
    let report = running.wait()?;
    told.tell(|output| output.sync_names(&report, &dir));
    let failed = FailedFile::gravest(&report.fetched.failed).cloned();
    match &failed {
        None => told.tell(|output| output.done(&report.fetched)),
        Some(_) => {
            told.tell(|output| output.incomplete(&report.fetched));
            told.tell(|output| output.failed(&report.fetched.failed, &mut watching.screen.clone()));
        }
    }
    told.tell(|output| output.synced(&report));
    let stdout = told.failed.map_or(Ok(()), |error| Err(stdout_failed(error)));
    let failure = failed.map(|error| Failure::of_fetch(&error, &report.fetched));
    end(failure, &report).map_or(stdout, Err)
}

/// The gravest of what went wrong.
fn end(fetch: Option<Failure>, report: &SyncReport) -> Option<Failure> {
    let is_graver = |failure: &Failure| matches!(failure.exit, Exit::Ambiguous | Exit::Liars | Exit::Storage);
    let kept = (!report.kept.is_empty()).then(|| kept(report));
    let hindrance = report.hindrance.map(|hindrance| hindered(&hindrance));
    match fetch {
        Some(fetch) if is_graver(&fetch) => Some(fetch),
        fetch => kept.or(fetch).or(hindrance),
    }
}

fn kept(report: &SyncReport) -> Failure {
    let step = match report.kept.iter().any(|kept| kept.reason == KeptReason::Users) {
        true => "; --force removes what was not fetched, or was changed since",
        false => "",
    };
    let files = match report.kept.as_slice() {
        [one] => format!("{} stays: {}", one.path, one.reason),
        all => format!("{} files that the peer does not have stay", all.len()),
    };
    Failure::new(Exit::Storage, format!("{files}{step}"))
}

fn hindered(hindrance: &SyncHindrance) -> Failure {
    let step = match hindrance {
        SyncHindrance::Incomplete => "run it again once its directory is hashed, mounted and readable",
        SyncHindrance::TooMany { .. } => "see which with --dry-run, then give --max-delete or --force",
        _ => "run it again",
    };
    Failure::new(Exit::Other, format!("nothing was removed: {hindrance}; {step}"))
}

/// Says what a sync would do.
fn tell(
    planned: &PlannedSync<'_>,
    sync: &SyncOptions,
    watching: &Watching<'_>,
    output: &mut Output<Stdout>,
) -> Result<(), Failure> {
    let (plan, dir) = (planned.plan(), planned.dir());
    let state = Some(watching.options.state.as_path());
    let disk = match dir.is_dir() {
        true => Some(Disk::open_guarded(dir, false, sync.overwrite, state).map_err(FetchError::from)?),
        false => None,
    };
    let (mut fetch, mut report) =
        (Plan::new(disk.as_deref(), tree_of(&plan.files, plan.bare.clone())), Report::default());
    for file in &plan.files {
        match fetch.forecast(file, &file.path) {
            Ok(forecast) => {
                output.plan(file, &dir.join(file.path.as_str()), forecast).map_err(stdout_failed)?;
                fetch.count(file, forecast);
            }
            // What lies in the way goes first.
            Err(_) if plan.hindrance.is_none() && is_in_the_way(plan, file.path.as_str()) => {
                output.plan(file, &dir.join(file.path.as_str()), Forecast::New).map_err(stdout_failed)?;
                fetch.count(file, Forecast::New);
            }
            Err(e) => report.failed.push(FailedFile::new(file.path.as_str(), FetchError::from(e))),
        }
    }
    let goes_first = |path: &str| plan.hindrance.is_none() && is_in_the_way(plan, path);
    fetch.tell_bare(dir, output, &mut report.failed, &goes_first).map_err(stdout_failed)?;
    output.sync_plan(plan, dir).map_err(stdout_failed)?;
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let there = Disk::open(there, false).map_err(FetchError::from)?;
    let totals = fetch.totals(there.free_bytes().map_err(FetchError::from)?);
    output.planned(totals).map_err(stdout_failed)?;
    report.failed.extend(plan::hindrance(&there, dir, &totals));
    output.failed(&report.failed, &mut watching.screen.clone()).map_err(stdout_failed)?;
    let failed = FailedFile::gravest(&report.failed).cloned();
    report.files = totals.files as usize;
    let mut all = SyncReport::default();
    all.kept.clone_from(&plan.kept);
    all.hindrance = plan.hindrance;
    end(failed.map(|error| Failure::of_fetch(&error, &report)), &all).map_or(Ok(()), Err)
}

fn is_in_the_way(plan: &gpb::SyncPlan, path: &str) -> bool {
    plan.remove
        .iter()
        .any(|gone| gone.is_below(path) || path.strip_prefix(gone.as_str()).is_some_and(|p| p.starts_with('/')))
}
