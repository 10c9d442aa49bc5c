//! Values as text for people, on one line.

use std::borrow::Cow;

/// `text` with control characters written as escapes, so that it stays on its line and cannot steer
/// a terminal. Bidirectional marks and characters of no width count as well: they make a line read
/// otherwise than it is.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

fn is_harmful(c: char) -> bool {
    // The separators of lines, and the characters of Unicode's category Cf but for the two joiners:
    // U+200C and U+200D belong to the spelling of Persian and Hindi words and of emoji.
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}')
}

/// `n` bytes with a binary unit and at most one decimal: `0 B`, `1.5 KiB`, `20 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        // A value that rounds to 1024 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Bytes a second over `seconds`.
pub(crate) fn rate(n: u64, seconds: f64) -> String {
    let per_second = if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
    format!("{}/s", bytes(per_second as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape("plain ümlaut"), "plain ümlaut");
        assert!(matches!(escape("plain"), Cow::Borrowed(_)));
        assert_eq!(escape("a\nb\r\t\u{1b}[2J\0\u{7f}\u{9b}"), "a\\nb\\r\\t\\u{1b}[2J\\u{0}\\u{7f}\\u{9b}");
        assert_eq!(escape("\u{202e}evil\u{2028}"), "\\u{202e}evil\\u{2028}");
        assert_eq!(escape("z\u{200b}w\u{200e}\u{feff}"), "z\\u{200b}w\\u{200e}\\u{feff}");
    }

    #[test]
    fn sizes_are_short() {
        for (n, s) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (150 * 1024, "150 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (20 << 30, "20.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), s);
        }
        assert_eq!((rate(2048, 2.0), rate(5, 0.0)), ("1.0 KiB/s".into(), "0 B/s".into()));
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_one_line(text in any::<String>()) {
            prop_assert!(!escape(&text).chars().any(char::is_control));
        }
    }
}
