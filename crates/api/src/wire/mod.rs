//! Between the model's values and the generated messages: one small table for each object, read in both directions.
//!
//! [`Element`] says what a value is inside a list or a `oneof`, [`Field`] what it is as a field of a message (a
//! message as a field may be absent on the wire, a number may not).
//! The tables ([`message!`], [`choice!`], [`enumeration!`]) take both sides apart field by field, so that a field which
//! is added to either side and not to the table does not compile; and each direction is written once.

mod changes;
mod cluster;
mod content;
mod network;
mod node;
mod object;
mod scalar;
mod service;
mod spec;
mod stack;
mod task;

pub use object::Object;

/// Why bytes or a message do not stand for a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("field {field} is missing")]
    Missing { field: &'static str },
    #[error("field {field} is `{value}`, expected {expected}")]
    Value { field: &'static str, value: String, expected: &'static str },
    #[error("field {field} is of kind {number}, which this version of skep does not know: update skep on this node")]
    UnknownKind { field: &'static str, number: i32 },
    #[error("field {field} is of a kind that this version of skep does not know: update skep on this node")]
    UnknownChoice { field: &'static str },
    #[error("format {found} is not known to this version of skep, which reads {known}")]
    Format { found: u16, known: u16 },
    #[error("the data is cut off or damaged")]
    Malformed(#[from] prost::DecodeError),
}

/// A value inside a list or a `oneof`.
pub(crate) trait Element: Sized {
    type Proto;
    fn to_element(&self) -> Self::Proto;
    /// `field` names the place in errors.
    fn from_element(proto: Self::Proto, field: &'static str) -> Result<Self, DecodeError>;
}

/// A value as a field of a message.
pub(crate) trait Field: Sized {
    type Proto;
    fn to_field(&self) -> Self::Proto;
    fn from_field(proto: Self::Proto, field: &'static str) -> Result<Self, DecodeError>;
}

/// A struct and the message of the same fields.
macro_rules! message {
    ($type:ty = $proto:ident { $($field:ident),* $(,)? }) => {
        impl crate::wire::Element for $type {
            type Proto = crate::pb::$proto;

            fn to_element(&self) -> Self::Proto {
                let Self { $($field),* } = self;
                crate::pb::$proto { $($field: crate::wire::Field::to_field($field)),* }
            }

            fn from_element(proto: Self::Proto, _: &'static str) -> Result<Self, crate::wire::DecodeError> {
                let crate::pb::$proto { $($field),* } = proto;
                Ok(Self {
                    $($field: crate::wire::Field::from_field(
                        $field,
                        concat!(stringify!($proto), ".", stringify!($field)),
                    )?),*
                })
            }
        }
        crate::wire::message_field!($type);
    };
}

/// An enum and the message with a `oneof kind` of the same variants.
/// `Variant` holds one value; `Variant(Message) { fields }` has the fields of a message of its own.
macro_rules! choice {
    ($type:ty = $proto:ident in $module:ident {
        $($single:ident),* $(,)? $(; $($variant:ident($message:ident) { $($field:ident),* }),* $(,)?)?
    }) => {
        impl crate::wire::Element for $type {
            type Proto = crate::pb::$proto;

            fn to_element(&self) -> Self::Proto {
                use crate::pb::$module::Kind;
                let kind = match self {
                    $(Self::$single(value) => Kind::$single(crate::wire::Element::to_element(value)),)*
                    $($(Self::$variant { $($field),* } => Kind::$variant(crate::pb::$message {
                        $($field: crate::wire::Field::to_field($field)),*
                    }),)*)?
                };
                crate::pb::$proto { kind: Some(kind) }
            }

            fn from_element(proto: Self::Proto, _: &'static str) -> Result<Self, crate::wire::DecodeError> {
                use crate::pb::$module::Kind;
                let field = concat!(stringify!($proto), ".kind");
                Ok(match proto.kind.ok_or(crate::wire::DecodeError::UnknownChoice { field })? {
                    $(Kind::$single(value) => Self::$single(crate::wire::Element::from_element(
                        value,
                        concat!(stringify!($proto), ".", stringify!($single)),
                    )?),)*
                    $($(Kind::$variant(crate::pb::$message { $($field),* }) => Self::$variant {
                        $($field: crate::wire::Field::from_field(
                            $field,
                            concat!(stringify!($message), ".", stringify!($field)),
                        )?),*
                    },)*)?
                })
            }
        }
        crate::wire::message_field!($type);
    };
}

/// A message as a field: always written, and missed when it is not there.
macro_rules! message_field {
    ($type:ty) => {
        impl crate::wire::Field for $type {
            type Proto = Option<<Self as crate::wire::Element>::Proto>;

            fn to_field(&self) -> Self::Proto {
                Some(crate::wire::Element::to_element(self))
            }

            fn from_field(proto: Self::Proto, field: &'static str) -> Result<Self, crate::wire::DecodeError> {
                let proto = proto.ok_or(crate::wire::DecodeError::Missing { field })?;
                crate::wire::Element::from_element(proto, field)
            }
        }
    };
}

/// An enum without data, and the enum of the same variants whose first value means "not set".
macro_rules! enumeration {
    ($type:ty = $proto:ident { $($variant:ident),* $(,)? }) => {
        impl crate::wire::Element for $type {
            type Proto = i32;

            fn to_element(&self) -> i32 {
                match self {
                    $(Self::$variant => crate::pb::$proto::$variant as i32,)*
                }
            }

            fn from_element(number: i32, field: &'static str) -> Result<Self, crate::wire::DecodeError> {
                match crate::pb::$proto::try_from(number) {
                    $(Ok(crate::pb::$proto::$variant) => Ok(Self::$variant),)*
                    Ok(crate::pb::$proto::Unspecified) => Err(crate::wire::DecodeError::Missing { field }),
                    Err(_) => Err(crate::wire::DecodeError::UnknownKind { field, number }),
                }
            }
        }
        crate::wire::scalar_field!($type);
    };
}

/// A scalar is the same inside a list and as a field.
macro_rules! scalar_field {
    ($type:ty) => {
        impl crate::wire::Field for $type {
            type Proto = <Self as crate::wire::Element>::Proto;

            fn to_field(&self) -> Self::Proto {
                crate::wire::Element::to_element(self)
            }

            fn from_field(proto: Self::Proto, field: &'static str) -> Result<Self, crate::wire::DecodeError> {
                crate::wire::Element::from_element(proto, field)
            }
        }
    };
}

pub(crate) use {choice, enumeration, message, message_field, scalar_field};
