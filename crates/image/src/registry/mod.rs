//! A client of OCI registries (distribution-spec), pull side only: manifests, blobs, token authentication.
//!
//! `transport` moves bytes, `token` answers challenges, `blob` streams and resumes; this file knows the order:
//! mirrors first, then the registry itself; try, authenticate when asked, back off when told. Everything fetched
//! by digest is verified here, before any other code sees it as complete.

mod blob;
mod challenge;
mod config;
mod credentials;
mod error;
mod retry;
mod token;
mod transport;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};

pub(crate) use self::blob::Chunk;
pub use self::config::RegistryConfig;
use self::config::{Security, api_host};
pub use self::credentials::{Credentials, CredentialsError, DockerConfig};
pub use self::error::RegistryError;
use self::retry::Backoff;
use self::token::Tokens;
use self::transport::{SendError, Transport};
use crate::digest::Digest;
use crate::manifest;
use crate::reference::Reference;

/// distribution-spec: registries must take manifests of 4 MiB; larger ones are no manifests.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Silence in the middle of a body after which the connection is given up and resumed.
const STALL: Duration = Duration::from_secs(30);
const ERROR_BODY_MAX: u64 = 16 << 10;

pub(crate) struct Registry {
    config: RegistryConfig,
    transport: Transport,
    /// Scheme of the registries that may be insecure, found out by asking once.
    schemes: Mutex<HashMap<String, &'static str>>,
    tokens: Tokens,
}

/// The repository of a reference, and who asks.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) credentials: Option<&'a Credentials>,
}

/// A manifest as served; `digest` is computed from `bytes`.
pub(crate) struct Served {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
    pub(crate) content_type: String,
}

/// One server that may have the repository.
#[derive(Clone)]
struct Endpoint {
    /// `https://host[:port]`, without a slash at the end.
    base: String,
    host: String,
    security: Security,
    /// Mirrors are told which registry they stand in for, and get no credentials.
    mirror_of: Option<String>,
}

/// A GET below `/v2/<repository>/`.
struct Ask<'a> {
    path: String,
    accept: &'a str,
    range_from: u64,
}

impl Registry {
    pub(crate) fn new(config: RegistryConfig) -> Result<Registry, RegistryError> {
        let transport = Transport::new(&config)?;
        Ok(Registry { config, transport, schemes: Mutex::default(), tokens: Tokens::default() })
    }

    /// Fetches the manifest `name` (a tag or a digest); with `expected`, only bytes of that digest are accepted.
    pub(crate) async fn manifest(
        &self,
        asker: Asker<'_>,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Served, RegistryError> {
        let endpoints = self.endpoints(asker.reference.registry()).await?;
        let (last, mirrors) = endpoints.split_last().expect("the registry itself is the last endpoint");
        // A mirror's failure of any kind is no reason not to ask the registry itself.
        for mirror in mirrors {
            match self.manifest_of(mirror, asker, name, expected).await {
                Ok(served) => return Ok(served),
                Err(error) => {
                    tracing::debug!(mirror = mirror.base, image = %asker.reference, %error, "mirror passed over");
                }
            }
        }
        self.manifest_of(last, asker, name, expected).await
    }

