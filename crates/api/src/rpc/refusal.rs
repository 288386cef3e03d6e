//! Why a call did not do what was asked: a kind that programs act on, and a sentence for people.

use std::error::Error;

use skep_model::{InvalidSpec, LookupError, Rejection};
use tonic::{Code, Status};

use crate::wire::DecodeError;

/// What a caller can do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    NotFound,
    AlreadyExists,
    /// The object moved on since it was read: read it again and repeat.
    OutOfSequence,
    /// Something else must happen first: what uses the object must go, the node must join.
    Conflict,
    /// The request itself is wrong.
    Invalid,
    /// The caller may not do this.
    Denied,
    /// The caller's certificate has expired or its CA was rotated away: the node is to renew it, which it may.
    Lapsed,
    /// No leader, no quorum, or the connection is gone: the same request may succeed later.
    Unavailable,
    TimedOut,
    /// This daemon, or this version of it, does not do that.
    Unsupported,
    /// Not the caller's fault.
    Internal,
}

/// A call's failure, as it crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// An internal error, with its causes in the message.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        Self::new(RefusalKind::Internal, chain(error))
    }
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let kind = match &rejection {
            Rejection::NotFound { .. } => RefusalKind::NotFound,
            Rejection::AlreadyExists { .. } => RefusalKind::AlreadyExists,
            Rejection::OutOfSequence { .. } => RefusalKind::OutOfSequence,
            Rejection::InUse { .. }
            | Rejection::Backwards { .. }
            | Rejection::BlockTaken { .. }
            | Rejection::Taken { .. }
            | Rejection::NoNodeAddress { .. } => RefusalKind::Conflict,
        };
        Self::new(kind, rejection.to_string())
    }
}

impl From<LookupError> for Refusal {
    fn from(error: LookupError) -> Self {
        let kind = match &error {
            LookupError::NotFound { .. } => RefusalKind::NotFound,
            LookupError::Ambiguous { .. } => RefusalKind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<InvalidSpec> for Refusal {
    fn from(error: InvalidSpec) -> Self {
        Self::new(RefusalKind::Invalid, error.to_string())
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::new(RefusalKind::Invalid, format!("the message cannot be read: {error}"))
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let Refusal { kind, message } = refusal;
        let code = match kind {
            RefusalKind::NotFound => Code::NotFound,
            RefusalKind::AlreadyExists => Code::AlreadyExists,
            RefusalKind::OutOfSequence => Code::Aborted,
            RefusalKind::Conflict => Code::FailedPrecondition,
            RefusalKind::Invalid => Code::InvalidArgument,
            RefusalKind::Lapsed => Code::Unauthenticated,
            RefusalKind::Denied => Code::PermissionDenied,
            RefusalKind::Unavailable => Code::Unavailable,
            RefusalKind::TimedOut => Code::DeadlineExceeded,
            RefusalKind::Unsupported => Code::Unimplemented,
            RefusalKind::Internal => Code::Internal,
        };
        Status::new(code, message)
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        // A source means that the status was made on this side, of a connection that failed.
        if let Some(cause) = status.source() {
            return Self::new(RefusalKind::Unavailable, format!("the connection failed: {}", chain(cause)));
        }
        let kind = match status.code() {
            Code::NotFound => RefusalKind::NotFound,
            Code::AlreadyExists => RefusalKind::AlreadyExists,
            Code::Aborted => RefusalKind::OutOfSequence,
            Code::FailedPrecondition => RefusalKind::Conflict,
            Code::InvalidArgument | Code::OutOfRange => RefusalKind::Invalid,
            Code::PermissionDenied => RefusalKind::Denied,
            Code::Unauthenticated => RefusalKind::Lapsed,
            Code::Unavailable | Code::Cancelled => RefusalKind::Unavailable,
            Code::DeadlineExceeded => RefusalKind::TimedOut,
            Code::Unimplemented => RefusalKind::Unsupported,
            Code::Ok | Code::Unknown | Code::ResourceExhausted | Code::Internal | Code::DataLoss => {
                RefusalKind::Internal
            }
        };
        Self::new(kind, status.message())
    }
}
