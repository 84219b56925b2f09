// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::outbox::Sealed;
use pli_domain::{Class, SendId};

/// A device with the rows that its changes left.
struct Device {
    mls: Mls,
    address: DeviceAddress,
    key: SigningKey,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    restarts: u8,
}

impl Device {
    fn new(n: u8) -> Self {
        let address =
            DeviceAddress { account: AccountId::from_bytes([n; 16]), device: DeviceId::from_bytes([n + 100; 16]) };
        let key = SigningKey::from_bytes(&[n; 32]);
        Self { mls: Mls::new(address, &key, [n; 32]), address, key, rows: BTreeMap::new(), restarts: 0 }
    }
    fn commit_rows(&mut self) {
        for (key, value) in self.mls.take_changes() {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
    }
    /// Drops everything that was not committed to rows.
    fn reload(&mut self) {
        self.restarts += 1;
        let seed = [self.address.account.as_bytes()[0], self.restarts].repeat(16).try_into().expect("32 bytes");
        self.mls = Mls::new(self.address, &self.key, seed);
        self.mls.load(self.rows.clone()).expect("own rows");
    }
    fn package(&mut self) -> (DeviceAddress, Vec<u8>, Vec<u8>) {
        let package = self.mls.key_packages(1).expect("made").remove(0);
        self.commit_rows();
        (self.address, self.key.verifying_key().to_bytes().to_vec(), package)
    }
    fn says(&mut self, n: u8) -> Sealed {
        let sealed = self.mls.seal(ID, SendId::from_bytes([n; 16]), Class::Message, &[n]).expect("sealed");
        self.commit_rows();
        sealed
    }
    fn hears(&mut self, n: u8, sealed: &Sealed) -> Result<Opened, OpenError> {
        self.mls.open(ID, SendId::from_bytes([n; 16]), Class::Message, &sealed.body)
    }
}

const ID: ConversationId = ConversationId::from_bytes([9; 16]);

/// One device in a group of its own, and a second that it adds.
fn pair() -> (Device, Device) {
    let (mut one, mut two) = (Device::new(1), Device::new(2));
    one.mls.create(ID).expect("made");
    let package = two.package();
    let commit = one.mls.commit(ID, &[package], &[]).expect("made");
    one.commit_rows();
    one.reload();
    let summary = one.mls.merge_commit(ID).expect("pending");
    assert_eq!((summary.added, summary.by), (vec![two.address], Some(one.address)));
    two.reload();
    assert_eq!(two.mls.join(&commit.welcome, None).expect("joined"), ID);
    one.commit_rows();
    two.commit_rows();
    (one, two)
}

#[test]
fn two_devices_talk_and_go_on_after_a_restart() {
    let (mut one, mut two) = pair();
    assert!(two.rows.keys().all(|key| key[0] == GROUP), "the used key package is gone");
    for n in 1..4 {
        let sealed = one.says(n);
        two.reload();
        let opened = two.hears(n, &sealed).expect("opened");
        assert_eq!((opened.sender, opened.plaintext), (one.address, vec![n]));
        two.commit_rows();
        one.reload();
    }
    assert_eq!(one.mls.members(ID), two.mls.members(ID));
}

#[test]
fn a_message_is_opened_once_and_only_under_its_own_name() {
    let (mut one, mut two) = pair();
    let sealed = one.says(1);
    assert!(matches!(two.hears(2, &sealed), Err(OpenError::OtherEnvelope)));
    let sealed = one.says(3);
    two.hears(3, &sealed).expect("opened");
    assert!(matches!(two.hears(3, &sealed), Err(OpenError::Repeated)));
    let mut forged = one.says(4);
    let mut body = forged.body.to_vec();
    *body.last_mut().expect("not empty") ^= 1;
    forged.body = body.into();
    assert!(matches!(two.hears(4, &forged), Err(OpenError::Invalid(_))));
}

#[test]
fn messages_of_three_past_epochs_are_opened_and_no_older_ones() {
    let (mut one, mut two) = pair();
    let old: Vec<Sealed> = (1..5)
        .map(|n| {
            let sealed = one.says(n);
            let commit = one.mls.commit(ID, &[], &[]).expect("made");
            one.mls.merge_commit(ID).expect("pending");
            assert!(matches!(two.mls.handshake(ID, &commit.commit), Ok(Handshake::Commit(_))));
            assert!(matches!(two.mls.handshake(ID, &commit.commit), Ok(Handshake::Old)));
            sealed
        })
        .collect();
    let heard = two.hears(1, &old[0]);
    assert!(matches!(heard, Err(OpenError::TooOld(_))), "{heard:?}");
    two.hears(2, &old[1]).expect("three epochs back");
    two.hears(3, &old[2]).expect("two epochs back");
    two.hears(4, &old[3]).expect("one epoch back");
    let ahead = one.mls.commit(ID, &[], &[]).expect("made");
    one.mls.merge_commit(ID).expect("pending");
    assert!(matches!(
        {
            let s = one.says(5);
            two.hears(5, &s)
        },
        Err(OpenError::Future(_))
    ));
    two.mls.handshake(ID, &ahead.commit).expect("in order");
}

#[test]
fn the_loser_of_a_race_drops_its_commit_and_takes_the_winners() {
    let (mut one, mut two) = pair();
    let (mut three, mut four) = (Device::new(3), Device::new(4));
    let (add_three, add_four) = (three.package(), four.package());
    let winner = one.mls.commit(ID, &[add_three], &[]).expect("made");
    two.mls.commit(ID, std::slice::from_ref(&add_four), &[]).expect("made");
    one.mls.merge_commit(ID).expect("pending");
    two.mls.drop_commit(ID).expect("dropped");
    assert!(matches!(two.mls.handshake(ID, &winner.commit), Ok(Handshake::Commit(_))));
    let again = two.mls.commit(ID, &[add_four], &[]).expect("made again with the same package");
    two.mls.merge_commit(ID).expect("pending");
    assert!(matches!(one.mls.handshake(ID, &again.commit), Ok(Handshake::Commit(_))));
    three.mls.join(&winner.welcome, None).expect("joined");
    three.mls.handshake(ID, &again.commit).expect("in order");
    four.mls.join(&again.welcome, None).expect("joined");
    assert_eq!(four.mls.members(ID), one.mls.members(ID));
    assert_eq!(one.mls.members(ID).len(), 4);
    let sealed = four.says(1);
    assert!(three.hears(1, &sealed).is_ok() && one.hears(1, &sealed).is_ok());
}

#[test]
fn an_own_commit_that_comes_back_is_merged() {
    let (mut one, _) = pair();
    let commit = one.mls.commit(ID, &[], &[]).expect("made");
    one.commit_rows();
    one.reload();
    assert!(matches!(one.mls.handshake(ID, &commit.commit), Ok(Handshake::OwnCommit(_))));
    assert!(!one.mls.has_pending_commit(ID));
}

#[test]
fn a_device_that_lost_the_thread_comes_back_by_an_external_commit() {
    let (mut one, mut two) = pair();
    one.mls.commit(ID, &[], &[]).expect("made");
    one.mls.merge_commit(ID).expect("pending");
    let info = one.mls.group_info(ID).expect("exported");
    let commit = two.mls.rejoin(ID, &info, None).expect("made").0;
    two.commit_rows();
    two.reload();
    assert!(two.mls.has_rejoin(ID));
    two.mls.finish_rejoin(ID).expect("taken");
    two.commit_rows();
    two.reload();
    let taken = one.mls.handshake(ID, &commit.commit);
    assert!(matches!(taken, Ok(Handshake::Commit(_))), "{taken:?}");
    assert_eq!(one.mls.members(ID), two.mls.members(ID));
    let sealed = two.says(1);
    one.hears(1, &sealed).expect("opened");
}

#[test]
fn a_device_without_any_state_comes_back_too() {
    let (mut one, mut two) = pair();
    two.mls.forget(ID);
    two.commit_rows();
    let info = one.mls.group_info(ID).expect("exported");
    let commit = two.mls.rejoin(ID, &info, None).expect("made").0;
    two.commit_rows();
    two.reload();
    assert!(!two.mls.has(ID) && two.mls.has_rejoin(ID));
    two.mls.finish_rejoin(ID).expect("taken");
    one.mls.handshake(ID, &commit.commit).expect("in order");
    let sealed = two.says(1);
    one.hears(1, &sealed).expect("opened");
}

#[test]
fn who_signed_the_last_group_info_itself_comes_back_by_it() {
    let (mut one, mut two) = pair();
    let mut three = Device::new(3);
    let added = one.mls.commit(ID, &[three.package()], &[]).expect("made");
    one.mls.merge_commit(ID).expect("pending");
    two.mls.handshake(ID, &added.commit).expect("in order");
    three.mls.join(&added.welcome, None).expect("joined");
    // The second leaf is blank then, left of the one that signs.
    let removed = three.mls.commit(ID, &[], &[two.address]).expect("made");
    three.mls.merge_commit(ID).expect("pending");
    one.mls.handshake(ID, &removed.commit).expect("in order");
    let (_, (signer, key)) = three.mls.rejoin(ID, &removed.group_info, None).expect("made");
    assert_eq!(signer, three.address);
    assert!(one.mls.members(ID).contains(&(signer, key)));
}

#[test]
fn who_leaves_is_removed_by_another_and_hears_of_it() {
    let (mut one, mut two) = pair();
    let proposal = two.mls.propose_leave(ID).expect("made");
    assert_eq!(one.mls.handshake(ID, &proposal).expect("in order"), Handshake::Leave(two.address));
    let sealed = one.says(1);
    two.hears(1, &sealed).expect("still a member");
    let commit = one.mls.commit(ID, &[], &[two.address]).expect("made");
    one.mls.merge_commit(ID).expect("pending");
    let Ok(Handshake::Commit(summary)) = two.mls.handshake(ID, &commit.commit) else { panic!("not a commit") };
    assert!(summary.self_removed && !two.mls.is_active(ID));
    assert!(two.mls.seal(ID, SendId::from_bytes([1; 16]), Class::Message, b"x").is_err());
    let package = two.package();
    let back = one.mls.commit(ID, &[package], &[]).expect("made");
    one.mls.merge_commit(ID).expect("pending");
    two.mls.join(&back.welcome, None).expect("back again");
    let sealed = two.says(2);
    one.hears(2, &sealed).expect("opened");
}

#[test]
fn key_packages_that_no_welcome_can_use_any_more_are_forgotten() {
    let mut member = Device::new(1);
    member.mls.key_packages(3).expect("made");
    member.mls.last_resort().expect("made");
    let day = 24 * 3600;
    let gone = |member: &mut Device| member.mls.take_changes().iter().filter(|(_, value)| value.is_none()).count();
    let now = super::packages::seconds();
    gone(&mut member);
    member.mls.forget_packages(now + 110 * day, super::packages::PACKAGES_MAX);
    assert_eq!(gone(&mut member), 0, "a welcome may still wait");
    member.mls.forget_packages(now + 112 * day, super::packages::PACKAGES_MAX);
    assert_eq!(gone(&mut member), 4, "with their private keys");
}

#[test]
fn the_private_keys_of_at_most_four_publications_are_kept_the_newest() {
    let mut member = Device::new(1);
    let mut kept = 0_isize;
    let mut count = |member: &mut Device| {
        for (_, value) in member.mls.take_changes() {
            kept += if value.is_some() { 1 } else { -1 };
        }
        kept
    };
    for _ in 0..6 {
        member.mls.make_room_for_packages();
        member.mls.last_resort().expect("made");
        member.mls.key_packages(100).expect("made");
        assert!(count(&mut member) <= 404);
    }
    assert_eq!(count(&mut member), 404);
    member.mls.forget_packages(super::packages::seconds(), 0);
    assert_eq!(count(&mut member), 0);
}

#[test]
fn the_private_keys_of_refused_packages_are_deleted_and_no_others() {
    let mut member = Device::new(1);
    let published = member.mls.key_packages(3).expect("made");
    let refused = [member.mls.key_packages(4).expect("made"), vec![member.mls.last_resort().expect("made")]].concat();
    member.commit_rows();
    member.reload();
    let refused: Vec<&[u8]> = refused.iter().map(Vec::as_slice).collect();
    member.mls.forget_refused(&refused);
    let gone = member.mls.take_changes();
    assert_eq!((gone.len(), gone.iter().all(|(_, value)| value.is_none())), (5, true));
    // What was published still lets it in.
    let mut one = Device::new(2);
    one.mls.create(ID).expect("made");
    let key = member.package().1;
    let commit = one.mls.commit(ID, &[(member.address, key, published[1].clone())], &[]).expect("made");
    member.mls.join(&commit.welcome, None).expect("joined");
}

#[test]
fn a_key_package_of_another_key_is_not_added() {
    let (mut one, _) = pair();
    let mut three = Device::new(3);
    let (device, _, package) = three.package();
    let wrong = one.mls.commit(ID, &[(device, vec![0; 32], package)], &[]);
    assert!(matches!(wrong, Err(MlsError::KeyPackage)));
}

#[test]
fn a_damaged_welcome_uses_up_nothing() {
    let (mut one, mut three) = (pair().0, Device::new(3));
    let package = three.package();
    let commit = one.mls.commit(ID, &[package], &[]).expect("made");
    let mut bad = commit.welcome.clone();
    *bad.last_mut().expect("not empty") ^= 1;
    assert!(three.mls.join(&bad, None).is_err());
    three.commit_rows();
    three.mls.join(&commit.welcome, None).expect("joined");
}

/// Renews the keys of `one`, which `two` takes in; answers the commit.
fn renew(one: &mut Device, two: &mut Device) -> Vec<u8> {
    let commit = one.mls.commit(ID, &[], &[]).expect("made");
    assert!(commit.changes_nothing && commit.welcome.is_empty());
    let summary = one.mls.merge_commit(ID).expect("pending");
    assert!(summary.renewed && summary.added.is_empty() && summary.removed.is_empty());
    match two.mls.handshake(ID, &commit.commit).expect("taken in") {
        Handshake::Commit(summary) => assert!(summary.renewed && summary.by == Some(one.address)),
        other => panic!("{other:?}"),
    }
    one.commit_rows();
    two.commit_rows();
    commit.commit
}

#[test]
fn what_was_not_received_yet_opens_within_three_past_epochs_and_not_beyond() {
    let (mut one, mut two) = pair();
    let mut under_way = Vec::new();
    for n in 1..=7 {
        under_way.push((n, one.says(n)));
        renew(&mut one, &mut two);
    }
    under_way.push((8, one.says(8)));
    let now = two.mls.epoch(ID).expect("in it");
    let mut opened = Vec::new();
    for (n, sealed) in &under_way {
        two.reload();
        match two.hears(*n, sealed) {
            Ok(_) => opened.push(sealed.epoch),
            Err(OpenError::TooOld(epoch)) => assert_eq!(epoch, sealed.epoch),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(opened, [now - 3, now - 2, now - 1, now]);
}

#[test]
fn whoever_took_a_devices_keys_is_locked_out_when_it_renews_them() {
    let (mut one, mut two) = pair();
    let mut thief = Device::new(2);
    thief.rows = two.rows.clone();
    thief.reload();
    // Somebody else's renewal does not help: the thief follows it with the keys that it took.
    let commit = renew(&mut one, &mut two);
    assert!(matches!(thief.mls.handshake(ID, &commit), Ok(Handshake::Commit(_))));
    let sealed = one.says(1);
    assert!(thief.hears(1, &sealed).is_ok());
    let commit = renew(&mut two, &mut one);
    assert!(thief.mls.handshake(ID, &commit).is_err());
    let sealed = one.says(2);
    assert!(matches!(thief.hears(2, &sealed), Err(OpenError::Future(_))));
    assert!(two.hears(2, &sealed).is_ok());
}

/// Renews the keys of one of them, which the others take in; answers the size of the commit.
fn renew_among(crowd: &mut [Device], who: usize) -> usize {
    let commit = crowd[who].mls.commit(ID, &[], &[]).expect("made").commit;
    crowd[who].mls.merge_commit(ID).expect("pending");
    for (n, other) in crowd.iter_mut().enumerate() {
        if n != who {
            assert!(matches!(other.mls.handshake(ID, &commit), Ok(Handshake::Commit(_))));
        }
    }
    commit.len()
}

/// What docs/protocol.md says of the cost.
#[test]
fn a_renewal_is_sealed_to_every_leaf_of_a_young_group_and_to_few_subtrees_of_one_that_has_renewed_its_keys() {
    const CROWD: u8 = 16;
    let mut crowd: Vec<Device> = (1..=CROWD).map(Device::new).collect();
    let packages: Vec<_> = crowd[1..].iter_mut().map(Device::package).collect();
    crowd[0].mls.create(ID).expect("made");
    let commit = crowd[0].mls.commit(ID, &packages, &[]).expect("made");
    crowd[0].mls.merge_commit(ID).expect("pending");
    for other in &mut crowd[1..] {
        other.mls.join(&commit.welcome, None).expect("joined");
    }
    let first = renew_among(&mut crowd, usize::from(CROWD) - 1);
    for who in 0..usize::from(CROWD) - 1 {
        renew_among(&mut crowd, who);
    }
    let settled = renew_among(&mut crowd, 0);
    let per_secret = (first - settled) / (usize::from(CROWD) - 1 - 4);
    assert!((80..110).contains(&per_secret), "{per_secret} bytes a sealed secret; {first}, later {settled}");
    assert!(settled < 1_100, "{settled}");
}
