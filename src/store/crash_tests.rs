//! Everything that writes, on a volume that forgets what was not synced: a crash at any point, and a fault at any call.
//!
//! The environment variable `GPB_CRASH_POINTS` sets the number of crash points; the seed of a failure is in its message.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::content::{ChunkIndex, Digest, FileId, Geometry, Manifest, RelPath, Root, merkle};
use crate::limits::CHUNK_LEN_MIN;
use crate::store::batch_write::batch_write;
use crate::store::flusher::Flusher;
use crate::store::leftovers::{self, Spared};
use crate::store::limits::SCARCE_ROOM;
use crate::store::memory::{EMPTY_DIR, FaultKind, Memory, MemoryFolder, PlaceManner, Rng, dress_for, own_name};
use crate::store::place_bare::place_bare;
use crate::store::place_copy::place_copy;
use crate::store::placed::{Keeping, PlacedFile, PlacedLog, PlacedState};
use crate::store::reuse::ReuseSource;
use crate::store::storage::{FileDress, OwnBare, Storage, Volume};
use crate::store::{PartialFile, StoreError};

/// A file with its bytes and its places.
struct Sample {
    manifest: Arc<Manifest>,
    outs: Vec<RelPath>,
}

/// What a download fetches: large files, one of them under two names, one with zeros and an older version, small ones in one batch, and a copy of a file that
/// is there.
struct Plan {
    large: Vec<Sample>,
    small: Vec<(RelPath, FileId, Vec<u8>)>,
    copy: RelPath,
    dir: RelPath,
    link: RelPath,
    other_name: RelPath,
    /// What tells one time of the system from the next one, after a power loss.
    boot: Cell<u8>,
    /// How often the layer of an older version was found.
    layers: Cell<u32>,
    /// Whether what is put in place is recorded. Where single calls fail, the lock of the records would stay.
    is_recorded: bool,
}

