//! What an error of a module means, and what mends it.

use cryptoki::error::{Error, RvError};

use crate::decisions::key::Pkcs11Fault;

/// What is tried after an error, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The session has ended, or nobody is logged in any more: another session, and a log-in.
    Session,
    /// The object is not where it was.
    Object,
    /// The token, or the module, isn't what it was: the module begins anew.
    Module,
    /// Nothing of ours mends it.
    Lasting,
}

impl Trouble {
    pub(super) fn of(error: &Error) -> Self {
        let Error::Pkcs11(code, _) = error else { return Self::Lasting };
        match code {
            RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::UserNotLoggedIn
            | RvError::OperationActive
            | RvError::OperationNotInitialized => Self::Session,
            RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid => Self::Object,
            RvError::CryptokiNotInitialized
            | RvError::DeviceRemoved
            | RvError::DeviceError
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::GeneralError
            | RvError::FunctionFailed => Self::Module,
            _ => Self::Lasting,
        }
    }
}

/// The same in words for the operator.
pub(super) fn fault(error: &Error) -> Pkcs11Fault {
    match error {
        Error::Pkcs11(code, call) => {
            Pkcs11Fault::Refused { call: format!("C_{call:?}"), code: as_specified(&format!("{code:?}")) }
        }
        Error::NullFunctionPointer | Error::MissingSymbol(_) => Pkcs11Fault::Refused {
            call: "a call".to_owned(),
            code: "nothing, because it hasn't that".to_owned(),
        },
        _ => Pkcs11Fault::Refused { call: "a call".to_owned(), code: "what is no answer".to_owned() },
    }
}

/// `DeviceRemoved` as vendors' documents have it: `CKR_DEVICE_REMOVED`.
fn as_specified(name: &str) -> String {
    let mut text = "CKR".to_owned();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn each_error_is_mended_where_it_came_from() {
        let table = [
            (RvError::SessionHandleInvalid, Trouble::Session),
            (RvError::SessionClosed, Trouble::Session),
            (RvError::UserNotLoggedIn, Trouble::Session),
            (RvError::OperationActive, Trouble::Session),
            (RvError::KeyHandleInvalid, Trouble::Object),
            (RvError::ObjectHandleInvalid, Trouble::Object),
            (RvError::DeviceRemoved, Trouble::Module),
            (RvError::DeviceError, Trouble::Module),
            (RvError::CryptokiNotInitialized, Trouble::Module),
            (RvError::TokenNotPresent, Trouble::Module),
            (RvError::PinIncorrect, Trouble::Lasting),
            (RvError::PinLocked, Trouble::Lasting),
            (RvError::MechanismInvalid, Trouble::Lasting),
        ];
        for (code, trouble) in table {
            assert_eq!(Trouble::of(&Error::Pkcs11(code, Function::Sign)), trouble, "{code:?}");
        }
        assert_eq!(Trouble::of(&Error::PinNotSet), Trouble::Lasting);
    }

    #[test]
    fn an_error_is_named_as_the_vendors_documents_have_it() {
        let fault = fault(&Error::Pkcs11(RvError::DeviceRemoved, Function::Login));
        assert_eq!(fault.to_string(), "the module answers CKR_DEVICE_REMOVED to C_Login");
    }
}
