//! Tokens: answers to a registry's challenges, kept until shortly before they expire.
//!
//! Docker's token protocol (GET with Basic) and its OAuth2 form (POST, for refresh tokens). A token belongs to
//! one registry, one repository and one login: another login never gets it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::config::Security;
use super::credentials::Credentials;
use super::error::RegistryError;
use super::{Endpoint, Registry, unreachable};

const ANSWER_BYTES_MAX: u64 = 256 << 10;
/// Docker's token spec: without `expires_in` a token lives 60 s.
const DEFAULT_LIFE: u64 = 60;
/// A token is not used in the last part of its life, lest it expire on the way.
const MARGIN: u64 = 10;

#[derive(Default)]
pub(super) struct Tokens {
    kept: Mutex<HashMap<Key, Token>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    host: String,
    repository: String,
    credentials: Option<Credentials>,
}

struct Token {
    authorization: HeaderValue,
    expires: Instant,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Tokens {
    pub(super) fn cached(
        &self,
        host: &str,
        repository: &str,
        credentials: Option<&Credentials>,
    ) -> Option<HeaderValue> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|_, token| token.expires > now);
        kept.get(&key(host, repository, credentials)).map(|token| token.authorization.clone())
    }

    /// The `Authorization` header that the challenge in `headers` asks for.
    pub(super) async fn answer(
        &self,
        registry: &Registry,
        endpoint: &Endpoint,
        repository: &str,
        credentials: Option<&Credentials>,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, RegistryError> {
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = values.flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let (text, life) = match (bearer.or(challenges.first()), credentials) {
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                let pull = format!("repository:{repository}:pull");
                let parameters = [("service", service.clone()), ("scope", Some(scope.clone().unwrap_or(pull)))];
                let answer = fetch(registry, endpoint, repository, credentials, realm, &parameters).await?;
                let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).max(DEFAULT_LIFE);
                let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
                let token = token.ok_or_else(|| protocol(endpoint, realm, "there is no token in the answer"))?;
                (format!("Bearer {token}"), life)
            }
            (Some(Challenge::Basic), Some(login)) => (login.basic(), 3600),
            (Some(Challenge::Basic), None) => {
                let hint = format!("it needs a login (docker login {})", endpoint.host);
                return Err(unauthorized(endpoint, repository, hint));
            }
            (None, _) => {
                return Err(protocol(endpoint, "a request", "401 without a challenge that is Bearer or Basic"));
            }
        };
        let mut authorization =
            HeaderValue::from_str(&text).map_err(|_| protocol(endpoint, "the token", "it has control characters"))?;
        authorization.set_sensitive(true);
        let token = Token {
            authorization: authorization.clone(),
            expires: Instant::now() + Duration::from_secs(life - MARGIN),
        };
        let key = key(&endpoint.host, repository, credentials);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key, token);
        Ok(authorization)
    }
}

async fn fetch(
    registry: &Registry,
    endpoint: &Endpoint,
    repository: &str,
    credentials: Option<&Credentials>,
    realm: &str,
    parameters: &[(&str, Option<String>)],
) -> Result<Answer, RegistryError> {
    let security = realm_security(registry, endpoint, realm)?;
    let mut query: Vec<(&str, &str)> =
        parameters.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))).collect();
    let builder = Request::builder().header(header::USER_AGENT, concat!("skep/", env!("CARGO_PKG_VERSION")));
    let refresh = credentials.and_then(|login| login.identity_token.as_deref());
    let request = if let Some(refresh) = refresh {
        query.extend([("grant_type", "refresh_token"), ("client_id", "skep"), ("refresh_token", refresh)]);
        let form = header::HeaderValue::from_static("application/x-www-form-urlencoded");
        let builder = builder.method(Method::POST).uri(realm).header(header::CONTENT_TYPE, form);
        builder.body(Full::new(Bytes::from(encode(&query))))
    } else {
        let separator = if realm.contains('?') { '&' } else { '?' };
        let builder = builder.uri(format!("{realm}{separator}{}", encode(&query)));
        let builder = match credentials {
            Some(login) => builder.header(header::AUTHORIZATION, login.basic()),
            None => builder,
        };
        builder.body(Full::default())
    };
    let request = request.map_err(|error| protocol(endpoint, realm, &error.to_string()))?;
    let response =
        registry.transport.send(security, request).await.map_err(|error| unreachable(&host_of(realm), error))?;
    match response.status().as_u16() {
        200 => {}
        429 => return Err(RegistryError::TooManyRequests { registry: host_of(realm) }),
        400 | 401 | 403 | 404 => {
            let hint = match credentials {
                Some(login) => format!("{} refused the login of `{}`", host_of(realm), login.username),
                None => format!("{} gives no token without a login (docker login {})", host_of(realm), endpoint.host),
            };
            return Err(unauthorized(endpoint, repository, hint));
        }
        status => {
            let what = "a request for a token".to_owned();
            return Err(RegistryError::Status { registry: host_of(realm), what, status, detail: String::new() });
        }
    }
    let body = registry.small_body(endpoint, response, "token", ANSWER_BYTES_MAX).await?;
    serde_json::from_slice(&body).map_err(|error| protocol(endpoint, realm, &error.to_string()))
}

/// A registry names the server that gets the login: over HTTPS, unless the operator trusts that server without.
fn realm_security(registry: &Registry, endpoint: &Endpoint, realm: &str) -> Result<Security, RegistryError> {
    let uri: Uri = realm.parse().map_err(|_| protocol(endpoint, realm, "its realm is not a URL"))?;
    let security = registry.config.security(&host_of(realm));
    match (uri.scheme_str(), security) {
        (Some("https"), _) | (Some("http"), Security::Insecure) => Ok(security),
        _ => Err(protocol(endpoint, realm, "tokens are asked for over https only")),
    }
}

fn host_of(realm: &str) -> String {
    let uri: Option<Uri> = realm.parse().ok();
    uri.and_then(|uri| uri.authority().map(|authority| authority.as_str().to_owned())).unwrap_or_default()
}

fn key(host: &str, repository: &str, credentials: Option<&Credentials>) -> Key {
    Key { host: host.to_owned(), repository: repository.to_owned(), credentials: credentials.cloned() }
}

fn protocol(endpoint: &Endpoint, what: &str, problem: &str) -> RegistryError {
    RegistryError::Protocol { registry: endpoint.host.clone(), what: what.to_owned(), problem: problem.to_owned() }
}

fn unauthorized(endpoint: &Endpoint, repository: &str, hint: String) -> RegistryError {
    RegistryError::Unauthorized { repository: repository.to_owned(), registry: endpoint.host.clone(), hint }
}

fn encode(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
                other => out.push_str(&format!("%{other:02X}")),
            }
        }
        out
    };
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
    pairs.join("&")
}
