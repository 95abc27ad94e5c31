#!/usr/bin/env python3
"""Instructions of a verified, re-signed, logged and counted request against plain forwarding by the same binary.

    benches/instructions.py target/release/tidegate

Runs tidegate under callgrind twice, once observing without a log and once enforcing with everything on, each with a
short and a long list of the same requests over one connection: the difference of the two is what a request takes,
whatever start and end cost. Fails above the ratio of 1.15. Needs valgrind and openssl.
"""

import re
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from lab import Gate, Key, free_port

SHORT, LONG = 500, 2500
MOST = 1.15
BODY = b"x" * 200


def backend(port, token):
    """Answers as core does where we look, and 200 bytes to anything else."""
    listener = socket.create_server(("127.0.0.1", port))

    def serve(connection):
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                data = connection.recv(65536)
                if not data:
                    return
                pending += data
            head, pending = pending.split(b"\r\n\r\n", 1)
            target = head.split(b" ", 2)[1]
            body = BODY
            if target.startswith(b"/service/token"):
                body = b'{"token":"' + token.encode() + b'"}'
            elif target.startswith(b"/api/v2.0/systeminfo"):
                body = b'{"auth_mode":"db_auth"}'
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def requests(port, authorization, count):
    request = (
        "GET /v2/project/repository/manifests/latest HTTP/1.1\r\nHost: registry.example\r\n"
        "User-Agent: docker/28.2.2\r\nAccept: application/vnd.oci.image.manifest.v1+json\r\n"
        f"Authorization: {authorization}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(count):
            connection.sendall(request)
            answer = b""
            while not answer.endswith(BODY):
                data = connection.recv(65536)
                if not data:
                    raise SystemExit(f"tidegate closed after {answer[:200]!r}")
                answer += data
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"unexpected answer: {answer[:200]!r}")


def count(binary, folder, upstream, authorization, number, **settings):
    out = Path(folder) / f"callgrind.{free_port()}"
    prefix = ["taskset", "-c", "0", "valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]
    gate = Gate(binary, folder, upstream, prefix=prefix, **settings)
    requests(gate.port, authorization, number)
    rescued = gate.rescued("resign")
    gate.stop()
    total = int(re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.M).group(1))
    return total, rescued


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        former, held = Key(f"{folder}/former.pem"), Key(f"{folder}/held.pem")
        access = [{"type": "repository", "name": "project/repository", "actions": ["pull"]}]
        token, upstream = former.token("robot$ci", access), free_port()
        backend(upstream, held.token("probe", []))
        plain = dict(mode="observe", keys=[], access_log=False)
        whole = dict(mode="enforce", keys=[former, held], access_log=True)
        each = {}
        for name, settings, authorization in (
            ("plain", plain, f"Other- {token.replace('.', '_')}"),
            ("verified, re-signed, logged, counted", whole, f"Bearer {token}"),
        ):
            short, _ = count(binary, folder, upstream, authorization, SHORT, **settings)
            long, rescued = count(binary, folder, upstream, authorization, LONG, **settings)
            each[name] = (long - short) / (LONG - SHORT)
            print(f"{name}: {each[name]:.0f} instructions a request")
        if rescued != LONG:
            raise SystemExit(f"{rescued} of {LONG} requests were re-signed: this measured something else")
    ratio = each["verified, re-signed, logged, counted"] / each["plain"]
    print(f"ratio {ratio:.3f}, at most {MOST}")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