fn name(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn chunk(len: u64, salt: u8, index: ChunkIndex) -> Vec<u8> {
    if len % CHUNK_LEN_MIN == WITH_ZEROS && index.get() % 2 == 1 {
        return vec![0; Geometry::new(len).span(index).len as usize];
    }
    vec![(index.get() as u8).wrapping_mul(7) ^ salt | 1; Geometry::new(len).span(index).len as usize]
}

fn whole(manifest: &Manifest) -> Vec<u8> {
    let len = manifest.id().len;
    let chunks: Vec<_> = manifest.geometry().chunks().map(|c| chunk(len, (len % 251) as u8, c)).collect();
    chunks.concat()
}

/// A content of that length of which an older version is on the disk: some chunks differ, some that are zeros now were
/// not, and it ends earlier.
fn older(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = whole(manifest);
    bytes[CHUNK_LEN_MIN as usize + 9] = 1;
    bytes[2 * CHUNK_LEN_MIN as usize] ^= 1;
    bytes.truncate(bytes.len() - 2);
    bytes
}

/// A file of that length, which also says what is in it.
fn manifest(len: u64) -> Arc<Manifest> {
    static KNOWN: Mutex<Option<HashMap<u64, Arc<Manifest>>>> = Mutex::new(None);
    let made = || {
        let geometry = Geometry::new(len);
        let height = geometry.chunk_height();
        let digest = |c| merkle::chunk_digest(&chunk(len, (len % 251) as u8, c), height);
        let layer: Vec<Digest> = geometry.chunks().map(digest).collect();
        let root = Root(merkle::root_of_layer(&layer, height));
        Arc::new(Manifest::new(FileId { root, len }, layer).unwrap())
    };
    KNOWN.lock().unwrap().get_or_insert_default().entry(len).or_insert_with(made).clone()
}

fn layer_of(bytes: &[u8]) -> Manifest {
    let geometry = Geometry::new(bytes.len() as u64);
    let digest = |part: &[u8]| merkle::chunk_digest(part, geometry.chunk_height());
    let layer: Vec<Digest> = match geometry.needs_layer() {
        true => bytes.chunks(geometry.chunk_len() as usize).map(digest).collect(),
        false => Vec::new(),
    };
    let root = match geometry.needs_layer() {
        true => merkle::root_of_layer(&layer, geometry.chunk_height()),
        false => merkle::root_of_bytes(bytes),
    };
    Manifest::new(FileId { root: Root(root), len: geometry.len() }, layer).unwrap()
}

/// The layer of the older version of a content.
fn older_layer(manifest: &Manifest) -> Arc<Manifest> {
    static KNOWN: Mutex<Option<HashMap<u64, Arc<Manifest>>>> = Mutex::new(None);
    let made = || Arc::new(layer_of(&older(manifest)));
    KNOWN.lock().unwrap().get_or_insert_default().entry(manifest.id().len).or_insert_with(made).clone()
}

/// What was said to be durable.
#[derive(Default)]
struct Done {
    finals: Vec<RelPath>,
    /// Chunks of each unfinished file.
    chunks: HashMap<FileId, u32>,
}

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        let chunks = 2 + rng.below(3);
        let large = vec![
            Sample { manifest: manifest((chunks - 1) * CHUNK_LEN_MIN + 77), outs: vec![name("d/large")] },
            Sample { manifest: manifest(CHUNK_LEN_MIN + 99), outs: vec![name("twin"), name("d/twin")] },
            Sample { manifest: manifest(3 * CHUNK_LEN_MIN + WITH_ZEROS), outs: vec![name("d/changed")] },
        ];
        // With and without one sync for all of them.
        let small = (0..1 + rng.below(6)).map(|i| {
            let bytes: Vec<u8> = (0..rng.below(1500)).map(|_| rng.below(256) as u8).collect();
            let id = FileId { root: Root(Digest([i as u8; 32])), len: bytes.len() as u64 };
            (name(&format!("s{}/f{i}", i % 2)), id, bytes)
        });
        let [copy, dir, link, other_name] = ["copy", "d/empty", "link", "d/other"].map(name);
        let (boot, layers) = Default::default();
        Plan { large, small: small.collect(), copy, dir, link, other_name, boot, layers, is_recorded: true }
    }

    /// Records what a fetch put at `outs`, and keeps its layer, as `Disk::put_in_place` does.
    fn note_placed(&self, volume: &Memory, manifest: &Manifest, outs: &[RelPath]) {
        if !self.is_recorded {
            return;
        }
        let log = log_of(volume);
        let placed = outs.iter().filter_map(|out| Some((out, volume.state_at(out.as_str())?)));
        placed.for_each(|(out, state)| log.note(out.as_str(), placed_file(manifest, Some(state))));
        // A failure only costs time.
        let _ = log.write_layer(manifest, &[self.boot.get(); 36]);
    }

    /// The layer of what a fetch put at `out` and left in its state.
    fn layer_at(&self, volume: &Memory, out: &RelPath) -> Option<Manifest> {
        let (log, state) = (log_of(volume), volume.state_at(out.as_str())?);
        let left = log.find(out.as_str()).into_iter().find(|placed| placed.state == Some(state))?;
        let layer = log.read_layer(&left.id, &[self.boot.get(); 36])?;
        self.layers.set(self.layers.get() + 1);
        Some(layer)
    }

    /// All final names with the bytes that belong there.
    fn finals(&self) -> Vec<(&RelPath, Vec<u8>)> {
        let large = self.large.iter().flat_map(|s| s.outs.iter().map(|out| (out, whole(&s.manifest))));
        let small = self.small.iter().map(|(path, _, bytes)| (path, bytes.clone()));
        large.chain(small).chain([(&self.copy, whole(&self.large[0].manifest))]).collect()
    }

    /// What is no plain file, each with what a process sees there and its attributes.
    fn bare(&self) -> [(&RelPath, OwnBare<'_>, Vec<u8>, FileDress); 3] {
        let dress = |mtime_ns| FileDress { mtime_ns, execute_bits: 0 };
        let large = &self.large[0].outs[0];
        [
            (&self.dir, OwnBare::Dir { mtime_ns: -3 }, b"/".to_vec(), dress(-3)),
            (&self.link, OwnBare::Link { target: TARGET, mtime_ns: 9 }, TARGET.into(), dress(9)),
            (
                &self.other_name,
                OwnBare::Name { of: large, known: None },
                whole(&self.large[0].manifest),
                dress_for(large.as_str()),
            ),
        ]
    }

    /// Downloads what is not there, in random order with random flushes. `done` learns what was said to be durable.
    fn run(&self, volume: &Memory, rng: &mut Rng, done: &mut Done) -> Result<(), StoreError> {
        let wanted: Vec<FileId> = self.large.iter().map(|sample| sample.manifest.id()).collect();
        leftovers::sweep(volume, &wanted, Spared::OlderVersions, Duration::from_secs(1 << 31));
        let missing: Vec<_> = self
            .small
            .iter()
            .filter(|(path, _, bytes)| volume.content(path.as_str()).as_ref() != Some(bytes))
            .collect();
        let batch: Vec<_> = missing.iter().map(|(path, id, bytes)| (path.clone(), *id, bytes.as_slice())).collect();
        for (result, (path, ..)) in batch_write(volume, &batch).into_iter().zip(missing) {
            result?;
            done.finals.push(path.clone());
        }
        for sample in &self.large {
            let is_there = |out: &RelPath| volume.content(out.as_str()) == Some(whole(&sample.manifest));
            if !sample.outs.iter().all(is_there) {
                fetch(self, volume, sample, (rng, &mut done.chunks))?;
                done.finals.extend(sample.outs.iter().cloned());
            }
        }
        if volume.content(self.copy.as_str()).is_none_or(|found| found != whole(&self.large[0].manifest)) {
            volume.make_own()?;
            let from = volume.open_name("d/large").map_err(|e| StoreError::at("d/large", e))?.unwrap();
            place_copy(volume, &*from, self.large[0].manifest.id().len, &self.copy, || Ok(()))?;
            done.finals.push(self.copy.clone());
        }
        let bare = self.bare();
        let missing = bare.iter().filter(|(path, _, bytes, _)| volume.content(path.as_str()).as_ref() != Some(bytes));
        let items: Vec<_> = missing.map(|(path, what, ..)| (*path, *what)).collect();
        for (result, (path, _)) in place_bare(volume, &items).into_iter().zip(&items) {
            result?;
            done.finals.push((*path).clone());
        }
        Ok(())
    }
}

