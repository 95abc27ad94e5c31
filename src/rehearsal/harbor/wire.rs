//! An HTTP/1.1 server loop that behaves as Go's does, also where hyper's won't: 1xx answers with headers (U6),
//! lengths that lie (U11), refusals before and after 256 KiB of a body (U2 to U4), half-close with a linger.

pub(super) mod connection;
pub(super) mod head;
pub(super) mod reply;
pub(super) mod request_body;
pub(super) mod transfer;
