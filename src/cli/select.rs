//! The options that say which of the names that are found are meant.

use std::path::Path;

use crate::chain::Chain;
use crate::cli::advice::is_root;
use crate::cli::limits::EXCLUDE_MAX;
use crate::cli::sources::{Setting, Settings};
use crate::cli::text::escape;
use crate::client::{FoundFile, Selection};
use crate::content::{Pattern, PatternError};
use crate::identity::{KeyPrefix, PeerId};
use crate::runtime::keystore::{read_bounded, trusted_line, written_lines};
use crate::runtime::limits::FOLLOWED_FILE_LEN_MAX;

/// Which of the names that are found are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelectOptions {
    /// What is left out, each a valid [`Pattern`].
    pub exclude: Vec<String>,
    /// Whether wildcards take leading dots.
    pub hidden: bool,
    /// The peer whose names are meant where names clash.
    pub from: Option<KeyPrefix>,
}

impl SelectOptions {
    /// Reads the options. A name in `from` is looked up in the file `trusted`.
    pub(crate) fn read(settings: &Settings, trusted: Option<&Path>) -> Result<Self, String> {
        let exclude = settings.all("exclude");
        if exclude.len() > EXCLUDE_MAX {
            return Err(format!("{}: more than {EXCLUDE_MAX} are given", exclude[EXCLUDE_MAX].source));
        }
        if let Some(second) = settings.all("from").get(1) {
            return Err(format!("{}: one peer is named where names clash; name one", second.source));
        }
        let pattern = |setting: &Setting| setting.read(checked);
        let from = |setting: &Setting| setting.read(|text| peer(text, trusted));
        Ok(SelectOptions {
            exclude: exclude.iter().map(pattern).collect::<Result<_, _>>()?,
            hidden: settings.switch("hidden")?,
            from: settings.one("from").map(from).transpose()?,
        })
    }

    /// The selection for a question.
    pub fn selection(&self) -> Selection {
        Selection {
            exclude: self.exclude.iter().filter_map(|text| Pattern::parse(text).ok()).collect(),
            hidden: self.hidden,
            prefer: self.from.clone(),
        }
    }
}

/// What to say of `text` if it is a root that none of `shown` has: a file may have such a name.
pub fn unknown_root(text: &str, shown: &[FoundFile]) -> Option<String> {
    let is_unknown = is_root(text) && !shown.iter().any(|file| file.id.root.to_string().eq_ignore_ascii_case(text));
    is_unknown.then(|| format!("no file has the root {text}; a file of that name is ./{text}"))
}

/// The pattern, if it is one.
pub(super) fn checked(text: &str) -> Result<String, String> {
    let refused = |e: PatternError| {
        let next =
            if e == PatternError::Length { "; names begin in the shared directory, and `**` is all of it" } else { "" };
        format!("`{}`: {}{next}", escape(text), escape(&e.to_string()))
    };
    Pattern::parse(text).map(|_| text.to_owned()).map_err(refused)
}

/// The key that `text` names: itself, its beginning, or the name behind it in a trusted file. A
/// name that a peer gives itself is not believed.
pub(super) fn peer(text: &str, trusted: Option<&Path>) -> Result<KeyPrefix, String> {
    let mut keys: Vec<PeerId> = trusted.map_or(Ok(Vec::new()), |file| named(text, file))?;
    keys.sort_unstable();
    keys.dedup();
    match (keys.as_slice(), text.parse::<KeyPrefix>()) {
        ([key], _) => Ok((*key).into()),
        ([], Ok(prefix)) => Ok(prefix),
        ([], Err(e)) => Err(format!(
            "`{}` is {e}, and no name in the trusted file; `gpb-client peers` shows the keys",
            escape(text)
        )),
        (several, _) => Err(format!("`{}` names {} keys of the trusted file", escape(text), several.len())),
    }
}

/// The keys in the file whose comment is `name`, or begins with it as a word.
fn named(name: &str, file: &Path) -> Result<Vec<PeerId>, String> {
    let (content, _) = read_bounded(file, FOLLOWED_FILE_LEN_MAX, |_| Ok(())).map_err(|e| Chain(&e).to_string())?;
    let named = |(_, line)| {
        let (_, key, comment) = trusted_line(line);
        Some((key?, String::from_utf8_lossy(comment))).filter(|(_, comment)| !comment.is_empty())
    };
    let lines = || written_lines(&content).filter_map(named);
    let exact: Vec<PeerId> = lines().filter(|(_, comment)| *comment == name).map(|(key, _)| key).collect();
    if !exact.is_empty() {
        return Ok(exact);
    }
    let is_word =
        |comment: &str| comment.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '\t', ',', ';']));
    Ok(lines().filter(|(_, comment)| is_word(comment)).map(|(key, _)| key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_by_its_key_or_in_the_trusted_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trusted");
        let [ana, bob, eve] = [1, 2, 3].map(|n| PeerId([n; 32]));
        let lines = format!("# ana\n{ana} ana, laptop\n{bob} bob\n{eve} bob, other\n{ana} twin\n{eve} twin\n");
        std::fs::write(&file, lines).unwrap();
        let found = |text: &str| peer(text, Some(&file));
        for text in ["ana", "ana, laptop"] {
            assert!(found(text).unwrap().matches(&ana), "{text}");
        }
        assert!(found("bob").unwrap().matches(&bob), "the whole comment comes first");
        assert!(found(&eve.to_string()[..25]).unwrap().matches(&eve));
        // As trust reads the file.
        let lines =
            [&b"\xef\xbb\xbf"[..], format!("peer={ana} ana, laptop\r\n{bob} jos").as_bytes(), b"\xe9\n"].concat();
        let odd = dir.path().join("odd");
        std::fs::write(&odd, lines).unwrap();
        assert!(peer("ana", Some(&odd)).unwrap().matches(&ana));
        for text in ["twin", "an", "laptop", "nobody", ""] {
            assert!(found(text).is_err(), "{text}");
        }
        assert!(peer("ana", None).is_err() && peer(&ana.to_string(), None).is_ok());
        assert!(peer("ana", Some(&dir.path().join("none"))).unwrap_err().contains("cannot read"));
    }
}
