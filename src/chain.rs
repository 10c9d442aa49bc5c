//! An error on one line, with its causes. Tier 0.

use std::error::Error;
use std::fmt;

/// Displays an error and, behind colons, the chain of its sources. For logs and for people.
///
/// Error messages of this crate leave out their sources, so that a printer of chains repeats none.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// Writes a shared error as its text with its causes.
#[cfg(feature = "serde")]
pub(crate) fn as_text<E: Error, S: serde::Serializer>(error: &std::sync::Arc<E>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Chain(&**error))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen")]
    struct Inner(#[source] io::Error);

    #[test]
    fn each_cause_is_shown_once() {
        let error = Outer(Inner(io::Error::other("port in use")));
        assert_eq!(Chain(&error).to_string(), "cannot start: cannot listen: port in use");
    }
}
