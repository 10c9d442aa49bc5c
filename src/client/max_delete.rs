//! How much may be removed.

use std::fmt;
use std::str::FromStr;

/// The most that a sync removes: a number of files, or a percentage of all that are there.
///
/// ```
/// use gpb::MaxDelete;
///
/// assert_eq!("50%".parse(), Ok(MaxDelete::default()));
/// assert_eq!("7".parse(), Ok(MaxDelete::Files(7)));
/// assert!("101%".parse::<MaxDelete>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxDelete {
    /// So many files.
    Files(u64),
    /// So many percent of the files that are there before, 0 to 100.
    Percent(u8),
}

/// Neither a number of files nor a percentage.
///
/// ```
/// use gpb::MaxDelete;
///
/// assert!("half".parse::<MaxDelete>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a number of files, nor a percentage such as 50%")]
pub struct ParseMaxDeleteError;

impl MaxDelete {
    /// Whether `removed` of `all` files may be removed.
    pub fn allows(&self, removed: u64, all: u64) -> bool {
        match *self {
            MaxDelete::Files(max) => removed <= max,
            MaxDelete::Percent(percent) => u128::from(removed) * 100 <= u128::from(all) * u128::from(percent.min(100)),
        }
    }
}

impl Default for MaxDelete {
    /// Half of them.
    fn default() -> Self {
        MaxDelete::Percent(50)
    }
}

impl FromStr for MaxDelete {
    type Err = ParseMaxDeleteError;

    fn from_str(text: &str) -> Result<Self, ParseMaxDeleteError> {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (number, is_percent) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        let number: u64 =
            Some(number).filter(|n| is_digits(n)).and_then(|n| n.parse().ok()).ok_or(ParseMaxDeleteError)?;
        match (is_percent, u8::try_from(number)) {
            (false, _) => Ok(MaxDelete::Files(number)),
            (true, Ok(percent)) if percent <= 100 => Ok(MaxDelete::Percent(percent)),
            _ => Err(ParseMaxDeleteError),
        }
    }
}

impl fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaxDelete::Files(files) => write!(f, "{files}"),
            MaxDelete::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}
