//! The system calls that neither std nor rustix offers, one family per leaf file.
//! Only these files hold unsafe code; everything above them works with owned and borrowed descriptors.

pub mod clock;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod process;
pub mod seccomp;
pub mod signal;
