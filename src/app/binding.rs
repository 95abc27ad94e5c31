//! Why an address can't be bound, in words for the operator. Pure.

use std::io;

use super::config::AdminAddress;

/// What was found, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbound {
    pub cause: String,
    /// Without the key that names another address.
    remedy: &'static str,
    /// Somebody listens there already, which may be tidegate itself.
    pub in_use: bool,
}

impl Unbound {
    /// Reads the error that binding `address` ended with.
    pub fn of(address: &AdminAddress, error: &io::Error) -> Self {
        use io::ErrorKind as K;
        let said = |cause: &str, remedy| (cause.to_owned(), remedy);
        let (cause, remedy) = match (address, error.kind()) {
            (AdminAddress::Tcp(_), K::AddrInUse) => said("another process listens there", "stop it"),
            (AdminAddress::Unix(_), K::AddrInUse) => {
                said("another process listens on this socket", "stop it")
            }
            (AdminAddress::Tcp(_), K::AddrNotAvailable) => {
                said("this machine has no such address", "take \":port\" for all of its addresses")
            }
            (AdminAddress::Tcp(_), K::PermissionDenied) => {
                said("this user may not take that port", "take a port from 1024 on")
            }
            (AdminAddress::Unix(_), K::NotFound) => said("its folder isn't there", "make it"),
            (AdminAddress::Unix(_), K::NotADirectory) => {
                said("its folder is none", "remove what stands in its place")
            }
            (AdminAddress::Unix(_), K::PermissionDenied | K::ReadOnlyFilesystem) => {
                said("this user may not write to its folder", "give the folder to the user")
            }
            (AdminAddress::Unix(_), K::AlreadyExists) => {
                said("the path is taken by something that is no socket", "remove it")
            }
            _ => (error.to_string(), "look at the address"),
        };
        Self { cause, remedy, in_use: error.kind() == K::AddrInUse }
    }

    /// What to do, where `key` of the configuration names the address.
    pub fn remedy(&self, key: &str) -> String {
        format!("{}, or set {key}", self.remedy)
    }

    /// The whole sentence for an error of the start; `what` is `"listener"` or `"admin listener"`.
    pub fn sentence(&self, what: &str, address: &AdminAddress, key: &str) -> String {
        format!("the {what} {address} can't be bound: {}; {}", self.cause, self.remedy(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_binding_names_address_cause_and_remedy() {
        let unix = AdminAddress::Unix("/run/tidegate/admin.sock".into());
        let tcp = AdminAddress::Tcp("127.0.0.1:9180".parse().expect("an address"));
        let sentence = |address, kind: io::ErrorKind| {
            Unbound::of(address, &kind.into()).sentence("admin listener", address, "admin.address")
        };
        assert_eq!(
            sentence(&unix, io::ErrorKind::NotFound),
            "the admin listener unix:/run/tidegate/admin.sock can't be bound: its folder isn't there; make it, or set \
             admin.address"
        );
        assert_eq!(
            sentence(&tcp, io::ErrorKind::AddrInUse),
            "the admin listener 127.0.0.1:9180 can't be bound: another process listens there; stop it, or set \
             admin.address"
        );
    }
}
