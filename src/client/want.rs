//! What a program asks for, from a text that a person typed to a file that was listed.

use crate::client::{Candidate, FetchError, FoundBare, FoundFile};
use crate::content::{FileId, Pattern, PatternKind, RelPath};
use crate::identity::PeerId;

/// What to find or to fetch. Each of these is one, and so are arrays, slices and `Vec`s of them:
///
/// | given | means |
/// |---|---|
/// | a text: `&str`, `String` | what a person typed: a name, a directory, a glob, or a root; [`Pattern`] decides |
/// | a [`Pattern`] | the same, read before |
/// | a [`RelPath`] | the file of that very name, or the directory, whatever characters it has |
/// | a [`FileId`] | that content, under whatever name |
/// | a [`FoundFile`] | that content under that name, from its holders; fetching it asks no peer for names first |
/// | [`Everything`] | all files |
///
/// A text without `*`, `?`, `[` and `{` is a name, unless it is a root in hex digits. A name that
/// has such a character is best given as a [`RelPath`]; as a text it is `./NAME`. No wildcard takes
/// the dot that a name, or a directory above it, begins with: `**` leaves such names out, `.*` means
/// them, and [`Everything`] has them. Nothing at all,
/// such as an empty `Vec`, is [`FetchError::NothingAsked`] in every call.
///
/// ```
/// use gpb::{Everything, RelPath};
///
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("d/star*.bin", b"star"), ("d/b.bin", b"b")])?;
/// # let node = lan.node()?;
/// assert_eq!(node.list("d/*.bin")?.len(), 2);
/// assert_eq!(node.list(RelPath::new("d/star*.bin")?)?.len(), 1);
/// let files = node.list(Everything)?;
/// assert_eq!(node.fetch(&files)?.wait()?.files, 2);
/// assert_eq!(node.fetch([files[0].id, files[1].id])?.wait()?.files, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    /// What has to be looked for, as texts of patterns.
    pub(crate) texts: Vec<String>,
    /// What was found before.
    pub(crate) files: Vec<FoundFile>,
    /// Names without a content that were found before.
    pub(crate) bare: Vec<FoundBare>,
    /// Whether [`Everything`] is wanted, names with a leading dot included.
    pub(crate) everything: bool,
}

/// All files that are offered; a [`Want`].
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("a", b"a"), ("d/b", b"b")])?;
/// # let node = lan.node()?;
/// assert_eq!(node.list(gpb::Everything)?.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Everything;

impl Want {
    /// What [`Client::resolve`](crate::client::Client::resolve) found.
    #[doc(hidden)]
    pub fn found(files: &[FoundFile], bare: &[FoundBare]) -> Self {
        Want { files: files.to_vec(), bare: bare.to_vec(), ..Want::default() }
    }

    /// As texts of patterns, for a question that takes no files.
    pub(crate) fn into_patterns(self) -> Result<Vec<String>, FetchError> {
        let Want { mut texts, files, .. } = self;
        texts.extend(files.iter().map(|file| exact(&file.path)));
        if texts.is_empty() { Err(FetchError::NothingAsked) } else { Ok(texts) }
    }

    /// Refuses nothing at all, and a text that is no pattern.
    pub(crate) fn check(&self) -> Result<(), FetchError> {
        if self.texts.is_empty() && self.files.is_empty() && self.bare.is_empty() {
            return Err(FetchError::NothingAsked);
        }
        let parse = |text: &String| Pattern::parse(text).map(drop).map_err(|source| (text.clone(), source));
        self.texts.iter().try_for_each(parse).map_err(|(text, source)| FetchError::Pattern { text, source })
    }

    /// Shown in messages about all of it: the first part, and the number of the others.
    pub(crate) fn shown(&self) -> String {
        let first = self.texts.first().cloned().or_else(|| self.files.first().map(|f| f.path.to_string()));
        let (first, others) = (first.unwrap_or_default(), (self.texts.len() + self.files.len()).saturating_sub(1));
        if others > 0 { format!("{first} and {others} more") } else { first }
    }
}

/// Joins what was looked for and what was `known`: sorted by path, each file once, with all of its
/// holders. One name with two contents is an error.
pub(crate) fn join_found(mut found: Vec<FoundFile>, known: Vec<FoundFile>) -> Result<Vec<FoundFile>, FetchError> {
    if known.is_empty() {
        return Ok(found);
    }
    if found.is_empty() {
        found = known;
    } else {
        found.extend(known);
    }
    found.sort_by(|a, b| (&a.path, &a.id).cmp(&(&b.path, &b.id)));
    found.dedup_by(|later, kept| {
        let same = later.path == kept.path && later.id == kept.id;
        if same && later.holders != kept.holders {
            let mut all = [&*kept.holders, &*later.holders].concat();
            all.sort_unstable();
            all.dedup();
            kept.holders = all.into();
        }
        same
    });
    if let Some(twins) = found.windows(2).find(|pair| pair[0].path == pair[1].path) {
        let candidate = |file: &FoundFile| {
            let mut holders: Vec<PeerId> = file.holders.iter().map(|holder| holder.peer).collect();
            holders.dedup();
            Candidate { path: file.path.clone(), id: file.id, holders }
        };
        let candidates = twins.iter().map(candidate).collect();
        return Err(FetchError::Ambiguous { what: twins[0].path.to_string(), candidates });
    }
    Ok(found)
}

