//! The rule of shells for names that begin with a dot: no wildcard matches that dot.

use globset::{GlobBuilder, GlobSet};

/// Tells for one glob whether a match takes a wildcard for a leading dot.
///
/// A leading dot of the glob, and each leading dot of a path, becomes a mark that no name has. A
/// path whose mark is exchanged for another one still matches exactly where a wildcard takes it.
/// With alternatives one may take the dot by a wildcard and another one literally, so each of them
/// is looked at alone.
#[derive(Debug, Clone)]
pub(super) struct DotRule(Vec<GlobSet>);

impl DotRule {
    /// The rule for a well-formed glob.
    pub(super) fn new(glob: &str) -> Self {
        let mut alternatives = Vec::new();
        expand(glob, &mut alternatives);
        let compiled = alternatives.iter().filter_map(|text| {
            let glob = GlobBuilder::new(&mark(text)).literal_separator(true).backslash_escape(true).build().ok()?;
            GlobSet::builder().add(glob).build().ok()
        });
        DotRule(compiled.collect())
    }

    /// Whether the glob, which matches `path`, does so without a wildcard for a leading dot.
    pub(super) fn allows(&self, path: &str) -> bool {
        let dots: Vec<usize> = leading_dots(path).collect();
        if dots.is_empty() {
            return true;
        }
        let marked = with_marks(path, &dots, None);
        self.0.iter().any(|glob| {
            glob.is_match(&marked) && dots.iter().all(|&other| !glob.is_match(with_marks(path, &dots, Some(other))))
        })
    }
}

/// Where a component of `path` begins with a dot.
fn leading_dots(path: &str) -> impl Iterator<Item = usize> + '_ {
    let bytes = path.as_bytes();
    (0..bytes.len()).filter(|&at| bytes[at] == b'.' && (at == 0 || bytes[at - 1] == b'/'))
}

fn with_marks(path: &str, dots: &[usize], other: Option<usize>) -> String {
    let marked = path.char_indices().map(|(at, c)| match dots.binary_search(&at) {
        Ok(_) if other == Some(at) => OTHER_MARK,
        Ok(_) => MARK,
        Err(_) => c,
    });
    marked.collect()
}

/// `glob`, which has no alternatives, with its leading dots marked.
fn mark(glob: &str) -> String {
    let (mut marked, mut at_start, mut in_class) = (String::with_capacity(glob.len()), true, false);
    let mut chars = glob.chars().peekable();
    while let Some(c) = chars.next() {
        let is_escaped = c == '\\' && !in_class;
        match (c, chars.peek()) {
            ('.', _) if at_start => marked.push(MARK),
            (_, Some('.')) if is_escaped && at_start => {
                chars.next();
                marked.push(MARK);
            }
            _ => {
                marked.push(c);
                marked.extend(if is_escaped { chars.next() } else { None });
            }
        }
        match c {
            '[' if !is_escaped => in_class = true,
            ']' if in_class => in_class = false,
            _ => {}
        }
        at_start = c == '/';
    }
    marked
}

/// Appends what `glob` stands for without alternatives. Where these are too many, the ones that are
/// left keep their braces: then a leading dot in them counts as matched by a wildcard.
fn expand(glob: &str, into: &mut Vec<String>) {
    let Some((open, commas, close)) = first_braces(glob).filter(|_| into.len() < ALTERNATIVES_MAX) else {
        into.push(glob.to_owned());
        return;
    };
    let mut from = open + 1;
    for end in commas.into_iter().chain([close]) {
        expand(&[&glob[..open], &glob[from..end], &glob[close + 1..]].concat(), into);
        from = end + 1;
    }
}

/// Where the first braces open and close, and the commas between their alternatives.
fn first_braces(glob: &str) -> Option<(usize, Vec<usize>, usize)> {
    let (mut open, mut commas, mut depth, mut in_class) = (None, Vec::new(), 0, false);
    let mut chars = glob.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if !in_class => drop(chars.next()),
            '[' => in_class = true,
            ']' => in_class = false,
            '{' if !in_class => {
                depth += 1;
                open.get_or_insert(at);
            }
            ',' if !in_class && depth == 1 => commas.push(at),
            '}' if !in_class && depth > 0 => {
                depth -= 1;
                if let Some(open) = open.filter(|_| depth == 0) {
                    return Some((open, commas, at));
                }
            }
            _ => {}
        }
    }
    None
}

/// Stands for a leading dot; no name has it.
const MARK: char = '\u{1}';
/// Stands for the one leading dot that a wildcard may take.
const OTHER_MARK: char = '\u{2}';
/// Alternatives that are looked at one by one.
const ALTERNATIVES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use crate::content::Pattern;

    /// Whether the pattern matches, and whether it still does as shells have it.
    fn match_of(pattern: &str, path: &str) -> (bool, bool) {
        let pattern = Pattern::parse(pattern).unwrap();
        (pattern.matches_path(path), pattern.shows(path))
    }

    #[test]
    fn a_wildcard_takes_no_leading_dot() {
        for (pattern, path) in [
            ("*", ".x"),
            ("**", ".x"),
            ("**", "a/.b/c"),
            ("**", "a/b/.c"),
            ("**/c", ".b/c"),
            ("a/**", "a/.b"),
            ("?x", ".x"),
            ("[.]x", ".x"),
            ("[!a]x", ".x"),
            ("*.txt", ".txt"),
            ("*/x", ".a/x"),
            ("**/.x/*", ".a/.x/y"),
            (".a/*", ".a/.b"),
            (".a/**/c", ".a/.b/c"),
            ("{a,*}", ".x"),
            ("a{b,c}*/*", "ab/.x"),
        ] {
            assert_eq!(match_of(pattern, path), (true, false), "{pattern} {path}");
        }
    }

    #[test]
    fn a_dot_in_the_pattern_does() {
        for (pattern, path) in [
            (".*", ".x"),
            ("**/.*", "a/.x"),
            ("**/.x", ".x"),
            ("\\.*", ".x"),
            (".a/*", ".a/b"),
            (".a/.*", ".a/.b"),
            ("{*,.*}", ".x"),
            ("{.git,src}/**", ".git/HEAD"),
            ("{a,b/.c,.d}/?", "b/.c/e"),
            ("**/.x/*", "a/.x/y"),
            ("*", "x.y"),
            ("**", "a/b.c/..."),
        ] {
            let expected = path != "a/b.c/...";
            assert_eq!(match_of(pattern, path), (true, expected), "{pattern} {path}");
        }
        assert_eq!(match_of("*", "a.b"), (true, true));
    }

    #[test]
    fn a_name_and_a_directory_mean_all_of_it() {
        for (pattern, path) in [(".x", ".x"), ("a", "a/.b/c"), ("./*", "*/.x"), ("a/", "a/.b"), (".a", ".a/.b")] {
            assert_eq!(match_of(pattern, path), (true, true), "{pattern} {path}");
        }
    }

    #[test]
    fn any_number_of_alternatives_ends_soon() {
        let pattern = "{a,b}".repeat(100) + "*";
        assert!(Pattern::parse(&pattern).unwrap().shows(&"a".repeat(100)));
        assert!(!Pattern::parse(&"{,.a,*}".repeat(60)).unwrap().shows(".b"));
    }
}
