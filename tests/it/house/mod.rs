//! How the sources are built: which module may use which, and what keeps a file readable.
//!
//! All of it is read from the source text, so that a violation is named with its file and line.

mod bounds;
mod circles;
mod map;
mod sizes;
mod source;
mod texts;
mod tiers;

/// Fails with one line for each violation.
#[track_caller]
fn assert_none(what: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{what}:\n{}", violations.join("\n"));
}
