#!/usr/bin/env python3
"""CPU of a request: tidegate with everything on, tidegate plain, nginx plain, Envoy jwt_authn with its cache.

    benches/peers.py target/release/tidegate [--rounds 15] [--seconds 2]

All run in turn in one run, round after round (short ones: a machine that is shared is not as fast from one minute to the
next), each alone on core 0; the backend (nginx, 200 bytes) and the load (wrk,
one thread, 64 connections) are on core 1. CPU is what the kernel counted for the proxy and its children, divided by
requests. Rounds in which others took more than 0.08 of a core are thrown away and run again, so many times at most.
Fails where the project's bounds are passed: tidegate with everything on at most 1.25 x nginx, at most 0.5 x Envoy, and
at most 1.15 x its own plain forwarding. Needs nginx, wrk, openssl, taskset and Envoy.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lab import Gate, Key, base64url, free_port, openssl, wait_for

BOUNDS = {"nginx, plain": 1.25, "Envoy, jwt_authn": 0.5, "tidegate, plain": 1.15}
FULL = "tidegate, verified and re-signed"
TICK = os.sysconf("SC_CLK_TCK")
PATH = "/v2/project/repository/manifests/latest"


def processes(pid):
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                todo += [int(c) for c in Path(f"/proc/{one}/task/{task}/children").read_text().split()]
        except OSError:
            pass
    return found


def cpu_of(pid):
    total = 0
    for one in processes(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def cpu_of_all():
    fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / TICK


class Program:
    def __init__(self, name, command, port, core):
        self.name, self.port = name, port
        self.process = subprocess.Popen(["taskset", "-c", str(core), *command],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(name, lambda: serves(port))

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def serves(port):
    import socket
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def nginx(name, folder, port, body, core):
    file = Path(folder) / f"nginx-{port}.conf"
    file.write_text(f"""
daemon off; worker_processes 1; pid {folder}/nginx-{port}.pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/body-{port};
proxy_temp_path {folder}/proxy-{port}; fastcgi_temp_path {folder}/f-{port}; uwsgi_temp_path {folder}/u-{port};
scgi_temp_path {folder}/s-{port}; {body} }}
""")
    return Program(name, ["nginx", "-p", folder, "-c", str(file)], port, core)


def backend(folder, token):
    port = free_port()
    answer = json.dumps({"token": token})
    return nginx("backend", folder, port, f"""
server {{ listen 127.0.0.1:{port}; default_type application/json;
location = /service/token {{ return 200 '{answer}'; }}
location = /api/v2.0/systeminfo {{ return 200 '{{"auth_mode":"db_auth"}}'; }}
location / {{ return 200 "{'x' * 200}"; }} }}""", 1)


def plain_nginx(folder, upstream):
    port = free_port()
    return nginx("nginx, plain", folder, port, f"""
