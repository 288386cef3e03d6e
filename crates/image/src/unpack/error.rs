//! Why a layer was not unpacked. Names from archives are shown escaped and shortened.

use std::io;

use crate::digest::Digest;

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("layer entry `{entry}`: failed to {step}")]
    Step {
        entry: String,
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("layer entry `{entry}` is refused: {problem}")]
    Refused { entry: String, problem: String },
    #[error("failed to decompress the layer")]
    Read(#[source] io::Error),
    #[error("the layer is not a valid tar archive: {0}")]
    Archive(String),
    #[error("the layer is refused: {0}")]
    Limit(String),
    #[error("no space left for images{0}")]
    DiskFull(String),
    #[error("the layer's content has digest {actual}, but the image's configuration promises {expected}")]
    DiffId { expected: Digest, actual: Digest },
    #[error("failed to {step} the layer's folder")]
    Folder {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the layer could not be read to its end")]
    Aborted,
}

impl UnpackError {
    pub(crate) fn step(entry: &[u8], step: &'static str, source: impl Into<io::Error>) -> UnpackError {
        let source = source.into();
        match disk_full(&source) {
            Some(full) => full,
            None => UnpackError::Step { entry: printable(entry), step, source },
        }
    }

    pub(crate) fn refused(entry: &[u8], problem: impl Into<String>) -> UnpackError {
        UnpackError::Refused { entry: printable(entry), problem: problem.into() }
    }

    pub(crate) fn folder(step: &'static str, source: impl Into<io::Error>) -> UnpackError {
        let source = source.into();
        disk_full(&source).unwrap_or(UnpackError::Folder { step, source })
    }

    /// The archive's fault, as opposed to this machine's.
    pub(crate) fn is_about_the_bytes(&self) -> bool {
        match self {
            UnpackError::Read(_) | UnpackError::Archive(_) | UnpackError::Refused { .. } => true,
            UnpackError::Limit(_) | UnpackError::DiffId { .. } | UnpackError::Step { .. } => true,
            UnpackError::DiskFull(_) | UnpackError::Folder { .. } | UnpackError::Aborted => false,
        }
    }
}

/// Readers can only fail with an `io::Error`: ours travel inside it and are taken out here.
impl From<io::Error> for UnpackError {
    fn from(error: io::Error) -> UnpackError {
        if error.get_ref().is_some_and(|inner| inner.is::<UnpackError>()) {
            let inner = error.into_inner().expect("checked above");
            return *inner.downcast::<UnpackError>().expect("checked above");
        }
        UnpackError::Read(error)
    }
}

fn disk_full(error: &io::Error) -> Option<UnpackError> {
    let full = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT].map(|errno| errno.raw_os_error());
    let code = error.raw_os_error()?;
    full.contains(&code).then(|| UnpackError::DiskFull(String::new()))
}

pub(crate) fn printable(name: &[u8]) -> String {
    const SHOWN_MAX: usize = 200;
    let text: String = String::from_utf8_lossy(name).chars().flat_map(char::escape_debug).collect();
    match text.char_indices().nth(SHOWN_MAX) {
        None => text,
        Some((cut, _)) => format!("{}…", &text[..cut]),
    }
}
