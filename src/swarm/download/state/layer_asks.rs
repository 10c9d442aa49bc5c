//! The peers that are asked for the layer of one file.

use std::time::Instant;

use crate::limits::DOWNLOAD_CONNECTIONS_MAX;
use crate::swarm::download::limits::{LAYER_ASKED_MIN, LAYER_PATIENCE, LAYERS_LEN_MAX};
use crate::swarm::download::picker::PeerHandle;

/// The peers that are asked for a layer at the same time, and those that did not send it.
///
/// A file has nothing to do before its layer is there, and any holder may keep it back. So one
/// holder after the other is asked until one sends it: each one that was asked and does not send it
/// makes the wait for the next one shorter, so that a crowd of them does not hold up the file.
#[derive(Debug, Default)]
pub(super) struct LayerAsks {
    asked: Vec<(PeerHandle, Instant)>,
    /// Peers whose connection ended before the layer was there. They come after peers that were not
    /// asked yet: else a crowd of peers that fail and are dialed again leaves no turn to others.
    failed: Vec<PeerHandle>,
}

impl LayerAsks {
    /// Whether `peer` may be asked for the layer of `chunks` digests, too. A peer that `has_given` a
    /// chunk waits half as long.
    pub(super) fn may_ask(&self, peer: PeerHandle, has_given: bool, chunks: u32, now: Instant) -> bool {
        let Some(last) = self.asked.iter().map(|a| a.1).max() else { return true };
        let (room, patience) = if self.failed.contains(&peer) {
            (LAYER_ASKED_MIN / 2, LAYER_PATIENCE * 2)
        } else {
            let patience = LAYER_PATIENCE / (self.asked.len() as u32 - 1).max(1);
            (asked_max(chunks), if has_given { patience / 2 } else { patience })
        };
        self.asked.len() < room && now.saturating_duration_since(last) > patience && !self.is_asked(peer)
    }

    pub(super) fn ask(&mut self, peer: PeerHandle, now: Instant) {
        self.asked.push((peer, now));
    }

    /// `peer` did not send the layer.
    pub(super) fn fail(&mut self, peer: PeerHandle) {
        if self.is_asked(peer) {
            self.withdraw(peer);
            // Peers that fail again are not counted twice, so there are no more than there are holders.
            if !self.failed.contains(&peer) {
                self.failed.push(peer);
            }
        }
    }

    /// `peer` puts the answer off, or holds nothing of the file.
    pub(super) fn withdraw(&mut self, peer: PeerHandle) {
        self.asked.retain(|a| a.0 != peer);
    }

    pub(super) fn is_asked(&self, peer: PeerHandle) -> bool {
        self.asked.iter().any(|a| a.0 == peer)
    }
}

/// Most peers that are asked at once for the layer of `chunks` digests: as many as there are
/// connections, unless the layer is long.
fn asked_max(chunks: u32) -> usize {
    let layer_len = chunks as usize * 32;
    (LAYERS_LEN_MAX / layer_len.max(1)).clamp(LAYER_ASKED_MIN, DOWNLOAD_CONNECTIONS_MAX)
}
