//! The part of `tidegate check` that tries the addresses: each is bound and given back, nothing is accepted.

use std::io;

use super::Report;
use crate::{
    app::{
        admin,
        binding::Unbound,
        config::{AdminAddress, Fault, Place, Settings},
    },
    edges::listener,
};

/// Tries every listener's address and the admin listener's.
pub fn addresses(settings: &Settings, report: &mut Report) {
    for (i, listener) in settings.listeners.iter().enumerate() {
        let key = format!("listener[{i}].address");
        tell(report, &key, &AdminAddress::Tcp(listener.address), listener::can_bind(listener.address));
    }
    let admin = &settings.admin.address;
    tell(report, "admin.address", admin, admin::can_bind(admin));
}

/// What listens there already may be tidegate itself: `check` is run beside it, too.
fn tell(report: &mut Report, key: &str, address: &AdminAddress, bound: io::Result<()>) {
    let Err(error) = bound else { return };
    let unbound = Unbound::of(address, &error);
    let fault = |found: String, remedy: String| Fault {
        place: Place::Address(address.to_string()),
        key: key.to_owned(),
        found,
        expected: String::new(),
        remedy,
    };
    if unbound.in_use {
        let found = "in use; fine if tidegate itself is running there".to_owned();
        let remedy = format!("else stop what listens there, or set {key}");
        report.warnings.push(fault(found, remedy));
    } else {
        let found = format!("it can't be bound: {}", unbound.cause);
        report.faults.push(fault(found, unbound.remedy(key)));
    }
}
