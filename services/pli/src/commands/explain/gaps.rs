// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hops that are missing, and what may be the reason: it has not happened, or who knew of it was not asked, did not
//! answer, keeps no hops, has overwritten them, or was started since.

use std::collections::BTreeSet;

use pli_runtime::trail::HopKind;

use super::print::moment;
use super::story::{Place, Story, Teller};

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The shard, where it is missing in one.
    pub shard: Option<u16>,
    /// What was looked for.
    pub missing: &'static str,
    /// How often it is missing, of how many; none where there is no more than one to be had, or nobody can count.
    pub of: Option<(usize, usize)>,
    /// Why it may be; at least one reason.
    pub reasons: Vec<String>,
}

/// What was looked for and not found.
struct Wanted {
    shard: Option<u16>,
    /// Who would have noted it.
    role: &'static str,
    what: &'static str,
    of: Option<(usize, usize)>,
    /// The reason where all that could know of it were asked.
    not_yet: &'static str,
    /// It cannot have happened before; 0 where nobody knows.
    from_ms: u64,
}

/// Everything that is missing.
pub fn of(story: &Story) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let sender = |kind| story.sender.iter().any(|step| step.hop.kind == kind);
    let refused = sender(HopKind::Refused);
    let wanted = |what, not_yet, from_ms| Wanted { shard: None, role: "edge", what, of: None, not_yet, from_ms };
    if !sender(HopKind::Admitted) && !refused {
        gaps.push(wanted("an edge that admitted it", "no edge has seen it", 0).gap(story));
    }
    if story.places.is_empty() && !refused && !sender(HopKind::Stored) {
        let from = if sender(HopKind::Admitted) { story.begin_ms() } else { 0 };
        gaps.push(wanted("its place in a shard's log", "no log has taken it yet", from).gap(story));
    }
    gaps.extend(story.places.iter().flat_map(|place| of_place(story, place)));
    gaps
}

fn of_place(story: &Story, place: &Place) -> Vec<Gap> {
    let has = |kinds: &[HopKind]| place.steps.iter().any(|step| kinds.contains(&step.hop.kind));
    let admitted = story.sender.iter().any(|step| step.hop.kind == HopKind::Admitted);
    let from_ms = if admitted || has(&[HopKind::Accepted]) { story.begin_ms() } else { 0 };
    let shard = Some(place.shard);
    let missing = |role, what, not_yet| Wanted { shard, role, what, of: None, not_yet, from_ms }.gap(story);
    let mut gaps = Vec::new();
    if !has(&[HopKind::Accepted]) {
        gaps.push(missing("edge", "the edge that appended it", "a service appended it, not an edge"));
    }
    if !has(&[HopKind::Read]) {
        gaps.push(missing("delivery", "an owner that read it", "the shard's owner has not read it yet"));
    }
    if !has(&[HopKind::Expired, HopKind::Gone]) {
        gaps.extend(of_sessions(story, place, from_ms));
    }
    if !has(&[HopKind::Settled]) {
        let not_yet =
            "the owner has not settled it yet, so it is in the tail; a recipient without a session does not show";
        gaps.push(missing("delivery", "the checkpoint above it", not_yet));
    }
    gaps
}

