//! HTTP over TCP or TLS, with deadlines and redirects. Knows nothing about registries or authentication.
//!
//! Redirects are followed here because blobs usually live on another host; an `Authorization` header goes
//! only to the host that it was made for (the object stores behind registries reject foreign ones, and a
//! registry must not be able to send a token elsewhere).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, LOCATION};
use hyper::http::request::Parts;
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::config::{RegistryConfig, Security};
use super::error::{RegistryError, Source};

const CONNECT: Duration = Duration::from_secs(10);
/// From the request to the answer's headers; registries that pull through fetch before they answer.
const HEADERS: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;
/// Bounds what one connection buffers; a pull has few connections.
const READ_BUFFER: usize = 128 * 1024;

type HyperClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub(crate) struct Transport {
    verified: HyperClient,
    insecure: HyperClient,
}

/// Failed before there was an answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// No connection, or it broke.
    Connection(Source),
    /// Connected, but TLS failed: the peer may speak plain HTTP.
    Tls(Source),
    TimedOut(Duration),
    Redirect(String),
}

impl Transport {
    pub(crate) fn new(config: &RegistryConfig) -> Result<Transport, RegistryError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for path in &config.ca_dirs {
            add_authorities(&mut roots, path)
                .map_err(|source| RegistryError::Authorities { path: path.clone(), source })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(RegistryError::Tls)
        };
        let verified = builder()?.with_root_certificates(roots).with_no_client_auth();
        let any = Arc::new(AnyCertificate(provider.clone()));
        let insecure = builder()?.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
        Ok(Transport { verified: client(verified), insecure: client(insecure) })
    }

    /// Sends a request and follows redirects. The answer's body is not read.
    pub(crate) async fn send(
        &self,
        security: Security,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, SendError> {
        let client = match security {
            Security::Verified => &self.verified,
            Security::Insecure => &self.insecure,
        };
        let (mut parts, body) = request.into_parts();
        for _ in 0..=REDIRECTS_MAX {
            let request = Request::from_parts(parts.clone(), body.clone());
            let answer = tokio::time::timeout(HEADERS, client.request(request)).await;
            let response = answer.map_err(|_| SendError::TimedOut(HEADERS))?.map_err(classify)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            follow(&mut parts, &response, security)?;
        }
        Err(SendError::Redirect(format!("more than {REDIRECTS_MAX} redirects")))
    }
}

fn client(tls: ClientConfig) -> HyperClient {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(15))
        .http1_max_buf_size(READ_BUFFER)
        .build(connector)
}

fn classify(error: hyper_util::client::legacy::Error) -> SendError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if inner.is::<rustls::Error>() {
            return SendError::Tls(Box::new(error));
        }
        // An io::Error names as its source what lies below the error that it wraps, not that error itself.
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => inner.source(),
        };
    }
    SendError::Connection(Box::new(error))
}

fn follow(parts: &mut Parts, response: &Response<Incoming>, security: Security) -> Result<(), SendError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| SendError::Redirect("a redirect without a target".into()))?;
    let target = resolve(&parts.uri, location)
        .ok_or_else(|| SendError::Redirect(format!("a redirect to `{location}`, which is not a URL")))?;
    let https = |uri: &Uri| uri.scheme_str() == Some("https");
    if https(&parts.uri) && !https(&target) && security == Security::Verified {
        return Err(SendError::Redirect(format!("a redirect from https to `{location}`")));
    }
    let origin =
        |uri: &Uri| (uri.scheme_str().map(str::to_owned), uri.authority().map(|a| a.as_str().to_ascii_lowercase()));
    if origin(&parts.uri) != origin(&target) {
        parts.headers.remove(AUTHORIZATION);
    }
    parts.uri = target;
    Ok(())
}

/// `Location` may be a URL, a path or `//host/path` (RFC 9110 §10.2.2).
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let location = location.split('#').next()?;
    let text = match location {
        absolute if absolute.starts_with("http://") || absolute.starts_with("https://") => absolute.to_owned(),
        rest if rest.starts_with("//") => format!("{scheme}:{rest}"),
        path if path.starts_with('/') => format!("{scheme}://{}{path}", base.authority()?),
        _ => return None,
    };
    let uri: Uri = text.parse().ok()?;
    uri.authority().is_some().then_some(uri)
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), Source> {
    let files = match path.is_dir() {
        false => vec![path.to_owned()],
        true => {
            let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|e| e.path()));
            let mut files = entries.collect::<Result<Vec<_>, _>>()?;
            files.retain(|file| file.extension().is_some_and(|e| e == "crt" || e == "pem"));
            files.sort();
            files
        }
    };
    for file in files {
        for certificate in CertificateDer::pem_file_iter(&file)? {
            roots.add(certificate?)?;
        }
    }
    Ok(())
}

/// Accepts every certificate: for registries that the operator listed as insecure. What they serve is still
/// checked against digests; only names resolved there are taken on trust, as over plain HTTP.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_against_the_request() {
        let base: Uri = "https://r.io:5000/v2/a/blobs/x".parse().unwrap();
        let resolved = |location| resolve(&base, location).map(|uri| uri.to_string());
        assert_eq!(resolved("/b?c").as_deref(), Some("https://r.io:5000/b?c"));
        assert_eq!(resolved("//cdn.io/b").as_deref(), Some("https://cdn.io/b"));
        assert_eq!(resolved("http://cdn.io/b#f").as_deref(), Some("http://cdn.io/b"));
        assert_eq!(resolved("file:///etc/shadow"), None);
    }
}
