//! What a pattern means among the names that were found.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::SystemTime;

use crate::client::failed::FailedFile;
use crate::client::limits::AGED_TOLD_MAX;
use crate::client::search_results::{FoundFile, OfferedBare, SearchResults};
use crate::client::selection::Selection;
use crate::client::{Candidate, FetchError};
use crate::content::{Pattern, PatternKind, RelPath};
use crate::identity::{KeyPrefix, PeerId};
use crate::limits::COPY_AHEAD_MAX;

/// Chooses among what was found. Files are named by their position there.
pub(super) struct Chooser<'a> {
    results: &'a SearchResults,
    selection: &'a Selection,
}

/// What a pattern means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) files: Vec<u32>,
    /// Files of which only one, or only those on one side, can be meant.
    pub(super) clashes: Vec<Vec<u32>>,
    /// Files that would be meant if wildcards took leading dots.
    pub(super) hidden: Vec<u32>,
    /// Something was meant and is excluded.
    pub(super) left_out: bool,
    /// Copies of one name of which the newest was chosen, which is the first of each.
    pub(super) aged: Vec<Vec<u32>>,
}

/// Whether the preferred peer offers something, and whether it is shared rather than fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(pub(super) bool, pub(super) bool);

impl Choice {
    pub(super) fn is_nothing(&self) -> bool {
        self.files.is_empty() && self.clashes.is_empty()
    }
}

impl<'a> Chooser<'a> {
    pub(super) fn new(results: &'a SearchResults, selection: &'a Selection) -> Self {
        Chooser { results, selection }
    }

    /// A glob means what it matches and what lies under its own text, whatever names others offer:
    /// a file called `**` takes no pattern over. A name beats the beginning of a root. A name that
    /// is a file here and a directory there clashes, as does one with several contents.
    pub(super) fn choose(&self, pattern: &Pattern) -> Choice {
        let by = |test: &dyn Fn(&FoundFile) -> bool| -> Vec<u32> {
            (0..).zip(self.results.files()).filter(|(_, file)| test(file)).map(|(at, _)| at).collect()
        };
        let PatternKind::Path { text, glob, prefix } = pattern.kind() else {
            return self.one_content(by(&|file| pattern.matches_id(&file.id)));
        };
        if glob.is_some() {
            let found = by(&|file| pattern.matches_path(file.path.as_str()));
            let shows = |at: &u32| self.selection.shows(pattern, self.path(*at));
            let (shown, hidden) = found.into_iter().partition(shows);
            let (hidden, _) = self.without_excluded(hidden);
            return Choice { hidden, ..self.each_name(shown) };
        }
        let positions = |found: Range<usize>| (found.start as u32..found.end as u32).collect::<Vec<u32>>();
        let (named, below) = (positions(self.results.named(text)), positions(self.results.below(text)));
        match (named.is_empty() && below.is_empty(), prefix) {
            (false, _) => self.file_or_directory(named, below),
            (true, Some(_)) => self.one_content(by(&|file| pattern.matches_id(&file.id))),
            (true, None) => Choice::default(),
        }
    }

    /// Whether the file lies below the directory `dir`.
    pub(super) fn is_below(&self, at: u32, dir: &str) -> bool {
        self.file(at).path.is_below(dir)
    }

    /// The names that are no plain files and that the pattern means.
    pub(super) fn bare(&self, pattern: &Pattern) -> impl Iterator<Item = (&'a RelPath, &'a OfferedBare)> {
        let is_meant = |path: &str| match pattern.kind() {
            PatternKind::Root(..) => false,
            PatternKind::Path { glob: None, .. } => pattern.matches_path(path),
            PatternKind::Path { .. } => pattern.matches_path(path) && self.selection.shows(pattern, path),
        };
        let is_excluded = |path: &str| self.selection.exclude.iter().any(|excluded| excluded.matches_path(path));
        self.results.bare().filter(move |(path, _)| is_meant(path.as_str()) && !is_excluded(path.as_str()))
    }

    /// One file is meant, whatever its names: the first name stands for it.
    fn one_content(&self, found: Vec<u32>) -> Choice {
        let (found, left_out) = self.without_excluded(found);
        let Some(&first) = found.first() else { return Choice { left_out, ..Choice::default() } };
        if found.iter().all(|&at| self.file(at).id == self.file(first).id) {
            Choice { files: vec![first], left_out, ..Choice::default() }
        } else {
            Choice { clashes: vec![found], left_out, ..Choice::default() }
        }
    }