/// What sessions have not got or not acknowledged. A recipient that has had no session since shows only once it has a
/// row: nobody else knows how many recipients there are in the shard.
fn of_sessions(story: &Story, place: &Place, from_ms: u64) -> Vec<Gap> {
    let told = sessions(place, &[HopKind::Told]);
    let heard = sessions(place, &[HopKind::Rung, HopKind::PagedTail, HopKind::PagedRows, HopKind::Bell]);
    let acked = sessions(place, &[HopKind::Acked, HopKind::Passed]);
    let wanted =
        |role, what, of, not_yet| Wanted { shard: Some(place.shard), role, what, of, not_yet, from_ms }.gap(story);
    let mut gaps = Vec::new();
    if heard.is_empty() && told.is_empty() {
        let not_yet = "no recipient has had a session since";
        gaps.push(wanted("delivery", "a doorbell or a page for a recipient", None, not_yet));
    }
    let untold = heard.difference(&told).count();
    if untold > 0 {
        let not_yet = "the session reads something else first, or ended before";
        gaps.push(wanted("edge", "an edge that sent it to a device", Some((untold, heard.len())), not_yet));
    }
    let open = told.difference(&acked).count();
    if open > 0 {
        let not_yet = "the device has not acknowledged it, or has come back in another session";
        gaps.push(wanted("edge", "an acknowledgement", Some((open, told.len())), not_yet));
    }
    let rows = rows(place);
    if !told.is_empty() && rows.0 > 0 {
        let not_yet = "the device has not come for it since";
        gaps.push(wanted("delivery", "an acknowledgement of what is written as a row", Some(rows), not_yet));
    }
    if let Some(step) = place.steps.iter().find(|step| step.hop.kind == HopKind::Floor) {
        let at = moment(step.hop.at_ms);
        gaps.iter_mut()
            .for_each(|gap| gap.reasons.push(format!("a queue was too long and lost its rows up to here at {at}")));
    }
    gaps
}

fn sessions(place: &Place, kinds: &[HopKind]) -> BTreeSet<u64> {
    place.steps.iter().filter(|step| kinds.contains(&step.hop.kind)).map(|step| step.hop.second).collect()
}

/// Rows that nobody has acknowledged since they were written, and all.
fn rows(place: &Place) -> (usize, usize) {
    let written: Vec<u64> =
        place.steps.iter().filter(|step| step.hop.kind == HopKind::Spilled).map(|step| step.hop.at_ms).collect();
    let since = |at_ms: u64| written.first().is_some_and(|first| at_ms >= *first);
    let passed = place.steps.iter().filter(|step| step.hop.kind == HopKind::Passed && since(step.hop.at_ms)).count();
    (written.len().saturating_sub(passed), written.len())
}

impl Wanted {
    fn gap(self, story: &Story) -> Gap {
        let mut reasons: Vec<String> =
            story.silent.iter().map(|silent| format!("{} did not answer", silent.process)).collect();
        let off = story.tellers.iter().filter(|teller| teller.size == 0);
        reasons.extend(off.map(|teller| format!("{} keeps no hops (telemetry.hops = 0)", teller.process)));
        let asked = |teller: &&Teller| teller.size > 0 && teller.roles.iter().any(|has| has == self.role);
        let asked: Vec<&Teller> = story.tellers.iter().filter(asked).collect();
        reasons.extend(asked.iter().filter_map(|teller| self.forgotten(teller)));
        if asked.is_empty() {
            reasons.push(format!("no process with the role {} answered; name its admin port with --admin", self.role));
        } else if reasons.is_empty() || self.from_ms == 0 {
            reasons.push(self.not_yet.to_owned());
        }
        Gap { shard: self.shard, missing: self.what, of: self.of, reasons }
    }

