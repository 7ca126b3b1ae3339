//! Moves datagrams between the socket and the session of one connection.

use std::sync::Arc;

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{self, Instant},
};

use super::session::Session;
use crate::{
    channels::{self, Ended, MEASURE_EVERY, Session as _, Shared},
    udp::Datagram,
};

/// Datagrams sent in one turn, before others are received. Chosen: a batch of a socket.
const SENT_A_TURN: usize = 64;

/// Datagrams received in one turn.
const RECEIVED_A_TURN: usize = 64;

/// Moves the datagrams of one connection.
#[derive(Debug)]
pub(super) struct Pump {
    shared: Arc<Shared<Session>>,
    socket: Arc<UdpSocket>,
    datagrams: mpsc::Receiver<Datagram>,
    received: Vec<Datagram>,
}

impl Pump {
    pub(super) fn new(
        shared: Arc<Shared<Session>>,
        socket: Arc<UdpSocket>,
        datagrams: mpsc::Receiver<Datagram>,
    ) -> Self {
        Self { shared, socket, datagrams, received: Vec::new() }
    }

    /// Sends what there is. Returns `false` if more is left for the next turn.
    async fn send(&self) -> Result<bool, Ended> {
        for _ in 0..SENT_A_TURN {
            let now = Instant::now().into_std();
            let next = self.shared.with(|session| session.poll_transmit(now));
            let Some((to, bytes)) = next.ok_or(Ended::Panicked)? else { return Ok(true) };
            // A datagram that cannot be sent is lost, as a network may lose one. A peer that is gone is noticed by its silence.
            let _ = self.socket.send_to(&bytes, to).await;
        }
        Ok(false)
    }
}

impl channels::Pump for Pump {
    type Session = Session;

    fn shared(&self) -> &Arc<Shared<Session>> {
        &self.shared
    }

    async fn turn(&mut self) -> Result<(), Ended> {
        let is_empty = self.send().await?;
        let until = self.shared.with(|session| session.timeout()).ok_or(Ended::Panicked)?;
        let until = Instant::from_std(until).min(Instant::now() + MEASURE_EVERY);
        self.received.clear();
        tokio::select! {
            biased;
            heard = self.datagrams.recv_many(&mut self.received, RECEIVED_A_TURN) => {
                if heard == 0 {
                    return Err(Ended::Socket);
                }
            }
            () = self.shared.changed.notified() => {}
            () = time::sleep_until(until) => {}
            () = std::future::ready(()), if !is_empty => {}
        }
        let now = Instant::now().into_std();
        let received = &self.received;
        let end = self.shared.with(|session| {
            for Datagram { from, bytes } in received {
                session.receive(bytes, *from, now);
            }
            session.tick(now);
            session.channels().take_end()
        });
        match end {
            Some(None) => Ok(()),
            Some(Some(end)) => {
                // The last words, and answers to what came with the end.
                let _ = self.send().await;
                Err(end)
            }
            None => Err(Ended::Panicked),
        }
    }

    /// Without it, the peer notices by the silence.
    async fn say_goodbye(&mut self) {
        let now = Instant::now().into_std();
        let _ = self.shared.with(|session| session.close(now));
        let _ = self.send().await;
    }

    fn hang_up(&mut self) {
        let now = Instant::now().into_std();
        let _ = self.shared.with(|session| session.close(now));
        while let Some(Some((to, bytes))) = self.shared.with(|session| session.poll_transmit(now)) {
            // A socket that is full at this moment says nothing; the peer notices by the silence.
            let _ = self.socket.try_send_to(&bytes, to);
        }
    }
}
