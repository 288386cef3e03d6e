//! Messages on the helper's socket: a length in front of JSON, as `snapshot` describes.

use std::io;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::snapshot::MESSAGE_BYTES_MAX;

/// The next message; None when the other side has closed.
pub async fn read(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MESSAGE_BYTES_MAX {
        let text = format!("a message of {length} bytes; at most {MESSAGE_BYTES_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut message = vec![0; length as usize];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

pub async fn write(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; size_of::<u32>()];
    serde_json::to_writer(&mut bytes, message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - size_of::<u32>()).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a message longer than the helper's socket allows"))?;
    bytes[..size_of::<u32>()].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&bytes).await
}
