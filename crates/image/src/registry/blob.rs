//! Streams one blob to whoever unpacks it, hashing on the way, and goes on where it broke off.
//!
//! The receiver learns that the blob is complete and right by `Chunk::End`; a channel that closes without it
//! means that nothing received may be used.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::header::CONTENT_RANGE;
use tokio::sync::mpsc;

use super::retry::Backoff;
use super::{Ask, Asker, Endpoint, Registry, RegistryError, STALL};
use crate::digest::Hasher;
use crate::manifest::Descriptor;

/// Connections that one blob may use, however much each of them brings.
const CONNECTIONS_MAX: u32 = 64;

pub(crate) enum Chunk {
    Data(Bytes),
    /// All bytes came, and they have the digest that was asked for.
    End,
}

/// How one connection ended.
enum Part {
    Complete,
    Interrupted(RegistryError),
}

struct Download<'a> {
    blob: &'a Descriptor,
    hasher: Hasher,
    sink: &'a mpsc::Sender<Chunk>,
    received: &'a (dyn Fn(u64) + Send + Sync),
}

impl Registry {
    /// Streams `blob` into `sink`; `received` is called with the number of bytes so far.
    pub(crate) async fn blob(
        &self,
        asker: Asker<'_>,
        blob: &Descriptor,
        sink: &mpsc::Sender<Chunk>,
        received: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let endpoints = self.endpoints(asker.reference.registry()).await?;
        let mut download = Download { blob, hasher: Hasher::default(), sink, received };
        let (last, mirrors) = endpoints.split_last().expect("the registry itself is the last endpoint");
        for mirror in mirrors {
            match self.download(mirror, asker, &mut download).await {
                // What a mirror sent of a blob that has another digest cannot be taken back from the receiver.
                Ok(())
                | Err(
                    RegistryError::Stopped | RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. },
                ) => {
                    break;
                }
                Err(error) => tracing::debug!(mirror = mirror.base, blob = %blob.digest, %error, "mirror passed over"),
            }
        }
        if download.hasher.bytes() < blob.size || blob.size == 0 {
            self.download(last, asker, &mut download).await?;
        }
        download.finish(&last.host).await
    }

    /// A blob that must fit into memory: an image's configuration.
    pub(crate) async fn small_blob(
        &self,
        asker: Asker<'_>,
        blob: &Descriptor,
        bytes_max: u64,
    ) -> Result<Bytes, RegistryError> {
        if blob.size > bytes_max {
            let registry = asker.reference.registry().to_owned();
            return Err(RegistryError::TooLarge { registry, what: "configuration", bytes_max });
        }
        let (sink, mut source) = mpsc::channel(8);
        let collect = async {
            let mut bytes = Vec::new();
            while let Some(Chunk::Data(data)) = source.recv().await {
                bytes.extend_from_slice(&data);
            }
            bytes
        };
        let (outcome, bytes) = tokio::join!(
            async {
                let outcome = self.blob(asker, blob, &sink, &|_| {}).await;
                drop(sink);
                outcome
            },
            collect
        );
        outcome.map(|()| bytes.into())
    }

    async fn download(
        &self,
        endpoint: &Endpoint,
        asker: Asker<'_>,
        download: &mut Download<'_>,
    ) -> Result<(), RegistryError> {
        let mut backoff = Backoff::default();
        for _ in 0..CONNECTIONS_MAX {
            let before = download.hasher.bytes();
            let interruption = match self.part(endpoint, asker, download).await? {
                Part::Complete => return Ok(()),
                Part::Interrupted(error) => error,
            };
            if download.hasher.bytes() > before {
                backoff.reset();
            }
            tracing::debug!(registry = endpoint.host, blob = %download.blob.digest, bytes = download.hasher.bytes(),
                error = %interruption, "blob interrupted");
            if !backoff.again(None).await {
                return Err(interruption);
            }
        }
        Err(RegistryError::Unreachable {
            registry: endpoint.host.clone(),
            source: format!("{CONNECTIONS_MAX} connections broke during one blob").into(),
        })
    }

    /// What one connection brings, from where the last one ended.
    async fn part(
        &self,
        endpoint: &Endpoint,
        asker: Asker<'_>,
        download: &mut Download<'_>,
    ) -> Result<Part, RegistryError> {
        let offset = download.hasher.bytes();
        let path = format!("blobs/{}", download.blob.digest);
        let response = self.get(endpoint, asker, &Ask { path, accept: "*/*", range_from: offset }).await?;
        // A server may ignore Range and answer 200 with everything: what is known already is passed over.
        let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {offset}-")) {
                return Err(RegistryError::Protocol {
                    registry: endpoint.host.clone(),
                    what: format!("a request for bytes from {offset}"),
                    problem: format!("Content-Range is `{range}`"),
                });
            }
            0
        } else {
            offset
        };
        let mut body = response.into_body();
        loop {
            let Ok(frame) = tokio::time::timeout(STALL, body.frame()).await else {
                let seconds = STALL.as_secs();
                return Ok(Part::Interrupted(RegistryError::TimedOut { registry: endpoint.host.clone(), seconds }));
            };
            let data = match frame {
                None if download.hasher.bytes() >= download.blob.size => return Ok(Part::Complete),
                None => return Ok(Part::Interrupted(download.size_mismatch(&endpoint.host))),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    let source = Box::new(error);
                    return Ok(Part::Interrupted(RegistryError::Unreachable {
                        registry: endpoint.host.clone(),
                        source,
                    }));
                }
            };
            let known = skip.min(data.len() as u64);
            skip -= known;
            download.accept(data.slice(known as usize..), &endpoint.host).await?;
        }
    }
}

impl Download<'_> {
    async fn accept(&mut self, data: Bytes, host: &str) -> Result<(), RegistryError> {
        if data.is_empty() {
            return Ok(());
        }
        self.hasher.update(&data);
        if self.hasher.bytes() > self.blob.size {
            return Err(self.size_mismatch(host));
        }
        self.sink.send(Chunk::Data(data)).await.map_err(|_| RegistryError::Stopped)?;
        (self.received)(self.hasher.bytes());
        Ok(())
    }

    async fn finish(self, host: &str) -> Result<(), RegistryError> {
        if self.hasher.bytes() != self.blob.size {
            return Err(self.size_mismatch(host));
        }
        let (expected, actual) = (self.blob.digest, self.hasher.finish());
        if expected != actual {
            return Err(RegistryError::DigestMismatch { registry: host.to_owned(), what: "blob", expected, actual });
        }
        self.sink.send(Chunk::End).await.map_err(|_| RegistryError::Stopped)
    }

    fn size_mismatch(&self, host: &str) -> RegistryError {
        RegistryError::SizeMismatch {
            registry: host.to_owned(),
            digest: self.blob.digest,
            expected: self.blob.size,
            actual: self.hasher.bytes(),
        }
    }
}
