"""What the benches share: keys, a token of a former key, a configuration, a tidegate that re-signs it, a backend.

Nothing but Python's standard library and openssl's command line.
"""

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True).stdout


def libtrust(spki):
    text = base64.b32encode(hashlib.sha256(spki).digest()[:30]).decode()
    return ":".join(text[i : i + 4] for i in range(0, 48, 4))


class Key:
    """An RSA-2048 key as Harbor core wants it: PKCS#1 PEM."""

    def __init__(self, path):
        self.path = Path(path)
        openssl("genrsa", "-traditional", "-out", str(path), "2048")
        self.path.chmod(0o600)
        self.kid = libtrust(openssl("rsa", "-in", str(path), "-pubout", "-outform", "DER"))

    def token(self, subject, access):
        now = int(time.time())
        header = {"alg": "RS256", "kid": self.kid, "typ": "JWT"}
        claims = {
            "iss": "harbor-token-issuer", "sub": subject, "aud": "harbor-registry",
            "exp": now + 1800, "nbf": now, "iat": now, "jti": "bench0123456789", "access": access,
        }
        parts = [base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)]
        message = ".".join(parts).encode()
        signature = openssl("dgst", "-sha256", "-sign", str(self.path), data=message)
        return f"{message.decode()}.{base64url(signature)}"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds=20, between=0.05):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(between)
    raise SystemExit(f"not within {seconds} s: {what}")


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def configuration(listen, upstream, admin, *, mode, keys, access_log, more=""):
    sources = ", ".join(f'{{ file = "{key.path}" }}' for key in keys)
    return f"""
mode = "{mode}"
[[listener]]
address = "127.0.0.1:{listen}"
[upstream]
endpoints = [{{ url = "http://127.0.0.1:{upstream}", opaque = "no" }}]
probe = {{ every = "1h", in_window = "1h" }}
[keys]
sources = [{sources}]
[admin]
address = "127.0.0.1:{admin}"
[log]
access = {str(access_log).lower()}
{more}"""


class Gate:
    """A running tidegate; `prefix` runs it under another program or on one core."""

    def __init__(self, binary, folder, upstream, prefix=(), **settings):
        self.port, admin = free_port(), free_port()
        file = Path(folder) / f"tidegate-{self.port}.toml"
        file.write_text(configuration(self.port, upstream, admin, **settings))
        with open(os.devnull, "wb") as log:
            self.process = subprocess.Popen([*prefix, binary, "serve", "--config", str(file)], stdout=log, stderr=log)
        self.admin = admin
        wait_for("tidegate is ready", lambda: answers(f"http://127.0.0.1:{admin}/readyz"), 60, 0.005)

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def metric(self, name):
        for line in self.metrics().splitlines():
            if line.startswith(f"{name} "):
                return int(float(line.split()[-1]))
        return 0

    def rescued(self, reason):
        return self.metric(f'tidegate_rescued_requests_total{{reason="{reason}"}}')

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


BODY = b"x" * 200
# What core answers to the pull of a manifest.
HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n"
    b"Docker-Content-Digest: sha256:" + b"0" * 64 + b"\r\nDocker-Distribution-Api-Version: registry/2.0\r\n"
    b'Etag: "sha256:' + b"0" * 64 + b'"\r\nX-Request-Id: 0b0b0b0b-0b0b-0b0b-0b0b-0b0b0b0b0b0b\r\n\r\n%s'
)


class Backend:
    """Answers as core does where we look, and BODY to anything else; while it `holds`, BODY's answer waits."""

    def __init__(self, token):
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port, self.token = listener.getsockname()[1], token
        self.may_answer, self.held = threading.Event(), 0
        self.may_answer.set()
        self.counting = threading.Lock()
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                data = connection.recv(65536)
                if not data:
                    return
                pending += data
            head, pending = pending.split(b"\r\n\r\n", 1)
            connection.sendall(self.answer(head.split(b" ", 2)[1]))

    def answer(self, target):
        body = BODY
        if target.startswith(b"/service/token"):
            body = b'{"token":"' + self.token.encode() + b'"}'
        elif target.startswith(b"/api/v2.0/systeminfo"):
            body = b'{"auth_mode":"db_auth"}'
        elif not self.may_answer.is_set():
            with self.counting:
                self.held += 1
            self.may_answer.wait(60)
            with self.counting:
                self.held -= 1
        return HEAD % (len(body), body)


def request(authorization):
    return (
        "GET /v2/project/repository/manifests/latest HTTP/1.1\r\nHost: registry.example\r\n"
        "User-Agent: docker/28.2.2\r\nAccept: application/vnd.oci.image.manifest.v1+json\r\n"
        f"Authorization: {authorization}\r\n\r\n"
    ).encode()


def read_answer(connection):
    answer = b""
    while not answer.endswith(BODY):
        data = connection.recv(65536)
        if not data:
            raise SystemExit(f"tidegate closed after {answer[:200]!r}")
        answer += data
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"unexpected answer: {answer[:200]!r}")


def requests(port, authorization, count):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(count):
            connection.sendall(request(authorization))
            read_answer(connection)


def instructions(binary, folder, upstream, authorization, counts, **settings):
    """Of one request: the difference of a short and a long list, whatever start and end cost. With what was re-signed."""
    totals, rescued = [], 0
    for count in counts:
        out = Path(folder) / f"callgrind.{free_port()}"
        prefix = ["taskset", "-c", "0", "valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]
        gate = Gate(binary, folder, upstream, prefix=prefix, **settings)
        requests(gate.port, authorization, count)
        rescued = gate.rescued("resign")
        gate.stop()
        totals.append(int(re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.M).group(1)))
    short, long = counts
    return (totals[1] - totals[0]) / (long - short), rescued


PLAIN = dict(mode="observe", keys=[], access_log=False)


def whole(*keys):
    return dict(mode="enforce", keys=list(keys), access_log=True)
