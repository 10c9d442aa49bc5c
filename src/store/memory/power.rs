//! What becomes of a volume in memory when its process is killed, the power fails, or a backup is restored.

use crate::store::memory::world::{FileContent, NameChange};
use crate::store::memory::{Memory, Rng};

impl Memory {
    /// The process is killed: locks end, everything written stays.
    pub(crate) fn after_kill(&self) -> Memory {
        let mut world = self.lock();
        world.steps_left = u64::MAX;
        world.files.values_mut().for_each(|f| f.locked = false);
        drop(world);
        self.clone()
    }

    /// Each part becomes a copy of itself, as from a backup that is restored.
    pub(crate) fn restore_parts(&self) {
        for name in self.own_names().iter().filter(|name| name.ends_with(".part")) {
            let (bytes, mut world) = (self.content(name).unwrap_or_default(), self.lock());
            let inode = world.new_inode();
            let content = FileContent { durable: bytes.clone(), bytes, ..FileContent::default() };
            world.files.insert(inode, content);
            // Changes of this name that are not durable yet come before these.
            for change in [NameChange::Unlink(name.clone()), NameChange::Link(name.clone(), inode)] {
                world.change(change).unwrap_or_default();
            }
        }
    }

    /// The disk as found after the power failed.
    pub(crate) fn after_power_loss(&self, rng: &mut Rng) -> Memory {
        let world = self.lock();
        let names = world.surviving_names(rng);
        let next = Memory { manner: self.manner, ..Memory::new() };
        let mut new = next.lock();
        new.strict = world.strict;
        for inode in names.values() {
            let Some(file) = world.files.get(inode) else { continue };
            let mut bytes = file.durable.clone();
            for change in &file.pending {
                match rng.below(3) {
                    0 => (),
                    1 => change.apply_torn(&mut bytes, rng),
                    _ => change.apply(&mut bytes),
                }
            }
            // The time of the last change may be lost although the change is not.
            let changes = if rng.below(2) == 0 { file.changes } else { file.durable_changes };
            let dress = if rng.below(2) == 0 { file.dress } else { file.durable_dress };
            let content = FileContent {
                dress,
                durable_dress: dress,
                durable: bytes.clone(),
                bytes,
                changes,
                durable_changes: changes,
                ..FileContent::default()
            };
            new.files.insert(*inode, content);
        }
        (new.names, new.durable_names) = (names.clone(), names);
        drop(new);
        next
    }
}
