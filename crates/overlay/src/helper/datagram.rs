//! Datagrams on connected sockets. The peer's refusal (ICMP) wakes only who waits for errors too: one who waits for
//! data alone sleeps until its timeout.

use std::io;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Waits for a datagram or an error. It may be neither when it is looked for.
pub async fn arrived(socket: &UdpSocket) -> io::Result<()> {
    socket.ready(Interest::READABLE.add(Interest::ERROR)).await.map(drop)
}

/// What has arrived; `WouldBlock` is nothing.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    // One after the other: the runtime does not know two at once here.
    match receive_if(socket, Interest::READABLE, buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => receive_if(socket, Interest::ERROR, buffer),
        received => received,
    }
}

fn receive_if(socket: &UdpSocket, interest: Interest, buffer: &mut [u8]) -> io::Result<usize> {
    socket.try_io(interest, || {
        let (length, _) = rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT)?;
        Ok(length)
    })
}
