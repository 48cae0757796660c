//! Real packets through real namespaces: a private "host", a neighbour outside, and sandboxes.
//! Everything hangs on descriptors of namespaces, so nothing remains, whatever fails.
//! Needs root, and `ip` and `nft` for the parts that are not Silo's.

#![expect(clippy::unwrap_used, reason = "tests fail by panic")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use silo_net::{
    Endpoint, NetError, Network, NetworkConfig, PortMapping, Protocol, Sandbox, SandboxRequest,
};
use silo_sys::netns;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Who has not answered by then will not: long enough for a SYN that is sent a second time.
const SHORT: Duration = Duration::from_millis(1500);
/// Who is to answer has time to do so, however busy the host is.
const LONG: Duration = Duration::from_secs(30);

/// Runs a tool in the calling thread's namespace.
fn tool(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn nft(rules: &str) {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{rules}");
}

fn new_namespace() -> OwnedFd {
    let make = || {
        netns::unshare().unwrap();
        tool("ip link set lo up");
        netns::current().unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

fn within<T: Send>(ns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    netns::run_in(ns, || Ok(work())).unwrap()
}

/// Runs a test in a private host that has a neighbour.
fn with_host(test: impl FnOnce(BorrowedFd<'_>) + Send) {
    let (host, outside) = (new_namespace(), new_namespace());
    within(host.as_fd(), || {
        // The pid of a sleeping process would do; a descriptor of ours is as good.
        let path = format!("/proc/{}/fd/{}", std::process::id(), as_number(&outside));
        tool(&format!("ip link add out0 type veth peer name out1 netns {path}"));
        tool("ip addr add 10.99.0.1/24 dev out0");
        tool("ip link set out0 up");
        within(outside.as_fd(), || {
            tool("ip addr add 10.99.0.2/24 dev out1");
            tool("ip link set out1 up");
            tool("ip route add default via 10.99.0.1");
        });
        tool("ip route add default via 10.99.0.2");
        test(outside.as_fd());
    });
}

fn as_number(fd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd as _;
    fd.as_raw_fd()
}

fn config() -> NetworkConfig {
    NetworkConfig { pool_min: 2, pool_max: 4, ..NetworkConfig::default() }
}

/// A server in a namespace that answers every connection with `name` and the client's address.
struct Server {
    address: SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
    stop: OwnedFd,
}

impl Server {
    fn tcp(ns: BorrowedFd<'_>, address: &str, name: &'static str) -> Self {
        let listener = within(ns, || TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        Self::run(address, move |stop| {
            while readable(&listener, stop) {
                let (mut stream, client) = listener.accept().unwrap();
                stream.write_all(format!("{name} {}", client.ip()).as_bytes()).unwrap();
            }
        })
    }

    fn udp(ns: BorrowedFd<'_>, address: &str, name: &'static str) -> Self {
        let socket = within(ns, || UdpSocket::bind(address)).unwrap();
        Self::run(socket.local_addr().unwrap(), move |stop| {
            let mut buffer = [0; 64];
            while readable(&socket, stop) {
                let (_, client) = socket.recv_from(&mut buffer).unwrap();
                let answer = format!("{name} {}", client.ip());
                socket.send_to(answer.as_bytes(), client).unwrap();
            }
        })
    }

    fn run(address: SocketAddr, serve: impl FnOnce(BorrowedFd<'_>) + Send + 'static) -> Self {
        let (wait, stop) = rustix::pipe::pipe().unwrap();
        let thread = std::thread::spawn(move || serve(wait.as_fd()));
        Self { address, thread: Some(thread), stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, b"x").unwrap();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn readable(socket: &impl AsFd, stop: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags};
    let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&stop, PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
    fds[1].revents().is_empty()
}

/// What a TCP server says to a client in `ns`.
fn ask(ns: BorrowedFd<'_>, to: impl Into<IpAddr>, port: u16) -> io::Result<String> {
    ask_within(LONG, ns, SocketAddr::new(to.into(), port))
}

/// Why a TCP client in `ns` is told nothing.
fn unanswered(ns: BorrowedFd<'_>, to: impl Into<IpAddr>, port: u16) -> Option<ErrorKind> {
    ask_within(SHORT, ns, SocketAddr::new(to.into(), port)).err().map(|error| error.kind())
}

fn ask_within(limit: Duration, ns: BorrowedFd<'_>, to: SocketAddr) -> io::Result<String> {
    netns::run_in(ns, || {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

fn ask_udp(ns: BorrowedFd<'_>, to: impl Into<IpAddr>, port: u16) -> io::Result<String> {
    let to = SocketAddr::new(to.into(), port);
    netns::run_in(ns, || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        ask_on(&socket, to, LONG)
    })
}

fn ask_on(socket: &UdpSocket, to: SocketAddr, limit: Duration) -> io::Result<String> {
    socket.set_read_timeout(Some(limit))?;
    socket.send_to(b"?", to)?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, to, "the answer comes from whom was asked");
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn here() -> OwnedFd {
    netns::current().unwrap()
}

fn tcp(container: u16, host: u16) -> PortMapping {
    PortMapping::new(container, Protocol::Tcp, host)
}

/// Waits for something that the kernel does in its own time.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_sandbox_is_complete() {
    with_host(|outside| {
        let network = Network::open(config()).unwrap();
        let sandbox = network.take().unwrap();
        let subnet = network.subnet();
        assert!(subnet.contains(&sandbox.ip()));
        let (ip, mac) = (sandbox.ip(), sandbox.mac());
        within(sandbox.netns(), || {
            let text = tool("ip -o addr");
            assert!(text.contains("127.0.0.1/8"), "{text}");
            assert!(text.contains(&format!("inet {ip}/16 brd")), "{text}");
            assert!(!text.contains("inet6"), "{text}");
            let text = tool("ip -o link show eth0");
            assert!(text.contains(&mac.to_string()) && text.contains("state UP"), "{text}");
            let text = tool("ip route");
            assert!(
                text.contains(&format!(
                    "default via {} dev eth0",
                    subnet
                        .network()
                        .octets()
                        .map(|b| b.to_string())
                        .join(".")
                        .replace(".0.0", ".0.1")
                )),
                "{text}"
            );
        });
        // Out into the world, under the host's address.
        let server = Server::tcp(outside, "10.99.0.2:70", "world");
        assert_eq!(ask(sandbox.netns(), OUTSIDE, 70).unwrap(), format!("world {HOST}"));
        drop(server);
        // Nobody but the host gets in without a published port.
        let _server = Server::tcp(sandbox.netns(), "0.0.0.0:80", "c");
        assert!(ask(here().as_fd(), ip, 80).is_ok());
        assert_eq!(unanswered(outside, ip, 80), Some(ErrorKind::TimedOut));
    });
}

#[test]
fn published_tcp_ports_are_reached_from_everywhere() {
    with_host(|outside| {
        let network = Network::open(config()).unwrap();
        let (a, b) = (network.take().unwrap(), network.take().unwrap());
        let _server = Server::tcp(a.netns(), "0.0.0.0:80", "a");
        let bindings = network.publish(&a, &[tcp(80, 8080)]).unwrap();
        assert_eq!(bindings[0].host_port, 8080);
        let home = here();
        let gateway = network.gateway();
        assert_eq!(ask(home.as_fd(), Ipv4Addr::LOCALHOST, 8080).unwrap(), format!("a {gateway}"));
        assert!(ask(home.as_fd(), HOST, 8080).unwrap().starts_with("a "));
        assert!(ask(home.as_fd(), gateway, 8080).unwrap().starts_with("a "));
        assert_eq!(ask(outside, HOST, 8080).unwrap(), format!("a {OUTSIDE}"));
        for client in [&b, &a] {
            assert!(ask(client.netns(), HOST, 8080).unwrap().starts_with("a "));
            assert!(ask(client.netns(), gateway, 8080).unwrap().starts_with("a "));
        }
        assert!(ask(b.netns(), a.ip(), 80).unwrap().starts_with("a "), "containers talk");
        assert!(matches!(
            network.publish(&b, &[tcp(80, 8080)]),
            Err(NetError::PortAllocated { port: 8080, .. })
        ));
        network.unpublish(&a).unwrap();
        assert!(unanswered(home.as_fd(), Ipv4Addr::LOCALHOST, 8080).is_some());
        assert!(unanswered(outside, HOST, 8080).is_some());
        network.publish(&b, &[tcp(80, 8080)]).unwrap();
    });
}

#[test]
fn published_udp_ports_take_over_existing_flows() {
    with_host(|outside| {
        let network = Network::open(config()).unwrap();
        let (a, b) = (network.take().unwrap(), network.take().unwrap());
        let _a = Server::udp(a.netns(), "0.0.0.0:53", "a");
        let _b = Server::udp(b.netns(), "0.0.0.0:53", "b");
        let client = within(outside, || UdpSocket::bind("0.0.0.0:5353")).unwrap();
        let to = SocketAddr::from((HOST, 5300));
        assert!(ask_on(&client, to, SHORT).is_err());
        let port = PortMapping::new(53, Protocol::Udp, 5300);
        network.publish(&a, std::slice::from_ref(&port)).unwrap();
        assert_eq!(ask_on(&client, to, LONG).unwrap(), format!("a {OUTSIDE}"));
        assert!(ask_udp(here().as_fd(), Ipv4Addr::LOCALHOST, 5300).unwrap().starts_with("a "));
        assert!(ask_udp(b.netns(), HOST, 5300).unwrap().starts_with("a "));
        network.unpublish(&a).unwrap();
        network.publish(&b, &[port]).unwrap();
        assert_eq!(ask_on(&client, to, LONG).unwrap(), format!("b {OUTSIDE}"));
    });
}

#[test]
fn ports_on_certain_addresses_stay_there() {
    with_host(|outside| {
        let network = Network::open(config()).unwrap();
        let a = network.take().unwrap();
        let _server = Server::tcp(a.netns(), "0.0.0.0:80", "a");
        let local = tcp(80, 8080).on(Ipv4Addr::LOCALHOST.into());
        let public = tcp(80, 8081).on(HOST.into());
        network.publish(&a, &[local, public]).unwrap();
        let home = here();
        assert!(ask(home.as_fd(), Ipv4Addr::LOCALHOST, 8080).is_ok());
        assert!(unanswered(home.as_fd(), HOST, 8080).is_some());
        assert!(unanswered(outside, HOST, 8080).is_some());
        assert!(ask(home.as_fd(), HOST, 8081).is_ok());
        assert!(ask(outside, HOST, 8081).is_ok());
        assert!(unanswered(home.as_fd(), Ipv4Addr::LOCALHOST, 8081).is_some());
        // A neighbour that sends packets for 127.0.0.1 to the host, which some setting lets in.
        tool("sysctl -qw net.ipv4.conf.out0.route_localnet=1");
        within(outside, || {
            tool("sysctl -qw net.ipv4.conf.out1.route_localnet=1");
            tool("ip addr del 127.0.0.1/8 dev lo");
            tool("ip route add 127.0.0.1/32 via 10.99.0.1 src 10.99.0.2");
        });
        assert!(unanswered(outside, Ipv4Addr::LOCALHOST, 8080).is_some());
        // A container that does the same reaches no service on the host's loopback.
        let _private = Server::tcp(home.as_fd(), "127.0.0.1:90", "private");
        let gateway = network.gateway();
        within(a.netns(), || {
            tool("sysctl -qw net.ipv4.conf.eth0.route_localnet=1");
            tool("ip addr del 127.0.0.1/8 dev lo");
            tool(&format!("ip route add 127.0.0.1/32 via {gateway} src {}", a.ip()));
        });
        assert!(unanswered(a.netns(), Ipv4Addr::LOCALHOST, 90).is_some());
    });
}

#[test]
fn containers_can_be_kept_apart() {
    with_host(|outside| {
        let network = Network::open(NetworkConfig { icc: false, ..config() }).unwrap();
        let (a, b) = (network.take().unwrap(), network.take().unwrap());
        let _server = Server::tcp(a.netns(), "0.0.0.0:80", "a");
        assert!(unanswered(b.netns(), a.ip(), 80).is_some());
        // Nor by way of the host.
        let (ip, gateway) = (a.ip(), network.gateway());
        within(b.netns(), || tool(&format!("ip route add {ip}/32 via {gateway}")));
        assert!(unanswered(b.netns(), a.ip(), 80).is_some());
        network.publish(&a, &[tcp(80, 8080)]).unwrap();
        assert!(ask(outside, HOST, 8080).is_ok());
        // Where bridged packets pass the packet filter, they are translated while still on the
        // bridge, and the isolation of ports holds for them too.
        let filtered = fs_err::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
        if filtered.is_ok_and(|value| value.trim() == "1") {
            tool("sysctl -qw net.bridge.bridge-nf-call-iptables=0");
        }
        assert!(ask(b.netns(), HOST, 8080).is_ok());
        assert!(unanswered(b.netns(), ip, 80).is_some());
    });
}

#[test]
fn ipv6_clients_are_relayed() {
    with_host(|_| {
        let network = Network::open(config()).unwrap();
        let a = network.take().unwrap();
        let _tcp = Server::tcp(a.netns(), "0.0.0.0:80", "a");
        let _udp = Server::udp(a.netns(), "0.0.0.0:53", "u");
        let udp = PortMapping::new(53, Protocol::Udp, 5300);
        let bindings = network.publish(&a, &[tcp(80, 8080), udp]).unwrap();
        let hosts: Vec<_> = bindings.iter().map(|b| b.host_ip.to_string()).collect();
        assert_eq!(hosts, ["0.0.0.0", "::", "0.0.0.0", "::"]);
        let (home, local) = (here(), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
        assert!(ask(home.as_fd(), local, 8080).unwrap().starts_with("a "));
        assert!(ask_udp(home.as_fd(), local, 5300).unwrap().starts_with("u "));
        network.unpublish(&a).unwrap();
        eventually("the relay lets go", || unanswered(home.as_fd(), local, 8080).is_some());
    });
}

#[test]
fn dockers_drop_is_answered_in_its_own_chain() {
    with_host(|outside| {
        let rules = "table ip filter {\n\
             chain DOCKER-USER { counter return; }\n\
             chain FORWARD { type filter hook forward priority 0; policy drop; counter jump DOCKER-USER; }\n\
             }";
        // Docker comes after the network was opened.
        let network = Network::open(config()).unwrap();
        let a = network.take().unwrap();
        let _server = Server::tcp(a.netns(), "0.0.0.0:80", "a");
        network.publish(&a, &[tcp(80, 8080)]).unwrap();
        nft(rules);
        eventually("rules in DOCKER-USER", || {
            tool("nft list chain ip filter DOCKER-USER").contains("silo0")
        });
        assert!(ask(outside, HOST, 8080).is_ok());
        assert!(network.diagnose().unwrap().is_empty(), "{:?}", network.diagnose());
        assert!(tool("iptables -S DOCKER-USER").contains("-A DOCKER-USER -i silo0"));
        // Containers of Docker stay out of reach.
        tool("ip link add docker0 type bridge");
        tool("ip addr add 172.30.0.1/16 dev docker0");
        tool("ip link set docker0 up");
        eventually("docker0 is known", || tool("nft list table ip silo").contains("\"docker0\" }"));
        tool("ip link add d0 type veth peer name d1");
        tool("ip link set d1 up");
        tool("ip link set d0 master docker0 up");
        assert!(unanswered(a.netns(), Ipv4Addr::new(172, 30, 0, 9), 80).is_some());
        assert!(tool("nft list chain ip filter DOCKER-USER").contains("return"));
        network.remove_all().unwrap();
        let left = tool("nft list ruleset");
        assert!(!left.contains("silo"), "{left}");
        assert!(left.contains("DOCKER-USER"));
    });
    with_host(|_| {
        let rules =
            "table ip other { chain fw { type filter hook forward priority 0; policy drop; }\n}\n";
        let network = Network::open(config()).unwrap();
        drop(network.take().unwrap());
        nft(rules);
        let findings = network.diagnose().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].problem.contains("table other drops"), "{findings:?}");
    });
}

#[test]
fn a_flushed_rule_set_comes_back() {
    with_host(|outside| {
        let network = Network::open(config()).unwrap();
        let a = network.take().unwrap();
        let _server = Server::tcp(a.netns(), "0.0.0.0:80", "a");
        network.publish(&a, &[tcp(80, 8080)]).unwrap();
        let before = tool("nft -s list table ip silo");
        nft("flush ruleset");
        eventually("the table is back", || {
            let now = Command::new("nft").args(["-s", "list", "table", "ip", "silo"]).output();
            String::from_utf8_lossy(&now.unwrap().stdout) == before
        });
        assert!(ask(outside, HOST, 8080).is_ok());
        assert!(unanswered(outside, a.ip(), 80).is_some());
    });
}

#[test]
fn the_table_is_as_documented() {
    with_host(|_| {
        let network = Network::open(config()).unwrap();
        let a = network.take().unwrap();
        network.publish(&a, &[tcp(80, 8080), tcp(80, 81).on(HOST.into())]).unwrap();
        let text = tool("nft -s list table ip silo");
        let ip = a.ip();
        for line in [
            "type inet_proto . inet_service : ipv4_addr . inet_service".to_owned(),
            format!("elements = {{ tcp . 8080 : {ip} . 80 }}"),
            format!("elements = {{ 10.99.0.1 . tcp . 81 : {ip} . 80 }}"),
            "iifname \"silo0\" ip daddr 127.0.0.0/8 drop".into(),
            "fib daddr type local dnat ip to meta l4proto . th dport map @ports".into(),
            "dnat ip to ip daddr . meta l4proto . th dport map @addrports".into(),
            "type nat hook postrouting priority srcnat; policy accept;".into(),
            format!("ip saddr {} oifname != \"silo0\" masquerade", network.subnet()),
            "oifname \"silo0\" ct state established,related accept".into(),
            "oifname \"silo0\" ct status dnat accept".into(),
            "oifname \"silo0\" drop".into(),
        ] {
            assert!(text.contains(&line), "{line} not in {text}");
        }
    });
}

#[test]
fn the_subnet_is_free_and_stays() {
    with_host(|_| {
        tool("ip link add taken type bridge");
        tool("ip addr add 172.17.0.1/16 dev taken");
        tool("ip link set taken up");
        tool("ip route add 172.18.4.0/24 via 10.99.0.2");
        let network = Network::open(config()).unwrap();
        assert_eq!(network.subnet().to_string(), "172.19.0.0/16");
        assert_eq!(network.gateway().to_string(), "172.19.0.1");
        drop(network);
        tool("ip route del 172.18.4.0/24 via 10.99.0.2");
        let again = Network::open(config()).unwrap();
        assert_eq!(again.subnet().to_string(), "172.19.0.0/16");
        drop(again);
        let subnet = Some("10.7.0.0/24".parse().unwrap());
        let gateway = Some([10, 7, 0, 9].into());
        let other = Network::open(NetworkConfig { subnet, gateway, ..config() }).unwrap();
        assert_eq!(tool("ip -o -4 addr show silo0").matches("inet ").count(), 1);
        assert_eq!(other.take().unwrap().gateway().to_string(), "10.7.0.9");
        let taken = NetworkConfig { bridge: "taken2".into(), ..config() };
        tool("ip link add taken2 type veth peer name taken3");
        assert!(matches!(Network::open(taken), Err(NetError::NotABridge(_))));
    });
}

#[test]
fn addresses_are_free_when_interfaces_are_gone() {
    with_host(|_| {
        let subnet = Some("10.7.0.0/29".parse().unwrap());
        let network =
            Network::open(NetworkConfig { subnet, pool_min: 1, pool_max: 1, ..config() }).unwrap();
        // Five addresses, of which the pool has one.
        let held = network.take().unwrap();
        for _ in 0..12 {
            let mut sandbox = None;
            eventually("an address", || {
                sandbox = network.take().ok();
                sandbox.is_some()
            });
            let sandbox = sandbox.unwrap();
            assert_ne!(sandbox.ip(), held.ip());
            network.release(sandbox).unwrap();
        }
    });
}

#[test]
fn wishes_are_granted() {
    with_host(|_| {
        let subnet = Some("10.7.0.0/24".parse().unwrap());
        let network = Network::open(NetworkConfig { subnet, ..config() }).unwrap();
        let (ip, mac) = (Ipv4Addr::from([10, 7, 0, 77]), "92:d0:c6:0a:29:33".parse().unwrap());
        let request = SandboxRequest { ip: Some(ip), mac: Some(mac) };
        let sandbox = network.take_with(request).unwrap();
        assert_eq!((sandbox.ip(), sandbox.mac()), (ip, mac));
        within(sandbox.netns(), || {
            assert!(tool("ip -o addr show eth0").contains("10.7.0.77/24"));
            assert!(tool("ip -o link show eth0").contains("92:d0:c6:0a:29:33"));
        });
        assert!(matches!(network.take_with(request), Err(NetError::AddressInUse)));
        let outside = SandboxRequest { ip: Some([10, 8, 0, 1].into()), mac: None };
        assert!(matches!(network.take_with(outside), Err(NetError::AddressOutside(_))));
        let isolated = network.take_isolated().unwrap();
        within(isolated.netns(), || {
            let text = tool("ip -o link");
            assert!(text.lines().count() == 1 && text.contains("lo: <LOOPBACK,UP"), "{text}");
        });
    });
}

#[test]
fn counters_are_the_containers() {
    with_host(|_| {
        let network = Network::open(config()).unwrap();
        let a = network.take().unwrap();
        let sink = within(here().as_fd(), || UdpSocket::bind((network.gateway(), 9))).unwrap();
        let before = network.stats(&a).unwrap();
        within(a.netns(), || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..10 {
                socket.send_to(&[0; 1000], (network.gateway(), 9)).unwrap();
            }
        });
        sink.recv(&mut [0; 2000]).unwrap();
        eventually("ten packets", || {
            network.stats(&a).unwrap().tx_packets >= before.tx_packets + 10
        });
        let after = network.stats(&a).unwrap();
        assert!(after.tx_bytes >= before.tx_bytes + 10 * 1000);
        assert!(after.rx_bytes < before.rx_bytes + 1000);
    });
}

#[test]
fn living_containers_are_adopted_and_the_rest_is_swept() {
    with_host(|outside| {
        let network = Network::open(config()).unwrap();
        let a = network.take().unwrap();
        let _server = Server::tcp(a.netns(), "0.0.0.0:80", "a");
        let bindings = network.publish(&a, &[tcp(80, 8080)]).unwrap();
        let orphan = network.take().unwrap();
        let kept = orphan.netns().try_clone_to_owned().unwrap();
        let endpoint = |sandbox: &Sandbox| Endpoint {
            id: "c0ffee".into(),
            netns: sandbox.netns().try_clone_to_owned().unwrap(),
            ip: sandbox.ip(),
            mac: sandbox.mac(),
            host_interface: sandbox.host_interface().to_owned(),
            bindings: bindings.clone(),
        };
        let mut gone = endpoint(&a);
        gone.host_interface = "vethgone".into();
        let living = vec![endpoint(&a), gone];
        let (ip, interface) = (a.ip(), a.host_interface().to_owned());
        drop((a, orphan, network));
        // Between the engines the port still works.
        assert!(ask(outside, HOST, 8080).is_ok());

        let network = Network::open(config()).unwrap();
        let mut adopted = network.adopt(living).unwrap();
        assert!(matches!(adopted.pop(), Some(Err(NetError::LinkGone(_)))));
        let a = adopted.pop().unwrap().unwrap();
        assert_eq!(a.ip(), ip);
        assert!(ask(outside, HOST, 8080).is_ok());
        assert!(matches!(
            network.publish(&a, &[tcp(80, 8080)]),
            Err(NetError::PortAllocated { .. })
        ));
        assert_ne!(network.take().unwrap().ip(), ip);
        within(kept.as_fd(), || assert!(!tool("ip -o link").contains("eth0")));
        assert!(tool("ip -o link show master silo0").contains(&interface));
        network.release(a).unwrap();
        assert!(unanswered(outside, HOST, 8080).is_some());
        network.remove_all().unwrap();
        assert!(!tool("ip -o link").contains("silo0"));
        assert!(!tool("nft list ruleset").contains("silo"));
    });
}

#[test]
fn engines_do_not_collide() {
    with_host(|outside| {
        let other = NetworkConfig { bridge: "silo9".into(), table: "silo9".into(), ..config() };
        let (one, two) = (Network::open(config()).unwrap(), Network::open(other).unwrap());
        assert_ne!(one.subnet(), two.subnet());
        let (a, b) = (one.take().unwrap(), two.take().unwrap());
        let _a = Server::tcp(a.netns(), "0.0.0.0:80", "a");
        let _b = Server::tcp(b.netns(), "0.0.0.0:80", "b");
        one.publish(&a, &[tcp(80, 8080)]).unwrap();
        assert!(matches!(two.publish(&b, &[tcp(80, 8080)]), Err(NetError::Bind { .. })));
        two.publish(&b, &[tcp(80, 8081)]).unwrap();
        assert!(ask(outside, HOST, 8080).unwrap().starts_with("a "));
        assert!(ask(outside, HOST, 8081).unwrap().starts_with("b "));
        assert!(unanswered(a.netns(), b.ip(), 80).is_some(), "networks are apart");
        two.remove_all().unwrap();
        assert!(ask(outside, HOST, 8080).is_ok());
    });
}

/// Engines that begin at the same time find different subnets, however they are interrupted.
#[test]
fn subnets_of_engines_that_begin_at_once_are_apart() {
    with_host(|_| {
        let host = here();
        for round in 0..8 {
            let begin = std::sync::Barrier::new(4);
            let open = |number: usize| {
                let name = format!("silo{number}");
                let config = NetworkConfig { bridge: name.clone(), table: name, ..config() };
                begin.wait();
                within(host.as_fd(), || Network::open(config).unwrap())
            };
            let networks: Vec<Network> = std::thread::scope(|scope| {
                let open = &open;
                let opened: Vec<_> =
                    (0..4).map(|number| scope.spawn(move || open(number))).collect();
                opened.into_iter().map(|opened| opened.join().unwrap()).collect()
            });
            let mut subnets: Vec<_> = networks.iter().map(Network::subnet).collect();
            subnets.sort_unstable();
            subnets.dedup();
            assert_eq!(subnets.len(), networks.len(), "round {round}: {subnets:?}");
            for network in networks {
                network.remove_all().unwrap();
            }
        }
    });
}

#[test]
fn bursts_are_served() {
    with_host(|_| {
        let network = Network::open(config()).unwrap();
        let mut ips: Vec<_> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..20).map(|_| scope.spawn(|| network.take().unwrap())).collect();
            takers.into_iter().map(|taker| taker.join().unwrap().ip()).collect()
        });
        ips.sort_unstable();
        ips.dedup();
        assert_eq!(ips.len(), 20);
    });
}

#[test]
fn a_server_knows_its_address() {
    let server = Server::tcp(here().as_fd(), "127.0.0.1:0", "self");
    assert_ne!(server.address.port(), 0);
}
