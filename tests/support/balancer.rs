//! Real load balancers over a list of addresses, each request for itself.

use super::{http, ports, process::Program, settings};
use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};
use tempfile::TempDir;

/// How a request finds its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    RoundRobin,
    Random,
    /// By turns, and the next one where an address can't be reached: nginx's own default.
    RoundRobinAndNext,
}

/// A running load balancer.
#[derive(Debug)]
pub struct Balancer {
    pub address: SocketAddr,
    /// Program and choice, as in the tables.
    pub name: String,
    kind: Kind,
    choice: Choice,
    program: Program,
    folder: TempDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nginx,
    HaProxy,
}

impl Balancer {
    /// nginx in front of `addresses`.
    pub fn nginx(choice: Choice, addresses: &[SocketAddr]) -> Self {
        Self::start(Kind::Nginx, choice, addresses)
    }

    /// HAProxy in front of `addresses`; one client connection goes to another address with each request.
    pub fn haproxy(choice: Choice, addresses: &[SocketAddr]) -> Self {
        Self::start(Kind::HaProxy, choice, addresses)
    }

    /// Serves `addresses` from now on: nginx reloads, and what runs ends on the former list.
    ///
    /// # Panics
    /// For HAProxy, which can't reload in the foreground.
    pub fn serve(&mut self, addresses: &[SocketAddr]) {
        assert_eq!(self.kind, Kind::Nginx, "only nginx reloads in the foreground");
        let before = self.loads();
        fs::write(self.folder.path().join("nginx.conf"), self.nginx_configuration(addresses))
            .expect("nginx.conf");
        self.program.signal("HUP");
        let reloaded =
            super::waiting::until(Duration::from_secs(10), || (self.loads() > before).then_some(()));
        assert!(reloaded.is_some(), "nginx reloads:\n{}", self.program.tail());
    }

    /// How often a worker was replaced and has stopped accepting: only then is the new list the only one.
    fn loads(&self) -> usize {
        self.program.output().matches("gracefully shutting down").count()
    }

    fn start(kind: Kind, choice: Choice, addresses: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = ports::free();
        let program = match kind {
            Kind::Nginx => "nginx",
            Kind::HaProxy => "haproxy",
        };
        let mut command = Command::new(settings::packaged(program));
        let name = format!("{program}, {}", if choice == Choice::Random { "random" } else { "round robin" });
        note(program);
        let configuration = folder.path().join(format!("{program}.conf"));
        match kind {
            Kind::Nginx => {
                fs::write(&configuration, nginx(address, choice, addresses, folder.path()))
                    .expect("nginx.conf");
                command.arg("-p").arg(folder.path()).arg("-c").arg(&configuration).args(["-e", "stderr"]);
            }
            Kind::HaProxy => {
                fs::write(&configuration, haproxy(address, choice, addresses)).expect("haproxy.conf");
                command.args(["-db", "-f"]).arg(&configuration);
            }
        }
        let mut program = Program::start(&mut command, folder.path(), program);
        program.wait_until(Duration::from_secs(20), || http::get(address, "/v2/", &[]).is_ok());
        Self { address, name, kind, choice, program, folder }
    }

    fn nginx_configuration(&self, addresses: &[SocketAddr]) -> String {
        nginx(self.address, self.choice, addresses, self.folder.path())
    }
}

fn note(program: &str) {
    let mut command = Command::new(settings::packaged(program));
    let said = super::process::run(command.arg("-v"), Duration::from_secs(10)).expect("it tells its version");
    let version = said.lines().next().unwrap_or_default().split_whitespace().nth(2).unwrap_or_default();
    settings::took_part(program, version.trim_start_matches("nginx/"));
}

/// As Harbor's own nginx where a client can see it: Host with its port, no buffering, no limit, and unless it is asked
/// for no retry that would hide a refusal or send a body twice.
fn nginx(listen: SocketAddr, choice: Choice, addresses: &[SocketAddr], folder: &Path) -> String {
    let folder = folder.display();
    let random = if choice == Choice::Random { "random;" } else { "" };
    let next = if choice == Choice::RoundRobinAndNext { "error timeout" } else { "off" };
    let servers: Vec<String> =
        addresses.iter().map(|address| format!("server {address} max_fails=0;")).collect();
    let servers = servers.join(" ");
    format!(
        "daemon off; worker_processes 1; pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 0; server_tokens off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream core {{ zone core 64k; {random} {servers} keepalive 16; }}
  server {{
    listen {listen};
    location / {{
      proxy_pass http://core; proxy_http_version 1.1; proxy_set_header Connection '';
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_buffering off; proxy_request_buffering off; proxy_next_upstream {next};
      proxy_send_timeout 900s; proxy_read_timeout 900s;
    }}
  }}
}}
"
    )
}

fn haproxy(listen: SocketAddr, choice: Choice, addresses: &[SocketAddr]) -> String {
    let balance = if choice == Choice::Random { "random" } else { "roundrobin" };
    let servers: Vec<String> =
        addresses.iter().enumerate().map(|(n, address)| format!("  server core{n} {address}")).collect();
    let servers = servers.join("\n");
    format!(
        "global
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 900s
  timeout server 900s
frontend front
  bind {listen}
  default_backend core
backend core
  balance {balance}
  retries 0
  option http-keep-alive
  http-reuse always
{servers}
"
    )
}
