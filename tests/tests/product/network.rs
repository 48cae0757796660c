//! The default network, its modes, and published ports.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use silo_tests::Engine;

/// Fetches from a server that may not listen yet.
fn fetch(address: &str) -> String {
    loop {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        if stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").is_err() {
            continue;
        }
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Ok(_) if !answer.is_empty() => return answer,
            _ => {}
        }
    }
}

#[test]
fn published_ports_answer() {
    let engine = Engine::start();
    let name = engine.name("web");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "-p",
        "127.0.0.1::80",
        "-p",
        "8080",
        "busybox",
        "sh",
        "-c",
        "mkdir /www; echo the page > /www/page; httpd -h /www -p 80; httpd -f -h /www -p 8080",
    ]);
    let address = engine.ok(&["port", &name, "80/tcp"]);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert!(fetch(&address).ends_with("the page\n"));
    let any = engine.ok(&["port", &name, "8080/tcp"]);
    let any = any.lines().next().expect("a line");
    let port = any.rsplit(':').next().expect("a port");
    assert!(any.starts_with("0.0.0.0:"), "{any}");
    assert!(fetch(&format!("127.0.0.1:{port}")).ends_with("the page\n"));
    let inspect = engine.inspect(&name);
    let ip =
        inspect["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().expect("an address");
    assert!(fetch(&format!("{ip}:8080")).ends_with("the page\n"));
    let gateway =
        inspect["NetworkSettings"]["Networks"]["bridge"]["Gateway"].as_str().expect("a gateway");
    assert!(fetch(&format!("{gateway}:{port}")).ends_with("the page\n"));
    // From another container: directly, and by the published port on the host's address.
    let page =
        engine.ok(&["run", "--rm", "busybox", "wget", "-qO-", &format!("http://{ip}:8080/page")]);
    assert_eq!(page, "the page");
    let page = engine.ok(&[
        "run",
        "--rm",
        "busybox",
        "wget",
        "-qO-",
        &format!("http://{gateway}:{port}/page"),
    ]);
    assert_eq!(page, "the page");
    let other = engine.name("other");
    let stderr = engine
        .fails(125, &["run", "--name", &other, "-p", &format!("{port}:80"), "busybox", "true"]);
    assert!(stderr.contains("port is already allocated"), "{stderr}");
    engine.ok(&["rm", "-f", &name, &other]);
}

#[test]
fn a_port_of_the_host_is_not_taken() {
    let engine = Engine::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let name = engine.name("busy");
    let stderr = engine.fails(
        125,
        &["run", "--name", &name, "-p", &format!("127.0.0.1:{port}:80"), "busybox", "true"],
    );
    assert!(stderr.contains("address already in use"), "{stderr}");
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn udp_is_published() {
    let engine = Engine::start();
    let name = engine.name("udp");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "-p",
        "127.0.0.1::9/udp",
        // The host's Python is the server: busybox has none for UDP.
        "-v",
        "/usr:/usr:ro",
        "-v",
        "/usr/lib:/lib:ro",
        "-v",
        "/usr/lib64:/lib64:ro",
        "busybox",
        "/usr/bin/python3",
        "-c",
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 9))\nwhile True: s.sendto(*s.recvfrom(99))",
    ]);
    let address = engine.ok(&["port", &name, "9/udp"]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(&address).expect("connect");
    socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).expect("a timeout");
    let mut answer = [0; 16];
    loop {
        // Refused until the server in the container listens.
        if socket.send(b"ping").is_err() {
            continue;
        }
        if let Ok(length) = socket.recv(&mut answer) {
            assert_eq!(&answer[..length], b"ping");
            break;
        }
    }
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn modes_none_host_and_container() {
    let engine = Engine::start();
    let links = engine.ok(&["run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net"]);
    assert_eq!(links, "lo");
    let host = engine.ok(&[
        "run",
        "--rm",
        "--network",
        "host",
        "busybox",
        "readlink",
        "/proc/self/ns/net",
    ]);
    let ours = fs_err::read_link("/proc/self/ns/net").expect("our namespace");
    assert_eq!(host, ours.to_string_lossy());
    let name = engine.name("shared");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "100"]);
    let theirs = engine.ok(&["exec", &name, "readlink", "/proc/self/ns/net"]);
    let joined = engine.ok(&[
        "run",
        "--rm",
        "--network",
        &format!("container:{name}"),
        "busybox",
        "readlink",
        "/proc/self/ns/net",
    ]);
    assert_eq!(theirs, joined);
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn name_files() {
    let engine = Engine::start();
    let hosts = engine.ok(&[
        "run",
        "--rm",
        "--hostname",
        "box",
        "--add-host",
        "other:10.1.2.3",
        "busybox",
        "cat",
        "/etc/hosts",
    ]);
    assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
    assert!(hosts.contains("10.1.2.3\tother"), "{hosts}");
    assert!(hosts.lines().any(|line| line.ends_with("\tbox")), "{hosts}");
    let resolv = engine.ok(&[
        "run",
        "--rm",
        "--dns",
        "10.9.8.7",
        "--dns-search",
        "example.test",
        "--dns-option",
        "ndots:3",
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ]);
    for line in ["nameserver 10.9.8.7", "search example.test", "options ndots:3"] {
        assert!(resolv.lines().any(|got| got == line), "{line} in {resolv}");
    }
    let networks = engine.ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]);
    for line in ["bridge bridge", "host host", "none null"] {
        assert!(networks.contains(line), "{networks}");
    }
}

#[test]
fn hardware_addresses_from_new_and_old_clients() {
    let engine = Engine::start();
    let address = "02:42:ac:11:00:0a";
    let cat = ["cat", "/sys/class/net/eth0/address"];
    let current = engine.ok(&["version", "--format", "{{.Server.APIVersion}}"]);
    let current = current.split_once('.').and_then(|(_, minor)| minor.parse::<u32>().ok());
    // New clients refuse to ask old engines.
    if current.is_some_and(|minor| minor >= 44)
        || engine.is_silo_or_skip("in part: a hardware address of the newest clients")
    {
        let mut run = vec!["run", "--rm", "--mac-address", address, "busybox"];
        run.extend(cat);
        assert_eq!(engine.ok(&run), address);
    }
    let body =
        format!(r#"{{"image": "busybox", "macaddress": "{address}", "cmd": ["sleep", "9"]}}"#);
    let created = engine.http("POST", "/v1.40/containers/create", &body);
    assert_eq!(created.status, 201, "{}", created.message());
    let created = created.json();
    let id = created["Id"].as_str().expect("an id");
    engine.ok(&["start", id]);
    let mut exec = vec!["exec", id];
    exec.extend(cat);
    assert_eq!(engine.ok(&exec), address);
    engine.ok(&["rm", "-f", id]);
}
