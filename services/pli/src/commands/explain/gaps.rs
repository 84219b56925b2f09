// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hops that are missing, and what may be the reason: it has not happened, or who knew of it was not asked, did not
//! answer, keeps no hops, or has overwritten them.

use pli_runtime::trail::HopKind;

use super::story::{Place, Story};

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The shard, where it is missing in one.
    pub shard: Option<u16>,
    /// What was looked for.
    pub missing: &'static str,
    /// Why it may be; at least one reason.
    pub reasons: Vec<String>,
}

/// Everything that is missing.
pub fn of(story: &Story) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let sender = |kind| story.sender.iter().any(|step| step.hop.kind == kind);
    let refused = sender(HopKind::Refused);
    if !sender(HopKind::Admitted) && !refused {
        gaps.push(gap(story, None, "edge", "an edge that admitted it", "no edge has seen it"));
    }
    if story.places.is_empty() && !refused {
        gaps.push(gap(story, None, "edge", "its place in a shard's log", "no log has taken it yet"));
    }
    for place in &story.places {
        gaps.extend(of_place(story, place));
    }
    gaps
}

fn of_place(story: &Story, place: &Place) -> Vec<Gap> {
    let has = |kinds: &[HopKind]| place.steps.iter().any(|step| kinds.contains(&step.hop.kind));
    let missing = |role, what, not_yet| gap(story, Some(place.shard), role, what, not_yet);
    let mut gaps = Vec::new();
    if !has(&[HopKind::Accepted]) {
        gaps.push(missing("edge", "the edge that appended it", "a service appended it, not an edge"));
    }
    if !has(&[HopKind::Read]) {
        gaps.push(missing("delivery", "an owner that read it", "the shard's owner has not read it yet"));
    }
    let told = has(&[HopKind::Told]);
    if !told && !has(&[HopKind::Rung, HopKind::PagedTail, HopKind::PagedRows]) {
        let not_yet = "no recipient has had a session since";
        gaps.push(missing("delivery", "a doorbell or a page for a recipient", not_yet));
    } else if !told {
        gaps.push(missing("edge", "an edge that sent it to a device", "the session reads something else first"));
    }
    if told && !has(&[HopKind::Acked, HopKind::Passed]) {
        gaps.push(missing("edge", "an acknowledgement", "the device has not acknowledged it"));
    }
    if !has(&[HopKind::Settled]) {
        let not_yet = "the owner has not settled it yet, so it is in the tail";
        gaps.push(missing("delivery", "the checkpoint above it", not_yet));
    }
    gaps
}

fn gap(story: &Story, shard: Option<u16>, role: &str, missing: &'static str, not_yet: &str) -> Gap {
    let mut reasons: Vec<String> =
        story.silent.iter().map(|silent| format!("{} did not answer", silent.process)).collect();
    let mut asked = false;
    let begin = story.begin_ms();
    for teller in &story.tellers {
        if teller.size == 0 {
            reasons.push(format!("{} keeps no hops (telemetry.hops = 0)", teller.process));
            continue;
        }
        if !teller.roles.iter().any(|has| has == role) {
            continue;
        }
        asked = true;
        // With nothing known of it, it may be older than anything.
        if let Some(since) = teller.since_ms.filter(|since| begin == 0 || *since > begin) {
            reasons.push(format!(
                "{} has overwritten what it noted before {} (telemetry.hops = {})",
                teller.process,
                super::print::moment(since),
                teller.size
            ));
        }
    }
    if !asked {
        reasons.push(format!("no process with the role {role} answered; name its admin port with --admin"));
    }
    if reasons.is_empty() {
        reasons.push(not_yet.to_owned());
    }
    Gap { shard, missing, reasons }
}

#[cfg(test)]
mod tests {
    use pli_domain::SendId;
    use pli_runtime::trail::{Hop, HopsReport, Introduced, NOWHERE};

    use super::super::ask::{Answer, Asked, Silent};
    use super::*;

