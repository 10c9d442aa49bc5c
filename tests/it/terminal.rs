//! What a person sees on a terminal, by the real programs on a pseudo-terminal and an emulator that draws its screen.

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;

use crate::programs::Server;

const FILES: usize = 7;

fn serve(home: &Path) -> Server {
    let dir = home.join("data");
    fs::create_dir(&dir).unwrap();
    for number in 0..FILES {
        fs::write(dir.join(format!("file-{number}")), vec![number as u8; 400_000]).unwrap();
    }
    fs::write(dir.join("文件"), "x").unwrap();
    Server::start(home, &["--dir", dir.to_str().unwrap()])
}

/// The lines that `gpb-client ARGS` leaves on a terminal of that many columns, and all bytes that it wrote.
fn screen(server: &Server, args: &[&str], columns: u16, term: &str) -> (Vec<String>, Vec<u8>) {
    let home = tempfile::tempdir().unwrap();
    let client = assert_cmd::cargo::cargo_bin!("gpb-client");
    let options = ["--no-multicast", "--bind", "127.0.0.1", "--peer", server.addr()];
    let words = [&[client.to_str().unwrap()], args, &options].concat();
    assert!(words.iter().all(|word| !word.contains(['\'', ' '])));
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("stty cols {columns} rows 24; exec {}", quoted.join(" "));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear().env("HOME", home.path()).env("TERM", term);
    let path = std::env::var_os("PATH").unwrap();
    let output = command.env("PATH", path).env("SHELL", "/bin/sh").current_dir(home.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let size = |n| NonZero::new(n).unwrap();
    let mut parser = vt100::Parser::new(size(24), size(if columns == 0 { 80 } else { columns }), 0);
    parser.process(&output.stdout);
    let lines = parser.screen().rows(0, parser.screen().size().1.into());
    (lines.map(|row| row.trim_end().to_string()).filter(|row| !row.is_empty()).collect(), output.stdout)
}

/// A bar wider than the terminal wrapped and erased names, and each name left a dead bar behind.
#[test]
fn names_and_bar_do_not_disturb_each_other() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path());
    for columns in [120, 100, 80, 60, 40, 20, 0] {
        let (lines, bytes) = screen(&server, &["get", "**", "--dir", ".", "--download-limit", "3MB"], columns, "xterm");
        assert!(bytes.windows(2).any(|pair| pair == b"% "), "{columns}: a bar was there");
        let whole = lines.concat();
        for number in 0..FILES {
            assert_eq!(whole.matches(&format!("file-{number}  ")).count(), 1, "{columns}: {lines:#?}");
        }
        let shares = whole.matches('%').count();
        assert!(shares == 1 && whole.contains("8 files"), "{columns}: only the share of the peer is left: {lines:#?}");
    }
}

#[test]
fn a_dumb_terminal_gets_plain_lines() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path());
    let (lines, bytes) = screen(&server, &["get", "**", "--dir", ".", "--download-limit", "1MB"], 80, "dumb");
    assert!(!bytes.contains(&0x1b), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("progress ") && line.contains('%')), "{lines:#?}");
}

#[test]
fn wide_characters_leave_the_columns_of_a_list_straight() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path());
    let (lines, _) = screen(&server, &["list", "--wait", "20"], 140, "xterm");
    assert_eq!(lines.len(), FILES + 1, "{lines:#?}");
    let root_column = |line: &String| {
        let root = line.split_whitespace().find(|word| word.len() == 64).unwrap();
        let before = &line[..line.find(root).unwrap()];
        before.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum::<usize>()
    };
    assert!(lines.iter().all(|line| root_column(line) == root_column(&lines[0])), "{lines:#?}");
}
