//! A proxy of a test's own.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// An HTTP proxy on a port of its own of the loopback interface, until the test's process ends.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Leads to `routes`, which say where hosts with their ports are; to no others. `credentials`,
    /// if there are any, are `Basic` and base64.
    pub fn start(routes: &[(&str, &str)], credentials: &'static str) -> Self {
        let routes: BTreeMap<String, String> =
            routes.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let proxy = Self { address, asked: Arc::clone(&asked) };
        let shared = Arc::new((routes, asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // Whoever goes away early is no concern of the proxy.
                std::thread::spawn(move || {
                    serve(stream, &shared.0, &shared.1, credentials).ok();
                });
            }
        });
        proxy
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The first lines of what was asked, of each connection.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("the log").clone()
    }
}

fn serve(
    mut client: TcpStream,
    routes: &BTreeMap<String, String>,
    asked: &Mutex<Vec<String>>,
    credentials: &str,
) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let first = text.lines().next().unwrap_or_default().to_owned();
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().expect("the log").push(first.clone());
    let refuse = |mut client: TcpStream, status: &str| {
        write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let wanted = format!("proxy-authorization: {}", credentials.to_lowercase());
    if !credentials.is_empty() && !text.lines().any(|line| line.to_lowercase() == wanted) {
        return refuse(client, "407 Proxy Authentication Required");
    }
    let is_tunnel = first.starts_with("CONNECT ");
    let host = target.strip_prefix("http://").unwrap_or(&target);
    let host = host.split('/').next().unwrap_or_default();
    let Some(to) = routes.get(host) else { return refuse(client, "502 Bad Gateway") };
    let mut server = TcpStream::connect(to)?;
    if is_tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    } else {
        server.write_all(&head)?;
    }
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let up = std::thread::spawn(move || {
        io::copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Write).ok();
    });
    io::copy(&mut server, &mut client).ok();
    client.shutdown(Shutdown::Both).ok();
    up.join().ok();
    Ok(())
}
