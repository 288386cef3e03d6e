"""Counts visits in redis and says which copy of the service answered. Needs nothing but Python's own library."""

import http.server
import os
import socket
import sys
import urllib.request

REDIS = (os.environ.get("REDIS_HOST", "redis"), 6379)
PASSWORD_FILE = "/run/secrets/redis_password"
PORT = 8000


def ask_redis(*commands):
    """Sends commands and returns the answer to the last one, as redis writes it (https://redis.io/docs/reference/protocol-spec)."""
    with socket.create_connection(REDIS, timeout=3) as connection, connection.makefile("rwb") as stream:
        for words in commands:
            stream.write(b"*%d\r\n" % len(words))
            for word in words:
                stream.write(b"$%d\r\n%s\r\n" % (len(word), word))
        stream.flush()
        for _ in commands:
            answer = stream.readline().strip()
            if not answer or answer.startswith(b"-"):
                raise OSError("redis says: " + (answer.decode() or "nothing"))
    return answer


def count():
    with open(PASSWORD_FILE, "rb") as file:
        password = file.read().strip()
    return int(ask_redis([b"AUTH", password], [b"INCR", b"visits"]).lstrip(b":"))


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.answer(200, "ok\n")
            return
        try:
            client = self.headers.get("X-Forwarded-For", self.client_address[0])
            self.answer(200, f"visit {count()} answered by {socket.gethostname()} for {client}\n")
        except OSError as error:
            self.answer(503, f"no count: {error}\n")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


if sys.argv[1:] == ["--check"]:
    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=3).read()
else:
    print(f"counting in {REDIS[0]}:{REDIS[1]}", flush=True)
    Server(("", PORT), Page).serve_forever()
