//! The layers of large files that fetches put in place. While such a file is in its recorded state, a
//! later version takes the chunks that did not change from it by their digests, without hashing them.
//!
//! There are [`LAYER_SLOTS`] files in the state directory at most. A content is kept in the one that its
//! root chooses, in place of what that held: boot 36, root 32, length 8 (little-endian), then the digests.
//! A layer proves itself by the root, so one that was cut off, damaged, or written by two processes at
//! once counts as none, and nothing of it has to be durable.
//!
//! A layer counts during the boot in which it was written. A power loss may keep what was written to a
//! file and lose the times of that, so that the file seems untouched.

use std::io;

use log::debug;

use crate::chain::Chain;
use crate::content::{Digest, FileId, Geometry, Manifest};
use crate::store::limits::{LAYER_KEPT_MAX, LAYER_KEPT_MIN, LAYER_SLOTS};
use crate::store::placed::PlacedLog;

impl PlacedLog {
    /// Keeps the layer of a content that was put in place. A failure only costs time later.
    pub(crate) fn keep_layer(&self, manifest: &Manifest) {
        if let (true, Some(boot)) = (is_kept(&manifest.id()), boot_id())
            && let Err(e) = self.write_layer(manifest, &boot)
        {
            debug!("layer not kept file={} error=\"{}\"", manifest.id(), Chain(&e));
        }
    }

    pub(in crate::store) fn write_layer(&self, manifest: &Manifest, boot: &BootId) -> io::Result<()> {
        let (id, digests) = (manifest.id(), manifest.layer().iter().flat_map(|digest| digest.0));
        let bytes: Vec<u8> = head_of(&id, boot).into_iter().chain(digests).collect();
        let name = slot_name(&id);
        let file = match self.folder.open(&name)? {
            Some(file) => file,
            None => self.folder.create(&name)?.ok_or(io::ErrorKind::AlreadyExists)?,
        };
        file.set_len(0)?;
        file.write_at(0, &bytes)
    }

    /// The layer of `id`, if it is kept since the system was started.
    pub(crate) fn layer_of(&self, id: &FileId) -> Option<Manifest> {
        if is_kept(id) { self.read_layer(id, &boot_id()?) } else { None }
    }

    pub(in crate::store) fn read_layer(&self, id: &FileId, boot: &BootId) -> Option<Manifest> {
        let file = self.folder.open(&slot_name(id)).ok()??;
        let len = HEAD_LEN + DIGEST_LEN * Geometry::new(id.len).chunk_count() as usize;
        let mut bytes = vec![0; len];
        file.read_at(0, &mut bytes).ok()?;
        let (head, digests) = bytes.split_at(HEAD_LEN);
        if head != head_of(id, boot) {
            return None;
        }
        let digests = digests.as_chunks::<DIGEST_LEN>().0.iter().map(|digest| Digest(*digest));
        Manifest::new(*id, digests.collect()).ok()
    }
}

/// Whether the layer of such a content is kept: fewer chunks are hashed in no time.
fn is_kept(id: &FileId) -> bool {
    (LAYER_KEPT_MIN..=LAYER_KEPT_MAX).contains(&Geometry::new(id.len).chunk_count())
}

fn head_of(id: &FileId, boot: &BootId) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[..BOOT_LEN].copy_from_slice(boot);
    head[BOOT_LEN..BOOT_LEN + DIGEST_LEN].copy_from_slice(&id.root.0.0);
    head[BOOT_LEN + DIGEST_LEN..].copy_from_slice(&id.len.to_le_bytes());
    head
}

/// What the kernel calls the time since it was started; none where it does not say.
fn boot_id() -> Option<BootId> {
    let text = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    text.trim_ascii().try_into().ok()
}

type BootId = [u8; BOOT_LEN];

const BOOT_LEN: usize = 36;

fn slot_name(id: &FileId) -> String {
    format!("{SLOT_PREFIX}{:02x}", id.root.0.0[0] % LAYER_SLOTS)
}

