//! What a single value can't say about itself: the raw configuration becomes [`Settings`], and everything that doesn't
//! fit together becomes a fault. No file is opened and nothing is resolved here.

mod credential;
mod keys;
mod listener;
mod peers;
mod process;
mod ramp;
mod store;
mod upstream;

use std::collections::BTreeSet;

use super::{
    amounts::Span,
    document::{Document, is_within},
    faults::Fault,
    raw,
    secret::{Material, SecretText},
    settings::{Kind, Mode, Realm, Settings, Stated},
    store_url::StoreUrl,
    written::Text,
};

/// Collects the faults of one configuration.
pub struct Checker<'d> {
    document: &'d Document,
    taken_out: &'d BTreeSet<String>,
    faults: Vec<Fault>,
}

/// Judges the whole. The settings are what they are; they may be used only where there are no faults.
pub fn settings(
    root: raw::Root,
    document: &Document,
    taken_out: &BTreeSet<String>,
) -> (Settings, Vec<Fault>) {
    let mut c = Checker { document, taken_out, faults: Vec::new() };
    let store = store::store(&mut c, root.store, &root.deployment);
    let peers = peers::peers(&mut c, root.peers, &root.deployment);
    let upstream = upstream::upstream(&mut c, root.upstream);
    let ramp = ramp::ramp(&mut c, root.ramp, &upstream.endpoints);
    let settings = Settings {
        mode: match root.mode {
            raw::Mode::Enforce => Mode::Enforce,
            raw::Mode::Observe => Mode::Observe,
        },
        deployment: deployment(&mut c, root.deployment),
        realm: match root.realm {
            raw::Realm::Keep => Realm::Keep,
            raw::Realm::Rewrite => Realm::Rewrite,
        },
        public_url: root.public_url.0,
        listeners: listener::listeners(&mut c, root.listener.0, &root.admin.address.0),
        upstream,
        keys: keys::keys(&mut c, root.keys),
        peers,
        token: keys::token(&mut c, root.token),
        replay: process::replay(&root.replay),
        uploads: process::uploads(&mut c, &root.uploads),
        park: process::park(&root.park),
        grace: process::grace(&mut c, &root.grace),
        store,
        limits: process::limits(&mut c, &root.limits),
        timeouts: process::timeouts(&mut c, &root.timeouts),
        admin: process::admin(&mut c, root.admin),
        log: process::log(&root.log),
        credentials: credential::credentials(&mut c, root.credential),
        ramp,
        stated: Stated::default(),
    };
    if settings.keys.keep_private && settings.store.url == StoreUrl::Memory {
        let found = "true, with a store that ends with the process";
        let remedy = "set store.url to a file or a server, or keys.keep_private = false";
        c.fault(&["keys.keep_private", "store.url"], found, "a store that outlives it", remedy);
    }
    if settings.realm == Realm::Rewrite && settings.public_url.is_none() {
        c.fault(
            &["realm", "public_url"],
            "\"rewrite\" without a public_url",
            "the URL that the realm shall point to",
            "set public_url, such as \"https://harbor.example.com\"",
        );
    }
    if settings.upstream.kind == Kind::Registry {
        plain_registry(&mut c, &settings);
    }
    (settings, c.faults)
}

/// What a registry without core before it can't do without, or can't do.
fn plain_registry(c: &mut Checker<'_>, settings: &Settings) {
    if settings.keys.sources.is_empty() {
        c.fault(
            &["keys.sources", "upstream.kind"],
            "no keys, with \"registry\"",
            "the token server's key, and the one that the registry knows",
            "list the files of both: what can't be verified never gets to a plain registry",
        );
    }
    if settings.realm == Realm::Rewrite {
        let remedy = "set auth.token.realm in the registry's own configuration";
        c.fault(&["realm", "upstream.kind"], "\"rewrite\", with \"registry\"", "\"keep\"", remedy);
    }
    if !settings.credentials.is_empty() {
        let found = "former secrets of robots, with \"registry\"";
        let remedy =
            "remove them: a plain registry takes tokens alone, and would be shown the present secrets";
        c.fault(&["credential", "upstream.kind"], found, "none", remedy);
    }
}

fn deployment(c: &mut Checker<'_>, name: String) -> String {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.len() > 63 || !name.bytes().all(fits) {
        let expected = "letters, digits, '.', '_' and '-', at most 63";
        c.fault(&["deployment"], &format!("{name:?}"), expected, "");
    }
    name
}

impl Checker<'_> {
    /// A fault at the first of `keys`, unless something at, in or around one of them was taken out: that
    /// is no reason for a second complaint.
    fn fault(&mut self, keys: &[&str], found: &str, expected: &str, remedy: &str) {
        let Some(first) = keys.first() else { return };
        let touched =
            |key: &&str| self.taken_out.iter().any(|out| is_within(out, key) || is_within(key, out));
        if keys.iter().any(touched) {
            return;
        }
        self.faults.push(Fault {
            place: self.document.place(first),
            key: (*first).to_owned(),
            found: found.to_owned(),
            expected: expected.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    /// A time of `key` that is at least `least`.
    fn at_least(&mut self, key: &str, span: &Text<Span>, least: Span) -> std::time::Duration {
        use super::written::Written as _;
        if span.0.duration() < least.duration() {
            let expected = format!("{} or more", least.write());
            self.fault(&[key], &format!("\"{}\"", span.0.write()), &expected, "");
        }
        span.0.duration()
    }

    /// The value at `key`, or the file at `key` + `_file`; both is a fault.
    fn material(&mut self, key: &str, inline: SecretText, file: String) -> Option<Material> {
        let key_of_file = format!("{key}_file");
        match (inline.0, file.is_empty()) {
            (Some(_), false) => {
                let remedy = format!("remove {key} or {key_of_file}");
                self.fault(&[&key_of_file, key], "a value and a file for one thing", "one of them", &remedy);
                None
            }
            (Some(secret), true) => Some(Material::Inline(secret)),
            (None, false) => Some(Material::File(file.into())),
            (None, true) => None,
        }
    }

    /// A certificate and its key at `table`: both or neither.
    fn pair(&mut self, table: &str, certificate: &str, key: &str) -> Option<(Material, Material)> {
        match (file(certificate), file(key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (there, _) => {
                let (found, missing) =
                    if there.is_some() { ("certificate", "key") } else { ("key", "certificate") };
                let keys = [format!("{table}.{found}_file"), format!("{table}.{missing}_file")];
                let (wrong, remedy) =
                    (format!("a {found} without its {missing}"), format!("set {}", keys[1]));
                self.fault(&keys.each_ref().map(String::as_str), &wrong, "both", &remedy);
                None
            }
        }
    }
}

/// The file of this name; empty is none.
fn file(path: &str) -> Option<Material> {
    (!path.is_empty()).then(|| Material::File(path.into()))
}
