//! `[store]`.

use super::{Checker, file};
use crate::app::config::{raw, settings::Store, written::Written as _};

pub(super) fn store(c: &mut Checker<'_>, raw: raw::Store, deployment: &str) -> Store {
    let url = raw.url.0;
    let server = url.servers();
    let written = format!("\"{}\"", url.write());
    if server.is_some() && deployment.is_empty() {
        let remedy = "set deployment, such as \"harbor\"";
        c.fault(&["deployment", "store.url"], "no name, with a store that others may use", "a name", remedy);
    }
    if server.is_some() && raw.seal_key_files.is_empty() {
        let remedy = "make one and give it to all replicas: (umask 077; openssl rand -base64 32 > FILE)";
        c.fault(
            &["store.seal_key_files", "store.url"],
            &format!("no sealing key, with {written}"),
            "at least one file",
            remedy,
        );
    }
    let prefixed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'{' | b'}');
    if raw.prefix.len() > 64 || !raw.prefix.bytes().all(prefixed) {
        let found = format!("{:?}", raw.prefix);
        c.fault(&["store.prefix"], &found, "at most 64 visible ASCII characters without braces", "");
    }
    let password = c.material("store.password", raw.password, raw.password_file);
    let ca = file(&raw.tls.ca_file);
    let client = c.pair("store.tls", &raw.tls.certificate_file, &raw.tls.key_file);
    if (ca.is_some() || client.is_some()) && server.is_none_or(|server| !server.tls) {
        let remedy = "write rediss://, or remove store.tls";
        c.fault(&["store.tls", "store.url"], "certificates of a store without TLS", "rediss://", remedy);
    }
    if server.is_none() && password.is_some() {
        c.fault(&["store.password_file", "store.url"], "a password of a store without one", "", "remove it");
    }
    Store {
        prefix: raw.prefix,
        password,
        ca,
        client,
        seal_keys: raw.seal_key_files.into_iter().map(Into::into).collect(),
        url,
    }
}
