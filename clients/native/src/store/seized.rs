// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody takes the folder of a profile, its key with it, and has recorded everything that was sent to it.
//!
//! Three ways lead back in time on a disk: the log beside the database, in which every transaction is a state of its own;
//! the database without its log; and what is left in pages that are free. Each is tried.

use std::path::Path;

use pli_client_core::identity::Identity;
use pli_client_core::mls::Mls;
use pli_client_core::{Core, Table};
use pli_domain::{Class, ConversationId, SendId, UnixMillis};
use rusqlite::Connection;

use crate::Store;
use crate::seal::Sealer;

const ID: ConversationId = ConversationId::from_bytes([9; 16]);
/// SQLite's log: a header, then frames of a header and a page each (https://sqlite.org/fileformat2.html, section 4.1).
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const FILES: [&str; 3] = ["key", "profile.db", "profile.db-wal"];

/// What was recorded of a message.
type Recorded = (SendId, Vec<u8>);

fn identity(name: &str, seed: u8) -> Identity {
    let (_, changes) = Core::create(name.parse().expect("a handle"), [seed; 32], UnixMillis(1));
    let row = changes.0.into_iter().find(|change| change.table == Table::Identity).and_then(|change| change.value);
    Identity::decode(&row.expect("an identity")).expect("decodes")
}

fn open(folder: &Path) -> Store {
    let sealer = Sealer::open_or_create(&folder.join("key")).expect("a key");
    Store::open(&folder.join("profile.db"), sealer).expect("opens")
}

/// A profile that received messages in several epochs, and the database as it stands while it runs on.
struct Profile {
    folder: tempfile::TempDir,
    store: Store,
    bob: Identity,
    mls: Mls,
    recorded: Vec<Recorded>,
    /// Every sealed value that was ever written.
    written: Vec<Vec<u8>>,
}

impl Profile {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, bob) = (open(folder.path()), identity("bob", 2));
        let mls = Mls::of(&bob, [2; 32]);
        Self { folder, store, bob, mls, recorded: Vec::new(), written: Vec::new() }
    }

    fn commit(&mut self) {
        let changes = self.mls.take_changes();
        self.store.apply(changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))).expect("applied");
        for (key, _) in changes {
            self.written.extend(self.sealed("SELECT value FROM sealed WHERE key = ?1", &[&key]));
        }
    }

    fn sealed(&self, sql: &str, keys: &[&Vec<u8>]) -> Vec<Vec<u8>> {
        let mut statement = self.store.database.prepare_cached(sql).expect("prepared");
        let rows = statement.query_map(rusqlite::params_from_iter(keys), |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("values")
    }

    /// Alice adds this profile's device, says `count` messages, and renews her keys after each.
    fn hears(&mut self, count: u8) {
        let (alice, mut from) = (identity("alice", 1), Mls::of(&identity("alice", 1), [1; 32]));
        from.create(ID).expect("made");
        let package = self.mls.key_packages(1).expect("made").remove(0);
        self.commit();
        let commit = from.commit(ID, &[(self.bob.address(), self.bob.device_key().to_vec(), package)], &[]);
        from.merge_commit(ID).expect("pending");
        self.mls.join(&commit.expect("made").welcome, None).expect("joined");
        self.commit();
        for n in 1..=count {
            let send_id = SendId::from_bytes([n; 16]);
            let sealed = from.seal(ID, send_id, Class::Message, b"secret").expect("sealed");
            let opened = self.mls.open(ID, send_id, Class::Message, &sealed.body).expect("opened");
            assert_eq!((opened.sender, opened.plaintext.as_slice()), (alice.address(), b"secret".as_slice()));
            self.recorded.push((send_id, sealed.body.to_vec()));
            self.commit();
            let commit = from.commit(ID, &[], &[]).expect("made");
            from.merge_commit(ID).expect("pending");
            self.mls.handshake(ID, &commit.commit).expect("taken in");
            self.commit();
        }
    }

    /// How many of the recorded messages open with any state that the seized folder holds.
    fn opened(&self) -> usize {
        states(self.folder.path()).iter().map(|state| self.opened_with(state.path())).max().unwrap_or(0)
    }

    fn opened_with(&self, folder: &Path) -> usize {
        let rows = open(folder).scan(&[], None).expect("rows");
        let stolen = || {
            let mut mls = Mls::of(&self.bob, [77; 32]);
            // A log that was cut off in the middle of a change may hold half of it.
            mls.load(rows.clone()).ok().map(|()| mls)
        };
        let opens = |(send_id, body): &&Recorded| {
            stolen().is_some_and(|mut mls| mls.open(ID, *send_id, Class::Message, body).is_ok())
        };
        self.recorded.iter().filter(opens).count()
    }

    /// Values that were deleted or replaced and still stand somewhere in the files, free pages included.
    fn left_over(&self) -> usize {
        let current = self.sealed("SELECT value FROM sealed", &[]);
        let files: Vec<Vec<u8>> =
            FILES.iter().filter_map(|name| std::fs::read(self.folder.path().join(name)).ok()).collect();
        // A value is known by its nonce; the rest may lie on another page.
        let stands = |value: &Vec<u8>| files.iter().any(|file| file.windows(24).any(|part| part == &value[..24]));
        self.written.iter().filter(|value| !current.contains(value)).filter(|value| stands(value)).count()
    }
}

