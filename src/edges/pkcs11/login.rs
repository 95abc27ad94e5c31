//! Logging in. Tokens count wrong PINs and lock for good, so one that was refused is never tried again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    session::{Session, SessionState, UserType},
    slot::{Slot, TokenInfo},
    types::AuthPin,
};
use zeroize::Zeroizing;

use super::{Location, Pin, module::Failed};
use crate::{decisions::key::Pkcs11Fault, edges::small_file};

/// What the tokens of one module refused, by their labels. Several sources may name one token with PINs of their own.
#[derive(Default)]
pub(super) struct Logins(Mutex<BTreeMap<String, Arc<Mutex<Vec<Refused>>>>>);

struct Refused {
    pin: Zeroizing<String>,
    fault: Pkcs11Fault,
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logins(…)")
    }
}

impl Logins {
    /// Logs in, if nobody is: all sessions of a token share it. One at a time for a token, so that several threads don't try
    /// one wrong PIN several times.
    pub(super) fn log_in(
        &self,
        pkcs11: &Pkcs11,
        slot: Slot,
        session: &Session,
        location: &Location,
    ) -> Result<(), Failed> {
        let of_token = Arc::clone(lock(&self.0).entry(location.token.clone()).or_default());
        let mut refused = lock(&of_token);
        let state = session.get_session_info()?.session_state();
        if matches!(state, SessionState::RoUser | SessionState::RwUser) {
            return Ok(());
        }
        let token = pkcs11.get_token_info(slot)?;
        if !token.login_required() {
            return Ok(());
        }
        let pin = location.pin.read()?;
        if let Some(known) = refused.iter().find(|known| known.pin == pin) {
            return Err(known.fault.clone().into());
        }
        may_try(&token)?;
        let Err(error) = session.login(UserType::User, Some(&AuthPin::new(pin.as_str().into()))) else {
            refused.clear();
            return Ok(());
        };
        let Error::Pkcs11(code, _) = &error else { return Err(error.into()) };
        let fault = match code {
            RvError::UserAlreadyLoggedIn => return Ok(()),
            RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid => Pkcs11Fault::WrongPin,
            RvError::PinLocked | RvError::PinExpired => Pkcs11Fault::PinLocked,
            RvError::UserPinNotInitialized => return Err(Pkcs11Fault::PinNeverSet.into()),
            _ => return Err(error.into()),
        };
        refused.push(Refused { pin, fault: fault.clone() });
        Err(fault.into())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a PIN may be tried at all.
fn may_try(token: &TokenInfo) -> Result<(), Pkcs11Fault> {
    if !token.user_pin_initialized() {
        return Err(Pkcs11Fault::PinNeverSet);
    }
    if token.user_pin_locked() {
        return Err(Pkcs11Fault::PinLocked);
    }
    if token.user_pin_final_try() { Err(Pkcs11Fault::LastTry) } else { Ok(()) }
}

impl Pin {
    /// The PIN, without a file's last line feed.
    fn read(&self) -> Result<Zeroizing<String>, Pkcs11Fault> {
        let pin = match self {
            Self::Value(pin) => pin.clone(),
            Self::File(path) => {
                let read = small_file::read(path)
                    .map_err(|fault| Pkcs11Fault::PinFile(path.display().to_string(), fault))?;
                let text = std::str::from_utf8(&read.bytes).map_err(|_| Pkcs11Fault::NoPin)?;
                Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        };
        if pin.is_empty() { Err(Pkcs11Fault::NoPin) } else { Ok(pin) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::file_fault::FileFault;

    #[test]
    fn a_pin_is_what_its_file_says_without_the_last_line_feed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pin");
        let read = || Pin::File(file.clone()).read();
        assert_eq!(read(), Err(Pkcs11Fault::PinFile(file.display().to_string(), FileFault::Missing)));
        for (text, pin) in [
            (&b"12 34\n"[..], Ok("12 34")),
            (b"1234\r\n", Ok("1234")),
            (b" 1 ", Ok(" 1 ")),
            (b"\n", Err(Pkcs11Fault::NoPin)),
            (b"", Err(Pkcs11Fault::NoPin)),
            (b"\xff\xfe", Err(Pkcs11Fault::NoPin)),
        ] {
            std::fs::write(&file, text).expect("a file");
            assert_eq!(read().as_ref().map(|pin| pin.as_str()), pin.as_ref().map(|pin| *pin), "{text:?}");
        }
    }
}
