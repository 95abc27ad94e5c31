//! The closed lists behind logs and metrics: what we did with a request, what rescued it, why it was refused.

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $text:literal])+ $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $text])+ $variant,)+ }

        impl $name {
            /// All of them, in the order of their indices.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The label in logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// What it means, for the documentation.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($text),+).trim_ascii(),)+ }
            }

            /// The place in an array of counters.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

closed_list! {
    /// What became of a request.
    Outcome {
        /// Harbor answered and the answer went to the client.
        Forwarded = "forwarded",
        /// The same, and without one of the rescues it would have failed.
        Rescued = "rescued",
        /// We answered in Harbor's place.
        Rejected = "rejected",
        /// It asked for a page of ours, such as our keys, and got it.
        Answered = "answered",
        /// No endpoint answered, or its answer broke off.
        UpstreamFailed = "upstream_failed",
        /// The client left before its answer's end.
        ClientGone = "client_gone",
    }
}

closed_list! {
    /// What saved a request that would have failed.
    Rescue {
        /// It went to the endpoint that holds its token's key.
        Reroute = "reroute",
        /// Its token was signed again with the endpoint's held key.
        Resign = "resign",
        /// The credential that its token was issued for went up instead.
        Replay = "replay",
        /// Core had refused it because its key had changed meanwhile; a second plan was accepted.
        SecondPlan = "second_plan",
        /// Core's clock refused its token; it was signed with an earlier `nbf`, or held until it was valid.
        Clock = "clock",
        /// Core can't sign: its client got, or used, a token of our own, and its credential went up (A11).
        OwnToken = "own_token",
        /// An endpoint could not be reached or could not sign; another one answered.
        OtherEndpoint = "other_endpoint",
        /// It waited until an endpoint took it.
        Park = "park",
        /// Harbor could not answer: its client got what Harbor granted it before, for a short while; a ping without a
        /// credential got Harbor's last challenge.
        Grace = "grace",
        /// It came with a robot's former secret, whose window is open; the present one went up in its place.
        FormerSecret = "former_secret",
        /// Its endpoint stopped in the middle of a push; what was sent went up again, to another upload session.
        PushRestarted = "push_restarted",
        /// Its answer broke off; the rest was asked for again and joined to what the client had.
        PullResumed = "pull_resumed",
    }
}

closed_list! {
    /// Why a request, or the token in it, was refused by us.
    Reason {
        /// The bearer is no token: parts, encoding, header or claims are not as RFC 7519 has them.
        TokenMalformed = "token_malformed",
        /// The token names no key.
        TokenWithoutKid = "token_without_kid",
        /// The token names Harbor's published default key.
        TokenDefaultKey = "token_default_key",
        /// The token was signed by a key that was retired now or banned.
        TokenKeyBanned = "token_key_banned",
        /// The token's key is announced only.
        TokenKeyAnnounced = "token_key_announced",
        /// The token's key is retired.
        TokenKeyRetired = "token_key_retired",
        /// The token's key is unknown to the ring and to every endpoint.
        TokenKeyUnknown = "token_key_unknown",
        /// The token's algorithm is not its key's.
        TokenAlgorithm = "token_algorithm",
        /// The token's signature is not its key's.
        TokenSignature = "token_signature",
        /// The token is another issuer's.
        TokenIssuer = "token_issuer",
        /// The token is for another service.
        TokenAudience = "token_audience",
        /// The token is past its `exp` and the leeway.
        TokenExpired = "token_expired",
        /// The token is before its `nbf` less the leeway.
        TokenNotYetValid = "token_not_yet_valid",
        /// The token was issued after now and the leeway.
        TokenIssuedInFuture = "token_issued_in_future",
        /// The token lives longer than Harbor's tokens do.
        TokenLivesTooLong = "token_lives_too_long",
        /// The token was issued after its key had stopped signing.
        TokenIssuedAfterKeyEnded = "token_issued_after_key_ended",
        /// The token, or all that its user was given before some moment, was revoked.
        TokenRevoked = "token_revoked",
        /// More than one `Authorization` header.
        SeveralAuthorizations = "several_authorizations",
        /// The path can be read in two ways.
        AmbiguousPath = "ambiguous_path",
        /// `Host` is absent, doubled, or differs from the request's authority.
        Host = "host",
        /// CONNECT, or a GET or HEAD with a body of unknown length.
        Method = "method",
        /// hyper could not read the request.
        Unreadable = "unreadable",
        /// The request's head is longer than `limits.head`.
        HeadTooLong = "head_too_long",
        /// A path for Harbor's own components on a public listener.
        ComponentsOnly = "components_only",
        /// `/service/token` with another method than GET.
        TokenMethod = "token_method",
        /// Too many wrong credentials from one address or for one name.
        WrongCredentials = "wrong_credentials",
        /// No endpoint could be reached.
        NoEndpoint = "no_endpoint",
        /// Core can't reach its database; Harbor's own answer hid it, or told its address.
        Outage = "outage",
        /// The endpoint broke off before its answer, and the request must not be sent twice.
        UpstreamBroke = "upstream_broke",
        /// The endpoint broke off in the middle of an upload, and Harbor did not let it begin anew.
        UploadLost = "upload_lost",
        /// The endpoint did not answer in time.
        UpstreamSlow = "upstream_slow",
        /// The client's body stood still or broke off.
        BodyBroke = "body_broke",
        /// One of our own pages that does not exist.
        NoSuchPage = "no_such_page",
        /// Our keys were asked for without a proof of the secret that peers share (A10).
        PeerUnproved = "peer_unproved",
        /// The registry behind core asks for its own password: core's and the registry's differ.
        RegistryPassword = "registry_password",
        /// Harbor did not accept the credential that was sent, whatever the answer's status says.
        CredentialRefused = "credential_refused",
        /// Core can't sign tokens: its key file is empty, broken, unreadable or of a wrong kind.
        CannotSign = "cannot_sign",
        /// A token of our own, issued while core couldn't sign, was not asked for what the request needs.
        OwnTokenScope = "own_token_scope",
        /// All connections to the endpoint, or all that the client's address may have of them, were in use for 10 s.
        Busy = "busy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_indices_are_places() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert_eq!(Reason::ALL.iter().filter(|r| r.name() == reason.name()).count(), 1);
            assert!(reason.meaning().ends_with('.'), "{}", reason.name());
        }
    }
}
