//! What a token is worth by the state of the key that signed it (A8, A9, and *Keys and files* of hostile input).

use std::time::Duration;

use tidegate::rehearsal::harbor::KeyForm;

use crate::{
    core::{AUTHORISED, Harbor, REFUSED, judged, key, status, token, wait_for_state},
    support::waiting,
};

#[test]
fn only_keys_that_sign_or_verify_prove_a_token() {
    let held = key();
    let harbor = Harbor::start(&held);
    let keys = ["announced", "verifying", "retired"].map(|state| (state, key()));
    let sources = keys.iter().map(|(state, key)| {
        let path = harbor.write(&format!("{state}.pem"), key, KeyForm::Public);
        format!("{{ file = \"{}\", state = \"{state}\" }}", path.display())
    });
    let sources: Vec<String> = sources.chain([harbor.source()]).collect();
    let gate = harbor.gate(&format!("sources = [{}]", sources.join(", ")));
    let genuine = token(&gate);
    let [announced, verifying, retired] = keys.map(|(_, key)| key);
    let stranger = key();
    let of = |kid: &str, key| genuine.signed(kid, key);
    let rows = [
        (genuine.clone(), AUTHORISED, ""),
        (of(verifying.kid().as_str(), &verifying), AUTHORISED, "resign"),
        (of(announced.kid().as_str(), &announced), REFUSED, "token_key_announced"),
        (of(retired.kid().as_str(), &retired), REFUSED, "token_key_retired"),
        (of(held.kid().as_str(), &retired), REFUSED, "token_signature"),
        (of("nobody's", &retired), REFUSED, "token_key_banned"),
        (of(held.kid().as_str(), &stranger), REFUSED, "token_signature"),
        (of(stranger.kid().as_str(), &stranger), REFUSED, "token_key_unknown"),
        (
            of("7WMA:KVXO:KF25:35NA:GJ35:ZGKY:PGYT:I5UT:TGWY:UUI4:PT7Z:X3KW", &held),
            REFUSED,
            "token_default_key",
        ),
    ];
    for (bearer, expected, reason) in rows {
        assert_eq!(judged(&gate, &bearer), (expected, reason.to_owned()), "{}", bearer.header);
    }
}

#[test]
fn a8_a_former_key_proves_nothing_issued_after_its_end() {
    let former = key();
    let harbor = Harbor::start(&former);
    let gate = harbor.gate(&format!("sources = [{}]\nleeway = \"0s\"", harbor.source()));
    let genuine = token(&gate);
    assert_eq!(status(&gate, &genuine), AUTHORISED);
    let next = key();
    next.rename_into(&harbor.key_file, KeyForm::Pkcs1).expect("the key is replaced");
    wait_for_state(&gate, &former, "verifying");
    let refused = waiting::until(Duration::from_secs(20), || {
        let forged = token(&gate).signed(genuine.kid(), &former);
        let (status, reason) = judged(&gate, &forged);
        (status == REFUSED).then_some(reason)
    });
    assert_eq!(refused.as_deref(), Some("token_issued_after_key_ended"), "{}", gate.tail());
    assert_eq!(status(&gate, &genuine), AUTHORISED, "what it signed in its time is good");
}
