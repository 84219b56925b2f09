// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sealing and opening one message of 256 bytes in the client core.
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use criterion::Criterion;
use pli_benches::{Row, Summary};
use pli_client_core::identity::Identity;
use pli_client_core::mls::Mls;
use pli_domain::{Class, ConversationId, SendId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const GROUP: ConversationId = ConversationId::from_bytes([9; 16]);
const SEND: SendId = SendId::from_bytes([1; 16]);
const PLAINTEXT: [u8; 256] = [0x5A; 256];

fn main() -> Result<()> {
    println!("mls: sealing and opening, about 10 s each");
    let mut criterion = Criterion::default().configure_from_args();
    let mut summary = Summary::open();
    let (mut one, _) = pair()?;
    let encrypt = median_us(&mut criterion, "mls_encrypt", |times| seal(&mut one, times));
    let (mut one, mut two) = pair()?;
    let decrypt = median_us(&mut criterion, "mls_decrypt", |times| open(&mut one, &mut two, times));
    criterion.final_summary();
    // What the command line leaves out was not measured and keeps its row.
    for (name, median) in [("mls_encrypt_us", encrypt), ("mls_decrypt_us", decrypt)] {
        if let Some(median) = median {
            summary.add(Row::plain(name, median, "us"));
        }
    }
    summary.save().context("the summary")
}

fn seal(one: &mut Mls, times: u64) -> Duration {
    let started = Instant::now();
    for _ in 0..times {
        one.seal(GROUP, SEND, Class::Message, &PLAINTEXT).expect("sealed");
        // What a driver writes; left to pile up it would be measured later.
        drop(one.take_changes());
    }
    started.elapsed()
}

fn open(one: &mut Mls, two: &mut Mls, times: u64) -> Duration {
    let sealed: Vec<_> =
        (0..times).map(|_| one.seal(GROUP, SEND, Class::Message, &PLAINTEXT).expect("sealed")).collect();
    drop(one.take_changes());
    let started = Instant::now();
    for message in &sealed {
        two.open(GROUP, SEND, Class::Message, &message.body).expect("opened");
        drop(two.take_changes());
    }
    started.elapsed()
}

/// Lets criterion run a measurement and answers the median of its samples, in microseconds. Its files are not read: they
/// lie where the environment says, and may be of an earlier run.
fn median_us(criterion: &mut Criterion, name: &str, mut run: impl FnMut(u64) -> Duration) -> Option<f64> {
    let mut samples = Vec::new();
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let took = run(times);
            samples.push(took.as_secs_f64() * 1e6 / times as f64);
            took
        });
    });
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// Two devices in a group, both at epoch 1.
fn pair() -> Result<(Mls, Mls)> {
    let identity = |n| -> Result<Identity> {
        Ok(Identity::create(format!("bench.{n}").parse()?, &mut ChaCha8Rng::seed_from_u64(n)))
    };
    let (alice, bob) = (identity(1)?, identity(2)?);
    let (mut one, mut two) = (Mls::of(&alice, [1; 32]), Mls::of(&bob, [2; 32]));
    one.create(GROUP)?;
    let package = two.key_packages(1)?.remove(0);
    let commit = one.commit(GROUP, &[(bob.address(), bob.device_key().to_vec(), package)], &[])?;
    one.merge_commit(GROUP)?;
    two.join(&commit.welcome, None)?;
    Ok((one, two))
}
