//! What a fetch could not get: a list that is short for people and complete as JSON.

use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use crate::chain::Chain;
use crate::cli::limits::{FAILED_SHOWN_MAX, SHOWN_CANDIDATES_MAX};
use crate::cli::output::{EventLine, Output};
use crate::cli::text::escape;
use crate::cli::{Exit, Failure};
use crate::client::{FailedFile, FetchError, Report};

impl<W: Write> Output<W> {
    /// What is not there, and why: for people at most [`FAILED_SHOWN_MAX`] causes, on `errors`. The
    /// contents that a name has are listed with their holders.
    pub fn failed(&mut self, all: &[FailedFile], errors: &mut dyn Write) -> io::Result<()> {
        let causes: Vec<&[FailedFile]> = all.chunk_by(|a, b| Arc::ptr_eq(&a.error, &b.error)).collect();
        let shown = if self.json { causes.len() } else { causes.len().min(FAILED_SHOWN_MAX) };
        for cause in &causes[..shown] {
            if let Some(FetchError::Ambiguous { candidates, .. }) = cause.first().map(|f| &*f.error) {
                let rows = if self.json { candidates.len() } else { candidates.len().min(SHOWN_CANDIDATES_MAX) };
                self.candidates(&candidates[..rows])?;
            }
            if self.json {
                for failed in *cause {
                    self.row(&EventLine { event: "failed", of: FailedLine::new(failed) }, String::new)?;
                }
            } else if all.len() > 1 {
                // A single failure is the error of the program, which follows.
                writeln!(errors, "failed: {}", escape(&line_of(cause)))?;
            }
        }
        let more: usize = causes[shown..].iter().map(|cause| cause.len()).sum();
        if more > 0 {
            writeln!(errors, "failed: and {more} more; --json names all of them")?;
        }
        self.flush()
    }

    /// Names with a leading dot were left out, if there are any.
    pub fn hidden(&mut self, names: usize, errors: &mut dyn Write) -> io::Result<()> {
        match (names, self.json) {
            (0, _) => Ok(()),
            (_, true) => self.line(&EventLine { event: "hidden", of: HiddenLine { names } }, String::new),
            (1, false) => writeln!(errors, "note: a name with a leading dot is left out; --hidden takes it"),
            _ => writeln!(errors, "note: {names} names with a leading dot are left out; --hidden takes them"),
        }
    }
}

impl Failure {
    /// The end of a fetch in which some names failed, because of `error` above all.
    pub fn of_fetch(error: &FetchError, report: &Report) -> Self {
        let failure = Failure::of(error);
        let (failed, all) = (report.failed.len(), report.files + report.failed.len());
        if failed < 2 || failure.exit == Exit::Interrupted {
            return failure;
        }
        let step = Failure::step_after(error);
        let separator = if step.is_empty() { "" } else { "; " };
        Failure::new(failure.exit, format!("{failed} of {all} names could not be fetched{separator}{step}"))
    }
}

/// One line for names that failed together.
fn line_of(cause: &[FailedFile]) -> String {
    let Some(first) = cause.first() else { return String::new() };
    let text = match &*first.error {
        FetchError::Ambiguous { what, candidates } => format!("{what}: {} contents", candidates.len()),
        error => Chain(error).to_string(),
    };
    if cause.len() > 1 { format!("{text} ({} names)", cause.len()) } else { text }
}

#[derive(Serialize)]
struct HiddenLine {
    names: usize,
}

#[derive(Serialize)]
struct FailedLine<'a> {
    path: &'a str,
    code: u8,
    message: String,
}

impl<'a> FailedLine<'a> {
    fn new(failed: &'a FailedFile) -> Self {
        let FailedFile { path, error, .. } = failed;
        FailedLine { path, code: Exit::from(&**error).code(), message: Chain(&**error).to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    fn blocked(name: &str) -> FailedFile {
        let path = format!("/d/{name}").into();
        FailedFile::new(name, FetchError::from(StoreError::NameTaken { path, by: "a directory" }))
    }

    fn told(all: &[FailedFile], json: bool) -> (String, String) {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        Output::new(&mut out, json).failed(all, &mut errors).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
    }

    #[test]
    fn people_read_a_few_causes_and_programs_all_names() {
        assert_eq!(told(&[blocked("a")], false), (String::new(), String::new()), "the error of the program says it");
        let (out, errors) = told(&[blocked("a"), blocked("b")], false);
        assert_eq!(errors.lines().collect::<Vec<_>>()[1], "failed: a directory is in the way at /d/b");
        assert!(out.is_empty());
        let many: Vec<FailedFile> = (0..FAILED_SHOWN_MAX + 5).map(|n| blocked(&n.to_string())).collect();
        let (_, errors) = told(&many, false);
        assert_eq!(errors.lines().count(), FAILED_SHOWN_MAX + 1);
        assert!(errors.ends_with("failed: and 5 more; --json names all of them\n"), "{errors}");
        let (out, errors) = told(&many, true);
        assert_eq!((out.lines().count(), errors.as_str()), (many.len(), ""));
        let first = r#"{"event":"failed","path":"0","code":7,"message":"a directory is in the way at /d/0"}"#;
        assert_eq!(out.lines().next(), Some(first));
    }

    #[test]
    fn names_that_fail_together_are_one_line() {
        let error = Arc::new(FetchError::NotFound { what: "x and 2 more files".into(), answered: 1 });
        let all: Vec<_> = ["x", "y", "z"].map(|name| FailedFile::new(name, error.clone())).into();
        let (_, errors) = told(&all, false);
        assert_eq!(errors, "failed: x and 2 more files: no peer has it (1 answered) (3 names)\n");
        let report = Report { files: 4, failed: all, ..Report::default() };
        let failure = Failure::of_fetch(&error, &report);
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.message.starts_with("3 of 7 names could not be fetched; see what there is"), "{failure:?}");
    }
}
