//! Key files on disk, and the keys that a node trusts.

mod error;
mod followed_file;
mod key_file;
mod put_secret;
mod trust;

pub use error::KeyError;
pub(crate) use followed_file::{FollowedFile, printable, written_lines};
pub(crate) use key_file::read_bounded;
pub use key_file::{load_key, load_or_create_key, write_key};
#[cfg(feature = "cli")]
pub(crate) use trust::trusted_line;
pub use trust::{Trust, TrustError, TrustView};
