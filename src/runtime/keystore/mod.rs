//! Key files on disk, and the keys that a node trusts.

mod error;
mod key_file;
mod put_secret;
mod trust;

pub use error::KeyError;
pub use key_file::{load_key, load_or_create_key, write_key};
pub use trust::{Trust, TrustError, TrustView};
