// SPDX-License-Identifier: MIT OR Apache-2.0
//! A TCP proxy between a client and a server, to make the way between them slow, silent or broken while
//! both ends are well.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Connections at one time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Bytes under way in one direction of one connection.
const BUFFER_BYTES: usize = 32 * 1024;

/// How long nothing is accepted after an error.
const PAUSE: Duration = Duration::from_millis(50);

/// What the way is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Everything passes at once.
    Open,
    /// What is read together, at most 32 KiB, is passed on so much later, in each direction.
    Slow(Duration),
    /// Connections stay and are made, and nothing passes: no answer and no error. What was sent meanwhile passes later.
    Silent,
    /// Connections are ended, and new ones are ended as soon as they are made.
    Refused,
}

/// What a connection follows: how it is, and how often everything was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    way: Way,
    cuts: u64,
}

/// See the module. Dropping it ends its connections and frees its address.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Passes everything to `target`, an address and a port. Listens on another port of that address: a CQL driver
    /// takes the address of a node from the node itself and keeps to the port that it was given. Must be called on a
    /// runtime.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((target.ip(), 0)).await?;
        let address = listener.local_addr()?;
        let (state, following) = watch::channel(State { way: Way::Open, cuts: 0 });
        let accepting = tokio::spawn(accept(listener, target, following));
        Ok(Self { address, state, accepting })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the way like this from now on, for connections that exist too.
    pub fn set(&self, way: Way) {
        self.state.send_modify(|state| state.way = way);
    }

    /// Ends every connection once; new ones are as the way is.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.state.send_modify(|state| *state = State { way: Way::Refused, cuts: state.cuts + 1 });
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, following: watch::Receiver<State>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Some((client, _)) = or_pause(listener.accept().await).await else { continue };
        let state = following.clone();
        tokio::spawn(async move {
            let _place = place;
            let (mut broken, cuts) = (state.clone(), state.borrow().cuts);
            tokio::select! {
                biased;
                _ = broken.wait_for(|state| state.way == Way::Refused || state.cuts > cuts) => {}
                _ = pass(client, target, state) => {}
            }
        });
    }
}

/// What was accepted. An error is followed by a pause: out of file descriptors, the next try fails at once again.
async fn or_pause<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(_) => {
            sleep(PAUSE).await;
            None
        }
    }
}

/// Passes both directions on until one of them ends.
async fn pass(mut client: TcpStream, target: SocketAddr, state: watch::Receiver<State>) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((client_in, client_out), (server_in, server_out)) = (client.split(), server.split());
    tokio::select! {
        ended = copy(client_in, server_out, state.clone()) => ended,
        ended = copy(server_in, client_out, state) => ended,
    }
}

/// Passes one direction on until it ends.
async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let way = state.borrow().way;
        if let Way::Slow(later) = way {
            sleep(later).await;
        }
        // An error says that the proxy is gone.
        state.wait_for(|state| state.way != Way::Silent).await.map_err(io::Error::other)?;
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::{Instant, timeout};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    /// As good as never: nothing waits for it but what must not come.
    const MOMENT: Duration = Duration::from_millis(100);

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                });
            }
        });
        address
    }

    async fn client(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address()).await.unwrap()
    }

    /// Sends a byte and waits for it.
    async fn there_and_back(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(b"x").await?;
        stream.read_exact(&mut [0]).await.map(drop)
    }

    #[tokio::test]
    async fn what_was_sent_while_the_way_was_silent_passes_later() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut stream = client(&proxy).await;
        there_and_back(&mut stream).await.unwrap();
        proxy.set(Way::Silent);
        stream.write_all(b"y").await.unwrap();
        let mut answer = [0];
        assert!(timeout(MOMENT, stream.read_exact(&mut answer)).await.is_err());
        proxy.set(Way::Open);
        timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"y");
    }

    #[tokio::test]
    async fn a_slow_way_takes_its_time_in_each_direction() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut stream = client(&proxy).await;
        proxy.set(Way::Slow(MOMENT));
        let begun = Instant::now();
        timeout(SOON, there_and_back(&mut stream)).await.unwrap().unwrap();
        assert!(begun.elapsed() >= 2 * MOMENT);
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_a_refusal_new_ones_too() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut stream = client(&proxy).await;
        there_and_back(&mut stream).await.unwrap();
        proxy.cut();
        assert!(timeout(SOON, there_and_back(&mut stream)).await.unwrap().is_err());
        let mut stream = client(&proxy).await;
        timeout(SOON, there_and_back(&mut stream)).await.unwrap().unwrap();
        proxy.set(Way::Refused);
        assert!(timeout(SOON, there_and_back(&mut stream)).await.unwrap().is_err());
        // Made, perhaps, and ended.
        if let Ok(mut refused) = TcpStream::connect(proxy.address()).await {
            assert!(timeout(SOON, there_and_back(&mut refused)).await.unwrap().is_err());
        }
        proxy.set(Way::Open);
        let mut stream = client(&proxy).await;
        timeout(SOON, there_and_back(&mut stream)).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_error_nothing_is_accepted_for_a_moment() {
        let begun = Instant::now();
        assert_eq!(or_pause(Ok(7)).await, Some(7));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(or_pause(Err::<u8, _>(io::ErrorKind::Other.into())).await, None);
        assert_eq!(begun.elapsed(), PAUSE);
    }
}