    /// The files of one name, and the files below it as a directory. Only one of the two can be
    /// meant.
    fn file_or_directory(&self, named: Vec<u32>, below: Vec<u32>) -> Choice {
        let ((named, some), (below, more)) = (self.without_excluded(named), self.without_excluded(below));
        let choice = match (named.is_empty(), below.is_empty()) {
            (true, _) => self.each_name(below),
            (_, true) => self.each_name(named),
            _ => match self.stands(&named, &below) {
                Some(true) => self.each_name(named),
                Some(false) => self.each_name(below),
                None => Choice { clashes: vec![[named, below].concat()], ..Choice::default() },
            },
        };
        Choice { left_out: some || more, ..choice }
    }

    /// Any number of files, but each name has one content. `found` is sorted by path.
    fn each_name(&self, found: Vec<u32>) -> Choice {
        let (found, left_out) = self.without_excluded(found);
        let mut choice = Choice { left_out, ..Choice::default() };
        for twins in found.chunk_by(|&a, &b| self.path(a) == self.path(b)) {
            if let [one] = twins {
                choice.files.push(*one);
                continue;
            }
            // What is shared under a name beats what was only fetched under it: that may be what
            // was shared before.
            let among = |twins: &[u32], test: &dyn Fn(u32) -> bool| -> Vec<u32> {
                let standing: Vec<u32> = twins.iter().copied().filter(|&at| test(at)).collect();
                if standing.is_empty() { twins.to_vec() } else { standing }
            };
            let preferred = among(twins, &|at| self.is_preferred(at));
            match among(&preferred, &|at| self.file(at).shared).as_slice() {
                [one] => choice.files.push(*one),
                several => match self.newest_first(several) {
                    Some(copies) => {
                        choice.files.push(copies[0]);
                        choice.aged.push(copies);
                    }
                    None => choice.clashes.push(several.to_vec()),
                },
            }
        }
        choice
    }

    /// The newest one of these, and then the others, where all are copies of what is shared no more and
    /// their times tell.
    fn newest_first(&self, copies: &[u32]) -> Option<Vec<u32>> {
        let mtime = |at: &u32| self.file(*at).attributes.mtime_ns;
        let mut copies = copies.to_vec();
        copies.sort_by_key(|at| std::cmp::Reverse(mtime(at)));
        // A clock that was wrong must not decide for ever.
        let latest = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default() + COPY_AHEAD_MAX;
        if copies.first().is_some_and(|at| i128::from(mtime(at)) > latest.as_nanos() as i128) {
            return None;
        }
        let is_clear = copies.windows(2).next().is_some_and(|pair| mtime(&pair[0]) > mtime(&pair[1]));
        (is_clear && !copies.iter().any(|&at| self.file(at).shared)).then_some(copies)
    }

    /// What to warn of where the newest of several copies was chosen.
    pub(super) fn told_of(&self, copies: &[u32]) -> String {
        let told = |at: &u32| {
            let FoundFile { id, holders, .. } = self.file(*at);
            let holders: BTreeSet<PeerId> = holders.iter().map(|holder| holder.peer).collect();
            let some: Vec<String> = holders.iter().take(AGED_TOLD_MAX).map(PeerId::to_string).collect();
            format!("{id} of {}", some.join(" "))
        };
        let path = copies.first().map_or("", |&at| self.path(at));
        let shown: Vec<String> = copies.iter().take(AGED_TOLD_MAX).map(told).collect();
        let others = copies.len() - shown.len();
        format!(
            "{path}: {}{}",
            shown.join(", not "),
            if others > 0 { format!(", nor {others} more") } else { String::new() }
        )
    }

    /// Which of two sides stands, the first one or the other; `None` if nothing decides. The
    /// preferred peer decides, and then that one side is shared and the other was only fetched.
    fn stands(&self, first: &[u32], other: &[u32]) -> Option<bool> {
        let only_one = |test: &dyn Fn(u32) -> bool| {
            let any = |side: &[u32]| side.iter().any(|&at| test(at));
            Some(any(first)).filter(|&in_first| in_first != any(other))
        };
        only_one(&|at| self.is_preferred(at)).or_else(|| only_one(&|at| self.file(at).shared))
    }