upstream core {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://core; proxy_http_version 1.1;
proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; }} }}""", 0)


def envoy(folder, upstream, key):
    port = free_port()
    modulus = openssl("rsa", "-in", str(key.path), "-noout", "-modulus").decode().strip().split("=")[1]
    jwks = json.dumps({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": key.kid, "e": "AQAB",
                                 "n": base64url(bytes.fromhex(modulus))}]})
    route = {"match": {"prefix": "/"}, "route": {"cluster": "core", "timeout": "60s"}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": "HTTP1",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.jwt_authn", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": {"harbor": {"issuer": "harbor-token-issuer", "audiences": ["harbor-registry"],
                                         "forward": True, "local_jwks": {"inline_string": jwks},
                                         "jwt_cache_config": {"jwt_cache_size": 1000}}},
                "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "harbor"}}]}},
            {"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
    def address(p):
        return {"socket_address": {"address": "127.0.0.1", "port_value": p}}
    file = Path(folder) / "envoy.json"
    file.write_text(json.dumps({"static_resources": {
        "listeners": [{"address": address(port), "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        "clusters": [{"name": "core", "type": "STATIC", "load_assignment": {"cluster_name": "core", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]}}]}}))
    cache = os.environ.get("TIDEGATE_TEST_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or os.environ['HOME'] + '/.cache'}/tidegate-tests"
    binary = shutil.which("envoy", path=f"{cache}/bin:{cache}/python/bin:{os.environ['PATH']}")
    if not binary:
        raise SystemExit("Envoy is not installed: tests/install --long")
    return Program("Envoy, jwt_authn", [binary, "-c", str(file), "--concurrency", "1", "--disable-hot-restart",
                                        "--log-level", "off"], port, 0)


def load(port, authorization, seconds):
    out = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{seconds}s", "--latency",
                          "-H", f"Authorization: {authorization}", "-H", "Host: registry.example",
                          f"http://127.0.0.1:{port}{PATH}"], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"the load had failures:\n{out}")
    return int(re.search(r"(\d+) requests in", out).group(1)), out


def measure(one, authorization, seconds):
    before, all_before = cpu_of(one.process.pid), cpu_of_all()
    mine = os.times()
    requests, _ = load(one.port, authorization, seconds)
    cpu, everything = cpu_of(one.process.pid) - before, cpu_of_all() - all_before
    after = os.times()
    load_cpu = after.children_user + after.children_system - mine.children_user - mine.children_system
    return cpu / requests * 1e6, everything - cpu - load_cpu, requests / seconds


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("binary")
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--seconds", type=int, default=2)
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        former, held = Key(f"{folder}/former.pem"), Key(f"{folder}/held.pem")
        token = former.token("robot$ci", [{"type": "repository", "name": "project/repository", "actions": ["pull"]}])
        core = backend(folder, held.token("probe", []))
        pin = ["taskset", "-c", "0"]
        full = Gate(arguments.binary, folder, core.port, pin, mode="enforce", keys=[former, held], access_log=True)
        plain = Gate(arguments.binary, folder, core.port, pin, mode="observe", keys=[], access_log=False)
        full.name, plain.name = FULL, "tidegate, plain"
        peers = [plain_nginx(folder, core.port), envoy(folder, core.port, former)]
        under_test = [(full, f"Bearer {token}"), (plain, f"Other- {token.replace('.', '_')}"), *((p, f"Bearer {token}") for p in peers)]
        figures, speeds, thrown = {}, {}, 0
        for one, authorization in under_test:
            load(one.port, authorization, 1)
        done = 0
        while done < arguments.rounds and thrown < 3 * arguments.rounds:
            round_, others = {}, 0.0
            backend_cpu = cpu_of(core.process.pid)
            for one, authorization in under_test:
                cpu, rest, speed = measure(one, authorization, arguments.seconds)
                round_[one.name] = (cpu, speed)
                others += rest
            others -= cpu_of(core.process.pid) - backend_cpu
            if others / (arguments.seconds * len(under_test)) > 0.08:
                thrown += 1
                continue
            done += 1
            for name, (cpu, speed) in round_.items():
                figures.setdefault(name, []).append(cpu)
                speeds.setdefault(name, []).append(speed)
        rescued = full.rescued("resign")
        for one in [full, plain, *peers, core]:
            one.stop()
    if done < arguments.rounds:
        raise SystemExit(f"the machine was too busy: {thrown} rounds thrown away, {done} left")
    if rescued < sum(1 for _ in figures):
        raise SystemExit("nothing was re-signed: this measured something else")
    print(f"{done} rounds of {arguments.seconds} s, {thrown} thrown away because others were busy")
    print(f"{'':34}{'CPU us/request: median (min to max)':38}{'requests/s':>12}")
    for name, values in figures.items():
        spread = f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        print(f"{name:34}{spread:38}{statistics.median(speeds[name]):>12.0f}")
    passed = True
    for name, most in BOUNDS.items():
        ratios = [a / b for a, b in zip(figures[FULL], figures[name])]
        ratio = statistics.median(ratios)
        passed &= ratio <= most
        print(f"against {name}: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), at most {most}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