fn open(volume: &Memory, manifest: &Arc<Manifest>) -> Result<PartialFile, StoreError> {
    PartialFile::open(Arc::new(volume.clone()), Arc::new(Flusher::without_thread()), manifest.clone())
}

fn log_of(volume: &Memory) -> PlacedLog {
    PlacedLog::new(Arc::new(MemoryFolder(volume.clone())), Path::new("/data").to_path_buf())
}

fn placed_file(manifest: &Manifest, state: Option<PlacedState>) -> PlacedFile {
    PlacedFile { id: manifest.id(), state, keeping: Keeping::Kept }
}

fn fetch(
    plan: &Plan,
    volume: &Memory,
    sample: &Sample,
    (rng, kept): (&mut Rng, &mut HashMap<FileId, u32>),
) -> Result<(), StoreError> {
    // Readers had it first, now and then.
    let file = match rng.below(3) {
        0 => PartialFile::open_to_read(
            Arc::new(volume.clone()),
            Arc::new(Flusher::without_thread()),
            sample.manifest.clone(),
        )?,
        _ => open(volume, &sample.manifest)?,
    };
    let old = volume.open_name(sample.outs[0].as_str()).map_err(|e| StoreError::at("old", e))?;
    // What lies there may be a file that a fetch left in this state, of which the layer was kept.
    let layer = (rng.below(2) == 0).then(|| match plan.is_recorded {
        true => plan.layer_at(volume, &sample.outs[0]),
        false => volume.content(sample.outs[0].as_str()).map(|bytes| layer_of(&bytes)),
    });
    let source = |old: Arc<dyn Storage>| {
        let stat = old.stat()?;
        Ok::<_, std::io::Error>(ReuseSource::new(old, stat.len).with_layer(layer.flatten(), stat.stamp))
    };
    let old = old.map(source).transpose().map_err(|e| StoreError::at("old", e))?;
    file.reuse(old.into_iter().collect());
    if rng.below(4) == 0 {
        file.recheck(1);
        file.checkpoint()?;
    }
    file.recheck(u64::MAX);
    let len = sample.manifest.id().len;
    let mut missing: Vec<ChunkIndex> = sample.manifest.geometry().chunks().filter(|c| !file.has(*c)).collect();
    let done = loop {
        if missing.is_empty() {
            if plan.is_recorded {
                let log = log_of(volume);
                sample.outs.iter().for_each(|out| log.note(out.as_str(), placed_file(&sample.manifest, None)));
            }
            let placed = file.finish_each(volume, &sample.outs).and_then(|each| each.into_iter().collect());
            if placed.is_ok() {
                plan.note_placed(volume, &sample.manifest, &sample.outs);
            }
            break placed;
        }
        let index = missing.swap_remove(rng.below(missing.len() as u64) as usize);
        let written = file.write(index, &chunk(len, (len % 251) as u8, index));
        let is_kept = rng.below(3) == 0;
        let flushed = written.and_then(|()| if is_kept { file.checkpoint() } else { Ok(()) });
        if flushed.is_err() {
            break flushed;
        }
        if is_kept {
            kept.insert(sample.manifest.id(), file.have_count());
        }
    };
    if rng.below(3) == 0 {
        // As a killed process ends.
        file.kill();
    }
    done
}

