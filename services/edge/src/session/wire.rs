// SPDX-License-Identifier: MIT OR Apache-2.0
//! A carrier with the frames that wait for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use pli_api::common::Error;
use pli_api::edge::{Close, ServerFrame, server_frame::Frame};
use prost::Message;
use tokio::time::Instant;

use crate::carrier::{Carrier, CarrierError, CarrierName, Partial};

/// Above so many waiting answers nothing more is read from the client, and above so many waiting frames nothing more is
/// delivered. What is already promised (results, replies, one page) may still be added: at most the session's windows.
/// Deliveries alone do not stop the reading: what is read then are the acks.
const FRAMES_MAX: usize = 32;
/// Time for a last frame to leave.
const GOODBYE: Duration = Duration::from_secs(2);

/// The sending and receiving side of one session.
pub(crate) struct Wire {
    carrier: Box<dyn Carrier>,
    /// Frames, each with whether it answers the client.
    out: VecDeque<(Bytes, bool)>,
    answers: usize,
    unflushed: bool,
    /// Since when something waits that the client does not take.
    stalled: Option<Instant>,
}

impl Wire {
    pub(crate) fn new(carrier: Box<dyn Carrier>) -> Self {
        Self { carrier, out: VecDeque::new(), answers: 0, unflushed: false, stalled: None }
    }

    /// Which carrier is under it.
    pub(crate) fn carrier(&self) -> CarrierName {
        self.carrier.name()
    }

    /// Adds an answer to what waits.
    pub(crate) fn push(&mut self, frame: Frame) {
        self.answers += 1;
        self.add(frame, true);
    }

    /// Adds a frame that the client did not ask for.
    pub(crate) fn push_delivery(&mut self, frame: Frame) {
        self.add(frame, false);
    }

    fn add(&mut self, frame: Frame, answer: bool) {
        self.out.push_back((ServerFrame { frame: Some(frame) }.encode_to_vec().into(), answer));
    }

    /// Whether more may be delivered.
    pub(crate) fn has_room(&self) -> bool {
        self.out.len() < FRAMES_MAX
    }

    /// Whether more may be asked by the client.
    pub(crate) fn answers_have_room(&self) -> bool {
        self.answers < FRAMES_MAX
    }

    /// Since when the client takes nothing although something waits.
    pub(crate) fn stalled(&self) -> Option<Instant> {
        self.stalled
    }

    /// The frame of which a part has arrived.
    pub(crate) fn partial(&self) -> Option<Partial> {
        self.carrier.partial()
    }

    /// Sends what waits, as far as the client takes it. Ready only when everything is on its way.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        let sent = self.poll_all(cx);
        match &sent {
            Poll::Pending => {
                self.stalled.get_or_insert_with(Instant::now);
            }
            Poll::Ready(_) => self.stalled = None,
        }
        sent
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        while !self.out.is_empty() {
            match self.carrier.poll_ready(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Poll::Pending,
            }
            if let Some((frame, answer)) = self.out.pop_front() {
                self.answers -= usize::from(answer);
                self.carrier.start_send(frame)?;
                self.stalled = None;
                self.unflushed = true;
            }
        }
        if self.out.capacity() > FRAMES_MAX {
            self.out = VecDeque::new();
        }
        if self.unflushed {
            match self.carrier.poll_flush(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Poll::Pending,
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The next frame from the client.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, CarrierError>> {
        self.carrier.poll_recv(cx)
    }

    /// Sends everything that waits and then says goodbye with this reason.
    pub(crate) async fn close(mut self, reason: Error, reconnect: bool) {
        self.push(Frame::Close(Close { reason: Some(reason), reconnect }));
        self.finish().await;
    }

    /// Sends everything that waits and ends the carrier.
    pub(crate) async fn finish(mut self) {
        let all = async {
            let sent = poll_fn(|cx| self.poll_send(cx)).await;
            if sent.is_ok() {
                poll_fn(|cx| self.carrier.poll_close(cx)).await;
            }
        };
        if tokio::time::timeout(GOODBYE, all).await.is_err() {
            tracing::debug!("a client did not take its last frames");
        }
    }
}
