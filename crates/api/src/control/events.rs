//! What happened to the objects of the cluster, as Docker tells it.

use skep_model::{Kind, Labels, Timestamp};

use crate::wire::{choice, enumeration, message};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventsRequest {
    /// Absent: only what comes.
    pub since: Option<Timestamp>,
    /// Absent: until the reader leaves.
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventMessage {
    /// The memory begins here, after what was asked for; said at most once, before the events.
    BeginsAt(Timestamp),
    Event(Event),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When the manager that tells of it saw it.
    pub at: Timestamp,
    pub kind: Kind,
    pub action: EventAction,
    /// The object's, in text.
    pub id: String,
    /// `name`, and what changed as `what.old` and `what.new`.
    pub attributes: Labels,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventAction {
    Create,
    Update,
    Remove,
}

message!(EventsRequest = EventsRequest { since, until });
choice!(EventMessage = EventMessage in event_message { BeginsAt, Event });
message!(Event = Event { at, kind, action, id, attributes });
enumeration!(EventAction = EventAction { Create, Update, Remove });
