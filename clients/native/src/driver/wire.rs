// SPDX-License-Identifier: MIT OR Apache-2.0
//! An open connection: what is sent leaves beside what comes in, however slow the way is.
//!
//! Frames leave in the order in which they were given, in batches: while one is under way, what is given waits for the
//! next. Dropping the connection drops what has not left; the core sends again what was not answered.

use futures::FutureExt;
use futures::future::BoxFuture;
use pli_api::edge::{ClientFrame, ServerFrame};
use prost::Message as _;

use crate::{FrameSink, FrameStream, TransportError};

/// Bytes on their way out, above which the core is given nothing that it could answer with more. Its own windows (64 sends
/// and 16 calls without an answer) stay below; a server that answers what it has not read does not.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// A frame counts for so many bytes more than it has.
const FRAME_BYTES: usize = 256;

/// Both directions.
pub(super) struct Wire {
    stream: FrameStream,
    /// Nothing more comes in; told after what came before.
    ended: Option<TransportError>,
    out: Out,
}

impl Wire {
    pub fn new((sink, stream): (FrameSink, FrameStream)) -> Self {
        let out = Out { state: State::Idle(sink), waiting: Vec::new(), bytes: 0, under_way: 0 };
        Self { stream, ended: None, out }
    }

    /// Sends the frames after those before them. Returns at once; they leave during [`Self::next`].
    pub fn send(&mut self, frames: Vec<ClientFrame>) {
        self.out.bytes += frames.iter().map(|frame| frame.encoded_len() + FRAME_BYTES).sum::<usize>();
        self.out.waiting.extend(frames);
        self.out.begin();
    }

    /// Whether the core may be given what it could answer with more frames.
    pub const fn has_room(&self) -> bool {
        self.out.has_room()
    }

    /// Whether everything has left.
    pub const fn is_clear(&self) -> bool {
        self.out.bytes + self.out.under_way == 0
    }

    /// The next frame, or why there are no more; nothing when there is room again ([`Self::has_room`]). What is to be sent
    /// leaves meanwhile. With `read` false nothing is read. Cancel safe.
    pub async fn next(&mut self, read: bool) -> Option<Result<ServerFrame, TransportError>> {
        if let Some(why) = self.ended.take() {
            return Some(Err(why));
        }
        tokio::select! {
            biased;
            // What has arrived may say why nothing more is taken.
            frame = self.stream.next(), if read => Some(frame),
            room = self.out.room() => room.err().map(Err),
        }
    }

    /// A frame that has arrived already.
    pub fn try_next(&mut self) -> Option<ServerFrame> {
        match self.stream.next().now_or_never()? {
            Ok(frame) => Some(frame),
            Err(why) => {
                self.ended = Some(why);
                None
            }
        }
    }

    /// Says goodbye when everything has left, and returns when the server has heard it, or cannot.
    pub async fn close(mut self) {
        if self.out.all().await.is_ok()
            && let State::Idle(sink) = &mut self.out.state
        {
            // The peer may be gone already.
            let _ = sink.close().await;
        }
    }
}

/// What leaves.
struct Out {
    state: State,
    /// For the next batch.
    waiting: Vec<ClientFrame>,
    bytes: usize,
    /// Bytes of the batch that is under way.
    under_way: usize,
}

enum State {
    /// Everything has left that was begun.
    Idle(FrameSink),
    UnderWay(BoxFuture<'static, (FrameSink, Result<(), TransportError>)>),
    /// Nothing leaves any more; why, until it was told.
    Broken(Option<TransportError>),
}

impl Out {
    /// Begins with what waits, as far as that can be at once: who gives frames again and again is not waited for.
    fn begin(&mut self) {
        if let Some(Err(why)) = self.all().now_or_never() {
            self.state = State::Broken(Some(why));
        }
    }

    const fn has_room(&self) -> bool {
        self.bytes + self.under_way < BYTES_MAX
    }

    /// Ends when everything has left, or cannot. Cancel safe.
    async fn all(&mut self) -> Result<(), TransportError> {
        while self.step().await? {}
        Ok(())
    }

