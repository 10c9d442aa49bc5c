//! What the records of one directory say, read once and then followed as they grow.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::content::FileId;
use crate::store::limits::PLACED_NAMES_MAX;
use crate::store::placed::frames::{FRAME_HEAD_LEN, Header, file_name, hash_of, read_frame, read_frame_head};
use crate::store::placed::record::{Keeping, PlacedFile, PlacedState, RECORD_LEN_MAX, RecordLine, read_record};
use crate::store::storage::{Folder, Storage};

/// Reads the records of a directory from where it read last. A file that was replaced by another one
/// is read from its beginning.
#[derive(Debug)]
pub(super) struct RecordReader {
    folder: Arc<dyn Folder>,
    dir: PathBuf,
    /// The file, its inode, and where the next frame begins.
    file: Option<(Arc<dyn Storage>, u64, u64)>,
}

impl RecordReader {
    pub(super) fn new(folder: Arc<dyn Folder>, dir: &Path) -> Self {
        RecordReader { folder, dir: dir.to_path_buf(), file: None }
    }

    /// The file that was read last.
    pub(super) fn file(&self) -> Option<&Arc<dyn Storage>> {
        Some(&self.file.as_ref()?.0)
    }

    /// Calls `restart` if all records are read again, and `each` for each record that is new, with its
    /// place.
    pub(super) fn read_new(&mut self, mut each: impl FnMut(Option<(u64, &RecordLine<'_>)>)) -> io::Result<()> {
        let found = self.folder.open(&file_name(&self.dir))?;
        let Some(file) = found else {
            if self.file.take().is_some() {
                each(None);
            }
            return Ok(());
        };
        let stat = file.stat()?;
        let known = self.file.as_ref().map(|(_, inode, at)| (*inode, *at));
        let place = match known {
            Some((inode, at)) if inode == stat.stamp.inode && at <= stat.len => at,
            _ => {
                if known.is_some() {
                    each(None);
                }
                self.file = None;
                let Some(header) = Header::read(&*file, &self.dir)? else { return Ok(()) };
                header.len
            }
        };
        let end = read_frames(&*file, place, &mut each)?;
        self.file = Some((file, stat.stamp.inode, end));
        Ok(())
    }
}

/// Reads the frames from `place` on; where the next one will begin.
fn read_frames(
    file: &dyn Storage,
    mut place: u64,
    each: &mut impl FnMut(Option<(u64, &RecordLine<'_>)>),
) -> io::Result<u64> {
    while let Some((len, _)) = read_frame_head(file, place)? {
        let begin = place + FRAME_HEAD_LEN as u64;
        let next = begin + len as u64;
        let records = match read_frame(file, place)? {
            Some(records) => records,
            // The last one may be half written. A damaged one is left out.
            None if read_frame_head(file, next)?.is_none() => break,
            None => Vec::new(),
        };
        let mut rest = records.as_slice();
        while let Ok((line, behind)) = postcard::take_from_bytes::<RecordLine<'_>>(rest) {
            each(Some((begin + (records.len() - rest.len()) as u64, &line)));
            rest = behind;
        }
        place = next;
    }
    Ok(place)
}

/// Where the last records of each name lie.
#[derive(Debug)]
pub(crate) struct KnownNames {
    reader: RecordReader,
    /// By a hash of the name: the record itself has the whole name.
    at: HashMap<u64, LastRecords>,
    /// Whether a file is named that may expire.
    may_expire: bool,
    /// Makes the proofs; no peer can choose a root that gives the proof of another one.
    keys: RandomState,
    /// Where the records of each content lie, by the beginning of its root; made when it is first asked
    /// for.
    contents: OnceLock<HashMap<u64, Vec<u32>>>,
}

/// Where the last record of a name with a state lies, and the one without behind it. Zero, where the
/// header is, stands for none.
#[derive(Debug, Clone, Copy, Default)]
struct LastRecords {
    state: u32,
    intent: u32,
    /// A keyed hash of the content and the state, so that most questions are answered without reading
    /// the record.
    proof: u64,
}

impl LastRecords {
    fn add(&mut self, at: u32, proof: Option<u64>) {
        *self = match proof {
            Some(proof) => LastRecords { state: at, intent: 0, proof },
            None => LastRecords { intent: at, ..*self },
        };
    }

    fn each(self) -> impl Iterator<Item = u64> {
        [self.state, self.intent].into_iter().filter(|at| *at > 0).map(u64::from)
    }
}

impl KnownNames {
    /// Nothing is read yet.
    pub(crate) fn new(folder: Arc<dyn Folder>, dir: &Path) -> Self {
        let reader = RecordReader::new(folder, dir);
        let (keys, contents) = (RandomState::new(), OnceLock::new());
        KnownNames { reader, at: HashMap::new(), may_expire: false, keys, contents }
    }

    /// Reads what is new.
    pub(crate) fn refresh(&mut self) -> io::Result<()> {
        let KnownNames { reader, at, may_expire, keys, contents } = self;
        *contents = OnceLock::new();
        reader.read_new(|record| {
            let Some((place, line)) = record else { return at.clear() };
            *may_expire |= matches!(line.keeping, Keeping::Temporary { .. } | Keeping::Mirrored { .. });
            let name = hash_of(line.name.as_bytes());
            // Nothing lies beyond the longest file that is written.
            let Ok(place) = u32::try_from(place) else { return };
            if at.len() < PLACED_NAMES_MAX || at.contains_key(&name) {
                let proof = line.state.map(|state| keys.hash_one((line.id, state)));
                at.entry(name).or_default().add(place, proof);
            }
        })
    }

    /// Whether nothing is recorded.
    pub(crate) fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Whether one of the names may be of a file that expires.
    pub(crate) fn may_expire(&self) -> bool {
        self.may_expire
    }

    /// Whether the last record with a state says that `name` got `id`, in this state.
    pub(crate) fn has(&self, name: &str, id: &FileId, state: &PlacedState) -> bool {
        let last = self.at.get(&hash_of(name.as_bytes()));
        // Names of one hash are as unlikely as a proof that fits by chance.
        last.is_some_and(|last| last.state > 0 && last.proof == self.keys.hash_one((*id, *state)))
    }

    /// Where the content was put, as the last records of each name say.
    pub(crate) fn places_of(&self, id: &FileId) -> Vec<(String, PlacedState)> {
        let Some(file) = self.reader.file() else { return Vec::new() };
        let contents = self.contents.get_or_init(|| {
            let mut buffer = vec![0; RECORD_LEN_MAX];
            let mut contents = HashMap::<u64, Vec<u32>>::new();
            for last in self.at.values().filter(|last| last.state > 0) {
                if let Some(line) = read_record(&**file, last.state.into(), &mut buffer) {
                    contents.entry(beginning_of(&line.id)).or_default().push(last.state);
                }
            }
            contents
        });
        let Some(records) = contents.get(&beginning_of(id)) else { return Vec::new() };
        let mut buffer = vec![0; RECORD_LEN_MAX];
        let mut read = |at: &u32| {
            let line = read_record(&**file, (*at).into(), &mut buffer)?;
            (line.id == *id).then_some((line.name.to_owned(), line.state?))
        };
        records.iter().filter_map(&mut read).collect()
    }

    /// What is recorded of `name`.
    pub(crate) fn get(&self, name: &str) -> Vec<PlacedFile> {
        let (Some(last), Some(file)) = (self.at.get(&hash_of(name.as_bytes())), self.reader.file()) else {
            return Vec::new();
        };
        let mut buffer = vec![0; RECORD_LEN_MAX];
        let mut read = |at| {
            let line = read_record(&**file, at, &mut buffer)?;
            (line.name == name).then(|| line.file())
        };
        last.each().filter_map(&mut read).collect()
    }

    /// The places of the last records of all names, in their order.
    pub(crate) fn places(&self) -> Vec<u64> {
        let mut places: Vec<u64> = self.at.values().flat_map(|last| last.each()).collect();
        places.sort_unstable();
        places
    }
}

/// The beginning of a root, which tells most contents apart.
fn beginning_of(id: &FileId) -> u64 {
    id.root.0.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
