//! From what a person typed to files.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::client::limits::{RESOLVE_ALL_MAX, RESOLVE_MAX, RESOLVE_QUIET};
use crate::client::listing::lister;
use crate::client::search_results::{FoundFile, SearchResults};
use crate::client::survey::{SurveyProgress, survey};
use crate::client::{AskScope, Candidate, Client, FetchError};
use crate::content::{Pattern, PatternKind};
use crate::identity::PeerId;

impl Client {
    /// Finds the files that `texts` mean: names, directories, patterns, roots. Sorted by path, each
    /// file once, with all peers that offer that content under any name.
    ///
    /// A whole root is found with its first holder; everything else [`RESOLVE_QUIET`] after the
    /// last new answer, and at most [`RESOLVE_MAX`] after the first one. A name that no answer
    /// holds is waited for up to [`RESOLVE_ALL_MAX`] while other peers are still being asked.
    /// Without any answer this takes `timeout`.
    ///
    /// # Errors
    /// [`FetchError`]: a malformed pattern, no peer, all refused, not found, several contents under
    /// one name.
    pub fn resolve(&self, texts: &[String], scope: &AskScope, timeout: Duration) -> Result<Vec<FoundFile>, FetchError> {
        let parse = |text: &String| {
            let pattern = Pattern::parse(text).map_err(|source| FetchError::Pattern { text: text.clone(), source })?;
            Ok((text.clone(), pattern))
        };
        let wanted: Vec<(String, Pattern)> = texts.iter().map(parse).collect::<Result<_, FetchError>>()?;
        let mut results = SearchResults::default();
        // The results change only with an answer, so they are judged only then.
        let mut certainty = Certainty::Nothing;
        let begin = Instant::now();
        let progress = survey(self, scope, lister(texts, timeout), |progress, answer| {
            if let Some((record, listing)) = answer {
                results.add(record.node(), listing.shared, listing.files);
                certainty = assess(&wanted, &results);
            }
            end(&certainty, progress, begin, timeout)
        })?;
        progress.check(texts.first().map_or("", |t| t), timeout)?;
        collect(&wanted, results, progress.answered)
    }
}

/// How sure the results make it what is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    /// Something is not found at all.
    Nothing,
    /// Everything was found, but more answers could change it.
    Likely,
    /// Everything was found, and only by whole roots.
    Certain,
}

/// When to stop asking.
fn end(certainty: &Certainty, progress: &SurveyProgress, begin: Instant, timeout: Duration) -> Instant {
    let (Some(first), Some(last)) = (progress.first_answer, progress.last_answer) else {
        // The peers that refuse may not be all: others get a moment to appear.
        return match progress.first_refusal {
            Some(at) if progress.pending == 0 => (at + RESOLVE_MAX).min(begin + timeout),
            _ => begin + timeout,
        };
    };
    match certainty {
        Certainty::Certain => first,
        Certainty::Likely => (last + RESOLVE_QUIET).min(first + RESOLVE_MAX),
        // A peer that has not answered yet may hold it: the link of the only holder, or the holder
        // itself, may be full.
        Certainty::Nothing if progress.pending + progress.awaited + progress.full > 0 => {
            (first + RESOLVE_ALL_MAX).min(begin + timeout)
        }
        Certainty::Nothing => first + RESOLVE_MAX,
    }
}

fn assess(wanted: &[(String, Pattern)], results: &SearchResults) -> Certainty {
    let choices: Vec<Choice> = wanted.iter().map(|(_, pattern)| choose(pattern, results)).collect();
    if choices.contains(&Choice::Nothing) {
        return Certainty::Nothing;
    }
    let clear = |(choice, wanted): (&Choice, &(String, Pattern))| {
        matches!(choice, Choice::Files(_)) && matches!(wanted.1.kind(), PatternKind::Root(..))
    };
    if choices.iter().zip(wanted).all(clear) { Certainty::Certain } else { Certainty::Likely }
}

/// What a pattern means among what was found, as positions there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    Nothing,
    Files(Vec<u32>),
    /// Several contents where only one can be meant.
    Ambiguous(Vec<u32>),
}