/// What lies at a final name before.
fn before(plan: &Plan, path: &RelPath) -> Vec<u8> {
    let sample = plan.large.iter().find(|s| s.outs.contains(path) && s.manifest.id().len % CHUNK_LEN_MIN == WITH_ZEROS);
    sample.map_or(OLD.to_vec(), |sample| older(&sample.manifest))
}

/// Every final name has its old bytes or the whole new ones, and the new ones where that was said.
fn check_finals(volume: &Memory, plan: &Plan, done: &Done, what: &str) {
    for (path, new) in plan.finals() {
        let found = volume.content(path.as_str()).unwrap();
        let old = before(plan, path);
        assert!(found == old || found == new, "{what}: {path} is neither old nor whole");
        let is_dressed = volume.dress(path.as_str()) == Some(dress_for(path.as_str()));
        assert!(found == old || is_dressed, "{what}: {path} is whole without its attributes");
        assert!(!done.finals.contains(path) || found == new, "{what}: {path} was said to be durable");
        if volume.manner == PlaceManner::Keep && found == new {
            let kept = volume.content(&format!("{path}~"));
            assert!(
                kept.is_some_and(|kept| kept == before(plan, path)),
                "{what}: {path} is new and the old file is not kept"
            );
        }
    }
}

/// What a resumed part believes without a look is right, and it has at least the chunks that were said to be durable. How
/// many chunks it believes.
fn check_claims(volume: &Memory, plan: &Plan, done: &Done, what: &str) -> u32 {
    let mut believed = 0;
    for Sample { manifest, outs } in &plan.large {
        let own = own_name(&format!("{}-{}.part", manifest.id().root, manifest.id().len));
        let kept = done.chunks.get(&manifest.id()).copied().unwrap_or(0);
        let in_place = outs.iter().any(|out| volume.content(out.as_str()) == Some(whole(manifest)));
        if volume.content(&own).is_none() {
            assert!(kept == 0 || in_place, "{what}: {kept} chunks are lost with their file");
            continue;
        }
        let file = open(volume, manifest).unwrap();
        let found = file.have_count() + file.unchecked().count();
        // After an exchange the own name is that of the old file until it is removed.
        // So is one that is restored while it is being placed.
        let is_aside = volume.own_names().iter().any(|name| name.starts_with(&own) && name.ends_with(".saved"));
        assert!(found >= kept || in_place || is_aside, "{what}: {found} of {kept} chunks are kept");
        for index in manifest.geometry().chunks().filter(|c| file.has(*c)) {
            let (span, len) = (manifest.geometry().span(index), manifest.id().len);
            let mut bytes = vec![0; span.len as usize];
            file.read_at(span.offset, &mut bytes).unwrap();
            let right = bytes == chunk(len, (len % 251) as u8, index);
            assert!(right, "{what}: chunk {} is believed and not there", index.get());
        }
        believed += file.have_count();
        file.kill();
    }
    believed
}