/// The folder as it is, without its log, and with every beginning of its log.
fn states(folder: &Path) -> Vec<tempfile::TempDir> {
    let log = std::fs::read(folder.join(FILES[2])).unwrap_or_default();
    let page_size = Connection::open(folder.join(FILES[1]))
        .and_then(|database| database.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0)))
        .expect("a page size");
    let frame = FRAME_HEADER_BYTES + usize::try_from(page_size).expect("small");
    let ends = (LOG_HEADER_BYTES..log.len()).step_by(frame).chain([0, log.len()]);
    let copy = |end: usize| {
        let state = tempfile::tempdir().expect("a folder");
        for name in &FILES[..2] {
            std::fs::copy(folder.join(name), state.path().join(name)).expect("copied");
        }
        std::fs::write(state.path().join(FILES[2]), &log[..end]).expect("written");
        state
    };
    ends.map(copy).collect()
}

#[test]
fn a_seized_folder_does_not_open_what_was_received() {
    let mut profile = Profile::new();
    profile.hears(5);
    assert!(profile.store.scrub().expect("scrubbed"));
    assert_eq!(profile.opened(), 0);
    assert_eq!(profile.left_over(), 0);
    assert_eq!(profile.recorded.len(), 5);
}

#[test]
fn a_folder_that_a_killed_process_left_is_rid_of_old_keys_when_it_is_opened() {
    let mut profile = Profile::new();
    profile.hears(3);
    let left = states(profile.folder.path()).pop().expect("the whole log");
    drop(open(left.path()));
    assert_eq!(profile.opened_with(left.path()), 0);
    let log = std::fs::metadata(left.path().join(FILES[2])).map_or(0, |log| log.len());
    assert_eq!(log, 0);
}

/// Another program has the database open and reads.
#[test]
fn a_log_that_somebody_reads_is_emptied_when_they_are_done() {
    let mut profile = Profile::new();
    let reader = Connection::open(profile.folder.path().join(FILES[1])).expect("opens");
    reader.execute_batch("BEGIN; SELECT count(*) FROM sealed;").expect("reads");
    profile.hears(3);
    assert!(!profile.store.scrub().expect("no failure"), "it is told that keys are left");
    assert!(profile.left_over() > 0, "and they are");
    drop(open(profile.folder.path()));
    reader.execute_batch("COMMIT;").expect("done");
    assert!(profile.store.scrub().expect("scrubbed"));
    assert_eq!((profile.opened(), profile.left_over()), (0, 0));
}

/// The planted fault: the log is not emptied.
#[test]
fn a_log_that_is_not_emptied_is_found_out() {
    let mut profile = Profile::new();
    profile.hears(5);
    assert!(profile.opened() > 0, "the log holds keys that open what was recorded");
    assert!(profile.left_over() > 0);
}

/// The planted fault: what is deleted is not overwritten.
#[test]
fn a_database_that_does_not_overwrite_is_found_out() {
    let mut profile = Profile::new();
    profile.store.database.pragma_update(None, "secure_delete", "OFF").expect("set");
    profile.hears(5);
    assert!(profile.store.scrub().expect("scrubbed"));
    assert!(profile.left_over() > 0, "free pages hold what was deleted");
}
