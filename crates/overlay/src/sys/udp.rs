//! UDP sockets: many datagrams in one call, both ways (UDP_SEGMENT and UDP_GRO, udp(7)), and what else socket libraries leave
//! out. A call never waits.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::{SockAddr, SockAddrStorage};

/// Room for one control message of four bytes, aligned as its header is.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    value: [u8; 16],
}

/// Lets routers, and this node, cut datagrams that are too long for a link, rather than lose them.
pub fn allow_fragments(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
}

/// Has datagrams arrive whole or not at all, and has the kernel send them whatever it believes of the way.
pub fn forbid_fragments(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
}

/// Lets the kernel hand over many datagrams of one sender at once.
pub fn receive_many(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Sends `bytes` as datagrams of `size` each, the last of what is left.
pub fn send(socket: BorrowedFd<'_>, to: SocketAddr, bytes: &[u8], size: u16) -> io::Result<()> {
    let to = SockAddr::from(to);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: both are plain data, for which zeroes are valid.
    let (mut message, mut control): (libc::msghdr, Control) = unsafe { std::mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if bytes.len() > usize::from(size) {
        control.header.cmsg_level = libc::SOL_UDP;
        control.header.cmsg_type = libc::UDP_SEGMENT;
        control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _;
        control.value[..2].copy_from_slice(&size.to_ne_bytes());
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = (size_of::<libc::cmsghdr>() + 8) as _;
    }
    // SAFETY: the descriptor is open for the borrow's life; the message's parts all live until the call returns, and the
    // kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What was received at once.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub from: SocketAddr,
    pub length: usize,
    /// Of each datagram but the last.
    pub size: usize,
}

/// Datagrams of one sender.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut from = SockAddrStorage::zeroed();
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = MaybeUninit::<Control>::zeroed();
    // SAFETY: it is plain data, for which zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = from.size_of();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the descriptor is open for the borrow's life; the message's parts all live until the call returns, and the
    // kernel writes no more than the lengths given.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: it began as zeroes, and what the kernel wrote of it are bytes.
    let control = unsafe { control.assume_init() };
    let is_sized = message.msg_controllen as usize >= size_of::<libc::cmsghdr>()
        && (control.header.cmsg_level, control.header.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO);
    let [a, b, c, d, ..] = control.value;
    let size = if is_sized { i32::from_ne_bytes([a, b, c, d]) as usize } else { length };
    // SAFETY: the kernel wrote an address of this length.
    let from = unsafe { SockAddr::new(from, message.msg_namelen) };
    let from = from.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok(Received { from, length, size: size.max(1) })
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for the borrow's life, the pointer is to a live c_int and the length is its size;
    // the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
