// SPDX-License-Identifier: MIT OR Apache-2.0
//! Migrating, and what the start refuses.

use std::error::Error;

use bytes::Bytes;
use pli_domain::{AccountId, DeviceId};
use pli_engine_cql::{CqlEngine, CqlOptions, Migrated, OpenError, SCHEMA_VERSION, check, migrate};
use pli_ports::{DeviceListRecord, ListHash, PutDeviceListError};
use sha2::{Digest, Sha256};

use crate::support::server;

fn text(error: &OpenError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Opens and checks; both must refuse alike.
async fn refused(options: &CqlOptions) -> OpenError {
    let checked = check(options).await.expect_err("the check accepts it");
    let opened = CqlEngine::open(options).await.expect_err("it opens");
    assert_eq!(checked.to_string(), opened.to_string());
    println!("{}", text(&opened));
    opened
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_at_once_make_one_schema() {
    let Some(server) = server("two_migrations_at_once_make_one_schema").await else { return };
    let keyspace = format!("{}_twice", server.options.keyspace);
    let options = CqlOptions { keyspace: keyspace.clone(), ..server.options.clone() };
    assert!(matches!(refused(&options).await, OpenError::SchemaMissing { .. }));
    let (first, second) = tokio::join!(migrate(&options), migrate(&options));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.from + second.from, SCHEMA_VERSION, "one made it, one found it: {first:?}, {second:?}");
    check(&options).await.unwrap();
    let again = Migrated { from: SCHEMA_VERSION, to: SCHEMA_VERSION };
    assert_eq!(migrate(&options).await.unwrap(), again, "a third one finds it");
    schemas_of_other_programs_are_refused(&server.raw().await, &options).await;
    let drop = format!("DROP KEYSPACE {keyspace}");
    server.raw().await.query_unpaged(drop, ()).await.unwrap();
}

/// An account as a program of schema version 1 stored it, after one change of its list: live, with the claims of its
/// creation.
const STORED: [&str; 4] = [
    "INSERT INTO account (account_id, handle, identity_key, created_at, reserved_at, attempt, live, list_version, \
     list_signed, list_devices, list_gone) VALUES (0x01010101010101010101010101010101, 'alice', \
     0x0303030303030303030303030303030303030303030303030303030303030303, 5, 5, 0x07070707070707070707070707070707, true, \
     2, 0x6c697374, 0x0202020202020202020202020202020204040404040404040404040404040404, 0x) IF NOT EXISTS",
    "INSERT INTO device_account (device_id, account_id, attempt) VALUES (0x02020202020202020202020202020202, \
     0x01010101010101010101010101010101, 0x07070707070707070707070707070707) IF NOT EXISTS",
    "INSERT INTO device_account (device_id, account_id, attempt) VALUES (0x04040404040404040404040404040404, \
     0x01010101010101010101010101010101, 0x07070707070707070707070707070707) IF NOT EXISTS",
    "INSERT INTO device_account (device_id, account_id, attempt) VALUES (0x05050505050505050505050505050505, \
     0x01010101010101010101010101010101, 0x07070707070707070707070707070707) IF NOT EXISTS",
];

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_version_1_are_updated_and_their_device_lists_are_followed() {
    let name = "tables_of_version_1_are_updated_and_their_device_lists_are_followed";
    let Some(server) = server(name).await else { return };
    let keyspace = format!("{}_old", server.options.keyspace);
    let options = CqlOptions { keyspace: keyspace.clone(), ..server.options.clone() };
    migrate(&options).await.unwrap();
    let raw = server.raw().await;
    // What version 2 added is not there.
    raw.query_unpaged(format!("DROP TABLE {keyspace}.device_list"), ()).await.unwrap();
    let version = format!("DELETE FROM {keyspace}.schema_version WHERE component = 'pli' AND version >= 2");
    raw.query_unpaged(version, ()).await.unwrap();
    for row in STORED {
        raw.query_unpaged(row.replace("INSERT INTO ", &format!("INSERT INTO {keyspace}.")), ()).await.unwrap();
    }
    assert!(matches!(refused(&options).await, OpenError::SchemaOld { found: 1, .. }));
    assert_eq!(migrate(&options).await.unwrap(), Migrated { from: 1, to: SCHEMA_VERSION });

    let accounts = CqlEngine::open(&options).await.unwrap().accounts();
    let (alice, device) = (AccountId::from_bytes([1; 16]), |n| DeviceId::from_bytes([n; 16]));
    let second =
        DeviceListRecord { version: 2, signed: Bytes::from_static(b"list"), devices: vec![device(2), device(4)] };
    assert_eq!(accounts.account(alice).await.unwrap().unwrap().devices, second);
    assert_eq!(accounts.device_lists(alice, 0, 9).await.unwrap(), std::slice::from_ref(&second));
    let before: ListHash = Sha256::digest(b"list").into();
    let next = |devices| DeviceListRecord { version: 3, signed: Bytes::from_static(b"next"), devices };
    // What lists named before version 2 is not known any more.
    let again = accounts.put_device_list(alice, before, next(vec![device(2), device(5)])).await;
    assert!(matches!(again, Err(PutDeviceListError::Removed)), "one that was removed then: {again:?}");
    let third = next(vec![device(2), device(6)]);
    assert_eq!(accounts.put_device_list(alice, before, third.clone()).await.unwrap(), [device(4)]);
    assert_eq!(accounts.device_lists(alice, 0, 9).await.unwrap(), [second, third]);
    raw.query_unpaged(format!("DROP KEYSPACE {keyspace}"), ()).await.unwrap();
}

async fn schemas_of_other_programs_are_refused(raw: &scylla::client::session::Session, options: &CqlOptions) {
    let table = format!("{}.schema_version", options.keyspace);
    let newer = format!("INSERT INTO {table} (component, version, sha256) VALUES ('pli', 99, 0x00)");
    raw.query_unpaged(newer, ()).await.unwrap();
    assert!(matches!(refused(options).await, OpenError::SchemaNew { found: 99, .. }));
    assert!(matches!(migrate(options).await, Err(OpenError::SchemaNew { found: 99, .. })));
    let older = format!("DELETE FROM {table} WHERE component = 'pli'");
    raw.query_unpaged(older, ()).await.unwrap();
    assert!(matches!(refused(options).await, OpenError::SchemaOld { found: 0, .. }));
    let changed = format!("INSERT INTO {table} (component, version, sha256) VALUES ('pli', 1, 0x00)");
    raw.query_unpaged(changed, ()).await.unwrap();
    assert!(matches!(migrate(options).await, Err(OpenError::SchemaChanged { version: 1 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_lose_or_misread_data_is_refused_with_the_fix() {
    let Some(server) = server("what_would_lose_or_misread_data_is_refused_with_the_fix").await else { return };
    let good = &server.options;
    check(good).await.unwrap();
    let missing = CqlOptions { keyspace: "nobody_made_this".into(), ..good.clone() };
    let error = refused(&missing).await;
    assert!(matches!(error, OpenError::SchemaMissing { .. }) && error.to_string().ends_with("run the migration"));
    let production = CqlOptions { production: true, replication: 3, ..good.clone() };
    assert!(matches!(refused(&production).await, OpenError::Replication { found: 1, .. }));
    let elsewhere = CqlOptions { datacentre: "mars".into(), ..good.clone() };
    let error = refused(&elsewhere).await;
    assert!(matches!(&error, OpenError::Datacentre { known, .. } if *known == good.datacentre), "{error:?}");
    let nobody = CqlOptions { contact_points: vec!["127.0.0.1:1".into()], ..good.clone() };
    assert!(matches!(refused(&nobody).await, OpenError::Unreachable { .. }));
    if good.password.is_some() {
        let wrong = CqlOptions { password: Some("not the password".into()), ..good.clone() };
        let error = refused(&wrong).await;
        assert!(matches!(error, OpenError::Credentials { .. }), "{}", text(&error));
        assert!(!text(&error).contains("not the password"));
        let unnamed = CqlOptions { user: None, password: None, ..good.clone() };
        let error = refused(&unnamed).await;
        assert!(matches!(error, OpenError::Credentials { .. }), "{}", text(&error));
    }
}

/// Pins where the check of the commit log looks. The node of these tests syncs in groups.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_how_its_commit_log_is_synced() {
    let Some(server) = server("a_node_says_how_its_commit_log_is_synced").await else { return };
    if server.ring.is_none() {
        println!("skipped: a_node_says_how_its_commit_log_is_synced: the server was there already");
        return;
    }
    let cql = "SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'";
    let answer = server.raw().await.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap();
    assert_eq!(answer.first_row::<(String,)>().unwrap().0, "group");
    let here = pli_ports::Clock::now(&pli_ports::SystemClock).0;
    let there = pli_engine_cql::server_time(&server.options).await.unwrap().0;
    assert!(here.abs_diff(there) < 3_600_000, "the node runs on this machine: {here} {there}");
    server.engine().await.answers().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_known_by_their_authority() {
    let Some(server) = server("nodes_are_known_by_their_authority").await else { return };
    let Some(ca_file) = server.ca_file.clone() else {
        println!("skipped: nodes_are_known_by_their_authority: the authority of this server is not known");
        return;
    };
    let with = |ca_file| CqlOptions { ca_file: Some(ca_file), ..server.options.clone() };
    check(&with(ca_file.clone())).await.unwrap();
    let missing = with(ca_file.with_file_name("missing.pem"));
    assert!(matches!(refused(&missing).await, OpenError::Authorities { .. }));
    let empty = ca_file.with_file_name("empty.pem");
    std::fs::write(&empty, "").unwrap();
    assert!(matches!(refused(&with(empty)).await, OpenError::Authorities { .. }));
    let other = ca_file.with_file_name("other.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let stranger = rcgen::CertificateParams::new(vec!["stranger".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(&other, stranger.pem()).unwrap();
    let error = refused(&with(other)).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "a node of another authority: {}", text(&error));
}