fn with_old_files(plan: &Plan) -> Memory {
    let volume = Memory::new();
    plan.finals().iter().for_each(|(path, _)| volume.put(path.as_str(), &before(plan, path)));
    plan.bare().iter().for_each(|(path, ..)| volume.put(path.as_str(), OLD));
    for Sample { manifest, outs } in plan.large.iter().filter(|s| s.manifest.id().len % CHUNK_LEN_MIN == WITH_ZEROS) {
        plan.note_placed(&volume, &older_layer(manifest), outs);
    }
    // Of a content that is no longer asked for.
    volume.put(&own_name("0123-77.part"), OLD);
    volume.put(&own_name("0123-77.journal"), OLD);
    volume
}

/// Crashes at `points` points in all.
fn replay(points: u64) {
    let (mut crashes, mut believed, mut finished, mut restored, mut layers, mut seed) = (0, 0, 0, 0, 0, 0);
    while crashes < points {
        seed += 1;
        let mut rng = Rng(seed);
        let plan = Plan::new(&mut rng);
        let mut volume = with_old_files(&plan);
        volume.manner = [PlaceManner::Over, PlaceManner::Exchange, PlaceManner::Keep][seed as usize % 3];
        for _ in 0..1 + rng.below(3) {
            crashes += 1;
            volume.cut_after(1 + rng.below(60));
            let mut done = Done::default();
            let result = plan.run(&volume, &mut rng, &mut done);
            let killed = rng.below(3) == 0;
            volume = if killed { volume.after_kill() } else { volume.after_power_loss(&mut rng) };
            plan.boot.set(plan.boot.get() + u8::from(!killed));
            let what = format!("seed {seed}, crash {crashes}");
            if rng.below(4) == 0 {
                volume.restore_parts();
                restored += 1;
            }
            check_finals(&volume, &plan, &done, &what);
            believed += check_claims(&volume, &plan, &done, &what);
            finished += u64::from(result.is_ok());
        }
        let mut done = Done::default();
        plan.run(&volume, &mut rng, &mut done).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let what = format!("seed {seed}, at the end");
        plan.finals()
            .iter()
            .for_each(|(path, new)| assert!(volume.content(path.as_str()).as_ref() == Some(new), "{what}"));
        check_finals(&volume.after_power_loss(&mut rng), &plan, &done, &what);
        layers += plan.layers.get();
    }
    assert!(believed > 0 && finished > 0 && finished < crashes, "the runs end too early or too late");
    assert!(layers > 0, "no layer was kept");
    println!(
        "{crashes} crash points, {restored} with restored parts, 0 wrong; {believed} chunks believed, {layers} layers found, {finished} runs ended before"
    );
}

#[test]
fn wherever_a_download_crashes_names_are_whole_and_claims_are_true() {
    let points = std::env::var("GPB_CRASH_POINTS").map_or(200, |n| n.parse().unwrap());
    replay(points);
}

#[test]
#[ignore = "takes minutes"]
fn two_thousand_crash_points() {
    replay(2000);
}

