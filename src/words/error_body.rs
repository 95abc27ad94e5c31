//! Error bodies as registry clients read them (OCI distribution specification, *Error Codes*).

use bytes::Bytes;

/// `{"errors":[{"code":…,"message":…}]}`; both texts are ours, so they need no escaping beyond JSON's.
pub fn registry(code: &str, message: &str) -> Bytes {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    Bytes::from(body.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_body_is_the_shape_that_clients_parse() {
        let body = super::registry("UNAUTHORIZED", "a \"quoted\" word");
        assert_eq!(&body[..], br#"{"errors":[{"code":"UNAUTHORIZED","message":"a \"quoted\" word"}]}"#);
    }
}