    /// Parts what several patterns mean together, sorted, into the files that can all be fetched
    /// and the clashes among the others. A file in `clear`, which is sorted, was asked for by its
    /// root: it stands wherever it clashes with others.
    pub(super) fn part(&self, chosen: Vec<u32>, clear: &[u32]) -> (Vec<u32>, Vec<Vec<u32>>) {
        let is_clear = |at: &u32| clear.binary_search(at).is_ok();
        let (mut kept, mut clashes) = (Vec::with_capacity(chosen.len()), Vec::new());
        for twins in chosen.chunk_by(|&a, &b| self.path(a) == self.path(b)) {
            let standing: Vec<u32> = twins.iter().copied().filter(is_clear).collect();
            match (twins, standing.as_slice()) {
                ([one], _) | (_, [one]) => kept.push(*one),
                _ => clashes.push(twins.to_vec()),
            }
        }
        let mut dropped = BTreeSet::new();
        for (file, below) in self.files_in_the_way(&kept) {
            let asked = (is_clear(&file), below.iter().any(is_clear));
            match if asked.0 == asked.1 { self.stands(&[file], &below) } else { Some(asked.0) } {
                Some(true) => dropped.extend(below),
                Some(false) => drop(dropped.insert(file)),
                None => {
                    dropped.insert(file);
                    dropped.extend(&below);
                    clashes.push([vec![file], below].concat());
                }
            }
        }
        kept.retain(|at| !dropped.contains(at));
        (kept, clashes)
    }

    /// The chosen files in whose place other chosen ones need a directory, with these. `chosen` is
    /// sorted.
    fn files_in_the_way(&self, chosen: &[u32]) -> BTreeMap<u32, Vec<u32>> {
        let mut in_the_way: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut last = ("", None);
        for &at in chosen {
            let Some((parent, _)) = self.path(at).rsplit_once('/') else { continue };
            // Files of one directory follow each other, and have the same directories above them.
            if last.0 != parent {
                let ancestors = std::iter::successors(Some(parent), |dir| dir.rsplit_once('/').map(|(above, _)| above));
                let mut files = ancestors.flat_map(|dir| self.results.named(dir)).map(|at| at as u32);
                last = (parent, files.find(|file| chosen.binary_search(file).is_ok()));
            }
            if let Some(file) = last.1 {
                in_the_way.entry(file).or_default().push(at);
            }
        }
        in_the_way
    }

    /// The failure of the name that `found` clash for; of `text` if they have several names.
    pub(super) fn clash(&self, text: &str, found: &[u32]) -> FailedFile {
        let first = found.first().map_or("", |&at| self.path(at));
        let one_name = found.iter().all(|&at| self.path(at) == first || self.file(at).path.is_below(first));
        let what = if one_name { first } else { text };
        let candidates = found.iter().map(|&at| {
            let FoundFile { path, id, holders, .. } = self.file(at);
            let holders: BTreeSet<PeerId> = holders.iter().map(|h| h.peer).collect();
            Candidate { path: path.clone(), id: *id, holders: holders.into_iter().collect() }
        });
        FailedFile::new(what, FetchError::Ambiguous { what: what.into(), candidates: candidates.collect() })
    }

    /// An error unless exactly one peer has the preferred key.
    pub(super) fn check_preferred(&self, answered: usize) -> Result<(), FetchError> {
        let Some(prefix) = &self.selection.prefer else { return Ok(()) };
        let keys: BTreeSet<PeerId> = self.results.peers().iter().copied().filter(|p| prefix.matches(p)).collect();
        match keys.len() {
            1 => Ok(()),
            _ => Err(FetchError::Prefix { prefix: prefix.clone(), answered, found: keys.into_iter().collect() }),
        }
    }

    /// Whether the preferred peer may still answer: none of its key has.
    pub(super) fn awaits_preferred(&self) -> bool {
        let answered = |prefix: &KeyPrefix| self.results.peers().iter().any(|peer| prefix.matches(peer));
        self.selection.prefer.as_ref().is_some_and(|prefix| !answered(prefix))
    }

    fn without_excluded(&self, mut found: Vec<u32>) -> (Vec<u32>, bool) {
        let before = found.len();
        if !self.selection.exclude.is_empty() {
            found.retain(|&at| !self.selection.excludes(self.path(at), &self.file(at).id));
        }
        let left_out = found.len() < before;
        (found, left_out)
    }

    /// How much the word of its holders counts: the preferred peer's most, then what is shared.
    pub(super) fn rank(&self, at: u32) -> Rank {
        Rank(self.is_preferred(at), self.file(at).shared)
    }

    pub(super) fn results(&self) -> &'a SearchResults {
        self.results
    }

    fn is_preferred(&self, at: u32) -> bool {
        let Some(prefix) = &self.selection.prefer else { return false };
        self.file(at).holders.iter().any(|holder| prefix.matches(&holder.peer))
    }

    fn file(&self, at: u32) -> &'a FoundFile {
        &self.results.files()[at as usize]
    }

    fn path(&self, at: u32) -> &'a str {
        self.file(at).path.as_str()
    }
}
