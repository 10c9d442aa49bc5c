//! Roots compared with those that libtorrent computes: the outside oracle of content identity.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use gpb::internals::content::{Digest, Geometry, merkle};

const SCRIPT: &str = r#"
import sys, libtorrent as lt
path, parent = sys.argv[1], sys.argv[2]
fs = lt.file_storage()
lt.add_files(fs, path)
ct = lt.create_torrent(fs, 0, lt.create_torrent.v2_only)
lt.set_piece_hashes(ct, parent)
tree = ct.generate()[b'info'][b'file tree']
for name, node in sorted(tree.items()):
    print(name.decode(), node[b''].get(b'pieces root', b'\0' * 32).hex())
"#;

const PYTHON: &str = "/usr/bin/python3";

#[test]
fn roots_are_those_of_libtorrent() {
    if !has_libtorrent() {
        assert!(std::env::var_os("GPB_REQUIRE_ALL").is_none_or(|v| v != "1"), "{PYTHON} has no libtorrent");
        println!("skipped: {PYTHON} has no libtorrent (Debian: apt-get install python3-libtorrent)");
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("files");
    fs::create_dir(&dir).unwrap();
    let mib = 1 << 20;
    // The empty file stands beside others: a torrent of 0 bytes in all is refused.
    for len in [0, 1, 16383, 16384, 16385, 262143, 262144, 262145, mib, mib + 1, 5 * mib + 7] {
        fs::write(dir.join(format!("{len:010}")), noise(len, len as u64)).unwrap();
    }
    // Over 1 GiB the chunks are longer. Islands of bytes in a hole: the tree does not care, and the disk is spared.
    let len = (1u64 << 30) + 12_345;
    let big = File::create(dir.join(format!("{len:010}"))).unwrap();
    big.set_len(len).unwrap();
    for at in (0..len).step_by(100_000_007).chain([len - 50_000]) {
        big.write_all_at(&noise(50_000, at), at).unwrap();
    }
    let theirs = libtorrent_roots(&dir, tmp.path());
    assert_eq!(theirs.len(), 12);
    for (name, root) in theirs {
        let (whole, layered) = our_roots(&dir.join(&name));
        assert_eq!(whole.to_string(), root, "length {name}");
        assert_eq!(layered.to_string(), root, "length {name}, through its chunk layer");
    }
}

fn has_libtorrent() -> bool {
    Command::new(PYTHON).args(["-c", "import libtorrent"]).output().is_ok_and(|o| o.status.success())
}

fn libtorrent_roots(dir: &Path, parent: &Path) -> Vec<(String, String)> {
    let output = Command::new(PYTHON).args(["-c", SCRIPT]).arg(dir).arg(parent).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|l| l.split_once(' ').unwrap()).map(|(n, r)| (n.into(), r.into())).collect()
}

/// The root from all blocks at once, and the root above the chunk layer.
fn our_roots(path: &Path) -> (Digest, Digest) {
    let mut file = File::open(path).unwrap();
    let geometry = Geometry::new(file.metadata().unwrap().len());
    let (mut blocks, mut layer, mut whole) = (merkle::Blocks::new(), Vec::new(), Digest::ZERO);
    let mut buffer = vec![0; geometry.chunk_len() as usize];
    for index in geometry.chunks() {
        let chunk = &mut buffer[..geometry.span(index).len as usize];
        file.read_exact(chunk).unwrap();
        blocks.push(chunk);
        layer.push(merkle::chunk_digest(chunk, geometry.chunk_height()));
        whole = if geometry.needs_layer() { whole } else { merkle::root_of_bytes(chunk) };
    }
    let root = blocks.finish_root();
    (root, if geometry.needs_layer() { merkle::root_of_layer(&layer, geometry.chunk_height()) } else { whole })
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}
