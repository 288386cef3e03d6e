//! Control API, dispatcher, CA, and the leader loop that turns decisions into proposals.
