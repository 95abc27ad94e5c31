#!/usr/bin/env python3
"""What a full store costs: 100,000 records, nearly all of them grants, in an embedded store.

    benches/records.py target/release/tidegate [--records N]

The records are made by tidegate itself: clients ask for tokens of as many scopes, and write to projects. Then it is
started on that store and on an empty one. Fails where the start until /readyz takes a second or more (the least of some,
because whatever else happens only adds), where memory is above 3 KiB a record more than with an empty store or above 1.25
times what the process that was granted them all took, and where a pull and a question for a token together take above 1.05 times the
instructions. Needs valgrind and openssl.
"""

import argparse
import base64
import re
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from cost import memory
from lab import Backend, Gate, Key, free_port, read_answer, request, wait_for, whole

ENDS = 4_000
CLIENTS = 16
STARTS = 5
COUNTS = (200, 1000)
MOST_SECONDS, MOST_BYTES, MOST_RATIO, MOST_MEMORY = 1.0, 3 * 1024, 1.05, 1.25
BASIC = "Basic " + base64.b64encode(b"robot$ci:secret").decode()
GRANTS = 'tidegate_kept{what="grants"}'


def settings(keys, store):
    more = f'[token]\ncache = "0s"\n[store]\nurl = "file:{store}"\n[timeouts]\ndrain_delay = "0s"\n'
    return dict(whole(*keys), access_log=False, more=more)


def ask(method, target):
    head = f"{method} {target} HTTP/1.1\r\nHost: registry.example\r\nAuthorization: {BASIC}\r\n"
    return f"{head}Content-Length: 0\r\n\r\n".encode()


def question(number):
    return ask("GET", f"/service/token?service=harbor-registry&scope=repository:project/r{number}:pull")


def write(number):
    return ask("PUT", f"/api/v2.0/projects/other{number}")


def read_whole(connection):
    answer = b""
    while True:
        data = connection.recv(65536)
        if not data:
            raise SystemExit(f"tidegate closed after {answer[:200]!r}")
        answer += data
        head, separator, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.I)
        if separator and length and len(body) >= int(length[1]):
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"unexpected answer: {answer[:400]!r}")
            return


def send_all(port, requests):
    """Over some connections, each request after the last one's answer."""
    faults = []

    def client(mine):
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                for one in mine:
                    connection.sendall(one)
                    read_whole(connection)
        except (OSError, SystemExit) as fault:
            faults.append(fault)

    threads = [threading.Thread(target=client, args=(requests[n::CLIENTS],)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise SystemExit(faults[0])


def fill(binary, folder, upstream, keys, store, grants):
    """Has it granted so many; what memory that takes."""
    gate = Gate(binary, folder, upstream, **settings(keys, store))
    send_all(gate.port, [write(n) for n in range(ENDS)])
    # The first one alone, so that the secret is known.
    send_all(gate.port, [question(0)])
    send_all(gate.port, [question(n) for n in range(1, grants)])
    wait_for("all is written", lambda: gate.metric("tidegate_store_waiting_changes") == 0, 300)
    dropped, there = gate.metric("tidegate_store_dropped_changes_total"), gate.metric(GRANTS)
    if dropped or there != grants:
        raise SystemExit(f"{dropped} changes were dropped, {there} of {grants} grants are in memory")
    taken = memory(gate.process.pid)
    gate.stop()
    return taken


def started(binary, folder, upstream, keys, store, grants):
    """The least time to the first answer of /readyz, the least time until all is in memory, and what that takes."""
    seen = []
    for _ in range(STARTS):
        began = time.monotonic()
        gate = Gate(binary, folder, upstream, **settings(keys, store))
        ready = time.monotonic() - began
        wait_for("the grants are in memory", lambda: gate.metric(GRANTS) == grants, 60)
        loaded = time.monotonic() - began
        seen.append((ready, loaded, memory(gate.process.pid)))
        gate.stop()
    return [min(values) for values in zip(*seen)]


def of_both(binary, folder, upstream, keys, authorization, store, grants):
    """Instructions of a pull and a question for a token together: the difference of a short and a long list."""
    totals = []
    for count in COUNTS:
        out = Path(folder) / f"callgrind.{free_port()}"
        prefix = ["taskset", "-c", "0", "valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]
        gate = Gate(binary, folder, upstream, prefix=prefix, **settings(keys, store))
        wait_for("the grants are in memory", lambda: gate.metric(GRANTS) >= grants, 900, 0.5)
        with socket.create_connection(("127.0.0.1", gate.port)) as connection:
            for _ in range(count):
                connection.sendall(request(authorization))
                read_answer(connection)
                connection.sendall(question(0))
                read_whole(connection)
        gate.stop()
        totals.append(int(re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.M).group(1)))
    short, long = COUNTS
    return (totals[1] - totals[0]) / (long - short)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("binary")
    arguments.add_argument("--records", type=int, default=100_000)
    given = arguments.parse_args()
    binary, grants = given.binary, given.records - ENDS
    with tempfile.TemporaryDirectory() as folder:
        keys = [Key(f"{folder}/former.pem"), Key(f"{folder}/held.pem")]
        access = [{"type": "repository", "name": "project/repository", "actions": ["pull"]}]
        token, upstream = keys[0].token("robot$ci", access), Backend(keys[1].token("robot$ci", access)).port
        stores = {name: (f"{folder}/{name}/store.redb", count) for name, count in (("empty", 0), ("full", grants))}
        taken = fill(binary, folder, upstream, keys, *stores["full"])
        ready, loaded, held = {}, {}, {}
        for name, (store, count) in stores.items():
            ready[name], loaded[name], held[name] = started(binary, folder, upstream, keys, store, count)
            print(f"{name}: {ready[name]:.3f} s to the first answer, {loaded[name]:.3f} s until all is in memory, "
                  f"{held[name] / 2**20:.0f} MiB")
        each = (held["full"] - held["empty"]) / given.records
        print(f"{each:.0f} bytes a record, at most {MOST_BYTES}; {taken / 2**20:.0f} MiB where all were granted")
        cost = {
            name: of_both(binary, folder, upstream, keys, f"Bearer {token}", store, count)
            for name, (store, count) in stores.items()
        }
        ratio = cost["full"] / cost["empty"]
        print(f"a pull and a question for a token: {cost['empty']:.0f} instructions with an empty store, "
              f"{cost['full']:.0f} with a full one; ratio {ratio:.3f}, at most {MOST_RATIO}")
    failed = ready["full"] >= MOST_SECONDS or each > MOST_BYTES or ratio > MOST_RATIO
    return 1 if failed or held["full"] > MOST_MEMORY * taken else 0


if __name__ == "__main__":
    sys.exit(main())