/// Whether a file of a layer may have this name.
pub(super) fn is_slot_name(name: &str) -> bool {
    name.strip_prefix(SLOT_PREFIX)
        .is_some_and(|slot| slot.len() == 2 && slot.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

const SLOT_PREFIX: &str = "placed-layer-";
const DIGEST_LEN: usize = 32;
const HEAD_LEN: usize = BOOT_LEN + DIGEST_LEN + 8;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::content::{Root, merkle};
    use crate::limits::CHUNK_LEN_MIN;
    use crate::store::PartialFile;
    use crate::store::flusher::Flusher;
    use crate::store::memory::{Memory, MemoryFolder, Rng};
    use crate::store::reuse::ReuseSource;
    use crate::store::storage::Folder;

    fn manifest(n: u8, chunks: u32) -> Manifest {
        let len = u64::from(chunks) * CHUNK_LEN_MIN;
        let layer: Vec<Digest> = (0..chunks).map(|chunk| Digest([n ^ chunk as u8; 32])).collect();
        let root = Root(merkle::root_of_layer(&layer, Geometry::new(len).chunk_height()));
        Manifest::new(FileId { root, len }, layer).unwrap()
    }

    fn log(memory: &Memory) -> PlacedLog {
        PlacedLog::new(Arc::new(MemoryFolder(memory.clone())), Path::new("/data").to_path_buf())
    }

    #[test]
    fn a_layer_is_found_until_another_content_takes_its_slot() {
        let memory = Memory::new();
        let first = manifest(1, LAYER_KEPT_MIN);
        log(&memory).keep_layer(&first);
        assert_eq!(log(&memory).layer_of(&first.id()), Some(first.clone()));
        let short = manifest(2, LAYER_KEPT_MIN - 1);
        log(&memory).keep_layer(&short);
        assert_eq!(log(&memory).layer_of(&short.id()), None);
        // Longer and shorter ones in one slot: what stays of an older one is no part of a later one.
        let slot = slot_name(&first.id());
        let same = |m: &Manifest| slot_name(&m.id()) == slot;
        for chunks in [LAYER_KEPT_MIN + 9, LAYER_KEPT_MIN] {
            let other = (3..=u8::MAX).flat_map(|n| [manifest(n, chunks), manifest(n, chunks + 1)]).find(same);
            let other = other.unwrap();
            log(&memory).keep_layer(&other);
            assert_eq!((log(&memory).layer_of(&other.id()), log(&memory).layer_of(&first.id())), (Some(other), None));
        }
    }

    #[test]
    fn wherever_the_power_fails_a_layer_is_right_or_none() {
        let (old, new) = (manifest(1, LAYER_KEPT_MIN), manifest(1, LAYER_KEPT_MIN + 7));
        let mut found = [0; 2];
        for seed in 0..400 {
            let mut rng = Rng(seed);
            let memory = Memory::new();
            log(&memory).keep_layer(&old);
            memory.cut_after(1 + rng.below(6));
            log(&memory).keep_layer(&new);
            let mut after = memory.after_power_loss(&mut rng);
            if rng.below(4) == 0 {
                after = after.after_kill();
            }
            for manifest in [&old, &new] {
                let layer = log(&after).layer_of(&manifest.id());
                found[usize::from(layer.is_some())] += 1;
                assert!(layer.is_none_or(|layer| layer == *manifest), "seed {seed}");
            }
        }
        println!("{} layers found, {} not", found[1], found[0]);
    }

    /// Cause: a power loss may keep bytes that were written to a file and lose its times. Effect: such a file
    /// seemed untouched, and a later version took wrong chunks from it. Mend: no layer outlives a boot.
    #[test]
    fn no_layer_counts_after_a_restart_of_the_system() {
        let (memory, kept) = (Memory::new(), manifest(1, LAYER_KEPT_MIN));
        let (before, after) = ([b'a'; BOOT_LEN], [b'b'; BOOT_LEN]);
        log(&memory).write_layer(&kept, &before).unwrap();
        assert_eq!(log(&memory).read_layer(&kept.id(), &before), Some(kept.clone()));
        assert_eq!(log(&memory).read_layer(&kept.id(), &after), None);
        assert!(log(&memory).layer_of(&kept.id()).is_none(), "of this boot");
        assert_eq!(boot_id(), boot_id());
    }

    /// A user writes to a file in place, and the power fails: the times of that may be lost. Within one boot they
    /// cannot be, so with the same boot this shows what would go wrong.
    #[test]
    fn a_power_loss_that_keeps_bytes_and_loses_times_gives_no_wrong_chunk() {
        let bytes_of = |digits: [u8; 2]| digits.map(|digit| vec![digit; CHUNK_LEN_MIN as usize]).concat();
        let (old, new) = (bytes_of([1, 2]), bytes_of([1, 3]));
        let [old_layer, new_layer] = [&old, &new].map(|bytes| {
            let height = Geometry::new(bytes.len() as u64).chunk_height();
            let layer: Vec<Digest> =
                bytes.chunks(CHUNK_LEN_MIN as usize).map(|chunk| merkle::chunk_digest(chunk, height)).collect();
            let root = Root(merkle::root_of_layer(&layer, height));
            Manifest::new(FileId { root, len: bytes.len() as u64 }, layer).unwrap()
        });
        let first = new_layer.geometry().chunk(0).unwrap();
        let (boot, mut wrong, mut right) = ([b'a'; BOOT_LEN], [0; 2], 0);
        for (seed, at) in (0..300).flat_map(|seed| [(seed, 0), (seed, 1)]) {
            let (mut rng, memory) = (Rng(seed), Memory::new());
            memory.put("old", &old);
            let file = memory.open_name("old").unwrap().unwrap();
            let recorded = file.stat().unwrap().stamp;
            log(&memory).write_layer(&old_layer, &boot).unwrap();
            memory.open_name(&format!("state/{}", slot_name(&old_layer.id()))).unwrap().unwrap().sync().unwrap();
            MemoryFolder(memory.clone()).sync().unwrap();
            file.write_at(7, b"of the user").unwrap();
            let after = memory.after_power_loss(&mut rng);
            let there = after.open_name("old").unwrap().unwrap();
            let stat = there.stat().unwrap();
            let layer = log(&after).read_layer(&old_layer.id(), &[boot, [b'b'; BOOT_LEN]][at]);
            let layer = layer.filter(|_| stat.stamp == recorded);
            let source = ReuseSource::new(there, stat.len).with_layer(layer, stat.stamp);
            let flusher = Arc::new(Flusher::without_thread());
            let part = PartialFile::open(Arc::new(after.clone()), flusher, Arc::new(new_layer.clone())).unwrap();
            part.reuse(vec![source]);
            part.recheck(u64::MAX);
            let mut bytes = vec![0; CHUNK_LEN_MIN as usize];
            if part.has(first) {
                part.read_at(0, &mut bytes).unwrap();
                if bytes == new[..bytes.len()] { right += 1 } else { wrong[at] += 1 }
            }
        }
        assert!(wrong[0] > 0 && wrong[1] == 0 && right > 0, "{wrong:?} {right}");
    }

    #[test]
    fn a_damaged_layer_is_none() {
        let (memory, kept) = (Memory::new(), manifest(1, LAYER_KEPT_MIN));
        log(&memory).keep_layer(&kept);
        memory.flip(&format!("state/{}", slot_name(&kept.id())), HEAD_LEN + 77);
        assert_eq!(log(&memory).layer_of(&kept.id()), None);
        log(&memory).keep_layer(&kept);
        assert_eq!(log(&memory).layer_of(&kept.id()), Some(kept), "written anew");
    }
}
