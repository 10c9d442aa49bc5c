//! A closed group whose members the program decides about while it runs; three nodes in one process.
//!
//!     cargo run --example closed_group -- [INTERFACE]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Duration;

use gpb::error::FetchError;
use gpb::{Everything, Keypair, Node, NodeBuilder, Share, State, Trust};

fn main() -> Result<(), Box<dyn Error>> {
    let interface = std::env::args().nth(1);
    let network = format!("closed-group-{}", std::process::id());
    let node = |key: &Keypair| -> NodeBuilder {
        let builder = Node::builder().key(key.clone()).network(network.as_str()).state(State::Memory);
        if let Some(interface) = &interface { builder.interface(interface.as_str()) } else { builder }
    };
    let dir = std::env::temp_dir().join(format!("gpb-closed-group-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("plan.txt"), "for members only")?;

    let (ana, bo, eve) = (Keypair::generate(), Keypair::generate(), Keypair::generate());
    // Clones of a `Trust` are handles of one set: the program changes it, the node follows.
    let members = Trust::keys([bo.peer_id()])?;
    let server = node(&ana).dir(&dir).share(Share::Directory).trust(members.clone()).start()?;
    server.wait_ready(Duration::from_secs(10));

    let member = node(&bo).trust(Trust::keys([ana.peer_id()])?).start()?;
    let stranger = node(&eve).start()?;
    for file in member.list_within(Everything, Duration::from_secs(5))? {
        println!("bo sees {}", file.path);
    }
    // No announce of the group leads to the stranger; one that knows the address is refused.
    stranger.add_peer(server.addrs()[0])?;
    match stranger.list_within(Everything, Duration::from_secs(5)) {
        Err(FetchError::Refused { peers }) => println!("eve is refused: {}", peers[0].1),
        other => println!("eve sees {other:?}"),
    }

    members.insert(eve.peer_id())?;
    members.remove(&bo.peer_id())?;
    println!("now eve is a member, and bo is none: his sessions are cut");
    println!("eve sees {} files", stranger.list_within(Everything, Duration::from_secs(5))?.len());
    drop((stranger, member, server));
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