/// A glob means what it matches and what lies under its own text, whatever names others offer: a
/// file called `**` takes no pattern over. A name beats the beginning of a root. A name that is a
/// file here and a directory there is ambiguous, as is one with several contents.
fn choose(pattern: &Pattern, results: &SearchResults) -> Choice {
    let files = results.files();
    let by = |test: &dyn Fn(&FoundFile) -> bool| -> Vec<u32> {
        (0..).zip(files).filter(|(_, file)| test(file)).map(|(at, _)| at).collect()
    };
    match pattern.kind() {
        PatternKind::Root(..) => one_content(files, by(&|file| pattern.matches_id(&file.id))),
        PatternKind::Path { text, glob, prefix } => {
            if glob.is_some() {
                return one_content_a_path(files, by(&|file| pattern.matches_path(file.path.as_str())));
            }
            let positions = |found: Range<usize>| (found.start as u32..found.end as u32).collect::<Vec<u32>>();
            let (named, below) = (positions(results.named(text)), positions(results.below(text)));
            if !named.is_empty() || !below.is_empty() {
                return file_or_directory(files, named, below);
            }
            match prefix {
                Some(_) => one_content(files, by(&|file| pattern.matches_id(&file.id))),
                None => Choice::Nothing,
            }
        }
    }
}

/// One file is meant, whatever its names: the first name stands for it.
fn one_content(files: &[FoundFile], found: Vec<u32>) -> Choice {
    let Some(&first) = found.first() else { return Choice::Nothing };
    let id = |at: u32| files[at as usize].id;
    if found.iter().all(|&at| id(at) == id(first)) { Choice::Files(vec![first]) } else { Choice::Ambiguous(found) }
}

/// The files of one name, and the files below it as a directory. Only one of the two can be meant.
/// What is shared under one beats what was only fetched under the other.
fn file_or_directory(files: &[FoundFile], named: Vec<u32>, below: Vec<u32>) -> Choice {
    let any_shared = |found: &[u32]| found.iter().any(|&at| files[at as usize].shared);
    match (named.is_empty(), below.is_empty()) {
        (false, false) if any_shared(&named) == any_shared(&below) => Choice::Ambiguous([named, below].concat()),
        (false, false) if any_shared(&named) => one_content_a_path(files, named),
        (false, true) => one_content_a_path(files, named),
        _ => one_content_a_path(files, below),
    }
}

/// Any number of files, but each name has one content. `found` is sorted by path. What is shared
/// under a name beats what was only fetched under it: that may be what was shared before.
fn one_content_a_path(files: &[FoundFile], mut found: Vec<u32>) -> Choice {
    let same_path = |&a: &u32, &b: &u32| files[a as usize].path == files[b as usize].path;
    if found.windows(2).any(|pair| same_path(&pair[0], &pair[1])) {
        let shared = |&at: &u32| files[at as usize].shared;
        let standing = found.chunk_by(same_path).flat_map(|twins| {
            let any = twins.iter().any(shared);
            twins.iter().copied().filter(move |at| !any || shared(at))
        });
        found = standing.collect();
    }
    let twins: Vec<u32> = found.chunk_by(same_path).filter(|twins| twins.len() > 1).flatten().copied().collect();
    match (found.is_empty(), twins.is_empty()) {
        (true, _) => Choice::Nothing,
        (_, true) => Choice::Files(found),
        _ => Choice::Ambiguous(twins),
    }
}

fn collect(
    wanted: &[(String, Pattern)],
    mut results: SearchResults,
    answered: usize,
) -> Result<Vec<FoundFile>, FetchError> {
    // The files, and which of `wanted` means each.
    let mut chosen: Vec<(u32, usize)> = Vec::new();
    // Several contents weigh more than none: no other peer can change that.
    let mut nothing = None;
    for (number, (text, pattern)) in wanted.iter().enumerate() {
        match choose(pattern, &results) {
            Choice::Nothing => {
                nothing.get_or_insert(FetchError::NotFound { what: text.clone(), answered });
            }
            Choice::Ambiguous(found) => return Err(ambiguous(text, &found, &results)),
            Choice::Files(files) => chosen.extend(files.into_iter().map(|at| (at, number))),
        }
    }
    chosen.sort_unstable();
    chosen.dedup_by_key(|(at, _)| *at);
    let path = |at: u32| &results.files()[at as usize].path;
    if let Some(pair) = chosen.windows(2).find(|pair| path(pair[0].0) == path(pair[1].0)) {
        return Err(ambiguous(&wanted[pair[0].1.max(pair[1].1)].0, &[pair[0].0, pair[1].0], &results));
    }
    if let Some((file, below, number)) = file_in_the_way(&chosen, &results) {
        return Err(ambiguous(&wanted[number].0, &[file, below], &results));
    }
    if let Some(nothing) = nothing {
        return Err(nothing);
    }
    results.share_holders();
    results.keep(chosen.into_iter().map(|(at, _)| at as usize));
    Ok(results.into_files())
}