    /// Begins a batch or waits for its end; answers whether there is more to do. Cancel safe: what is under way stays in the
    /// state.
    async fn step(&mut self) -> Result<bool, TransportError> {
        match &mut self.state {
            State::Broken(why) => return Err(why.take().unwrap_or(TransportError::Closed)),
            State::UnderWay(batch) => {
                let (sink, sent) = batch.await;
                self.under_way = 0;
                self.state = sent.map_or_else(|why| State::Broken(Some(why)), |()| State::Idle(sink));
            }
            State::Idle(_) if self.waiting.is_empty() => return Ok(false),
            State::Idle(_) => self.next_batch(),
        }
        Ok(true)
    }

    fn next_batch(&mut self) {
        let State::Idle(mut sink) = std::mem::replace(&mut self.state, State::Broken(None)) else { return };
        let frames = std::mem::take(&mut self.waiting);
        self.under_way = std::mem::take(&mut self.bytes);
        self.state = State::UnderWay(Box::pin(async move {
            let sent = sink.send(&frames).await;
            (sink, sent)
        }));
    }

    /// Sends until it cannot, and says why; ends sooner when there is room where there was none. Cancel safe.
    async fn room(&mut self) -> Result<(), TransportError> {
        let was_full = !self.has_room();
        while self.step().await? {
            if was_full && self.has_room() {
                return Ok(());
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{SinkExt, StreamExt};
    use pli_api::edge::{Call, Ping, client_frame, server_frame};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep, timeout};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// Nothing that is tested here takes so long.
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    const PAGE: usize = 16 * 1024;
    /// What one page costs on the slow way.
    const PAGE_EVERY: Duration = Duration::from_secs(10);

    type Server = WebSocketStream<DuplexStream>;

    fn call(id: u64, bytes: usize) -> ClientFrame {
        let call = Call { id, method: "/m".into(), body: vec![7; bytes].into() };
        ClientFrame { frame: Some(client_frame::Frame::Call(call)) }
    }

    fn ping(id: u64) -> Message {
        let frame = Some(server_frame::Frame::Ping(Ping { id }));
        Message::Binary(ServerFrame { frame }.encode_to_vec().into())
    }

    async fn server(far: DuplexStream) -> Server {
        WebSocketStream::from_raw_socket(far, Role::Server, None).await
    }

    /// A wire to a server; nothing passes but what the server reads, beyond one page.
    async fn wire() -> (Wire, Server) {
        let (near, far) = duplex(PAGE);
        (Wire::new(crate::transport::over(near).await), server(far).await)
    }

    /// The same over a way that passes a page in [`PAGE_EVERY`] to the server, and everything at once from it.
    async fn slow_wire() -> (Wire, Server) {
        let ((near, mut way), (mut other, far)) = (duplex(PAGE), duplex(PAGE));
        tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; PAGE], vec![0; PAGE]);
            let (mut from_near, mut to_near) = tokio::io::split(&mut way);
            let (mut from_far, mut to_far) = tokio::io::split(&mut other);
            let upwards = async {
                while let Ok(read @ 1..) = from_near.read(&mut up).await {
                    sleep(PAGE_EVERY).await;
                    to_far.write_all(&up[..read]).await.expect("passed");
                }
            };
            let downwards = async {
                while let Ok(read @ 1..) = from_far.read(&mut down).await {
                    to_near.write_all(&down[..read]).await.expect("passed");
                }
            };
            tokio::select! { () = upwards => {}, () = downwards => {} }
        });
        (Wire::new(crate::transport::over(near).await), server(far).await)
    }

    /// The numbers of the calls that come, until there are so many.
    async fn calls(server: &mut Server, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let Some(Ok(Message::Binary(bytes))) = server.next().await else { panic!("the connection ended") };
            match ClientFrame::decode(bytes).expect("a frame").frame {
                Some(client_frame::Frame::Call(call)) => ids.push(call.id),
                other => panic!("no call but {other:?}"),
            }
        }
        ids
    }

    async fn frame(wire: &mut Wire) -> Result<ServerFrame, TransportError> {
        wire.next(true).await.expect("a frame or the end: there was room")
    }

    fn pinged(frame: Result<ServerFrame, TransportError>) -> u64 {
        match frame.expect("a frame").frame {
            Some(server_frame::Frame::Ping(ping)) => ping.id,
            other => panic!("no ping but {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_read_while_much_leaves_slowly_in_its_order() {
        let (mut wire, mut server) = slow_wire().await;
        wire.send((0..8).map(|id| call(id, 48 * 1024)).collect());
        let begun = Instant::now();
        for id in 0..50 {
            server.send(ping(id)).await.expect("sent");
            assert_eq!(pinged(frame(&mut wire).await), id);
            // What is given meanwhile leaves behind what waits.
            wire.send(vec![call(8 + id, 1)]);
        }
        assert_eq!(begun.elapsed(), Duration::ZERO, "nothing was waited for");
        assert!(!wire.is_clear());
        let received = async {
            tokio::select! { ids = calls(&mut server, 58) => ids, _ = wire.next(true) => vec![] }
        };
        assert_eq!(timeout(DAY, received).await.expect("all of it"), (0..58).collect::<Vec<_>>());
        assert!(begun.elapsed() > 20 * PAGE_EVERY, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_again_and_again_loses_and_repeats_nothing() {
        let (mut wire, mut server) = slow_wire().await;
        let received = tokio::spawn(async move { calls(&mut server, 100).await });
        for id in 0..100 {
            wire.send(vec![call(id, 3_000)]);
            let _ = timeout(Duration::from_millis(10), wire.next(id % 2 == 0)).await;
        }
        while !wire.is_clear() {
            let _ = timeout(Duration::from_millis(700), wire.next(false)).await;
        }
        assert_eq!(timeout(DAY, received).await.expect("all of it").expect("read"), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_nothing_is_noticed_while_it_goes_on_talking() {
        let (mut wire, mut server) = wire().await;
        wire.send(vec![call(0, 48 * 1024)]);
        let begun = Instant::now();
        let mut talks = tokio::time::interval(Duration::from_secs(1));
        let why = loop {
            tokio::select! {
                _ = talks.tick() => server.send(ping(1)).await.expect("sent"),
                frame = frame(&mut wire) => if let Err(why) = frame { break why },
            }
        };
        assert!(matches!(why, TransportError::Stalled), "{why}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_said_before_it_went_is_read_first() {
        let (mut wire, mut server) = wire().await;
        wire.send(vec![call(0, 48 * 1024)]);
        server.send(ping(1)).await.expect("sent");
        drop(server);
        // Giving more finds that nothing is taken any more.
        wire.send(vec![call(1, 1)]);
        assert_eq!(pinged(frame(&mut wire).await), 1);
        assert!(frame(&mut wire).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_until_much_waits_and_again_when_it_has_left() {
        let (mut wire, mut server) = wire().await;
        let large = || vec![call(0, 64 * 1024)];
        let mut count = 0;
        while wire.has_room() {
            wire.send(large());
            count += 1;
        }
        assert!((BYTES_MAX * 9 / 10..=BYTES_MAX).contains(&(count * 64 * 1024)), "{count}");
        let mut small = 0;
        let (mut other, _server) = self::wire().await;
        while other.has_room() {
            other.send(vec![call(0, 0)]);
            small += 1;
        }
        assert!(small < BYTES_MAX / FRAME_BYTES, "frames of no size count too");
        let sent = async {
            assert!(wire.next(true).await.is_none(), "there is room again");
            let _ = wire.next(true).await;
        };
        let read = async {
            tokio::select! { ids = calls(&mut server, count) => ids.len(), () = sent => 0 }
        };
        assert_eq!(read.await, count);
        assert!(timeout(Duration::ZERO, wire.next(false)).await.is_err());
        assert!(wire.is_clear() && wire.has_room());
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_waits_for_what_is_to_leave() {
        let (mut wire, mut server) = wire().await;
        wire.send(vec![call(0, 48 * 1024), call(1, 1)]);
        wire.send(vec![call(2, 1)]);
        let reads = async {
            let ids = calls(&mut server, 3).await;
            assert!(matches!(server.next().await, Some(Ok(Message::Close(_)))));
            ids
        };
        let ((), ids) = tokio::join!(wire.close(), reads);
        assert_eq!(ids, [0, 1, 2]);
    }
}