/// Runs the plan with a fault at each call in turn, then again without; how many faults struck.
fn fault_at_each_call(manner: PlaceManner, kind: FaultKind, lasts: bool, seed: u64) -> u64 {
    let mut struck = 0;
    for at in 1.. {
        let mut rng = Rng(seed);
        let plan = Plan { is_recorded: false, ..Plan::new(&mut rng) };
        let mut volume = with_old_files(&plan);
        volume.manner = manner;
        let what = format!("{manner:?}, {kind:?} at call {at}, lasts: {lasts}, seed {seed}");
        let mut done = Done::default();
        if kind == FaultKind::Losing {
            volume.set_free(SCARCE_ROOM - 1);
        }
        volume.fault_at(at, kind, lasts);
        let result = plan.run(&volume, &mut rng, &mut done);
        let calls = volume.calls();
        let has_struck = volume.mend();
        match (kind, result) {
            // A part of a read or write is no error.
            (FaultKind::Short | FaultKind::Interrupted, result) => result.unwrap_or_else(|e| panic!("{what}: {e}")),
            // Only what is lost of a file that gets a name is found.
            (FaultKind::Losing, Ok(())) => {}
            (_, Ok(())) => assert!(!(has_struck && lasts), "{what}: nothing was said"),
            (FaultKind::Full, Err(e)) => assert!(matches!(e, StoreError::NoSpace { .. }), "{what}: {e:?}"),
            (FaultKind::ReadOnly, Err(e)) => assert!(matches!(e, StoreError::ReadOnly { .. }), "{what}: {e:?}"),
            (FaultKind::Broken | FaultKind::TooManyOpen | FaultKind::Losing, Err(e)) => {
                assert!(matches!(e, StoreError::Io { .. }), "{what}: {e:?}");
            }
        }
        // The process ends, or the power fails on top.
        let volume = if at % 2 == 0 { volume.after_kill() } else { volume.after_power_loss(&mut rng) };
        check_finals(&volume, &plan, &done, &what);
        if kind != FaultKind::Losing {
            // It may take a journal with it.
            check_claims(&volume, &plan, &done, &what);
        }
        plan.run(&volume, &mut rng, &mut Done::default()).unwrap_or_else(|e| panic!("{what}, then without: {e}"));
        plan.finals()
            .iter()
            .for_each(|(path, new)| assert!(volume.content(path.as_str()).as_ref() == Some(new), "{what}"));
        struck += u64::from(has_struck);
        if at > calls {
            break;
        }
    }
    struck
}

#[test]
fn a_fault_at_any_call_is_told_and_the_next_run_ends_right() {
    for (kind, lasts) in [
        (FaultKind::Full, false),
        (FaultKind::Full, true),
        (FaultKind::Broken, false),
        (FaultKind::Broken, true),
        (FaultKind::ReadOnly, true),
        (FaultKind::Short, false),
        (FaultKind::Short, true),
        (FaultKind::Interrupted, false),
        (FaultKind::Losing, false),
        (FaultKind::Losing, true),
    ] {
        // The others differ in a few calls, for which some kinds of faults will do.
        let is_enough = !matches!((kind, lasts), (FaultKind::Broken, false) | (FaultKind::ReadOnly, true));
        let others = [PlaceManner::Exchange, PlaceManner::Keep];
        for manner in [PlaceManner::Over].into_iter().chain(others.into_iter().filter(|_| !is_enough)) {
            let struck = fault_at_each_call(manner, kind, lasts, 5);
            assert!(struck >= 10, "{kind:?}: only {struck} calls were struck");
            println!("{manner:?}, {kind:?}, lasts: {lasts}: {struck} calls");
        }
    }
}

