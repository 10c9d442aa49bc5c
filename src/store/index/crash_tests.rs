//! The index on a volume that forgets what was not synced.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::Durability;

use super::tests::{hashed_as, known};
use super::*;
use crate::store::index::database::{DAMAGED_NAME, INDEX_NAME};
use crate::store::memory::{FaultKind, Memory, MemoryFolder, Rng};

fn open(volume: &Memory) -> Index {
    Index::open_in(Arc::new(MemoryFolder(volume.clone())), b"/shared").unwrap()
}

/// Files change, are recorded and forgotten. Each version of a file has a stamp, a root and a layer of its own.
#[derive(Default)]
struct History {
    versions: Vec<Hashed>,
    /// What the index must know, by path: what was durable and has not been touched since.
    durable: BTreeMap<String, Hashed>,
    latest: BTreeMap<String, Hashed>,
}

impl History {
    /// A few turns of work; false once something failed.
    fn work(&mut self, index: &Index, rng: &mut Rng) -> bool {
        for _ in 0..1 + rng.below(6) {
            let fine = match rng.below(5) {
                0 => {
                    let path = format!("f{}", rng.below(4));
                    self.durable.remove(&path);
                    self.latest.remove(&path);
                    let key = file_key(0, &path);
                    index.write(Durability::None, |tables, _| tables.remove(&key)).is_ok()
                }
                1 => {
                    let done = index.write(Durability::Immediate, |_, _| Ok(())).is_ok();
                    if done {
                        self.durable = self.latest.clone();
                    }
                    done
                }
                _ => {
                    let version = self.versions.len() as u32;
                    let path = format!("f{}", rng.below(4));
                    let file = hashed_as(&path, [1, 3, 1200][rng.below(3) as usize], version);
                    self.versions.push(file.clone());
                    self.durable.remove(&path);
                    let done = index.record(std::slice::from_ref(&file));
                    if done {
                        self.latest.insert(path, file);
                    }
                    done
                }
            };
            if !fine {
                return false;
            }
        }
        true
    }

    /// What the index says of any version that ever was is right, and what was durable is known.
    fn check(&self, index: &Index, what: &str) {
        for file in &self.versions {
            // Panics if the index has another root for this state of the file.
            known(index, file);
            if let Some(layer) = index.layer(&file.indexed.id, 0, file.layer.len() as u32) {
                assert!(layer == file.layer, "{what}: the layer of another file");
            }
        }
        for file in self.durable.values() {
            assert!(known(index, file), "{what}: {} was durable and is forgotten", file.path);
        }
    }
}

fn replay(points: u64) {
    let (mut crashes, mut failed, mut torn, mut seed) = (0, 0, 0, 0);
    while crashes < points {
        seed += 1;
        let mut rng = Rng(seed);
        let mut volume = Memory::new();
        let mut history = History::default();
        for _ in 0..4 {
            crashes += 1;
            volume.cut_after(1 + rng.below(70));
            let what = format!("seed {seed}, crash {crashes}");
            let index = open(&volume);
            if volume.content(&format!("state/{INDEX_NAME}")).is_some() && index.is_lasting() {
                history.check(&index, &what);
                failed += u64::from(!history.work(&index, &mut rng));
            } else {
                failed += 1;
            }
            let next = if rng.below(3) == 0 { None } else { Some(volume.after_power_loss(&mut rng)) };
            // The power is gone for what the end of the process writes.
            drop(index);
            volume = next.unwrap_or_else(|| volume.after_power_loss(&mut rng));
            let index = open(&volume);
            assert!(index.is_lasting(), "{what}: it cannot be used");
            // A database that is found torn is set aside, which costs what it knew.
            if volume.remove_name(&format!("state/{DAMAGED_NAME}")).unwrap() {
                torn += 1;
                history.durable.clear();
            }
            history.latest = history.durable.clone();
            history.check(&index, &what);
            drop(index);
        }
    }
    assert!(failed > points / 10 && failed < points, "{failed} of {crashes} runs met the crash");
    assert!(torn * 50 < crashes.max(50), "{torn} of {crashes} crashes tore the database");
    println!("{crashes} crash points, 0 wrong; {failed} in the middle of the work, {torn} found torn and set aside");
}

#[test]
fn wherever_the_power_fails_the_index_has_no_root_for_other_bytes() {
    replay(std::env::var("GPB_CRASH_POINTS").map_or(120, |n| n.parse().unwrap()));
}

#[test]
#[ignore = "takes minutes"]
fn two_thousand_crash_points() {
    replay(2000);
}

#[test]
fn a_fault_at_any_call_costs_the_index_at_most_what_it_knew() {
    for (kind, lasts) in [
        (FaultKind::Full, true),
        (FaultKind::Broken, false),
        (FaultKind::Broken, true),
        (FaultKind::ReadOnly, true),
        (FaultKind::Short, true),
        (FaultKind::Interrupted, false),
    ] {
        let mut struck = 0;
        for at in (1..).step_by(2) {
            let mut rng = Rng(9);
            let volume = Memory::new();
            let mut history = History::default();
            let index = open(&volume);
            history.work(&index, &mut rng);
            index.sync();
            history.durable = history.latest.clone();
            drop(index);
            volume.fault_at(at, kind, lasts);
            let index = open(&volume);
            if index.is_lasting() {
                history.work(&index, &mut rng);
                index.sync();
            }
            let (calls, what) = (volume.calls(), format!("{kind:?} at call {at}, lasts: {lasts}"));
            let has_struck = volume.mend();
            drop(index);
            struck += u64::from(has_struck);
            assert!(volume.content(&format!("state/{DAMAGED_NAME}")).is_none(), "{what}: a fault is no damage");
            let volume = volume.after_kill();
            let index = open(&volume);
            assert!(index.is_lasting(), "{what}: it cannot be used afterwards");
            history.check(&index, &what);
            drop(index);
            if at > calls {
                break;
            }
        }
        assert!(struck >= 3, "{kind:?}: only {struck} calls were struck");
        println!("{kind:?}, lasts: {lasts}: {struck} calls");
    }
}
