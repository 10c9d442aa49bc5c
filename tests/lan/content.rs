//! What is fetched is what was meant: disks that lie, forged twins, and two files of one name.

use std::fs::{self, File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::group::{Got, MIB, Server, assert_same, client, copies, get, list, root_of, sample};
use crate::net::{secs, until};

/// Changes a byte in every quarter MiB of a file and gives it its old modification time back.
fn rot(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let bytes = fs::read(path).unwrap();
    for at in (1000..bytes.len()).step_by(256 * 1024) {
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[bytes[at] ^ 0x55]).unwrap();
    }
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), modified);
}

#[test]
fn a_disk_that_lies_does_no_harm() {
    let lan = lan_or_skip!();
    let dirs = copies(&lan, ["d1", "d2", "d3"], "a.bin", 48 * MIB, 41);
    let hosts = ["s1", "s2", "s3"].map(|name| lan.host(name, Some(100)));
    let servers: [_; 3] = std::array::from_fn(|i| Server::start(&hosts[i], &dirs[i], &[]));
    let (c, out) = (lan.host("c", None), lan.new_dir("out"));
    let root = root_of(&list(&c, &[]), "a.bin").unwrap();

    rot(&dirs[1].join("a.bin"));
    let got = Got::wait(get(&c, &root, &out, &["--out", out.join("a.bin").to_str().unwrap()]), secs(30)).expect(0);
    assert_same(&out.join("a.bin"), &dirs[0].join("a.bin"));

    let liar = &servers[1];
    let named = got.ended.err.iter().any(|l| l.contains(&liar.id) && (l.contains("WARN") || l.contains("ERROR")));
    if !named {
        until("the log names the liar, or it has withdrawn the file", secs(5), || {
            let listing = list(&c, &[]);
            let holders = listing.iter().find(|v| v["root"] == root.as_str())?["holders"].as_u64()?;
            (holders == 2).then_some(())
        });
    }
}

#[test]
fn a_twin_of_64_bytes_is_not_taken_for_the_file() {
    let lan = lan_or_skip!();
    let [real, twin] = ["real", "twin"].map(|name| lan.new_dir(name));
    sample(&real.join("real.bin"), 32 * 1024, 42);
    let bytes = fs::read(real.join("real.bin")).unwrap();
    let leaves: Vec<u8> = bytes.chunks(16 * 1024).flat_map(Sha256::digest).collect();
    fs::write(twin.join("twin.bin"), &leaves).unwrap();
    let root: String = Sha256::digest(&leaves).iter().map(|b| format!("{b:02x}")).collect();

    let (s1, s2, c) = (lan.host("s1", None), lan.host("s2", None), lan.host("c", None));
    for (order, [(h1, d1), (h2, d2)]) in
        [[(&s1, &twin), (&s2, &real)], [(&s1, &real), (&s2, &twin)]].into_iter().enumerate()
    {
        let _first = Server::start(h1, d1, &[]);
        let _second = Server::start(h2, d2, &[]);
        let listing = until("both are listed", secs(10), || {
            let listing = list(&c, &[]);
            ["real.bin", "twin.bin"].iter().all(|name| root_of(&listing, name).is_some()).then_some(listing)
        });
        assert_eq!(root_of(&listing, "real.bin").as_deref(), Some(root.as_str()));
        assert_eq!(root_of(&listing, "twin.bin").as_deref(), Some(root.as_str()));
        for (n, args) in [
            vec![],
            vec!["--no-multicast", "--peer", &h1.ip, "--peer", &h2.ip],
            vec!["--no-multicast", "--peer", &h2.ip, "--peer", &h1.ip],
        ]
        .iter()
        .enumerate()
        {
            let out = lan.dir().join(format!("out-{order}-{n}"));
            let mut all = vec!["--out", out.to_str().unwrap()];
            all.extend(args);
            Got::wait(get(&c, &root, lan.dir(), &all), secs(10)).expect(0);
            assert_same(&out, &real.join("real.bin"));
        }
    }
}

