// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking an admin port.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take by default, from the beginning of the connection to its last byte.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of a body: a page of metrics with a series for each of 16,384 shards is smaller.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why an admin port gave no answer that can be used. Each names the address.
#[derive(Debug, thiserror::Error)]
pub enum AdminAskError {
    /// Nobody listens there, or the name leads nowhere.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Who was asked.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{address} has not answered within {} s", .within.as_secs_f64())]
    Silent {
        /// Who was asked.
        address: String,
        /// So long was waited.
        within: Duration,
    },
    /// The path or the address is none.
    #[error("{address} cannot be asked for {path}: {source}")]
    Request {
        /// Who was to be asked.
        address: String,
        /// For what.
        path: String,
        /// What is wrong with it.
        #[source]
        source: axum::http::Error,
    },
    /// What it says is not HTTP, or the connection broke.
    #[error("the answer of {address} is broken: {source}")]
    Broken {
        /// Who was asked.
        address: String,
        /// What HTTP says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The body does not end in time.
    #[error("the answer of {address} is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong {
        /// Who was asked.
        address: String,
    },
    /// Another status than 200.
    #[error("{address} answered {path} with status {status}")]
    Status {
        /// Who was asked.
        address: String,
        /// For what.
        path: String,
        /// What it said.
        status: u16,
    },
    /// The body is not what was asked for.
    #[error("the answer of {address} is not that of an admin port of this version: {source}")]
    Shape {
        /// Who was asked.
        address: String,
        /// Where it differs.
        #[source]
        source: serde_json::Error,
    },
}

/// What an admin port said.
#[derive(Debug, Clone)]
pub struct AdminAnswer {
    /// The status of HTTP.
    pub status: u16,
    /// At most 16 MiB.
    pub body: Bytes,
}

impl AdminAnswer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks one admin port, each time on a connection of its own. Waits 5 s unless told otherwise.
#[derive(Debug, Clone)]
pub struct AdminClient {
    address: String,
    patience: Duration,
}

impl AdminClient {
    /// Of the admin port at this `host:port`.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), patience: ANSWER_WITHIN }
    }

    /// Waits so long for a whole answer.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The answer to a GET of `path`, whatever its status.
    pub async fn get(&self, path: &str) -> Result<AdminAnswer, AdminAskError> {
        let silent = |_| AdminAskError::Silent { address: self.address.clone(), within: self.patience };
        timeout(self.patience, self.ask(path)).await.map_err(silent)?
    }

    /// The body of an answer with status 200, as text.
    pub async fn text(&self, path: &str) -> Result<String, AdminAskError> {
        Ok(self.fine(path).await?.text())
    }

    /// The body of an answer with status 200, from JSON.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminAskError> {
        let shape = |source| AdminAskError::Shape { address: self.address.clone(), source };
        serde_json::from_slice(&self.fine(path).await?.body).map_err(shape)
    }

    async fn fine(&self, path: &str) -> Result<AdminAnswer, AdminAskError> {
        let answer = self.get(path).await?;
        if answer.status == StatusCode::OK.as_u16() {
            return Ok(answer);
        }
        Err(AdminAskError::Status { address: self.address.clone(), path: path.to_owned(), status: answer.status })
    }

    async fn ask(&self, path: &str) -> Result<AdminAnswer, AdminAskError> {
        let address = || self.address.clone();
        let refused = |source| AdminAskError::Request { address: address(), path: path.to_owned(), source };
        let broken = |source| AdminAskError::Broken { address: address(), source };
        let request = Request::get(path).header(header::HOST, &self.address).header(header::CONNECTION, "close");
        let request = request.body(Body::empty()).map_err(refused)?;
        let connecting = TcpStream::connect(&self.address).await;
        let stream = connecting.map_err(|source| AdminAskError::Connect { address: address(), source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(e.into()))?;
        let asking = async {
            let answer = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => AdminAskError::TooLong { address: address() },
                false => broken(error),
            })?;
            Ok(AdminAnswer { status, body: body.to_bytes() })
        };
        tokio::pin!(asking, connection);
        let mut driven = true;
        loop {
            tokio::select! {
                biased;
                answer = &mut asking => return answer,
                // How it ended is told to who waits for the answer.
                _ = &mut connection, if driven => driven = false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers the first connection with these bytes and holds it open if wanted.
    async fn saying(bytes: Vec<u8>, hold: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = [0; 1024];
            assert!(stream.read(&mut asked).await.expect("asked") > 0, "nothing is asked");
            // It may have heard enough.
            let _ = stream.write_all(&bytes).await;
            if hold {
                std::future::pending::<()>().await;
            }
        });
        address
    }

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn an_answer_is_taken_as_text_json_or_with_its_status() {
        let address = saying(answer("200 OK", "[1,2]"), true).await;
        assert_eq!(AdminClient::new(address).json::<Vec<u8>>("/x").await.expect("a list"), [1, 2]);
        let address = saying(answer("200 OK", "words"), true).await;
        assert_eq!(AdminClient::new(address).text("/x").await.expect("text"), "words");
        let address = saying(answer("503 Service Unavailable", "not yet"), true).await;
        let said = AdminClient::new(address).get("/x").await.expect("an answer");
        assert_eq!((said.status, said.text().as_str()), (503, "not yet"));
    }

    #[tokio::test]
    async fn every_way_to_fail_names_the_address() {
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").to_string();
        let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        endless.resize(ANSWER_BYTES_MAX + 1024, b'x');
        let told = [
            (closed, "cannot connect"),
            (saying(answer("404 Not Found", ""), true).await, "status 404"),
            (saying(answer("200 OK", "{"), true).await, "of this version"),
            (saying(b"SSH-2.0-x\r\n\r\n".to_vec(), true).await, "broken"),
            (saying(answer("200 OK", "12345")[..40].to_vec(), false).await, "broken"),
            (saying(endless, true).await, "longer than"),
        ];
        for (address, expected) in told {
            let error = AdminClient::new(&*address).json::<Vec<u8>>("/x").await.expect_err(expected).to_string();
            assert!(error.contains(expected) && error.contains(&address), "{error}");
        }
        let error = AdminClient::new("127.0.0.1:1").get("no path").await.expect_err("no path").to_string();
        assert!(error.contains("127.0.0.1:1") && error.contains("no path"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_left_after_a_while() {
        let address = saying(Vec::new(), true).await;
        let error = AdminClient::new(&*address).get("/x").await.expect_err("silent");
        assert!(matches!(error, AdminAskError::Silent { .. }) && error.to_string().contains("5 s"), "{error}");
    }
}