    async fn manifest_of(
        &self,
        endpoint: &Endpoint,
        asker: Asker<'_>,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Served, RegistryError> {
        let ask = Ask { path: format!("manifests/{name}"), accept: manifest::ACCEPT, range_from: 0 };
        let response = self.get(endpoint, asker, &ask).await?;
        let text = |name| response.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned);
        let content_type = text("content-type").unwrap_or_default();
        let claimed = text("docker-content-digest").and_then(|digest| digest.parse().ok());
        let bytes = self.small_body(endpoint, response, "manifest", MANIFEST_BYTES_MAX).await?;
        let digest = Digest::of(&bytes);
        match expected.or(claimed) {
            Some(expected) if expected != digest => Err(RegistryError::DigestMismatch {
                registry: endpoint.host.clone(),
                what: "manifest",
                expected,
                actual: digest,
            }),
            _ => Ok(Served { bytes, digest, content_type }),
        }
    }

    /// Mirrors in configured order, then the registry.
    async fn endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, RegistryError> {
        let mut endpoints = Vec::new();
        for url in self.config.mirrors.get(registry).into_iter().flatten() {
            let base = url.trim_end_matches('/');
            let host = base.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
            let Some((_, host)) = host.filter(|(_, host)| !host.is_empty()) else {
                return Err(RegistryError::Mirror { registry: registry.to_owned(), url: url.clone() });
            };
            endpoints.push(Endpoint {
                base: base.to_owned(),
                host: host.to_owned(),
                security: self.config.security(host),
                mirror_of: Some(registry.to_owned()),
            });
        }
        let host = api_host(registry);
        let security = self.config.security(host);
        let scheme = match security {
            Security::Verified => "https",
            Security::Insecure => self.scheme(host).await?,
        };
        endpoints.push(Endpoint {
            base: format!("{scheme}://{host}"),
            host: host.to_owned(),
            security,
            mirror_of: None,
        });
        Ok(endpoints)
    }

    /// HTTPS if the registry speaks it, else HTTP. Asked once, without credentials.
    async fn scheme(&self, host: &str) -> Result<&'static str, RegistryError> {
        let known =
            |registry: &Registry| registry.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied();
        if let Some(scheme) = known(self) {
            return Ok(scheme);
        }
        let mut backoff = Backoff::default();
        let scheme = loop {
            let https =
                match self.transport.send(Security::Insecure, request(&format!("https://{host}/v2/"), host)?).await {
                    Ok(_) | Err(SendError::Redirect(_)) => break "https",
                    Err(SendError::Tls(_)) => break "http",
                    Err(error) => error,
                };
            // Some servers hang up on what is no HTTP, instead of answering it.
            let http = request(&format!("http://{host}/v2/"), host)?;
            if self.transport.send(Security::Insecure, http).await.is_ok() {
                break "http";
            }
            if !backoff.again(None).await {
                return Err(unreachable(host, https));
            }
        };
        self.schemes.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), scheme);
        Ok(scheme)
    }

    /// Sends one GET until it is answered: with a token when asked for one, again when that can help.
    async fn get(
        &self,
        endpoint: &Endpoint,
        asker: Asker<'_>,
        ask: &Ask<'_>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let credentials = asker.credentials.filter(|_| endpoint.mirror_of.is_none());
        let repository = asker.reference.repository();
        let namespace = endpoint.mirror_of.as_ref().map(|of| format!("?ns={of}")).unwrap_or_default();
        let url = format!("{}/v2/{repository}/{}{namespace}", endpoint.base, ask.path);
        let mut authorization = self.tokens.cached(&endpoint.host, repository, credentials);
        let mut asked_for_login = false;
        let mut backoff = Backoff::default();
        loop {
            let mut request = request(&url, &endpoint.host)?;
            let headers = request.headers_mut();
            if let Ok(accept) = HeaderValue::from_str(ask.accept) {
                headers.insert(header::ACCEPT, accept);
            }
            if ask.range_from > 0 {
                let range = HeaderValue::from_str(&format!("bytes={}-", ask.range_from));
                headers.insert(header::RANGE, range.expect("digits are a valid header"));
            }
            if let Some(value) = &authorization {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            let response = match self.transport.send(endpoint.security, request).await {
                Ok(response) => response,
                Err(SendError::Connection(_) | SendError::TimedOut(_)) if backoff.again(None).await => continue,
                Err(error) => return Err(unreachable(&endpoint.host, error)),
            };
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && !asked_for_login {
                asked_for_login = true;
                let answer = self.tokens.answer(self, endpoint, repository, credentials, response.headers()).await?;
                authorization = Some(answer);
                continue;
            }
            let transient = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            if transient && backoff.again(retry_after(&response)).await {
                continue;
            }
            return Err(self.refusal(endpoint, asker, ask, response).await);
        }
    }

    async fn refusal(
        &self,
        endpoint: &Endpoint,
        asker: Asker<'_>,
        ask: &Ask<'_>,
        response: Response<Incoming>,
    ) -> RegistryError {
        let status = response.status();
        let registry = endpoint.host.clone();
        let repository = asker.reference.repository().to_owned();
        match status.as_u16() {
            404 => match ask.path.strip_prefix("blobs/").and_then(|digest| digest.parse().ok()) {
                Some(digest) => RegistryError::BlobNotFound { repository, registry, digest },
                None => RegistryError::NotFound { reference: asker.reference.familiar(), registry },
            },
            401 | 403 => {
                let hint = match asker.credentials {
                    Some(login) => format!("the login of `{}` may not read it, or it does not exist", login.username),
                    None => {
                        format!("it does not exist, or needs a login (docker login {})", asker.reference.registry())
                    }
                };
                RegistryError::Unauthorized { repository, registry, hint }
            }
            429 => RegistryError::TooManyRequests { registry },
            status => {
                let body = self.small_body(endpoint, response, "error", ERROR_BODY_MAX).await;
                let detail = body.ok().and_then(|body| error_detail(&body)).unwrap_or_default();
                let what = format!("GET /v2/{repository}/{}", ask.path);
                RegistryError::Status { registry, what, status, detail }
            }
        }
    }

    /// Reads a body that must fit into memory.
    async fn small_body(
        &self,
        endpoint: &Endpoint,
        response: Response<Incoming>,
        what: &'static str,
        bytes_max: u64,
    ) -> Result<Bytes, RegistryError> {
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        loop {
            let frame = tokio::time::timeout(STALL, body.frame()).await;
            let frame = frame
                .map_err(|_| RegistryError::TimedOut { registry: endpoint.host.clone(), seconds: STALL.as_secs() })?;
            let Some(frame) = frame else { return Ok(bytes.into()) };
            let broken =
                |error| RegistryError::Unreachable { registry: endpoint.host.clone(), source: Box::new(error) };
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() as u64 > bytes_max {
                return Err(RegistryError::TooLarge { registry: endpoint.host.clone(), what, bytes_max });
            }
        }
    }
}

fn request(url: &str, host: &str) -> Result<Request<Full<Bytes>>, RegistryError> {
    let request = Request::get(url)
        .header(header::USER_AGENT, concat!("skep/", env!("CARGO_PKG_VERSION")))
        // Bytes are hashed as they come: a server must not compress them once more.
        .header(header::ACCEPT_ENCODING, "identity")
        .body(Full::default());
    request.map_err(|error| RegistryError::Protocol {
        registry: host.to_owned(),
        what: url.to_owned(),
        problem: error.to_string(),
    })
}

fn unreachable(host: &str, error: SendError) -> RegistryError {
    let registry = host.to_owned();
    match error {
        SendError::Connection(source) | SendError::Tls(source) => RegistryError::Unreachable { registry, source },
        SendError::TimedOut(after) => RegistryError::TimedOut { registry, seconds: after.as_secs() },
        SendError::Redirect(problem) => RegistryError::Protocol { registry, what: "a request".into(), problem },
    }
}

/// Seconds only: the date form would need a clock that may be wrong here.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// `: message` of the first error in distribution-spec's error body.
fn error_detail(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let first = value.get("errors")?.get(0)?;
    let message = first.get("message").or_else(|| first.get("code"))?.as_str()?;
    let printable: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(format!(": {printable}"))
}