/// A chosen file in whose place another chosen one needs a directory, that other one, and the
/// number of its pattern. `chosen` is sorted.
fn file_in_the_way(chosen: &[(u32, usize)], results: &SearchResults) -> Option<(u32, u32, usize)> {
    let is_chosen = |at: &u32| chosen.binary_search_by_key(at, |c| c.0).is_ok();
    let mut last = "";
    for &(at, number) in chosen {
        let path = results.files()[at as usize].path.as_str();
        let Some((parent, _)) = path.rsplit_once('/') else { continue };
        // Files of one directory follow each other, and have the same directories above them.
        if std::mem::replace(&mut last, parent) == parent {
            continue;
        }
        let ancestors = std::iter::successors(Some(parent), |dir| dir.rsplit_once('/').map(|(above, _)| above));
        let mut files = ancestors.flat_map(|dir| results.named(dir)).map(|at| at as u32);
        if let Some(file) = files.find(is_chosen) {
            return Some((file, at, number));
        }
    }
    None
}

fn ambiguous(text: &str, found: &[u32], results: &SearchResults) -> FetchError {
    let candidates = found.iter().map(|&at| {
        let FoundFile { path, id, holders, .. } = &results.files()[at as usize];
        let holders: BTreeSet<PeerId> = holders.iter().map(|h| h.peer).collect();
        Candidate { path: path.clone(), id: *id, holders: holders.into_iter().collect() }
    });
    FetchError::Ambiguous { what: text.into(), candidates: candidates.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, FileId, RelPath, Root};
    use crate::identity::NodeId;
    use crate::proto::Listed;

    fn id(byte: u8, len: u64) -> FileId {
        FileId { root: Root(Digest([byte; 32])), len }
    }

    fn found(all: &[(u8, &str, FileId)]) -> SearchResults {
        found_with(all, &[])
    }

    fn found_with(shared: &[(u8, &str, FileId)], fetched: &[(u8, &str, FileId)]) -> SearchResults {
        let mut f = SearchResults::default();
        for (all, shared) in [(shared, true), (fetched, false)] {
            for &(peer, path, id) in all {
                f.add(
                    NodeId::new(PeerId([peer; 32]), 1),
                    shared,
                    vec![Listed { path: RelPath::new(path).unwrap(), id }],
                );
            }
        }
        f
    }

    fn get(texts: &[&str], f: &SearchResults) -> Result<Vec<(String, FileId, usize)>, FetchError> {
        let wanted: Vec<_> = texts.iter().map(|t| (t.to_string(), Pattern::parse(t).unwrap())).collect();
        let files = collect(&wanted, f.clone(), 1)?;
        Ok(files.into_iter().map(|f| (f.path.to_string(), f.id, f.holders.len())).collect())
    }

    #[test]
    fn a_name_beats_a_directory_beats_a_prefix() {
        let (a, b) = (id(0xab, 1), id(2, 2));
        let f = found(&[(1, "abababab", b), (1, "x", a)]);
        assert_eq!(get(&["abababab"], &f).unwrap(), [("abababab".into(), b, 1)]);
        let f = found(&[(1, "abababab/y", b), (1, "x", a)]);
        assert_eq!(get(&["abababab"], &f).unwrap(), [("abababab/y".into(), b, 1)]);
        let f = found(&[(1, "z", b), (1, "x", a), (2, "w", a)]);
        assert_eq!(get(&["abababab"], &f).unwrap(), [("w".into(), a, 2)]);
        assert_eq!(get(&["z", "z"], &f).unwrap(), [("z".into(), b, 1)]);
    }

    #[test]
    fn what_others_share_takes_no_pattern_over() {
        let (a, b, evil) = (id(1, 1), id(2, 2), id(6, 6));
        let f = found(&[(1, "a.iso", a), (1, "d/b.iso", b), (2, "**", evil), (2, "*.iso/x", evil), (2, "*.iso", evil)]);
        let paths = |texts: &[&str]| get(texts, &f).map(|all| all.into_iter().map(|f| f.0).collect::<Vec<_>>());
        assert!(matches!(paths(&["**"]), Err(FetchError::Ambiguous { .. })), "*.iso is a file and a directory");
        let f = found(&[(1, "a.iso", a), (1, "d/b.iso", b), (2, "**", evil), (2, "*.iso/x", evil)]);
        let paths = |texts: &[&str]| get(texts, &f).map(|all| all.into_iter().map(|f| f.0).collect::<Vec<_>>());
        assert_eq!(paths(&["**"]).unwrap(), ["**", "*.iso/x", "a.iso", "d/b.iso"]);
        assert_eq!(paths(&["*.iso"]).unwrap(), ["*.iso/x", "a.iso"]);
        assert_eq!(paths(&["./**"]).unwrap(), ["**"]);
        assert_eq!(paths(&["\\*.iso"]).unwrap(), ["*.iso/x"]);
    }

    #[test]
    fn a_file_that_others_offer_as_a_directory_is_ambiguous() {
        let (a, b) = (id(1, 1), id(2, 2));
        let f = found(&[(1, "images/x", a), (1, "images/y", a), (2, "images", b), (2, "images!", b)]);
        for texts in [&["images"][..], &["**"], &["images*", "images/x"]] {
            let Err(FetchError::Ambiguous { candidates, .. }) = get(texts, &f) else { panic!("{texts:?}") };
            let mut holders: Vec<u8> = candidates.iter().flat_map(|c| &c.holders).map(|p| p.0[0]).collect();
            holders.sort_unstable();
            holders.dedup();
            assert_eq!(holders, [1, 2], "{texts:?}");
        }
        assert_eq!(get(&["images/*"], &f).unwrap().len(), 2);
        let f = found_with(&[(1, "images/x", a)], &[(2, "images", b)]);
        assert_eq!(get(&["images"], &f).unwrap(), [("images/x".into(), a, 1)], "shared beats fetched");
    }

    #[test]
    fn one_name_with_two_contents_is_told_with_all_holders() {
        let f = found(&[(1, "d/x", id(1, 1)), (2, "d/x", id(2, 1)), (3, "d/x", id(2, 1)), (3, "d/y", id(3, 3))]);
        for text in ["d/x", "d", "d/*", "**"] {
            let Err(FetchError::Ambiguous { candidates, .. }) = get(&[text], &f) else { panic!("{text}") };
            let all: Vec<_> = candidates.iter().map(|c| (c.path.as_str(), c.id, c.holders.len())).collect();
            assert_eq!(all, [("d/x", id(1, 1), 1), ("d/x", id(2, 1), 2)], "{text}");
        }
        assert_eq!(get(&["d/y"], &f).unwrap().len(), 1);
        assert_eq!(get(&["01".repeat(32).as_str()], &f).unwrap(), [("d/x".into(), id(1, 1), 1)]);
    }

    #[test]
    fn what_is_shared_under_a_name_beats_what_was_fetched_under_it() {
        let (new, old, older) = (id(1, 1), id(2, 2), id(3, 3));
        for pattern in ["d/x", "d", "d/*"] {
            let f = found_with(&[(1, "d/x", new)], &[(2, "d/x", old), (3, "d/x", new), (4, "d/y", old)]);
            let got = get(&[pattern], &f).unwrap();
            assert_eq!(got[0], ("d/x".into(), new, 2), "who fetched the same is a holder too");
            assert_eq!(got.len(), if pattern == "d/x" { 1 } else { 2 });
            let f = found_with(&[], &[(2, "d/x", old), (3, "d/x", older)]);
            assert!(matches!(get(&[pattern], &f), Err(FetchError::Ambiguous { .. })), "nobody knows which is meant");
            let f = found_with(&[(1, "d/x", new), (5, "d/x", older)], &[(2, "d/x", old)]);
            let Err(FetchError::Ambiguous { candidates, .. }) = get(&[pattern], &f) else { panic!("{pattern}") };
            assert_eq!(candidates.len(), 2);
        }
        let f = found_with(&[(1, "x", new)], &[(2, "x", old)]);
        assert_eq!(get(&["02".repeat(32).as_str()], &f).unwrap(), [("x".into(), old, 1)]);
    }

    #[test]
    fn the_forgeable_twin_is_never_taken_for_the_file() {
        let (real, twin) = (id(7, 32768), id(7, 64));
        let root = "07".repeat(32);
        for order in [[(1, "real", real), (2, "twin", twin)], [(2, "twin", twin), (1, "real", real)]] {
            assert_eq!(get(&[&root], &found(&order)).unwrap(), [("real".into(), real, 1)]);
            let only_twin = found(&order[..1]);
            let sure = assess(&[(root.clone(), Pattern::parse(&root).unwrap())], &only_twin);
            assert_eq!(sure, if order[0].1 == "twin" { Certainty::Nothing } else { Certainty::Certain });
        }
        let spelled = format!("{root}:64");
        assert_eq!(get(&[&spelled], &found(&[(2, "twin", twin), (1, "real", real)])).unwrap()[0].1, twin);
        let f = found(&[(1, "a", id(7, 100)), (2, "b", id(7, 200))]);
        assert!(matches!(get(&[&root], &f), Err(FetchError::Ambiguous { .. })));
    }

    #[test]
    fn what_cannot_be_is_left_out() {
        let f = found(&[(1, "empty", FileId { root: Root::EMPTY, len: 0 }), (1, "a", id(1, 0)), (1, "b", id(0, 5))]);
        assert_eq!(get(&["**"], &f).unwrap().len(), 1);
        assert!(matches!(get(&["nope"], &f), Err(FetchError::NotFound { answered: 1, .. })));
        let f = found(&[(1, "x", id(1, 1)), (2, "x", id(2, 1))]);
        let Err(FetchError::NotFound { what, .. }) = get(&["nope", "neither"], &f) else { panic!() };
        assert_eq!(what, "nope");
        assert!(matches!(get(&["nope", "x"], &f), Err(FetchError::Ambiguous { .. })), "whichever comes first");
    }

    #[test]
    fn when_a_question_is_answered() {
        let t = Instant::now();
        let ms = Duration::from_millis;
        let timeout = Duration::from_secs(10);
        let nobody = SurveyProgress::default();
        assert_eq!(end(&Certainty::Nothing, &nobody, t, timeout), t + timeout);
        let refused = SurveyProgress { refused: 1, first_refusal: Some(t + ms(10)), ..SurveyProgress::default() };
        assert!(end(&Certainty::Nothing, &refused, t, timeout) < t + ms(1500));
        let two = SurveyProgress {
            first_answer: Some(t + ms(5)),
            last_answer: Some(t + ms(30)),
            answered: 2,
            ..SurveyProgress::default()
        };
        assert_eq!(end(&Certainty::Certain, &two, t, timeout), t + ms(5));
        assert_eq!(end(&Certainty::Likely, &two, t, timeout), t + ms(80));
        assert_eq!(end(&Certainty::Nothing, &two, t, timeout), t + ms(1005));
        let full = SurveyProgress { full: 1, ..two };
        assert_eq!(end(&Certainty::Nothing, &full, t, timeout), t + ms(5005), "it is asked again meanwhile");
        let two = SurveyProgress { full: 0, ..full };
        let more = SurveyProgress { awaited: 1, ..two };
        assert_eq!(end(&Certainty::Nothing, &more, t, timeout), t + ms(5005), "it may have it");
        assert_eq!(end(&Certainty::Nothing, &more, t, ms(2000)), t + ms(2000));
        assert_eq!(end(&Certainty::Likely, &more, t, timeout), t + ms(80));
        let two = SurveyProgress { awaited: 0, ..more };
        let late = SurveyProgress { last_answer: Some(t + ms(1000)), ..two };
        assert_eq!(end(&Certainty::Likely, &late, t, timeout), t + ms(1005));
    }
}
