"""What both benches share: keys, a token of a former key, a configuration, and a tidegate that re-signs it.

Nothing but Python's standard library and openssl's command line.
"""

import base64
import hashlib
import json
import os
import socket
import subprocess
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


def wait_for(what, condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise SystemExit(f"not within {seconds} s: {what}")


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def configuration(listen, upstream, admin, *, mode, keys, access_log):
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
"""


class Gate:
    """A running tidegate; `prefix` runs it under another program or on one core."""

    def __init__(self, binary, folder, upstream, prefix=(), **settings):
        self.port, admin = free_port(), free_port()
        file = Path(folder) / f"tidegate-{self.port}.toml"
        file.write_text(configuration(self.port, upstream, admin, **settings))
        with open(os.devnull, "wb") as log:
            self.process = subprocess.Popen([*prefix, binary, "serve", "--config", str(file)], stdout=log, stderr=log)
        self.admin = admin
        wait_for("tidegate is ready", lambda: answers(f"http://127.0.0.1:{admin}/readyz"), 60)

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def rescued(self, reason):
        for line in self.metrics().splitlines():
            if line.startswith(f'tidegate_rescued_requests_total{{reason="{reason}"}}'):
                return int(float(line.split()[-1]))
        return 0

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