    fn report(role: &str, size: usize, noted: u64, oldest_ms: u64, hops: Vec<Hop>) -> HopsReport {
        HopsReport { roles: vec![Introduced { role: role.into(), id: 1 }], size, noted, oldest_ms, hops }
    }

    fn answer(process: &str, report: HopsReport) -> Answer {
        Answer { process: process.into(), report }
    }

    fn hop(kind: HopKind, at_ms: u64, shard: u16) -> Hop {
        Hop { at_ms, kind, shard, place: 1024, first: 7, second: 8 }
    }

    fn story(answers: Vec<Answer>, silent: Vec<Silent>, at_place: Vec<Hop>) -> Story {
        let hops = Asked { answers: answers.clone(), silent };
        let mut story = Story::new(SendId::from_bytes([7; 16]), hops);
        if !at_place.is_empty() {
            let answers = vec![answer("e:1", report("edge", 8, 1, 1, at_place))];
            story.add(3, 1024, Asked { answers, silent: Vec::new() });
        }
        story
    }

    fn reasons(story: &Story, missing: &str) -> Vec<String> {
        let found: Vec<Gap> = of(story).into_iter().filter(|gap| gap.missing == missing).collect();
        assert_eq!(found.len(), 1, "{missing}: {:?}", of(story));
        found[0].reasons.clone()
    }

    #[test]
    fn a_whole_way_misses_nothing() {
        let at = |kind| hop(kind, 5, 3);
        let kinds = [HopKind::Accepted, HopKind::Read, HopKind::Rung, HopKind::Told, HopKind::Acked, HopKind::Settled];
        let edge = report("edge", 8, 2, 1, vec![hop(HopKind::Admitted, 4, NOWHERE)]);
        let all = vec![answer("e:1", edge), answer("d:1", report("delivery", 8, 2, 1, Vec::new()))];
        assert_eq!(of(&story(all, Vec::new(), kinds.map(at).to_vec())), []);
    }

    #[test]
    fn a_missing_hop_says_why_it_may_be_missing() {
        let edge = || answer("e:1", report("edge", 8, 2, 1, vec![hop(HopKind::Admitted, 4, NOWHERE)]));
        let accepted = || vec![hop(HopKind::Accepted, 5, 3)];
        let owner = "an owner that read it";
        let not_yet =
            story(vec![edge(), answer("d:1", report("delivery", 8, 2, 1, Vec::new()))], Vec::new(), accepted());
        assert_eq!(reasons(&not_yet, owner), ["the shard's owner has not read it yet"]);
        let nobody = story(vec![edge()], Vec::new(), accepted());
        assert!(reasons(&nobody, owner)[0].contains("no process with the role delivery answered"));
        let silent = vec![Silent { process: "d:1".into(), why: "refused".into() }];
        let silent = story(vec![edge()], silent, accepted());
        assert!(reasons(&silent, owner)[0].contains("d:1 did not answer"));
        let turned = answer("d:1", report("delivery", 8, 9_000, 6, Vec::new()));
        let turned = story(vec![edge(), turned], Vec::new(), accepted());
        assert!(reasons(&turned, owner)[0].contains("d:1 has overwritten"), "{:?}", of(&turned));
        let off = answer("d:1", report("delivery", 0, 0, 0, Vec::new()));
        let off = story(vec![edge(), off], Vec::new(), accepted());
        assert!(reasons(&off, owner)[0].contains("telemetry.hops = 0"));
    }

    #[test]
    fn a_refused_send_misses_no_log() {
        let edge = answer("e:1", report("edge", 8, 2, 1, vec![hop(HopKind::Refused, 4, NOWHERE)]));
        assert_eq!(of(&story(vec![edge], Vec::new(), Vec::new())), []);
        let unknown = story(vec![answer("e:1", report("edge", 8, 2, 1, Vec::new()))], Vec::new(), Vec::new());
        assert_eq!(reasons(&unknown, "an edge that admitted it"), ["no edge has seen it"]);
        assert!(unknown.is_empty());
    }
}
