//! Targets: the files that a user writes, and one that a node does: trusted keys, a secret key, the configuration,
//! peers to contact, remembered peers.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gpb::internals::cli::{self, Environment, Exit, Failure};
use gpb::internals::discovery::PeerLines;
use gpb::internals::limits::STATIC_PEERS_MAX;
use gpb::internals::runtime::keystore::load_key;
use gpb::internals::swarm::RememberedPeers;
use gpb::internals::swarm::membership::limits::REMEMBERED_MAX;
use gpb::{Keypair, PeerAddr, PeerId, Trust};

use super::input::Input;
use super::scratch::Scratch;

/// A trusted file: lines as they come, and lines of keys with words around them.
pub fn trusted(bytes: &[u8]) {
    let stranger = PeerId([9; 32]);
    if let Some(trust) = said(|file| Trust::file(file), bytes) {
        let members = trust.members();
        assert!(!trust.is_open() && members.len() <= bytes.split(|b| *b == b'\n').count());
        assert!(
            members.iter().all(|id| trust.contains(id)) && trust.contains(&stranger) == members.contains(&stranger)
        );
    }
    let mut input = Input::new(bytes);
    let (mut text, mut ids) = (String::new(), Vec::new());
    while !input.is_empty() && ids.len() < 50 {
        let (id, words) = (PeerId(std::array::from_fn(|_| input.byte())), input.text(40));
        let before =
            ["", " ", "\t", "# a line\n", "\n\r\n", "\u{feff}"][input.below(if ids.is_empty() { 6 } else { 5 })];
        text += &format!("{before}{id} {}\n", words.replace('\n', " "));
        ids.push(id);
    }
    let trust = said(|file| Trust::file(file), text.as_bytes()).expect("well formed");
    let (members, ids): (HashSet<PeerId>, HashSet<PeerId>) =
        (trust.members().into_iter().collect(), ids.into_iter().collect());
    assert_eq!(members, ids);
}

/// A peer file: what is read is bounded, and each peer is written as it is read again.
pub fn peer_file(bytes: &[u8]) {
    let lines = PeerLines::parse(bytes);
    assert!(lines.peers.len() <= STATIC_PEERS_MAX && lines.bad.len() <= STATIC_PEERS_MAX + 1);
    for peer in &lines.peers {
        let again: PeerAddr = peer.to_string().parse().expect("as it is written");
        assert!(again == *peer && again.port() != 0 && again.host().len() <= 300);
    }
    for line in &lines.bad {
        assert!(line.len() < 400 && !line.chars().any(char::is_control), "{line:?}");
    }
    let text: String = lines.peers.iter().map(|peer| format!("{peer} # again\n")).collect();
    assert_eq!(PeerLines::parse(text.as_bytes()), PeerLines { peers: lines.peers, bad: Vec::new() });
}

/// The remembered peers: bounded, and read again as they are written, even after others were noted.
pub fn remembered(bytes: &[u8]) {
    let read = std::str::from_utf8(bytes).ok().and_then(|text| RememberedPeers::parse(text).ok());
    let mut peers = read.unwrap_or_default();
    assert!(peers.len() <= REMEMBERED_MAX);
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let (peer, port, at) = (PeerId([input.byte(); 32]), u16::from(input.byte()), u64::from(input.byte()));
        peers.note(["gpb", "a net"][input.below(2)], peer, &[([10, 0, 0, 1], port).into()], at);
    }
    assert!(peers.len() <= REMEMBERED_MAX);
    assert_eq!(RememberedPeers::parse(&peers.to_string()).as_ref(), Ok(&peers));
    peers.forget("gpb", |_| false, u64::MAX);
    assert!(peers.of_network("gpb").is_empty());
}

/// A key file. What is read is written again as the same key.
pub fn key_file(bytes: &[u8]) {
    if let Some(key) = said(load_key, bytes) {
        let same = Keypair::from_pem(&key.to_pem()).expect("written by the key itself");
        assert_eq!(same.peer_id(), key.peer_id());
        let signature = key.sign(bytes);
        assert!(key.peer_id().verify(bytes, &signature));
    }
}

/// A configuration file behind some arguments and variables, for each program. The first line has the arguments, the
/// second the variables.
pub fn config(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |b| *b == b'\n');
    let (args, variables) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let words = |line: &[u8]| -> Vec<OsString> {
        line.split(|b| *b == b' ')
            .filter(|w| !w.is_empty() && !w.contains(&0))
            .map(|w| OsString::from_vec(w.into()))
            .collect()
    };
    let variables = words(variables).into_iter().filter_map(|word| {
        let text = word.into_vec();
        let at = text.iter().position(|b| *b == b'=')?;
        let name = OsString::from_vec(text[..at].to_vec());
        // It would name another file.
        (name != "GPB_CONFIG").then(|| (name, OsString::from_vec(text[at + 1..].to_vec())))
    });
    let mut env = Environment { args: words(args), variables: variables.collect() };
    let names_a_file = |arg: &OsString| arg.as_encoded_bytes().starts_with(b"--config");
    env.args.retain(|arg| !names_a_file(arg));
    let file = put(lines.next().unwrap_or_default());
    env.variables.insert("GPB_CONFIG".into(), file.clone().into());
    let refused = |failed: Failure| {
        // It quotes what the user wrote, and is escaped when it is printed.
        assert!(failed.exit == Exit::Usage && !failed.message.is_empty());
        assert!(failed.message.len() < 500 + 8 * bytes.len(), "{}", failed.message);
    };
    drop(cli::resolve_server(&env).map_err(refused));
    drop(cli::resolve_client(&env).map_err(refused));
    drop(cli::resolve_keygen(&env).map_err(refused));
}

/// What `read` makes of a file with that content. An error is one short line.
fn said<T, E: std::error::Error>(read: impl Fn(&Path) -> Result<T, E>, content: &[u8]) -> Option<T> {
    let file = put(content);
    let result = read(&file);
    if let Err(e) = &result {
        let text = e.to_string().replace(&*file.to_string_lossy(), "");
        assert!(text.len() < 400 && !text.chars().any(char::is_control), "{text:?}");
        if let Some(cause) = e.source().map(ToString::to_string) {
            assert!(cause.len() < 400 && !cause.chars().any(char::is_control), "{cause:?}");
        }
    }
    result.ok()
}

/// Writes a file that only its owner reads: one of this thread, which each run writes again.
fn put(content: &[u8]) -> PathBuf {
    thread_local! {
        static DIR: Scratch = Scratch::new();
    }
    let path = DIR.with(|dir| dir.path().join("file"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
    file.write_all(content).unwrap();
    path
}
