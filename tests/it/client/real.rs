//! The client against the real server of this crate.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use gpb::internals::content::{Catalogue, Digest, Entry, Marks};
use gpb::internals::identity::Keypair;
use gpb::internals::net::Tls;
use gpb::internals::peers::{Directory, OwnIdentity};
use gpb::internals::runtime::keystore::TrustView;
use gpb::internals::runtime::{EventSender, Shutdown, Throttle, Watch};
use gpb::internals::server::{Server, ServerBounds, ServerConfig, listen};
use gpb::internals::store::{FetchedFiles, Hashed, Index, Indexed, Reader, SharedRoot, SharedRoots, stamp_of};
use gpb::testing::TestFile;

use crate::directory::{announce, directory, hear, identity};

use super::fake::file;
use super::{Client, MIB};

/// A server over a directory with one file.
struct Real {
    keypair: Keypair,
    server: Server,
    _dir: tempfile::TempDir,
}

impl Real {
    fn start(f: &TestFile) -> Self {
        let keypair = Keypair::generate();
        let dir = tempfile::tempdir().unwrap();
        let shared = dir.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join(f.path.as_str()), &*f.bytes).unwrap();
        let stamp = stamp_of(&fs::metadata(shared.join(f.path.as_str())).unwrap());
        let index = Index::open(&dir.path().join("state"), &shared).unwrap();
        let layer = f.layer.chunks_exact(32).map(|d| Digest(d.try_into().unwrap())).collect();
        index.record(&[Hashed {
            path: f.path.clone(),
            indexed: Indexed { id: f.id, stamp },
            marks: Marks::default(),
            layer,
        }]);
        let entry = Entry { path: f.path.clone(), id: f.id, stamp, marks: Marks::default() };
        let catalogue = Arc::new(Watch::new(Arc::new(Catalogue::new(1, vec![entry]))));
        let events = EventSender::channel().0;
        let listener = listen(Some([127, 0, 0, 1].into()), 0).unwrap();
        let own = OwnIdentity { port: listener.local_addr().unwrap().port(), ..identity(&keypair, 1) };
        let server = Server::start(ServerConfig {
            listeners: vec![listener],
            tls: Tls::new(&keypair).unwrap(),
            directory: directory(own, &catalogue, TrustView::open(), &events),
            catalogue,
            roots: SharedRoots::new(vec![SharedRoot {
                name: None,
                reader: Arc::new(Reader::open(&shared).unwrap()),
                index: Arc::new(index),
            }]),
            offered: Default::default(),
            fetched: Arc::new(FetchedFiles::new()),
            report: Arc::new(|_, _| ()),
            upload: Arc::new(Throttle::new(None)),
            events,
            shutdown: Shutdown::new(),
            bounds: ServerBounds::default(),
        });
        Real { keypair, server: server.unwrap(), _dir: dir }
    }

    fn join(&self, peers: &Directory) {
        let addr = self.server.addrs()[0];
        hear(peers, &announce(&self.keypair, 1, addr), &self.keypair, addr);
    }
}

fn fetch(len: usize, servers: usize) {
    let f = file("x", len, 21);
    let servers: Vec<_> = (0..servers).map(|_| Real::start(&f)).collect();
    let c = Client::new();
    servers.iter().for_each(|s| s.join(&c.ctx.peers));
    let begin = Instant::now();
    let report = c.get(&[&f.id.root.to_string()]).unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    println!("{servers} servers: {:.0} MiB/s {report:?}", len as f64 / MIB as f64 / seconds, servers = servers.len());
    assert!(c.content("x") == *f.bytes);
    assert_eq!((report.bytes, report.retries), (f.id.len, 0));
}

#[test]
fn files_of_all_sizes_come_from_real_servers() {
    for len in [1, 262_144, 262_145, 33 * MIB + 5] {
        fetch(len, 2);
    }
}

/// Prints rates; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn rates_over_loopback() {
    for servers in [1, 3] {
        fetch(1 << 30, servers);
    }
}
