//! How a faulty peer sends an answer that is ready.

use std::thread::sleep;
use std::time::Duration;

use crate::proto::FramePrefix;
use crate::testing::dice::roll;
use crate::testing::wire::Wire;

/// How the bytes of one answer go out. `None` of [`send`](Self::send) ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// All at once.
    Whole,
    /// All at once, two times.
    Twice,
    /// All but the body at once, and then a byte a second.
    DripBody,
    /// A byte a second.
    Drip,
    /// In steps of that many bytes, each 10 ms after the last one.
    Steps(u32),
    /// All but the second half of the body.
    Half,
    /// Half of it, and then the end of the connection.
    HalfAndEnd,
    /// Random bytes of the same length.
    Garbage {
        /// Seed of the bytes.
        seed: u64,
    },
    /// With a body of that many zero bytes.
    Fat(u32),
    /// Neither this answer nor a later one.
    Never,
}

impl Delivery {
    /// Sends `frame`, which may be empty: no answer.
    pub(super) fn send(self, wire: &mut Wire<'_>, frame: &[u8]) -> Option<()> {
        if self == Delivery::Never {
            return wire.hang();
        }
        let Some(prefix) = frame.first_chunk() else { return Some(()) };
        let body_len = FramePrefix::from_bytes(*prefix).body_len as usize;
        let (head, body) = frame.split_at(frame.len() - body_len);
        match self {
            Delivery::Whole | Delivery::Never => wire.send(frame),
            Delivery::Twice => wire.send(&[frame, frame].concat()),
            Delivery::DripBody => {
                wire.send(head)?;
                steps(wire, body, 1, SECOND)
            }
            Delivery::Drip => steps(wire, frame, 1, SECOND),
            Delivery::Steps(len) => {
                wire.send(head)?;
                steps(wire, body, len as usize, STEP_TIME)
            }
            Delivery::Half => wire.send(&frame[..frame.len() - body_len / 2]),
            Delivery::HalfAndEnd => {
                wire.send(&frame[..frame.len() - body_len / 2])?;
                wire.end()
            }
            Delivery::Garbage { seed } => {
                let bytes: Vec<u8> = (0..frame.len() as u64).map(|nth| roll(seed, nth) as u8).collect();
                wire.send(&bytes)
            }
            Delivery::Fat(len) => {
                let mut head = head.to_vec();
                head.get_mut(4..8)?.copy_from_slice(&len.to_le_bytes());
                wire.send(&head)?;
                let zeros = vec![0; FAT_STEP.min(len as usize)];
                let mut left = len as usize;
                while left > 0 {
                    let n = left.min(FAT_STEP);
                    wire.send(&zeros[..n])?;
                    left -= n;
                }
                Some(())
            }
        }
    }
}

fn steps(wire: &mut Wire<'_>, bytes: &[u8], len: usize, every: Duration) -> Option<()> {
    bytes.chunks(len.max(1)).try_for_each(|step| {
        sleep(every);
        wire.send(step)
    })
}

const SECOND: Duration = Duration::from_secs(1);
const STEP_TIME: Duration = Duration::from_millis(10);
/// Bytes of a fat answer that are sent at once.
const FAT_STEP: usize = 64 << 10;
