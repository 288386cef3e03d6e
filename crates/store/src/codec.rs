//! The bytes of proposals and of the whole state, each behind its format number.

use bytes::Bytes;
use skep_model::{Change, Cluster};

/// What this build writes and reads.
const FORMAT: u16 = 1;

/// Bytes that this build cannot read. An entry that one manager cannot read halts it: to skip it would
/// make its state differ from the others'.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("{what} has format {format}; this build of skep reads format {FORMAT}; upgrade this manager")]
    Format { what: &'static str, format: u16 },
    #[error("{what} does not decode: {reason}; it was written by a newer skep, or is damaged")]
    Decode { what: &'static str, reason: String },
}

pub(crate) fn encode_changes(changes: &[Change]) -> Bytes {
    let body = postcard::to_stdvec(changes).expect("changes are plain data");
    framed(&body)
}

pub(crate) fn decode_changes(bytes: &[u8]) -> Result<Vec<Change>, CodecError> {
    let what = "a proposal in the log";
    postcard::from_bytes(body(what, bytes)?).map_err(|error| CodecError::Decode { what, reason: error.to_string() })
}

pub(crate) fn encode_cluster(cluster: &Cluster) -> Bytes {
    let tables = (
        cluster.version,
        cluster.config.as_deref(),
        cluster.nodes.values().collect::<Vec<_>>(),
        cluster.services.values().collect::<Vec<_>>(),
        cluster.tasks.values().collect::<Vec<_>>(),
        cluster.networks.values().collect::<Vec<_>>(),
        cluster.secrets.values().collect::<Vec<_>>(),
        cluster.configs.values().collect::<Vec<_>>(),
        cluster.stacks.values().collect::<Vec<_>>(),
    );
    framed(&postcard::to_stdvec(&tables).expect("objects are plain data"))
}

pub(crate) fn decode_cluster(bytes: &[u8]) -> Result<Cluster, CodecError> {
    let what = "a snapshot of the cluster";
    let (version, config, nodes, services, tasks, networks, secrets, configs, stacks) =
        postcard::from_bytes(body(what, bytes)?)
            .map_err(|error| CodecError::Decode { what, reason: error.to_string() })?;
    Ok(Cluster::from_tables(version, config, nodes, services, tasks, networks, secrets, configs, stacks))
}

fn framed(body: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(body.len() + 2);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

fn body<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], CodecError> {
    let (format, body) =
        bytes.split_first_chunk::<2>().ok_or_else(|| CodecError::Decode { what, reason: "it is empty".to_owned() })?;
    match u16::from_le_bytes(*format) {
        FORMAT => Ok(body),
        format => Err(CodecError::Format { what, format }),
    }
}
