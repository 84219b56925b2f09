// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody takes what a page has stored, and has recorded everything that was sent to it.

use pli_client_core::identity::Identity;
use pli_client_core::mls::Mls;
use pli_client_core::{Change, ChangeSet, Core, Table};
use pli_domain::{Class, ConversationId, SendId, UnixMillis};

use super::{bytes, compacted, rows};

const ID: ConversationId = ConversationId::from_bytes([9; 16]);

/// What was recorded of a message.
type Recorded = (SendId, Vec<u8>);

fn identity(name: &str, seed: u8) -> Identity {
    let (_, changes) = Core::create(name.parse().expect("a handle"), [seed; 32], UnixMillis(1));
    let row = changes.0.into_iter().find(|change| change.table == Table::Identity).and_then(|change| change.value);
    Identity::decode(&row.expect("an identity")).expect("decodes")
}

/// What MLS changed, as a page saves it.
fn save(mls: &mut Mls) -> Vec<u8> {
    let change = |(key, value)| Change { table: Table::Mls, key, value };
    bytes(ChangeSet(mls.take_changes().into_iter().map(change).collect()))
}

/// What a page has appended that hears five messages in five epochs: the ends of what was saved, and the messages as they
/// came.
fn heard(bob: &Identity) -> (Vec<u8>, Vec<usize>, Vec<Recorded>) {
    let (mut from, mut to) = (Mls::of(&identity("alice", 1), [1; 32]), Mls::of(bob, [2; 32]));
    let (mut saved, mut ends, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
    let package = to.key_packages(1).expect("made").remove(0);
    from.create(ID).expect("made");
    let commit = from.commit(ID, &[(bob.address(), bob.device_key().to_vec(), package)], &[]).expect("made");
    from.merge_commit(ID).expect("pending");
    saved.extend(save(&mut to));
    to.join(&commit.welcome, None).expect("joined");
    for n in 1..=5 {
        saved.extend(save(&mut to));
        ends.push(saved.len());
        let send_id = SendId::from_bytes([n; 16]);
        let sealed = from.seal(ID, send_id, Class::Message, b"secret").expect("sealed");
        to.open(ID, send_id, Class::Message, &sealed.body).expect("opened");
        recorded.push((send_id, sealed.body.to_vec()));
        let commit = from.commit(ID, &[], &[]).expect("made");
        from.merge_commit(ID).expect("pending");
        saved.extend(save(&mut to));
        to.handshake(ID, &commit.commit).expect("taken in");
    }
    saved.extend(save(&mut to));
    ends.push(saved.len());
    (saved, ends, recorded)
}

/// How many of the messages open with what was saved.
fn opened(bob: &Identity, saved: &[u8], recorded: &[Recorded]) -> usize {
    let stolen = || {
        let mut mls = Mls::of(bob, [77; 32]);
        let rows = rows(saved).expect("it was saved");
        mls.load(rows.map(|(_, key, value)| (key, value))).expect("its own rows");
        mls
    };
    recorded.iter().filter(|(send_id, body)| stolen().open(ID, *send_id, Class::Message, body).is_ok()).count()
}

#[test]
fn a_seized_store_that_is_compacted_opens_nothing_that_was_received() {
    let bob = identity("bob", 2);
    let (saved, ends, recorded) = heard(&bob);
    let compacted = compacted(&saved).expect("it was saved");
    assert_eq!(opened(&bob, &compacted, &recorded), 0);
    // Nothing of what was replaced or deleted stands in it.
    let left = rows(&compacted).expect("it was saved").map(|(_, key, value)| key.len() + value.len()).sum::<usize>();
    assert!(compacted.len() < left + 64 * rows(&compacted).expect("it was saved").count());
    assert!(compacted.len() * 2 < saved.len(), "{} of {}", compacted.len(), saved.len());
    assert_eq!(ends.len(), 6);
}

/// The planted fault: a page that only appends.
#[test]
fn a_store_that_is_only_appended_to_is_found_out() {
    let bob = identity("bob", 2);
    let (saved, ends, recorded) = heard(&bob);
    assert_eq!(opened(&bob, &saved, &recorded), 0, "as it is loaded");
    let earlier = ends.iter().map(|end| opened(&bob, &saved[..*end], &recorded)).max();
    assert!(earlier > Some(0), "but every beginning of it is a state that opened something");
}

#[test]
fn what_was_not_saved_is_refused() {
    assert!(compacted(b"nonsense").is_err() && compacted(&[0x0a, 0x02, 0x08, 0x7f]).is_err());
    assert_eq!(compacted(&[]).expect("nothing was saved"), Vec::<u8>::new());
}
