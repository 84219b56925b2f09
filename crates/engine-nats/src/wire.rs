// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the JetStream API answers (NATS ADR-2 and ADR-31), as far as it is read here.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// No message has that sequence or subject.
pub(crate) const MESSAGE_NOT_FOUND: u64 = 10_037;
/// No stream has that name.
pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
/// A stream of that name has other settings.
pub(crate) const STREAM_NAME_IN_USE: u64 = 10_058;
/// JetStream is off, for the server or the account.
pub(crate) const NOT_ENABLED: [u64; 2] = [10_076, 10_039];
/// Storing failed; the description says why.
pub(crate) const STORE_FAILED: u64 = 10_077;
/// Limits of the account, the server's memory or its disk.
pub(crate) const NO_RESOURCES: [u64; 3] = [10_002, 10_023, 10_047];
/// Not enough servers for the copies wanted.
pub(crate) const NO_PEERS: u64 = 10_005;
/// The write's expectation does not hold.
pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10_071;

/// An error answer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct WireError {
    #[serde(default)]
    pub err_code: u64,
    #[serde(default)]
    pub description: String,
}

/// Any answer: only whether it is an error.
#[derive(Debug, Deserialize)]
pub(crate) struct Probe {
    pub error: Option<WireError>,
}

/// An answer of which only success counts.
#[derive(Debug, Deserialize)]
pub(crate) struct Done {}

/// The answer to a publish.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    pub seq: u64,
}

/// The answer to a look-up of a message, without its bytes.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    pub message: Head,
}

/// A stored message without its bytes.
#[derive(Debug, Deserialize)]
pub(crate) struct Head {
    pub subject: String,
    pub seq: u64,
    /// Its header block in base64.
    #[serde(default)]
    hdrs: Option<String>,
}

/// The answer to a look-up of a message with its bytes.
#[derive(Debug, Deserialize)]
pub(crate) struct FoundWhole {
    pub message: Whole,
}

/// A stored message.
#[derive(Debug, Deserialize)]
pub(crate) struct Whole {
    #[serde(flatten)]
    pub head: Head,
    #[serde(default)]
    data: Option<String>,
}

impl Head {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        let block = BASE64_STANDARD.decode(self.hdrs.as_deref()?).ok()?;
        let block = String::from_utf8(block).ok()?;
        let mut lines = block.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }
}

impl Whole {
    /// Its bytes; empty when they cannot be read.
    pub fn bytes(&self) -> Vec<u8> {
        self.data.as_deref().and_then(|data| BASE64_STANDARD.decode(data).ok()).unwrap_or_default()
    }
}

/// The answer to a question about a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamInfo {
    pub config: Map<String, Value>,
    #[serde(default)]
    pub state: StreamState,
    #[serde(default)]
    pub cluster: Option<StreamCluster>,
}

/// How full a stream is.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct StreamState {
    #[serde(default)]
    pub bytes: u64,
}

/// Who holds copies of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamCluster {
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize)]
struct Replica {
    name: String,
    /// It has said that it goes, or the others have not heard of it for a minute or two.
    #[serde(default)]
    offline: bool,
    /// Nanoseconds since the leader heard of it, which it does every second; 0 also when it never has.
    #[serde(default)]
    active: u64,
    /// Whether it has what the leader has.
    #[serde(default)]
    current: bool,
}

/// A copy whose server was silent for so long acknowledges nothing.
const SILENT_NANOS: u64 = 10_000_000_000;

impl Replica {
    fn is_there(&self) -> bool {
        let never_heard_of = self.active == 0 && !self.current;
        !self.offline && !never_heard_of && self.active < SILENT_NANOS
    }
}

impl StreamCluster {
    /// Names of all servers with a copy, and whether each is there.
    pub fn servers(&self) -> impl Iterator<Item = (&str, bool)> {
        let replicas = self.replicas.iter().map(|replica| (replica.name.as_str(), replica.is_there()));
        self.leader.as_deref().map(|leader| (leader, true)).into_iter().chain(replicas)
    }
}

/// Where a delivered message stands: sequence in the stream, sequence of the delivery. From its reply subject:
/// `$JS.ACK.stream.consumer.deliveries.stream-seq.delivery-seq.time.pending`, since 2.11 also with domain and account
/// before the stream (NATS ADR-15).
pub(crate) fn delivered(reply: &str) -> Option<(u64, u64)> {
    let tokens: Vec<&str> = reply.split('.').collect();
    let first = match tokens.len() {
        9 => 5,
        11.. => 7,
        _ => return None,
    };
    (tokens[0] == "$JS" && tokens[1] == "ACK")
        .then(|| Some((tokens[first].parse().ok()?, tokens[first + 1].parse().ok()?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_is_read_from_both_forms_of_the_reply_subject() {
        assert_eq!(delivered("$JS.ACK.L.c2.1.5.2.1795690569458404444.0"), Some((5, 2)));
        assert_eq!(delivered("$JS.ACK._.hash.L.c2.1.5.2.1795690569458404444.0.token"), Some((5, 2)));
        assert_eq!(delivered("$JS.ACK.L.c2.1.5"), None);
        assert_eq!(delivered("_INBOX.a.b.c.d.1.2.3.4"), None);
    }

    #[test]
    fn headers_are_found_whatever_their_case() {
        let hdrs = BASE64_STANDARD.encode("NATS/1.0\r\nNats-Msg-Id: 3-ab\r\nKV-Operation: DEL\r\n\r\n");
        let head = Head { subject: String::new(), seq: 1, hdrs: Some(hdrs) };
        assert_eq!(head.header("nats-msg-id").as_deref(), Some("3-ab"));
        assert_eq!(head.header("KV-Operation").as_deref(), Some("DEL"));
        assert_eq!(head.header("Other"), None);
    }
}
