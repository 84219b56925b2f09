// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports for servers that are started again on the same ones.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use rand::Rng;

/// Below the range from which systems take the ports of outgoing connections (32,768 on Linux): while a server is down,
/// nothing that connects from this machine may get its port.
const RANGE: std::ops::Range<u16> = 10_000..32_000;
/// Random ports that are looked at for each one that is wanted.
const TRIES: usize = 100;

/// Different ports of 127.0.0.1 on which nobody listens now; held until all are known.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut rng = rand::rng();
    let mut held = Vec::new();
    for _ in 0..count * TRIES {
        if held.len() == count {
            break;
        }
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, rng.random_range(RANGE))));
    }
    if held.len() < count {
        return Err(io::Error::from(io::ErrorKind::AddrInUse));
    }
    held.iter().map(|held| Ok(held.local_addr()?.port())).collect()
}
