#!/usr/bin/env python3
"""Instructions of a verified, re-signed, logged and counted request against plain forwarding by the same binary.

    benches/instructions.py target/release/tidegate

Runs tidegate under callgrind twice, once observing without a log and once enforcing with everything on, each with a
short and a long list of the same requests over one connection: the difference of the two is what a request takes,
whatever start and end cost. Fails above the ratio of 1.15. Needs valgrind and openssl.
"""

import sys
import tempfile

from lab import PLAIN, Backend, Key, instructions, whole

COUNTS = (500, 2500)
MOST = 1.15


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        former, held = Key(f"{folder}/former.pem"), Key(f"{folder}/held.pem")
        access = [{"type": "repository", "name": "project/repository", "actions": ["pull"]}]
        token, upstream = former.token("robot$ci", access), Backend(held.token("probe", [])).port
        plain, _ = instructions(
            binary, folder, upstream, f"Other- {token.replace('.', '_')}", COUNTS, **PLAIN
        )
        print(f"plain: {plain:.0f} instructions a request")
        full, rescued = instructions(binary, folder, upstream, f"Bearer {token}", COUNTS, **whole(former, held))
        print(f"verified, re-signed, logged, counted: {full:.0f} instructions a request")
        if rescued != COUNTS[1]:
            raise SystemExit(f"{rescued} of {COUNTS[1]} requests were re-signed: this measured something else")
    ratio = full / plain
    print(f"ratio {ratio:.3f}, at most {MOST}")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
