//! The requests with which somebody begins to ask on a session.

use std::sync::Arc;

use crate::proto::{Request, encode_request};

/// The first requests on a session, such as those for the first pages of a listing. They can go out together with `Hello`,
/// whoever opens the session.
pub type Opening = Arc<[Request]>;

/// Appends the frames of `requests`.
pub(super) fn encode_all(requests: &[Request], out: &mut Vec<u8>) {
    requests.iter().for_each(|request| encode_request(request, out));
}
