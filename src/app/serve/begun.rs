//! The one line that says what a process has begun to serve with: the first thing that an operator looks for.

use std::fmt::Display;

use crate::{
    app::config::{Listener, Mode, Settings, Sources},
    decisions::ring::{Entry, Ring},
    words::clock::UnixTime,
};

/// What the line says, apart from the log.
#[derive(Debug, PartialEq, Eq)]
struct Begun {
    configuration: String,
    mode: &'static str,
    listeners: String,
    endpoints: String,
    store: String,
    keys: String,
    admin: String,
    has_token: bool,
}

/// Writes it.
pub(super) fn tell(settings: &Settings, sources: &Sources, store: &str, ring: &Ring, now: UnixTime) {
    let Begun { configuration, mode, listeners, endpoints, store, keys, admin, has_token } =
        Begun::of(settings, sources, store, ring, now);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        configuration,
        mode,
        listeners,
        endpoints,
        store,
        keys,
        admin.address = admin,
        admin.token = has_token,
        "tidegate starts"
    );
}

impl Begun {
    fn of(settings: &Settings, sources: &Sources, store: &str, ring: &Ring, now: UnixTime) -> Self {
        let listener =
            |l: &Listener| format!("{} {}", l.address, if l.tls.is_some() { "TLS" } else { "plain" });
        let key = |entry: &Entry| {
            let (key, state) = (entry.key(), entry.state(now).as_str());
            format!("{} {} {} {state}", entry.source(), key.kid(), key.half())
        };
        let file = sources.file.as_ref().map(|path| path.display().to_string());
        Self {
            configuration: file.unwrap_or_else(|| "none".to_owned()),
            mode: if settings.mode == Mode::Enforce { "enforce" } else { "observe" },
            listeners: listed(settings.listeners.iter().map(listener)),
            endpoints: listed(settings.upstream.endpoints.iter().map(|endpoint| &endpoint.url)),
            store: store.to_owned(),
            keys: listed(ring.entries().map(key)),
            admin: settings.admin.address.to_string(),
            has_token: settings.admin.token.is_some(),
        }
    }
}

fn listed(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::config::{Flags, load};

    #[test]
    fn the_first_line_names_what_is_served_with() {
        let flags = Flags { harbor: Some("http://core:8080".to_owned()), observe: true, ..Flags::default() };
        let sources = Sources { flags, ..Sources::default() };
        let settings = load(&sources).expect("settings");
        let begun = Begun::of(&settings, &sources, "memory", &Ring::default(), UnixTime(0));
        let expected = Begun {
            configuration: "none".to_owned(),
            mode: "observe",
            listeners: "[::]:8080 plain".to_owned(),
            endpoints: "http://core:8080".to_owned(),
            store: "memory".to_owned(),
            keys: "none".to_owned(),
            admin: "127.0.0.1:9180".to_owned(),
            has_token: false,
        };
        assert_eq!(begun, expected);
    }
}
