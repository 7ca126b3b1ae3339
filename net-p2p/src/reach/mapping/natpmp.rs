//! NAT-PMP: a router is asked by datagrams. Source: RFC 6886.
//!
//! # Invariants
//!
//! * Only datagrams of the router are read, and only those that answer the request; all others are left alone.
//! * A request takes [`WAITS`] in all at most.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use runtime::Environment;
use tokio::{net::UdpSocket, time};

use super::{
    MappingError,
    ports::{Carrier, Inside},
};

/// The port of routers.
pub(super) const PORT: u16 = 5_351;

/// Times to wait for an answer, after each of which the request is sent again. Source: RFC 6886, 3.1, which goes on to
/// 64 s; chosen: a router in the same network has answered by then.
const WAITS: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Longest answer that is read. The longest that is defined has 16 bytes.
const MAX_ANSWER: usize = 64;

/// Bit of the operation in an answer.
const ANSWER: u8 = 128;

/// A router that speaks it.
#[derive(Debug)]
pub(super) struct NatPmp {
    socket: UdpSocket,
    /// The address of the router.
    pub(super) gateway: Ipv4Addr,
    /// The address of this node in the network of the router.
    pub(super) host: Ipv4Addr,
}

/// The content of an answer behind its first four bytes and the time since the router began.
fn content<const N: usize>(answer: &[u8], operation: u8) -> Option<Result<[u8; N], MappingError>> {
    let head: [u8; 4] = answer.get(..4)?.try_into().ok()?;
    if head[..2] != [0, operation | ANSWER] {
        return None;
    }
    match u16::from_be_bytes([head[2], head[3]]) {
        0 => Some(answer.get(8..8 + N)?.try_into().map_err(|_| MappingError::Malformed)),
        code => Some(Err(MappingError::Refused(code))),
    }
}

const fn operation(carrier: Carrier) -> u8 {
    match carrier {
        Carrier::Udp => 1,
        Carrier::Tcp => 2,
    }
}

impl NatPmp {
    /// Looks whether the router at `at` speaks it.
    pub(super) async fn at(at: SocketAddrV4, by: &Environment) -> Result<Self, MappingError> {
        let socket = by.bind_udp((Ipv4Addr::UNSPECIFIED, 0).into())?;
        socket.connect(at)?;
        let socket = UdpSocket::from_std(socket)?;
        let std::net::SocketAddr::V4(own) = socket.local_addr()? else {
            return Err(MappingError::Malformed);
        };
        let found = Self { socket, gateway: *at.ip(), host: *own.ip() };
        found.outside().await?;
        Ok(found)
    }

    /// The address on the other side of the router.
    pub(super) async fn outside(&self) -> Result<Ipv4Addr, MappingError> {
        self.ask(&[0, 0], 0).await.map(|octets: [u8; 4]| Ipv4Addr::from(octets))
    }

    /// Asks for a port, or gives it back if `lease` is zero. Returns the port of the router and the lease in seconds.
    pub(super) async fn map(
        &self,
        inside: &Inside,
        wanted: u16,
        lease: u32,
    ) -> Result<(u16, u32), MappingError> {
        let (operation, own) = (operation(inside.carrier), inside.address.port().to_be_bytes());
        let mut request = vec![0, operation, 0, 0];
        request.extend_from_slice(&own);
        request.extend_from_slice(&wanted.to_be_bytes());
        request.extend_from_slice(&lease.to_be_bytes());
        let [o0, o1, p0, p1, lease @ ..]: [u8; 8] = self.ask(&request, operation).await?;
        if [o0, o1] != own {
            return Err(MappingError::Malformed);
        }
        Ok((u16::from_be_bytes([p0, p1]), u32::from_be_bytes(lease)))
    }

    async fn ask<const N: usize>(
        &self,
        request: &[u8],
        operation: u8,
    ) -> Result<[u8; N], MappingError> {
        let mut answer = [0; MAX_ANSWER];
        for wait in WAITS {
            self.socket.send(request).await?;
            let answered = async {
                loop {
                    let length = self.socket.recv(&mut answer).await?;
                    let read = answer.get(..length).unwrap_or_default();
                    if let Some(content) = content(read, operation) {
                        return content;
                    }
                }
            };
            if let Ok(answered) = time::timeout(wait, answered).await {
                return answered;
            }
        }
        Err(MappingError::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_the_request_is_read() {
        // Source: RFC 6886, 3.2 and 3.3.
        let told = [0, 128, 0, 0, 0, 0, 0, 9, 192, 0, 2, 1];
        assert!(matches!(content::<4>(&told, 0), Some(Ok([192, 0, 2, 1]))));
        assert!(content::<4>(&told, 2).is_none(), "of another request");
        assert!(content::<4>(&told[..11], 0).is_none(), "cut");
        assert!(content::<4>(&[], 0).is_none());
        let refused = [0, 130, 0, 2, 0, 0, 0, 9];
        assert!(matches!(content::<8>(&refused, 2), Some(Err(MappingError::Refused(2)))));
        let pcp = [2, 130, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];
        assert!(content::<4>(&pcp, 2).is_none(), "of another protocol");
    }
}