#[test]
fn a_twin_alone_is_nothing_unless_its_length_is_typed() {
    let lan = lan_or_skip!();
    let dir = lan.new_dir("d");
    sample(&dir.join("twin.bin"), 64, 43);
    let root: String =
        Sha256::digest(fs::read(dir.join("twin.bin")).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
    let (s, c, out) = (lan.host("s", None), lan.host("c", None), lan.dir().join("out.bin"));
    let _server = Server::start(&s, &dir, &[]);
    let args = ["--out", out.to_str().unwrap(), "--timeout", "5"];
    Got::wait(get(&c, &root, lan.dir(), &args), secs(10)).expect(4);
    Got::wait(get(&c, &format!("{root}:64"), lan.dir(), &args), secs(10)).expect(0);
    assert_same(&out, &dir.join("twin.bin"));
}

#[test]
fn one_name_with_two_contents_is_for_the_user_to_settle() {
    let lan = lan_or_skip!();
    let (d1, d2) = (lan.new_dir("d1"), lan.new_dir("d2"));
    sample(&d1.join("a.bin"), MIB, 44);
    sample(&d2.join("a.bin"), MIB, 45);
    let (s1, s2, c, out) = (lan.host("s1", None), lan.host("s2", None), lan.host("c", None), lan.new_dir("out"));
    let servers = [Server::start(&s1, &d1, &[]), Server::start(&s2, &d2, &[])];
    let roots = until("both are listed", secs(10), || {
        let roots: Vec<String> = list(&c, &[]).iter().map(|v| v["root"].as_str().unwrap().to_string()).collect();
        (roots.len() == 2).then_some(roots)
    });

    // The first answer to a name is soon enough, so that on a loaded machine the other one may come too late.
    let got = until("both answer in time", secs(30), || {
        let got = Got::wait(get(&c, "a.bin", &out, &[]), secs(10));
        if got.ended.code == Some(0) {
            fs::remove_file(out.join("a.bin")).unwrap();
        }
        (got.ended.code != Some(0)).then_some(got)
    })
    .expect(5);
    assert_eq!(got.event("error")["code"], 5);
    let text = got.ended.text();
    for part in roots.iter().chain(servers.iter().map(|s| &s.id)) {
        assert!(text.contains(part.as_str()), "{part} is not among the candidates:\n{text}");
    }
    assert!(!out.join("a.bin").exists());

    let out = out.join("by-root.bin");
    Got::wait(get(&c, &roots[0], lan.dir(), &["--out", out.to_str().unwrap()]), secs(10)).expect(0);
    let fetched = fs::read(&out).unwrap();
    assert!([&d1, &d2].iter().any(|d| fs::read(d.join("a.bin")).unwrap() == fetched));
}

#[test]
fn trees_globs_and_several_names_are_fetched_at_once() {
    let lan = lan_or_skip!();
    let dir = lan.new_dir("d");
    let paths = ["set/a.bin", "set/deep/b.bin", "set/empty.bin", "other/c.txt", "other/d.txt", "e.bin"];
    for (i, path) in paths.iter().enumerate() {
        sample(&dir.join(path), [300_000, 16_384, 0, 1, 70_000, 5_000_000][i], 46 + i as u64);
    }
    let (s, c, out) = (lan.host("s", None), lan.host("c", None), lan.new_dir("out"));
    let _server = Server::start(&s, &dir, &[]);
    let args = ["get", "set", "other/*.txt", "e.bin", "--no-share", "--dir", out.to_str().unwrap()];
    let got = Got::wait(client(&c, &args), secs(15)).expect(0);
    assert_eq!(got.done()["files"], paths.len());
    for path in paths {
        assert_same(&out.join(path), &dir.join(path));
    }
    let listing = list(&c, &["set/**"]);
    assert_eq!(listing.len(), 3, "{listing:?}");
    assert!(listing.iter().all(|v| v["holders"] == 1));
}
