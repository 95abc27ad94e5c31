//! Four clients and their habits around credentials (contract P): what each sends at first, which tokens it asks for, and
//! what it does when its token is refused.

use std::{collections::HashMap, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, StatusCode, header, header::InvalidHeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    said::{self, Step},
    site::{Origin, Site},
    wire::{Answer, Call, Content, Wire},
};
use crate::{
    rehearsal::harbor::{SAMPLE_ROBOT_SECRET, SAMPLE_USER_PASSWORD},
    words::challenge::Challenge,
};

/// Sent again at most so often: crane once with a new token, containerd once with a token and once with Basic.
const SENDS: usize = 3;

/// Whose habits a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Client {
    /// Pings, keeps its token, fails at a refusal.
    Docker,
    /// Doesn't ping; asks for a token by POST first; goes on with Basic when told to.
    Containerd,
    /// Pings for the challenge, takes a token for each scope, fails at a refusal.
    Podman,
    /// Pings; takes a new token after a refusal and goes on.
    Crane,
    /// podman's habits, of the same library. Not among the built-in load.
    Skopeo,
}

impl Client {
    /// Those of the built-in load.
    pub const ALL: [Self; 4] = [Self::Docker, Self::Containerd, Self::Podman, Self::Crane];

    /// Whether its log-in asks the registry; the others' only write a file.
    pub(super) fn asks_at_login(self) -> bool {
        matches!(self, Self::Docker | Self::Podman | Self::Skopeo)
    }

    /// A user for those at desks, a robot for those in clusters and pipelines.
    pub(super) fn sample(self) -> (&'static str, &'static str) {
        match self {
            Self::Docker | Self::Podman | Self::Skopeo => ("dev", SAMPLE_USER_PASSWORD),
            Self::Containerd | Self::Crane => ("robot$ci", SAMPLE_ROBOT_SECRET),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Crane => "crane",
            Self::Skopeo => "skopeo",
        })
    }
}

/// One command of a client, with what it knows while it runs.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) site: Arc<Site>,
    wire: Wire,
    /// To the token service, where that is elsewhere.
    token_wire: Option<Wire>,
    /// Where tokens are had, from the first challenge.
    realm: Option<String>,
    /// The scope of what this command does; empty for a log-in.
    scope: String,
    tokens: HashMap<String, HeaderValue>,
    /// Told to use Basic, and so for good.
    goes_on_with_basic: bool,
}

/// What a client says when it gives up.
pub(super) type Said = String;

#[derive(Deserialize)]
struct Issued {
    token: String,
}

impl Session {
    pub(super) fn new(client: Client, site: &Arc<Site>) -> Self {
        Self {
            client,
            site: Arc::clone(site),
            wire: Wire::to(site.origin.clone(), site),
            token_wire: None,
            realm: None,
            scope: String::new(),
            tokens: HashMap::new(),
            goes_on_with_basic: false,
        }
    }

    /// Does what comes before the first request proper: a ping and a token, but for containerd.
    pub(super) async fn begin(&mut self, scope: String) -> Result<(), Said> {
        self.scope = scope;
        if self.client == Client::Containerd {
            return Ok(());
        }
        let ping = self.wire.send(&Call::new(Method::GET, "/v2/"), None).await;
        let ping = ping.map_err(|cut| said::cut(self.client, Step::Ping, &cut))?;
        self.learn_realm(&ping);
        self.take_token().await
    }

    /// Sends a request; after a refusal does what this client does. The answer may still be a refusal.
    pub(super) async fn call(&mut self, step: Step, call: &Call) -> Result<Answer, Said> {
        let mut sends = 1;
        loop {
            let authorization = self.authorization()?;
            let answer = self.wire.send(call, authorization.as_ref()).await;
            let answer = answer.map_err(|cut| said::cut(self.client, step, &cut))?;
            if answer.status != StatusCode::UNAUTHORIZED || sends == SENDS || !self.recovers(&answer).await? {
                return Ok(answer);
            }
            sends += 1;
        }
    }

