//! What `list` says of each name.

use std::io::{self, Write};

use console::measure_text_width;
use serde::Serialize;

use super::{Output, count};
use crate::cli::text::{bytes, escape};
use crate::client::{FoundBare, FoundFile};
use crate::content::Bare;

impl<W: Write> Output<W> {
    /// The names that are offered: files, and what is none with the number of peers that have it. Both are
    /// sorted by path. A link shows where it leads, an empty directory ends with `/`.
    pub fn list(&mut self, files: &[FoundFile], bare: &[(FoundBare, usize)]) -> io::Result<()> {
        let roots: Vec<String> = files.iter().map(|file| file.id.root.to_string()).collect();
        let of_files = files.iter().zip(&roots).map(|(file, root)| FoundLine::of_file(file, root));
        let mut all: Vec<FoundLine<'_>> = of_files.chain(bare.iter().map(FoundLine::of_bare)).collect();
        all.sort_by_key(|line| line.path);
        let shown: Vec<String> = all.iter().map(FoundLine::shown).collect();
        let width = shown.iter().map(|name| measure_text_width(name).min(NAME_WIDTH_MAX)).max().unwrap_or(0);
        for (line, name) in all.iter().zip(&shown) {
            self.row(line, || {
                // Columns, of which a wide character takes two.
                let pad = width.saturating_sub(measure_text_width(name));
                let len = if line.root.is_some() { bytes(line.len) } else { String::new() };
                let (root, holders) = (line.root.unwrap_or(""), count(line.holders as u64, "holder"));
                let program = if line.executable { "  program" } else { "" };
                format!("{name}{:pad$}  {len:>10}  {root:64}  {holders}{program}", "")
            })?;
        }
        self.flush()
    }
}

/// A name. One without a content has no root, and no length.
#[derive(Serialize)]
struct FoundLine<'a> {
    path: &'a str,
    len: u64,
    root: Option<&'a str>,
    holders: usize,
    mtime_ns: i64,
    executable: bool,
    /// The text of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
    /// It is an empty directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    directory: bool,
}

impl<'a> FoundLine<'a> {
    fn of_file(file: &'a FoundFile, root: &'a str) -> Self {
        FoundLine {
            path: file.path.as_str(),
            len: file.id.len,
            root: Some(root),
            holders: file.holders.len(),
            mtime_ns: file.attributes.mtime_ns,
            executable: file.attributes.executable,
            link: file.link.as_deref().map(|to| &*to.target),
            directory: false,
        }
    }

    fn of_bare((FoundBare { path, bare }, holders): &'a (FoundBare, usize)) -> Self {
        let link = if let Bare::Link { to, .. } = bare { Some(&*to.target) } else { None };
        let (path, mtime_ns, directory) = (path.as_str(), bare.mtime_ns(), link.is_none());
        FoundLine { path, len: 0, root: None, holders: *holders, mtime_ns, executable: false, link, directory }
    }

    fn shown(&self) -> String {
        let name = escape(self.path);
        match self.link {
            Some(target) => format!("{name} -> {}", escape(target)),
            None if self.directory => format!("{name}/"),
            None => name.to_string(),
        }
    }
}

/// Column that longer names run over rather than pushing all others aside.
const NAME_WIDTH_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Attributes, Digest, FileId, LinkTo, RelPath, Root};

    fn name(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    #[test]
    fn links_directories_and_programs_are_told_from_files() {
        let to = |target: &str| LinkTo { target: target.into(), mtime_ns: 7 };
        let file = |path: &str, executable, link: Option<LinkTo<Box<str>>>| FoundFile {
            path: name(path),
            id: FileId { root: Root(Digest([1; 32])), len: 5 },
            holders: [].into(),
            shared: true,
            attributes: Attributes { mtime_ns: -3, executable, link_group: 0 },
            link: link.map(Box::new),
        };
        let files = [file("b", true, None), file("d", false, Some(to("b")))];
        let bare = [
            (FoundBare { path: name("a"), bare: Bare::EmptyDir { mtime_ns: 4, copy: false } }, 1),
            (FoundBare { path: name("c"), bare: Bare::Link { to: to("x\n"), copy: true } }, 2),
        ];
        let told = |json| {
            let mut out = Vec::new();
            Output::new(&mut out, json).list(&files, &bare).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = told(false);
        let lines: Vec<&str> = text.lines().collect();
        let begins = |at: usize, with: &str| assert!(lines[at].starts_with(with), "{}", lines[at]);
        begins(0, "a/  ");
        begins(1, "b  ");
        begins(2, "c -> x");
        begins(3, "d -> b");
        assert_eq!(lines.len(), 4, "no name makes a line");
        assert!(lines[1].ends_with("0 holders  program") && lines[2].ends_with("2 holders"), "{text}");
        let json: Vec<serde_json::Value> = told(true).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(
            json[0],
            serde_json::json!({
                "path": "a", "len": 0, "root": null, "holders": 1, "mtime_ns": 4, "executable": false, "directory": true
            })
        );
        assert_eq!((&json[1]["executable"], &json[1]["mtime_ns"]), (&true.into(), &serde_json::json!(-3)));
        assert_eq!((&json[2]["link"], &json[3]["link"], &json[3]["len"]), (&"x\n".into(), &"b".into(), &5.into()));
        assert!(json[1].get("link").is_none() && json[1].get("directory").is_none());
    }
}
