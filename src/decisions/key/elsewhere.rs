//! Private halves that stay where they are and sign there.

use std::{fmt, time::Duration};

use super::SignFault;

/// Is told of a signature, once and on any thread; dropped where nobody waits for it any more.
pub type Done = Box<dyn FnOnce(Result<Vec<u8>, SignFault>) + Send>;

/// A private half that is not in our memory: a PKCS#11 token holds it.
pub trait Elsewhere: fmt::Debug + Send + Sync {
    /// The source of the key, as operators know it.
    fn name(&self) -> &str;

    /// Asks for the signature over `message` by the key's algorithm. Never blocks.
    fn sign(&self, message: &[u8], done: Done);

    /// How long a signature that is asked for now would wait; [`Duration::MAX`] where none is to be had.
    fn delay(&self) -> Duration;
}
