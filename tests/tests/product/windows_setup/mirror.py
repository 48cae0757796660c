"""Serves a directory by HTTP, or by HTTPS if a certificate is given, also as a proxy.

    mirror.py DIRECTORY CUT [CERTIFICATE]

The first answer to a request for a path that ends with CUT breaks off in the middle. The first
line of output is the port, each further one a request: its target, and from where on.
"""

import http.server
import os
import ssl
import sys
import urllib.parse

directory, cut = os.path.realpath(sys.argv[1]), sys.argv[2]
was_cut = False


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global was_cut
        asked = self.headers.get("Range", "")
        # In one piece: others are answered at the same time.
        os.write(1, f"{self.path} {asked or '-'}\n".encode())
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        file = os.path.realpath(directory + path.removeprefix("/debian"))
        if not file.startswith(directory) or not os.path.isfile(file):
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = os.path.getsize(file)
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        with open(file, "rb") as source:
            source.seek(start)
            if cut and path.endswith(cut) and not was_cut:
                was_cut = True
                self.wfile.write(source.read((size - start) // 2))
                self.close_connection = True
                return
            while data := source.read(1 << 20):
                self.wfile.write(data)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
