use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Asks the kernel to explain refusals in words (NETLINK_EXT_ACK), to leave the request out of replies
/// (NETLINK_CAP_ACK), and to list only what a request's fields ask for (NETLINK_GET_STRICT_CHK), see netlink(7).
pub fn set_options(socket: BorrowedFd<'_>) -> io::Result<()> {
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open for the borrow's life, the pointer is to a live c_int and the length is its
        // size; the kernel only reads it.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
