//! What the kernel knows of its clock.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Whether somebody keeps this machine's clock right: adjtimex(2), which NTP daemons tell what they know. None if the
/// kernel does not say.
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: timex is plain numbers, for which zero is a value; modes = 0 only reads.
    let mut timex: libc::timex = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the pointer is to a timex that lives through the call.
    match unsafe { libc::adjtimex(&raw mut timex) } {
        -1 => None,
        _ => Some(timex.status & libc::STA_UNSYNC == 0),
    }
}
