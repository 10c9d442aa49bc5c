//! The bodies of the fuzz targets: each takes bytes, drives one part of the program with them, and asserts what must
//! hold whatever they are.
//!
//! The programs in `fuzz/` include this file and run it under libFuzzer; `cargo test --test it fuzz::` runs it over
//! the seeds. So nothing here uses more than the library, and the same bytes give the same run in both.

mod download;
mod files;
mod input;
mod keys;
mod members;
mod names;
mod scratch;
mod sessions;
mod wire;

/// A target takes the bytes of one run, and panics if something does not hold.
pub type Target = fn(&[u8]);

/// All targets by name. `fuzz/fuzz_targets/` has a program for each, and `fuzz/seeds/` a folder.
pub const TARGETS: [(&str, Target); 18] = [
    ("announces", wire::announces),
    ("answers", wire::answers),
    ("client_session", sessions::client_session),
    ("config", keys::config),
    ("download", download::download),
    ("frames", wire::frames),
    ("index", files::index),
    ("journal", files::journal),
    ("key_file", keys::key_file),
    ("names", names::names),
    ("pages", wire::pages),
    ("patterns", names::patterns),
    ("peer_file", keys::peer_file),
    ("peer_table", members::peer_table),
    ("remembered", keys::remembered),
    ("requests", wire::requests),
    ("server_session", sessions::server_session),
    ("trusted", keys::trusted),
];

/// Runs one target.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a known target");
    target(bytes);
}
