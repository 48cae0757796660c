//! HTTPS out of containers: which authorities are trusted, and what is said of others.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use silo_tests::WindowsEngine;

use super::CORE;

/// Says on which port it listens.
const SERVER: &str = "
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '5')
        self.end_headers()
        self.wfile.write(b'hello')
    def log_message(self, *rest):
        pass
server = http.server.ThreadingHTTPServer(('', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + '/web.crt', sys.argv[1] + '/web.key')
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
";

/// Ends when it is dropped.
struct Server(Child, String);

impl Server {
    fn start(directory: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", SERVER]).arg(directory).stdout(Stdio::piped());
        let mut child = command.spawn().expect("run python3");
        let mut port = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut port).expect("the port");
        Self(child, port.trim().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An authority, and a certificate of it for `web.test`.
fn certificates(directory: &Path) {
    let run = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(directory).stderr(Stdio::null());
        assert!(command.status().expect("run openssl").success(), "{arguments}");
    };
    run(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=Authority -keyout ca.key -out ca.crt \
         -addext basicConstraints=critical,CA:TRUE",
    );
    run("req -newkey rsa:2048 -nodes -subj /CN=web.test -keyout web.key -out web.csr");
    let extensions = "subjectAltName=DNS:web.test\nextendedKeyUsage=serverAuth\n";
    fs_err::write(directory.join("extensions"), extensions).expect("a file");
    run("x509 -req -in web.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
         -extfile extensions -out web.crt");
}

#[test]
fn authorities_are_trusted_that_the_image_has() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    certificates(&scratch);
    let server = Server::start(&scratch);
    let format = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway = engine.ok(&["network", "inspect", "-f", format, "bridge"]);
    let hosts = ["web.test", "other.test"].map(|name| format!("--add-host={name}:{gateway}"));
    let fetch = |image: &str, options: &[&str], name: &str| {
        let url = format!("https://{name}:{}/", server.1);
        let run = ["run", "--rm", &hosts[0], &hosts[1], image, "curl", "-sS"];
        engine.docker(&[&run[..], options, &[&url]].concat())
    };
    let refused = fetch(CORE, &[], "web.test");
    assert_eq!((refused.code, refused.stdout.as_str()), (60, ""), "{refused:?}");
    assert!(refused.stderr.contains("certificate of web.test is not trusted"), "{refused:?}");
    let unchecked = fetch(CORE, &["-k"], "web.test");
    assert_eq!((unchecked.code, unchecked.stdout.trim()), (0, "hello"), "{unchecked:?}");

    let (name, image) = (engine.name("trusts"), engine.name("trusts-image"));
    let volume = format!("{}:C:\\ca", scratch.join("ca.crt").display());
    let add = ["certutil", "-addstore", "-f", "Root", "C:\\ca"];
    let said = engine.ok(&[&["run", "--name", &name, "-v", &volume, CORE], &add[..]].concat());
    assert!(said.contains("Certificate \"CN=Authority\" added to store."), "{said}");
    engine.ok(&["commit", &name, &image]);
    let trusted = fetch(&image, &[], "web.test");
    assert_eq!((trusted.code, trusted.stdout.trim()), (0, "hello"), "{trusted:?}");
    let other = fetch(&image, &[], "other.test");
    assert_eq!((other.code, other.stdout.as_str()), (60, ""), "it is for another name: {other:?}");
    let listed = engine.ok(&["run", "--rm", &image, "certutil", "-store", "Root"]);
    for authority in ["Subject: CN=Authority", "ISRG Root X1"] {
        assert!(listed.contains(authority), "{authority}: {listed}");
    }
}
