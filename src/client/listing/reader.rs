//! Reads the listing of one peer page by page.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use super::{PeerListing, Room, Taken};
use crate::client::limits::{LISTING_LEN_MAX, LISTINGS_LEN_MAX};
use crate::content::Pattern;
use crate::limits::LIST_PAGE_LEN;
use crate::peers::{AskError, Session};
use crate::proto::{Kind, ListFrom, ListPage, PageHead, Request, Status};

/// A listing that is being read, with the bounds of any listing.
pub(crate) struct ListingReader {
    text: String,
    pattern: Option<Pattern>,
    patience: Duration,
    all: Taken,
    /// Where the next page begins; `None` at the end.
    after: Option<String>,
}

impl ListingReader {
    /// Reads what the pattern `text` means; everything if it is empty. A peer that sends nothing for
    /// `patience` counts as silent.
    pub(crate) fn new(text: &str, patience: Duration) -> Self {
        let (all, all_max) = (Arc::new(AtomicUsize::new(0)), LISTINGS_LEN_MAX);
        let room = Room { all, all_max, peer_max: LISTING_LEN_MAX, taken: 0, counted: 0 };
        ListingReader {
            text: text.into(),
            pattern: Pattern::parse(text).ok(),
            patience,
            all: Taken::new(room),
            after: Some(String::new()),
        }
    }

    /// Reads a page; `None` behind the last one, and of a peer that has nothing of the name.
    pub(crate) fn next_page(&mut self, session: &mut Session) -> Result<Option<PageHead>, AskError> {
        let Some(after) = self.after.take() else { return Ok(None) };
        let deadline = Instant::now() + self.patience;
        let from = ListFrom { pattern: self.text.clone(), after: after.clone(), revision: 0 };
        session.send(&[Request::List(from)], deadline)?;
        let (status, len) = session.receive_head(Kind::List, LIST_PAGE_LEN * 2, deadline)?;
        let body = session.body(len, deadline)?;
        match status {
            Status::Ok => {}
            Status::NotFound | Status::NotModified => return Ok(None),
            _ => return Err(session.problem(status)),
        }
        let head: PageHead = session.header("List")?;
        let mut last = None;
        for entry in ListPage::read(&body)? {
            let (path, what) = entry?;
            last = Some(path);
            self.all.take(path, what, self.pattern.as_ref(), &session.peer)?;
        }
        // Only pages that advance make sure that there is a last one.
        self.after = last.filter(|last| head.more && *last > after.as_str()).map(str::to_string);
        if head.more && self.after.is_none() {
            return Err(AskError::Protocol("its listing does not go on".into()));
        }
        Ok(Some(head))
    }

    /// Whether the last page was read.
    pub(crate) fn has_ended(&self) -> bool {
        self.after.is_none()
    }

    /// What was read.
    pub(crate) fn finish(self, session: &Session) -> PeerListing {
        let Taken { files, bare, room, partial, .. } = self.all;
        PeerListing { shared: session.welcome.revision > 0, files, bare, partial, room }
    }
}
