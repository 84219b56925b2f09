// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a server is, as the user writes it.

use std::fmt;
use std::str::FromStr;

/// The port of a server whose address names none.
const PORT_DEFAULT: u16 = 443;

/// Text that is not a server's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a server address; write HOST or HOST:PORT, for example 127.0.0.1:7480 or [::1]:7480")]
pub struct InvalidServerAddress(String);

/// Host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    host: String,
    port: u16,
}

impl ServerAddress {
    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// The TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }
    /// The name of the folder that holds the profiles on this server.
    pub fn folder_name(&self) -> String {
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        format!("{}_{}", self.host.chars().map(safe).collect::<String>(), self.port)
    }
    /// Looks the host up; an address needs no look-up. Errors with what the resolver says.
    pub async fn resolve(&self) -> std::io::Result<()> {
        tokio::net::lookup_host((self.host(), self.port())).await.map(drop)
    }
    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
    /// Host and port as they stand in URLs and in the `Host` header.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }
}

/// As it is signed: the port is left out where it is 443.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            PORT_DEFAULT => f.write_str(&self.bracketed()),
            _ => f.write_str(&self.authority()),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = InvalidServerAddress;
    fn from_str(text: &str) -> Result<Self, InvalidServerAddress> {
        parse(text).ok_or_else(|| InvalidServerAddress(text.chars().take(80).collect()))
    }
}

fn parse(text: &str) -> Option<ServerAddress> {
    let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Some(PORT_DEFAULT), |p| p.parse().ok().filter(|&p| p != 0))?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    let whole = !host.is_empty() && host.len() <= 253 && host.chars().all(allowed);
    whole.then(|| ServerAddress { host: host.to_ascii_lowercase(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<(String, String)> {
        let address: ServerAddress = text.parse().ok()?;
        Some((address.to_string(), address.folder_name()))
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let pair = |a: &str, b: &str| Some((a.to_string(), b.to_string()));
        assert_eq!(shown("127.0.0.1:7480"), pair("127.0.0.1:7480", "127.0.0.1_7480"));
        assert_eq!(shown("https://Chat.Example/"), pair("chat.example", "chat.example_443"));
        assert_eq!(shown("[::1]:99"), pair("[::1]:99", "__1_99"));
        for bad in ["", ":1", "host:", "host:0", "host:70000", "a b", "../x", "a/b"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