    /// What a redirection of a blob leads to (U12), fetched without the credential.
    pub(super) async fn follow(&self, step: Step, redirection: &Answer) -> Result<Answer, Said> {
        let whole = redirection.header("location");
        let (origin, target) =
            Origin::split(whole).ok_or_else(|| format!("the redirection to {whole} leads nowhere"))?;
        let answer = Wire::to(origin, &self.site).send(&Call::new(Method::GET, target), None).await;
        answer.map_err(|cut| said::cut(self.client, step, &cut))
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, Said> {
        if self.goes_on_with_basic {
            self.basic().map(Some)
        } else {
            Ok(self.tokens.get(&self.scope).cloned())
        }
    }

    /// Whether the client tries again, and with what (contract P).
    async fn recovers(&mut self, refusal: &Answer) -> Result<bool, Said> {
        let asks = refusal.headers.get(header::WWW_AUTHENTICATE).map(Challenge::of);
        match (self.client, asks) {
            (Client::Crane, _) => {
                self.take_token().await?;
                Ok(true)
            }
            (Client::Containerd, Some(Challenge::Basic)) => {
                let first = !self.goes_on_with_basic;
                self.goes_on_with_basic = true;
                Ok(first)
            }
            (Client::Containerd, Some(Challenge::Bearer { .. })) if self.tokens.is_empty() => {
                self.learn_realm(refusal);
                self.take_token().await?;
                Ok(true)
            }
            (Client::Docker | Client::Containerd | Client::Podman | Client::Skopeo, _) => Ok(false),
        }
    }

    fn learn_realm(&mut self, challenged: &Answer) {
        let value = challenged.headers.get(header::WWW_AUTHENTICATE);
        if let Some(Challenge::Bearer { realm, .. }) = value.map(Challenge::of) {
            self.realm = Some(realm.to_owned());
        }
    }

    async fn take_token(&mut self) -> Result<(), Said> {
        let refused = |client, answer: &Answer| said::refused(client, Step::Token, "", answer);
        let (service, path) = self.token_service()?;
        if self.client == Client::Containerd {
            let form = Content::Whole("grant_type=password&service=harbor-registry".into());
            let post = Call::new(Method::POST, path.clone())
                .with(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form);
            let answer = self.token_answer(&service, &post, None).await?;
            if answer.status.is_server_error() || answer.status == StatusCode::FORBIDDEN {
                return Err(refused(self.client, &answer));
            }
        }
        let basic = self.basic()?;
        let get = Call::new(Method::GET, self.token_target(&path));
        let answer = self.token_answer(&service, &get, Some(&basic)).await?;
        let issued =
            serde_json::from_slice::<Issued>(&answer.body).ok().filter(|issued| !issued.token.is_empty());
        let token = match issued {
            Some(issued) if answer.status == StatusCode::OK => issued.token,
            _ => return Err(refused(self.client, &answer)),
        };
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| error.to_string())?;
        self.tokens.insert(self.scope.clone(), bearer);
        Ok(())
    }

    async fn token_answer(
        &mut self,
        service: &Origin,
        call: &Call,
        basic: Option<&HeaderValue>,
    ) -> Result<Answer, Said> {
        let wire = if *service == self.site.origin {
            &mut self.wire
        } else {
            self.token_wire.get_or_insert_with(|| Wire::to(service.clone(), &self.site))
        };
        let answer = wire.send(call, basic).await;
        answer.map_err(|cut| said::cut(self.client, Step::Token, &cut))
    }

    /// Where the realm is. What came by TLS gives its password to nobody without.
    fn token_service(&self) -> Result<(Origin, String), Said> {
        let realm = self.realm.as_deref().ok_or("no challenge names a realm")?;
        let elsewhere = || format!("the realm {realm} is not where this client came in");
        let (service, path) = Origin::split(realm).ok_or_else(elsewhere)?;
        let site = &self.site;
        let is_safe = service.secure || !site.origin.secure;
        if service == site.origin || site.roams() && is_safe { Ok((service, path)) } else { Err(elsewhere()) }
    }

    /// Path and query of a token request as this client writes it.
    fn token_target(&self, path: &str) -> String {
        let account = match &self.site.account {
            Some(account) => utf8_percent_encode(&account.name, NON_ALPHANUMERIC).to_string(),
            None => self.client.sample().0.replace('$', "%24"),
        };
        let mut target = match self.client {
            Client::Docker => {
                format!(
                    "{path}?account={account}&client_id=docker&offline_token=true&service=harbor-registry"
                )
            }
            Client::Podman | Client::Skopeo => format!("{path}?account={account}&service=harbor-registry"),
            Client::Containerd | Client::Crane => format!("{path}?service=harbor-registry"),
        };
        if !self.scope.is_empty() {
            target += "&scope=";
            target += &self.scope.replace(':', "%3A").replace('/', "%2F").replace(',', "%2C");
        }
        target
    }

    fn basic(&self) -> Result<HeaderValue, Said> {
        basic(&self.site, self.client).map_err(|error| error.to_string())
    }
}

/// The credential as `Authorization` carries it.
pub(super) fn basic(site: &Site, client: Client) -> Result<HeaderValue, InvalidHeaderValue> {
    let (name, secret) = match &site.account {
        Some(account) => (account.name.as_str(), account.password.as_str()),
        None => client.sample(),
    };
    let pair = Zeroizing::new(format!("{name}:{secret}"));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.as_bytes())))?;
    value.set_sensitive(true);
    Ok(value)
}
