//! What an operator should mend while serving goes on.

use crate::words::clock::UnixTime;

/// One fault of a file, with its place, cause and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub path: String,
    pub cause: String,
    pub remedy: &'static str,
    pub since: UnixTime,
    /// A warning leaves the file in use; an alarm means that what it held before is in use.
    pub is_warning: bool,
    /// At the start nothing may be served with it: Harbor's published default key.
    pub forbids_start: bool,
}