    /// Why this process may have known of it once, or would have.
    fn forgotten(&self, teller: &Teller) -> Option<String> {
        // With nothing known of it, it may be older than anything.
        let before = |at_ms: u64| self.from_ms == 0 || at_ms > self.from_ms;
        let process = &teller.process;
        match teller.since_ms {
            Some(since) if before(since) => Some(format!(
                "{process} has overwritten what it noted before {} (telemetry.hops = {})",
                moment(since),
                teller.size
            )),
            None if before(teller.started_ms) => {
                Some(format!("{process} runs since {}; what came before is not in its ring", moment(teller.started_ms)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use pli_domain::SendId;
    use pli_runtime::trail::{Hop, HopsReport, Introduced, NOWHERE};

    use super::super::ask::{Answer, Asked, Silent};
    use super::super::story::Step;
    use super::*;

    fn report(role: &str, size: usize, noted: u64, oldest_ms: u64, hops: Vec<Hop>) -> HopsReport {
        HopsReport { roles: vec![Introduced { role: role.into(), id: 1 }], size, noted, started_ms: 1, oldest_ms, hops }
    }

    fn answer(process: &str, report: HopsReport) -> Answer {
        Answer { process: process.into(), report }
    }

    fn hop(kind: HopKind, at_ms: u64, shard: u16) -> Hop {
        Hop { at_ms, kind, shard, place: 1024, first: 7, second: 8 }
    }

    fn story(answers: Vec<Answer>, silent: Vec<Silent>, at_place: Vec<Hop>) -> Story {
        let hops = Asked { answers: answers.clone(), silent };
        let mut story = Story::new(SendId::from_bytes([7; 16]), hops, 0);
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
        let said = reasons(&unknown, "an edge that admitted it");
        assert_eq!(said[0], format!("e:1 runs since {}; what came before is not in its ring", moment(1)));
        assert_eq!(said[1..], ["no edge has seen it"]);
        assert!(unknown.is_empty());
    }

    #[test]
    fn a_process_that_was_started_since_is_told_apart_from_one_that_has_seen_nothing() {
        let edge = answer("e:1", report("edge", 8, 2, 1, vec![hop(HopKind::Admitted, 4, NOWHERE)]));
        let again = HopsReport { started_ms: 5, ..report("delivery", 8, 0, 0, Vec::new()) };
        let said = reasons(
            &story(vec![edge, answer("d:1", again)], Vec::new(), vec![hop(HopKind::Accepted, 5, 3)]),
            "an owner that read it",
        );
        assert_eq!(said, [format!("d:1 runs since {}; what came before is not in its ring", moment(5))]);
        // The owner has read the log again since it was started; the edge was started too.
        let edge = answer("e:1", report("edge", 8, 0, 0, Vec::new()));
        let read = story(vec![edge], Vec::new(), vec![hop(HopKind::Read, 9, 3)]);
        assert!(reasons(&read, "the edge that appended it")[0].contains("e:1 runs since"), "{:?}", of(&read));
    }

    #[test]
    fn one_device_that_got_it_does_not_hide_others() {
        let of_session = |kind, second| Hop { second, ..hop(kind, 5, 3) };
        let mut steps: Vec<Hop> = vec![hop(HopKind::Accepted, 5, 3), hop(HopKind::Read, 5, 3)];
        steps.extend((0..30).map(|session| of_session(HopKind::Rung, session)));
        steps.extend((0..2).map(|session| of_session(HopKind::Told, session)));
        steps.push(of_session(HopKind::Passed, 0));
        steps.extend((0..3).map(|_| hop(HopKind::Spilled, 6, 3)));
        let edge = answer("e:1", report("edge", 8, 2, 1, vec![hop(HopKind::Admitted, 4, NOWHERE)]));
        let delivery = answer("d:1", report("delivery", 8, 2, 1, Vec::new()));
        let mut all = story(vec![edge, delivery], Vec::new(), steps);
        let count = |story: &Story, what| of(story).into_iter().find(|gap| gap.missing == what).and_then(|gap| gap.of);
        assert_eq!(count(&all, "an edge that sent it to a device"), Some((28, 30)));
        assert_eq!(count(&all, "an acknowledgement"), Some((1, 2)));
        assert_eq!(count(&all, "an acknowledgement of what is written as a row"), Some((3, 3)));
        let text = super::super::print::text(&all);
        assert!(text.contains("an edge that sent it to a device (28 of 30)"), "{text}");
        // A floor that rose above it may be the end of those rows.
        let steps = vec![hop(HopKind::Floor, 7, 3)];
        all.places[0].steps.extend(steps.into_iter().map(|hop| Step { process: "d:1".into(), hop }));
        let said = reasons(&all, "an acknowledgement of what is written as a row");
        assert!(said.iter().any(|reason| reason.contains("lost its rows")), "{said:?}");
    }
}