/// The pattern that means this name and nothing else.
pub(crate) fn exact(path: &RelPath) -> String {
    let plain = Pattern::parse(path.as_str());
    let means_itself = |kind: &PatternKind| match kind {
        PatternKind::Path { text, glob: None, prefix: None } => text == path.as_str(),
        _ => false,
    };
    if plain.is_ok_and(|pattern| means_itself(pattern.kind())) { path.to_string() } else { format!("./{path}") }
}

impl From<&str> for Want {
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

impl From<String> for Want {
    fn from(text: String) -> Self {
        Want { texts: vec![text], ..Want::default() }
    }
}

impl From<&String> for Want {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<&Pattern> for Want {
    fn from(pattern: &Pattern) -> Self {
        pattern.as_str().into()
    }
}

impl From<Pattern> for Want {
    fn from(pattern: Pattern) -> Self {
        (&pattern).into()
    }
}

impl From<&RelPath> for Want {
    fn from(path: &RelPath) -> Self {
        exact(path).into()
    }
}

impl From<RelPath> for Want {
    fn from(path: RelPath) -> Self {
        (&path).into()
    }
}

impl From<FileId> for Want {
    fn from(id: FileId) -> Self {
        id.to_string().into()
    }
}

impl From<&FileId> for Want {
    fn from(id: &FileId) -> Self {
        (*id).into()
    }
}

impl From<FoundFile> for Want {
    fn from(file: FoundFile) -> Self {
        Want { files: vec![file], ..Want::default() }
    }
}

impl From<&FoundFile> for Want {
    fn from(file: &FoundFile) -> Self {
        file.clone().into()
    }
}

impl From<Everything> for Want {
    fn from(_: Everything) -> Self {
        Want { everything: true, .."**".into() }
    }
}

impl<T: Into<Want>> FromIterator<T> for Want {
    fn from_iter<I: IntoIterator<Item = T>>(parts: I) -> Self {
        let mut all = Want::default();
        for part in parts {
            let Want { texts, files, bare, everything } = part.into();
            all.everything |= everything;
            all.texts.extend(texts);
            all.files.extend(files);
            all.bare.extend(bare);
        }
        all
    }
}

impl<T: Into<Want> + Clone> From<&[T]> for Want {
    fn from(parts: &[T]) -> Self {
        parts.iter().cloned().collect()
    }
}

impl<T: Into<Want> + Clone, const N: usize> From<&[T; N]> for Want {
    fn from(parts: &[T; N]) -> Self {
        parts.as_slice().into()
    }
}

impl<T: Into<Want>, const N: usize> From<[T; N]> for Want {
    fn from(parts: [T; N]) -> Self {
        parts.into_iter().collect()
    }
}

impl<T: Into<Want>> From<Vec<T>> for Want {
    fn from(parts: Vec<T>) -> Self {
        parts.into_iter().collect()
    }
}

impl<T: Into<Want> + Clone> From<&Vec<T>> for Want {
    fn from(parts: &Vec<T>) -> Self {
        parts.as_slice().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};
    use crate::identity::NodeId;

    fn found(path: &str, root: u8, holder: u8) -> FoundFile {
        let id = FileId { root: Root(Digest([root; 32])), len: 5 };
        let holders = [NodeId::new(PeerId([holder; 32]), 1)].into();
        FoundFile {
            path: RelPath::new(path).unwrap(),
            id,
            holders,
            shared: true,
            attributes: Default::default(),
            link: None,
        }
    }

    #[test]
    fn a_name_of_any_characters_means_itself() {
        for name in ["star*.bin", "[x", "a?{b}", "a\\*", "deadbeef", &"ab".repeat(32)] {
            let want = Want::from(&RelPath::new(name).unwrap());
            let pattern = Pattern::parse(&want.texts[0]).unwrap();
            assert!(pattern.matches_path(name) && !pattern.matches_path("starx.bin"), "{name}");
        }
    }

    #[test]
    fn nothing_is_an_error_wherever_it_is_asked_for() {
        let nothing = || Want::from(Vec::<&str>::new());
        assert!(matches!(nothing().check(), Err(FetchError::NothingAsked)));
        assert!(matches!(nothing().into_patterns(), Err(FetchError::NothingAsked)));
        assert!(matches!(Want::from("").check(), Err(FetchError::Pattern { .. })));
        assert!(Want::from(Everything).check().is_ok());
    }

    #[test]
    fn what_was_found_is_joined_with_what_is_known() {
        let joined = join_found(vec![found("b", 1, 1)], vec![found("b", 1, 2), found("a", 1, 1)]).unwrap();
        let shown: Vec<_> = joined.iter().map(|f| (f.path.as_str(), f.holders.len())).collect();
        assert_eq!(shown, [("a", 1), ("b", 2)]);
        let twins = join_found(vec![found("b", 1, 1)], vec![found("b", 2, 2)]);
        assert!(matches!(twins, Err(FetchError::Ambiguous { candidates, .. }) if candidates.len() == 2));
    }
}