/// Names that are removed: wherever that ends, each has its file whole or is gone, no other name changed, and what was
/// recorded of a file is true of what lies there.
#[test]
fn wherever_a_removal_crashes_names_are_whole_or_gone() {
    let mut counts = [0, 0];
    for seed in 0..300 {
        let mut rng = Rng(seed);
        let volume = Memory::new();
        let names: Vec<String> = (0..4 + rng.below(4)).map(|n| format!("d{}/f{n}", n % 2)).collect();
        names.iter().for_each(|name| volume.put(name, name.as_bytes()));
        let (gone, kept) = names.split_at(1 + rng.below(3) as usize);
        let recorded: HashMap<_, _> = names.iter().map(|name| (name, volume.state_at(name).unwrap())).collect();
        volume.cut_after(1 + rng.below(8));
        let removed = gone.iter().take_while(|name| volume.remove_final(name, &recorded[name]).is_ok()).count();
        let killed = rng.below(2) == 0;
        let after = if killed { volume.after_kill() } else { volume.after_power_loss(&mut rng) };
        for (at, name) in names.iter().enumerate() {
            let found = after.content(name);
            assert!(found.is_some() || gone.contains(name), "seed {seed}: {name} is lost");
            assert!(found.as_ref().is_none_or(|found| found == name.as_bytes()), "seed {seed}: {name}");
            assert!(found.is_none() || after.state_at(name) == Some(recorded[name]), "seed {seed}: {name} is unknown");
            assert!(!killed || at >= removed || found.is_none(), "seed {seed}: {name} was said to be gone");
        }
        // The next run removes what is left.
        for name in gone {
            if let Some(state) = after.state_at(name) {
                after.remove_final(name, &state).unwrap();
            }
        }
        assert!(
            gone.iter().all(|name| after.content(name).is_none()) && kept.iter().all(|n| after.content(n).is_some())
        );
        counts[usize::from(removed == gone.len())] += 1;
    }
    assert!(counts.iter().all(|count| *count > 20), "the runs end too early or too late: {counts:?}");
}

/// A file that a fetch put there becomes a directory, and an empty directory a file: wherever that ends, what is new is
/// whole or absent, the old is whole or gone, and the next run brings what is missing.
#[test]
fn wherever_a_change_of_kind_crashes_names_are_whole_and_the_next_run_brings_the_rest() {
    let (mut told, mut between) = ([0, 0], 0);
    for seed in 0..400 {
        let mut rng = Rng(seed);
        let mut volume = Memory::new();
        volume.manner = [PlaceManner::Over, PlaceManner::Exchange, PlaceManner::Keep][seed as usize % 3];
        let dir = name("was-dir");
        volume.put("was/file", OLD);
        place_bare(&volume, &[(&dir, OwnBare::Dir { mtime_ns: 3 })]).remove(0).unwrap();
        let new = |n: u8| (FileId { root: Root(Digest([n; 32])), len: 9 }, [n; 9]);
        let mut files = [(name("was/file/in/it"), new(1)), (dir.clone(), new(2)), (name("other"), new(3))];
        files.rotate_left(rng.below(3) as usize);
        let batch: Vec<_> = files.iter().map(|(path, (id, bytes))| (path.clone(), *id, bytes.as_slice())).collect();
        volume.cut_after(1 + rng.below(30));
        let done = batch_write(&volume, &batch);
        volume = if rng.below(2) == 0 { volume.after_kill() } else { volume.after_power_loss(&mut rng) };
        for ((path, _, bytes), done) in batch.iter().zip(&done) {
            let found = volume.content(path.as_str());
            let is_old = found.is_none() || *path == dir && found.as_deref() == Some(EMPTY_DIR);
            assert!(is_old || found.as_deref() == Some(bytes), "seed {seed}: {path} is not whole");
            assert!(!is_old || done.is_err(), "seed {seed}: {path} was said to be durable");
        }
        let was = volume.content("was/file");
        let is_in = volume.content("was/file/in/it").is_some();
        assert!(was.as_ref().is_none_or(|found| found == OLD && !is_in), "seed {seed}: the file is not whole");
        between += usize::from(was.is_none() && !is_in);
        told[usize::from(done.iter().all(Result::is_ok))] += 1;
        let again = batch_write(&volume, &batch);
        let after = volume.after_power_loss(&mut rng);
        for ((path, _, bytes), again) in batch.iter().zip(again) {
            again.unwrap();
            assert!(after.content(path.as_str()).as_deref() == Some(bytes), "seed {seed}: {path} after the next run");
        }
        assert!(after.content("was/file").is_none(), "seed {seed}");
    }
    assert!(told.iter().all(|n| *n > 20) && between > 20, "the runs end too early or too late: {told:?} {between}");
}

/// Where the link leads.
const TARGET: &str = "d/large";
/// Length beyond whole chunks of a content of which every other chunk is zeros.
const WITH_ZEROS: u64 = 5;
/// What lies at most final names before.
const OLD: &[u8] = b"old";
