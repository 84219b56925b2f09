// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is sent moves, however slowly, or the connection is broken, whatever TCP still hopes for.
//!
//! The bound is on each step forward and not on all that is to be sent: a batch of many large frames takes a slow link
//! minutes, and would be begun again and again if it had to be through in some seconds.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::TransportError;

/// A connection that takes nothing for so long is broken.
pub(super) const TAKEN_WITHIN: Duration = Duration::from_secs(15);
/// The same where the system itself breaks a connection that moves nothing for [`TAKEN_WITHIN`]. It takes more from the
/// program only when a good part of its buffer is free, for which a link of 1 KB/s needs a minute.
const WATCHED_WITHIN: Duration = Duration::from_secs(120);
/// How often it is looked at whether something was taken.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many bytes a stream has taken.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    bytes: Arc<AtomicU64>,
    within: Duration,
}

impl Taken {
    fn add(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits for what is sent over the stream as long as it takes some of it. Dropping the future drops `sending`.
    pub async fn moving<T>(
        &self,
        sending: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let mut sending = pin!(sending);
        let (mut seen, mut moved_at) = (self.bytes(), Instant::now());
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent,
                () = sleep(LOOK_EVERY) => {}
            }
            let bytes = self.bytes();
            if bytes != seen {
                (seen, moved_at) = (bytes, Instant::now());
            } else if moved_at.elapsed() >= self.within {
                return Err(TransportError::Stalled);
            }
        }
    }
}

/// A stream that counts what it takes.
#[derive(Debug)]
pub(super) struct CountedWrites<S> {
    stream: S,
    taken: Taken,
}

impl<S> CountedWrites<S> {
    #[cfg(test)]
    pub fn new(stream: S) -> Self {
        Self::within(stream, TAKEN_WITHIN)
    }

    fn within(stream: S, within: Duration) -> Self {
        Self { stream, taken: Taken { bytes: Arc::default(), within } }
    }

    pub fn taken(&self) -> Taken {
        self.taken.clone()
    }
}

impl CountedWrites<TcpStream> {
    /// A stream that the system watches, where it can: it counts what arrives and not what it keeps itself, and breaks the
    /// connection when none of that has moved for so long (`TCP_USER_TIMEOUT`, RFC 5482; Linux).
    pub fn watched(stream: TcpStream) -> Self {
        Self::watched_for(stream, TAKEN_WITHIN)
    }

    fn watched_for(stream: TcpStream, unmoved: Duration) -> Self {
        let within = if is_watched(&stream, unmoved) { WATCHED_WITHIN } else { TAKEN_WITHIN };
        Self::within(stream, within)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_watched(stream: &TcpStream, unmoved: Duration) -> bool {
    let millis = u32::try_from(unmoved.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, millis).is_ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_watched(_: &TcpStream, _: Duration) -> bool {
    false
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedWrites<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.taken.add(count);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.taken.add(count);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Waits for one write, which answers as soon as something of it is taken. A write that is given up has taken nothing.
pub(super) async fn one_write<T>(write: impl Future<Output = Result<T, TransportError>>) -> Result<T, TransportError> {
    timeout(TAKEN_WITHIN, write).await.unwrap_or(Err(TransportError::Stalled))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio_tungstenite::tungstenite;

    use super::*;

    const PAGES: usize = 8 * 48 * 1024;

    #[tokio::test(start_paused = true)]
    async fn a_slow_link_goes_on_and_a_dead_one_is_noticed() {
        let (near, mut far) = duplex(16 * 1024);
        let mut near = CountedWrites::new(near);
        let taken = near.taken();
        let began = Instant::now();
        // 16 KiB in ten seconds, and after the first batch nothing any more.
        let reading = async {
            let (mut read, mut page) = (0, vec![0; 16 * 1024]);
            while read < PAGES {
                sleep(Duration::from_secs(10)).await;
                read += far.read(&mut page).await.expect("read");
            }
            far
        };
        let writing = taken.moving(async { near.write_all(&vec![7; PAGES]).await.map_err(|_| TransportError::Closed) });
        let both = async { tokio::join!(writing, reading) };
        let (written, far) = timeout(Duration::from_secs(3_600), both).await.expect("all of it comes");
        written.expect("slow, and all of it is taken");
        assert!(began.elapsed() > TAKEN_WITHIN * 10, "{:?}", began.elapsed());
        let began = Instant::now();
        let writing = taken.moving(async { near.write_all(&vec![7; PAGES]).await.map_err(|_| TransportError::Closed) });
        assert!(matches!(writing.await, Err(TransportError::Stalled)));
        let noticed = began.elapsed();
        assert!(noticed >= TAKEN_WITHIN && noticed < TAKEN_WITHIN + 3 * LOOK_EVERY, "{noticed:?}");
        drop(far);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn the_system_breaks_a_connection_that_moves_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let _reads_nothing = listener.accept().await.expect("accepted");
        let mut near = CountedWrites::watched_for(near, Duration::from_millis(500));
        let taken = near.taken();
        let writing = taken.moving(async {
            loop {
                near.write_all(&[7; PAGES]).await.map_err(|e| TransportError::from(tungstenite::Error::Io(e)))?;
            }
        });
        let broken: Result<(), _> = timeout(WATCHED_WITHIN / 2, writing).await.expect("before it is noticed here");
        assert!(matches!(broken, Err(TransportError::Stalled)), "{broken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_takes_nothing_is_given_up() {
        let slow = one_write(async {
            sleep(TAKEN_WITHIN - LOOK_EVERY).await;
            Ok(40)
        });
        assert_eq!(slow.await.expect("taken"), 40);
        let began = Instant::now();
        let dead = one_write(std::future::pending::<Result<usize, TransportError>>());
        assert!(matches!(dead.await, Err(TransportError::Stalled)));
        assert_eq!(began.elapsed(), TAKEN_WITHIN);
    }
}
