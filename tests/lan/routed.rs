//! Subnets with a router between them that routes multicast: how far announces go, and how far not.

use crate::group::{Got, MIB, Server, assert_same, copies, get, peers};
use crate::net::{Host, Lan, secs};
use crate::process::Process;

/// Routes the multicast of one source of each side to the other one until it is ended (`IP_MROUTE` and `IPV6_MROUTE`
/// of Linux, whose numbers are in `linux/mroute.h` and `linux/mroute6.h`).
const MULTICAST_ROUTER: &str = r#"
import socket, struct, sys, time
near4, far4, near6, far6 = sys.argv[1:]
INIT, ADD_VIF, ADD_MFC = 200, 202, 204
links = [socket.if_nametoindex(name) for name in ('eth0', 'eth1')]

v4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
v4.setsockopt(socket.IPPROTO_IP, INIT, struct.pack('i', 1))
for n, link in enumerate(links):
    v4.setsockopt(socket.IPPROTO_IP, ADD_VIF, struct.pack('=HBBIi4s', n, 8, 1, 0, link, bytes(4)))
for n, source in enumerate((near4, far4)):
    ttls = bytes(1 if k == 1 - n else 0 for k in range(32))
    group = socket.inet_aton('239.255.71.80')
    v4.setsockopt(socket.IPPROTO_IP, ADD_MFC,
                  struct.pack('=4s4sH32s2x4I', socket.inet_aton(source), group, n, ttls, 0, 0, 0, 0))

v6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
v6.setsockopt(socket.IPPROTO_IPV6, INIT, struct.pack('i', 1))
for n, link in enumerate(links):
    v6.setsockopt(socket.IPPROTO_IPV6, ADD_VIF, struct.pack('=HBBHxxI', n, 0, 1, link, 0))
for n, source in enumerate((near6, far6)):
    place = lambda ip: struct.pack('=HHI16sI', socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, ip), 0)
    v6.setsockopt(socket.IPPROTO_IPV6, ADD_MFC,
                  place(source) + place('ff05::4750:4231') + struct.pack('=Hxx8I', n, 1 << (1 - n), *[0] * 7))

print('routes', flush=True)
time.sleep(600)
"#;

/// A server and a client in different subnets, and the router between them.
struct Routed {
    server: Host,
    client: Host,
    client_ip: String,
    _router: Process,
}

impl Routed {
    fn new(lan: &Lan) -> Self {
        let [server, client, router] = ["s", "c", "r"].map(|name| lan.host(name, None));
        let client_ip = lan.plug(&client);
        let gateway = lan.plug(&router);
        router.sh("for f in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 > /proc/sys/net/$f; done");
        let (near, far) = ("eth0", "eth1");
        router.sh(&format!("ip addr add fd77::9/64 dev {near} nodad; ip addr add fd78::9/64 dev {far} nodad"));
        client.sh(&format!("ip link set {near} down; ip addr add fd78::2/64 dev {far} nodad"));
        server.sh(&format!("ip addr add fd77::1/64 dev {near} nodad"));
        for (host, v4, v6) in [(&server, &router.ip, "fd77::9"), (&client, &gateway, "fd78::9")] {
            host.sh(&format!("ip route add default via {v4}; ip route add default via {v6}"));
        }
        let sources = [&server.ip, &client_ip, "fd77::1", "fd78::2"];
        let mut routing = router.spawn("python3", &[&["-c", MULTICAST_ROUTER], sources.as_slice()].concat());
        routing.wait_line(&["routes"], secs(10));
        Routed { server, client, client_ip, _router: routing }
    }
}

#[test]
fn announces_cross_a_router_only_with_hops() {
    let lan = lan_or_skip!();
    let [dir, near] = copies(&lan, ["d", "near"], "a.bin", MIB, 301);
    let net = Routed::new(&lan);
    let server = Server::start(&net.server, &dir, &["--hops", "2"]);
    assert_eq!(peers(&net.client, &["--hops", "2"]), [server.id.as_str()]);
    let out = lan.new_dir("out");
    Got::wait(get(&net.client, "a.bin", &out, &["--hops", "2"]), secs(15)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
    // With one hop what either side says stays in its subnet.
    let network = ["--network", "near", "--port", "0"];
    let _near = Server::start(&net.server, &near, &network);
    assert!(peers(&net.client, &["--network", "near", "--hops", "2", "--wait", "2"]).is_empty());
}

#[test]
fn ipv6_announces_cross_a_router_to_the_group_with_site_local_scope() {
    let lan = lan_or_skip!();
    let [dir] = copies(&lan, ["d"], "a.bin", MIB, 302);
    let net = Routed::new(&lan);
    assert!(net.client_ip.starts_with("10.78."), "IPv4 is there, and not used");
    let server = Server::start(&net.server, &dir, &["--hops", "2", "--bind", "fd77::1"]);
    let args = ["--hops", "2", "--bind", "fd78::2"];
    assert_eq!(peers(&net.client, &args), [server.id.as_str()]);
    let out = lan.new_dir("out");
    Got::wait(get(&net.client, "a.bin", &out, &args), secs(15)).expect(0);
    assert_same(&out.join("a.bin"), &dir.join("a.bin"));
}
