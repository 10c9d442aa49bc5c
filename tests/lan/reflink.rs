//! Blocks that files share on a disk that can: what is copied there takes no room.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::group::{CLIENT, MIB, Server, assert_same, copies};
use crate::mounts::{MountSpace, lacks};
use crate::net::{secs, until};

const LEN: u64 = 32 * MIB;
/// What a changed chunk, a journal and the records of the file system itself may take.
const LITTLE: u64 = 6 * MIB;

#[test]
fn a_changed_file_and_one_with_another_name_share_their_blocks() {
    let lan = lan_or_skip!();
    if let Some(why) = lacks("xfs") {
        skip!("{why}");
    }
    let [source] = copies(&lan, ["d"], "a.bin", LEN, 17);
    let (host, client, disk, space) =
        (lan.host("s", None), lan.host("c", None), lan.new_dir("disk"), MountSpace::new());
    let (image, out) = (lan.dir().join("image"), disk.join("out"));
    space.sh(&format!(
        "truncate -s 400M {0}; mkfs.xfs -q -m reflink=1 {0}; mount -o loop {0} {1}; mkdir {1}/out",
        image.display(),
        disk.display()
    ));
    let server = Server::start(&host, &source, &[]);
    let state = client.home().join("state");
    let get = |what: &str| {
        let (dir, state) = (out.to_str().unwrap(), state.to_str().unwrap());
        let args = ["get", what, "--dir", dir, "--state", state, "--no-share", "--timeout", "20"];
        space.spawn(&client, CLIENT, &args).wait(secs(60))
    };
    let used = || {
        let df = space.sh(&format!("sync -f {0}; df --output=used -B1 {0} | tail -1", disk.display()));
        df.trim().parse::<u64>().unwrap()
    };
    let is_got = |name: &str| {
        let (here, there) = (space.path(&out.join(name)), source.join(name));
        get(name).code == Some(0) && std::fs::read(here).unwrap() == std::fs::read(there).unwrap()
    };
    assert!(is_got("a.bin"));
    // The old version keeps its blocks.
    space.sh(&format!("cp --reflink=always {0}/a.bin {0}/../old", out.display()));
    let before = used();
    let changed = File::options().write(true).open(source.join("a.bin")).unwrap();
    changed.write_all_at(b"changed", LEN / 2).unwrap();
    drop(changed);
    until("the new version is there", secs(60), || is_got("a.bin").then_some(()));
    let grown = used().saturating_sub(before);
    assert!(grown < LITTLE, "a changed chunk took {grown} bytes");
    // Another name of the content.
    std::fs::copy(source.join("a.bin"), source.join("b.bin")).unwrap();
    until("the other name is there", secs(60), || is_got("b.bin").then_some(()));
    let grown = used().saturating_sub(before);
    assert!(grown < LITTLE, "a copy took {grown} bytes");
    assert_same(&space.path(&out.join("b.bin")), &source.join("b.bin"));
    drop(server);
}
