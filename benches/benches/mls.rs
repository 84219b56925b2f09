// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sealing and opening one message of 256 bytes in the client core.

use std::path::Path;
use std::time::Instant;

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
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("mls_encrypt", |bencher| {
        let (mut one, _) = pair().expect("a group of two");
        bencher.iter_custom(|times| {
            let started = Instant::now();
            for _ in 0..times {
                one.seal(GROUP, SEND, Class::Message, &PLAINTEXT).expect("sealed");
                // What a driver writes; left to pile up it would be measured later.
                drop(one.take_changes());
            }
            started.elapsed()
        });
    });
    criterion.bench_function("mls_decrypt", |bencher| {
        let (mut one, mut two) = pair().expect("a group of two");
        bencher.iter_custom(|times| {
            let sealed: Vec<_> =
                (0..times).map(|_| one.seal(GROUP, SEND, Class::Message, &PLAINTEXT).expect("sealed")).collect();
            drop(one.take_changes());
            let started = Instant::now();
            for message in &sealed {
                two.open(GROUP, SEND, Class::Message, &message.body).expect("opened");
                drop(two.take_changes());
            }
            started.elapsed()
        });
    });
    criterion.final_summary();
    let mut summary = Summary::open();
    for name in ["mls_encrypt", "mls_decrypt"] {
        summary.add(Row::plain(&format!("{name}_us"), median_us(name)?, "us"));
    }
    summary.save()?;
    Ok(())
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

/// Criterion's median of the run that just ended.
fn median_us(name: &str) -> Result<f64> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/criterion/{name}/new/estimates.json"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let estimates: serde_json::Value = serde_json::from_str(&text)?;
    let nanoseconds = estimates["median"]["point_estimate"].as_f64().context("criterion's median")?;
    Ok(nanoseconds / 1_000.0)
}
