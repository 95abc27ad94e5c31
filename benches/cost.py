#!/usr/bin/env python3
"""What waiting, resuming and grace cost while all is well: tidegate against the gate alone, as it was without them.

    benches/cost.py target/release/tidegate [--gate-alone BINARY]

Without a binary the gate alone is built from its commit of this repository, once, into a folder of the tests' cache.
Instructions of a plain and of a verified, re-signed request are counted by callgrind, which no other load disturbs.
Memory is what the kernel counts for the process, on one core, with so many requests in flight, less what it counts with
as many idle connections: the least of some rounds that alternate, because whatever else happens only adds. Fails above 1.02 times the instructions, or above 1 KiB a
request more. Needs valgrind and openssl.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from lab import PLAIN, Backend, Gate, Key, instructions, read_answer, request, wait_for, whole

GATE_ALONE = "4303a21cad"
COUNTS = (500, 2500)
MOST, MOST_BYTES = 1.02, 1024
IN_FLIGHT, ROUNDS = 200, 5


def build():
    """The gate alone, from its commit."""
    cache = os.environ.get("TIDEGATE_TEST_CACHE") or os.path.expanduser("~/.cache/tidegate-tests")
    target = Path(cache) / f"gate-alone-{GATE_ALONE}"
    binary = target / "release/tidegate"
    if not binary.exists():
        with tempfile.TemporaryDirectory() as folder:
            checkout = f"{folder}/tidegate"
            root = Path(__file__).resolve().parent.parent
            subprocess.run(["git", "clone", "-q", "--no-checkout", root, checkout], check=True)
            subprocess.run(["git", "-C", checkout, "checkout", "-q", GATE_ALONE], check=True)
            command = ["cargo", "build", "--release", "--locked", "--bin", "tidegate", "--target-dir", target]
            subprocess.run(command, cwd=checkout, check=True)
    return str(binary)


def memory(pid):
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Private_Dirty:\s+(\d+) kB", rollup, re.M).group(1)) * 1024


def bytes_in_flight(binary, folder, backend, authorization, **settings):
    """Of one request that waits for its answer, beside its connection."""
    gate = Gate(binary, folder, backend.port, prefix=["taskset", "-c", "0"], **settings)
    connections = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(IN_FLIGHT)]

    def round_of_all():
        backend.may_answer.clear()
        for connection in connections:
            connection.sendall(request(authorization))
        wait_for("all are in flight", lambda: backend.held == IN_FLIGHT, 60)
        held = memory(gate.process.pid)
        backend.may_answer.set()
        for connection in connections:
            read_answer(connection)
        return held

    # The second time no buffer of a connection is new.
    idle = memory(gate.process.pid)
    round_of_all()
    in_flight = round_of_all()
    for connection in connections:
        connection.close()
    gate.stop()
    return (in_flight - idle) / IN_FLIGHT


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("binary")
    arguments.add_argument("--gate-alone", metavar="BINARY")
    given = arguments.parse_args()
    binaries = {"the gate alone": given.gate_alone or build(), "with all": given.binary}
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        former, held = Key(f"{folder}/former.pem"), Key(f"{folder}/held.pem")
        access = [{"type": "repository", "name": "project/repository", "actions": ["pull"]}]
        token, backend = former.token("robot$ci", access), Backend(held.token("probe", []))
        kinds = {
            "plain": (f"Other- {token.replace('.', '_')}", PLAIN),
            "re-signed": (f"Bearer {token}", whole(former, held)),
        }
        for kind, (authorization, settings) in kinds.items():
            each = {
                name: instructions(binary, folder, backend.port, authorization, COUNTS, **settings)[0]
                for name, binary in binaries.items()
            }
            ratio = each["with all"] / each["the gate alone"]
            print(f"{kind}: {each['the gate alone']:.0f} instructions a request by the gate alone, "
                  f"{each['with all']:.0f} with all; ratio {ratio:.3f}, at most {MOST}")
            failed |= ratio > MOST
        seen = {name: [] for name in binaries}
        authorization, settings = kinds["re-signed"]
        for _ in range(ROUNDS):
            for name, binary in binaries.items():
                seen[name].append(bytes_in_flight(binary, folder, backend, authorization, **settings))
        least = {name: min(values) for name, values in seen.items()}
        more = least["with all"] - least["the gate alone"]
        noise = max(max(values) - min(values) for values in seen.values())
        print(f"memory: {least['the gate alone']:.0f} bytes a request and its connections by the gate alone, "
              f"{least['with all']:.0f} with all (rounds differ by {noise:.0f}); {more:+.0f}, at most {MOST_BYTES}")
        failed |= more > MOST_BYTES
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
