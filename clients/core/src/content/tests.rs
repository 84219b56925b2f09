// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use pli_domain::{AccountId, ConversationId, DeviceId};
use proptest::prelude::*;

macro_rules! vector {
    ($name:literal, $id:literal) => {
        ($name, include_str!(concat!("../../tests/vectors/mimi-content-08/", $name, ".hex")), $id)
    };
}

/// draft-ietf-mimi-content-08: file, bytes, the message id that the draft prints.
const VECTORS: [(&str, &str, &str); 14] = [
    vector!("attachment", "0176180c7d19a925021fe446d241134d05c38e0d999cdc0f39c391d2377ed9d1"),
    vector!("conferencing", "01496d15a8dba28d7397f9868b70768e4a67f765d5b5b1ae9e03848c5fdeb0ba"),
    vector!("delete", "011d9efc78d04d4dcf4d82b07d5199bbef37011c1f0c7e004b6111c6dda504b4"),
    vector!("edit", "014028c0deddbdea56bec26172f6ede953d11024cb82b8192b5e2aea62d7fb47"),
    vector!("expiring", "01e59db8173939facc2c8a4a0f0ae8d0c7a11a81239626630c9464a8d6717a03"),
    vector!("mention-html", "01967ff8e9a66819738ad5cf26d2e0388a3b81d86b0f61d129c077d043ee2a4e"),
    vector!("mention", "018d825adf9f6be00dcafc5704c4102f5022e74219d0b603e4ba7622654042af"),
    vector!("multipart-1", "01da5a515ec5db42cc4dcc19b90c3c31245d8a1cfcce11318f24eb11dce0990e"),
    vector!("multipart-2", "01d65918c6c51c8e76546337276ae6f4bfd873d867d5cb57c76bcdca3d999dd7"),
    vector!("multipart-3", "01cfebeadbdb83c1eefb6403ba4852daf8bbbf9cd53bf5035a74d5d741950c9f"),
    vector!("original", "017ce54837404c3696e0c747b985cb172716d0ed0a3d249ca63ace7d82a096f4"),
    vector!("reaction", "0158c4288911e50a8f6be3f47746b6682f10fd91bc8c05557aa589a3157aff68"),
    vector!("reply", "015354973c2b65ca937bf1e035ae53a5ab80e947afa43d46920d4202e5cc0b27"),
    vector!("unlike", "013aadbb8f313253c8930f4e93c6ca54b2ed06d258185bdcec3870534c8a4ec4"),
];

fn uri(content: &Content, key: i64) -> &str {
    let found = content.extensions.iter().find(|(k, _)| *k == ExtensionKey::Number(key));
    match found {
        Some((_, Extension::Text(uri))) => uri,
        _ => "",
    }
}

#[test]
fn the_drafts_examples_decode_encode_and_have_the_printed_ids() {
    for (name, hex_bytes, id) in VECTORS {
        let bytes = hex::decode(hex_bytes.trim()).expect("hex");
        let content = Content::decode(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(content.encode(), bytes, "{name}");
        let derived = message_id(uri(&content, 1), uri(&content, 2), &bytes, &content.salt);
        assert_eq!(hex::encode(derived.0), id, "{name}");
    }
}

#[test]
fn another_encoding_of_the_same_content_is_refused() {
    let bytes = Content::text([1; 16], "hi").encode();
    assert_eq!(bytes[0], 0x87);
    let mut longer = vec![0x98, 0x07];
    longer.extend_from_slice(&bytes[1..]);
    assert!(matches!(Content::decode(&longer), Err(ContentError::NotDeterministic)));
    let mut trailing = bytes.clone();
    trailing.push(0xF6);
    assert!(matches!(Content::decode(&trailing), Err(ContentError::NotDeterministic)));
    for end in 0..bytes.len() {
        assert!(Content::decode(&bytes[..end]).is_err());
    }
}

#[test]
fn nesting_is_bounded() {
    let mut content = Content::text([1; 16], "x");
    for _ in 0..PART_DEPTH_MAX {
        let parts = vec![content.part.clone(), content.part.clone()];
        content.part.body = PartBody::Multi { semantics: Semantics::ChooseOne, parts };
    }
    assert!(matches!(Content::decode(&content.encode()), Err(ContentError::Format(_))));
}

#[test]
fn ticks_and_group_info_travel_as_contents() {
    let tick = |n: u8, lost| Tick { sender: DeviceId::from_bytes([n; 16]), delivered: 70_000, read: 3, lost, life: 0 };
    let ticks = Ticks(vec![tick(9, Vec::new())]);
    let content = Content::decode(&ticks.content([2; 16]).encode()).expect("own encoding");
    assert_eq!(Ticks::of(&content).expect("ticks").expect("own encoding"), ticks);
    let holes = Ticks(vec![tick(8, vec![(2, 2), (5, 9)]), tick(9, Vec::new())]);
    let content = Content::decode(&holes.content([2; 16]).encode()).expect("own encoding");
    assert_eq!(Ticks::of(&content).expect("ticks").expect("own encoding"), holes);
    assert!(GroupInfo::of(&content).is_none() && content.as_text().is_none());
    for root in [None, Some(ConversationId::from_bytes([7; 16]))] {
        let group = GroupInfo { name: "team".into(), root, outcasts: Vec::new() };
        let content = Content::decode(&group.content([2; 16]).encode()).expect("own encoding");
        assert_eq!(GroupInfo::of(&content).expect("group").expect("own encoding"), group);
    }
    let info = |outcasts| GroupInfo { name: "team".into(), root: Some(ConversationId::from_bytes([7; 16])), outcasts };
    let read = |info: &GroupInfo| GroupInfo::of(&info.content([2; 16])).expect("group");
    let most = info((0..64).map(|n| AccountId::from_bytes([n; 16])).collect());
    assert_eq!(read(&most).expect("own encoding"), most);
    let over = info((0..65).map(|n| AccountId::from_bytes([n; 16])).collect());
    assert!(matches!(read(&over), Err(ContentError::Format(_))));
    let group = |info: &str| {
        let info = hex::decode(info).expect("hex");
        GroupInfo::of(&Content::single([2; 16], Disposition::UNSPECIFIED, GROUP, info))
    };
    let root = "5007070707070707070707070707070707";
    for wrong in ["80", &format!("83647465616d{root}80"), &format!("83647465616d{root}814105"), "82647465616d4107"] {
        assert!(group(wrong).expect("group").is_err(), "{wrong}");
    }
    // What a later version says behind it is not read.
    let later = group(&format!("84647465616d{root}815009090909090909090909090909090909f5")).expect("group");
    assert_eq!(later.expect("read"), info(vec![AccountId::from_bytes([9; 16])]));
}

#[test]
fn a_frame_without_a_lane_number_is_refused() {
    assert!(matches!(Frame::from_bytes(&[]), Err(FrameError::LaneNumber)));
    let frame = Frame { lane_no: 4, lane_base: 2, content: vec![1].into(), ..Frame::default() };
    assert_eq!(Frame::from_bytes(&frame.to_bytes()).expect("own encoding"), frame);
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(content) = Content::decode(&bytes) {
            prop_assert_eq!(content.encode(), bytes);
        }
    }

    #[test]
    fn any_text_survives(text in ".{0,200}", salt in any::<[u8; 16]>()) {
        let content = Content::decode(&Content::text(salt, &text).encode()).expect("own encoding");
        prop_assert_eq!(content.as_text(), Some(text.as_str()));
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0usize..272, bit in 0u8..8) {
        for (_, hex_bytes, _) in VECTORS {
            let mut bytes = hex::decode(hex_bytes.trim()).expect("hex");
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = Content::decode(&bytes);
        }
    }
}

#[test]
fn what_is_lost_stands_behind_the_watermarks_that_earlier_versions_read() {
    let tick = |lost| Tick { sender: DeviceId::from_bytes([9; 16]), delivered: 4, read: 3, lost, life: 0 };
    let body = |ticks: Ticks| match ticks.content([2; 16]).part.body {
        PartBody::Single { content, .. } => content,
        _ => panic!("a tick is one part"),
    };
    let (before, now) = (body(Ticks(vec![tick(Vec::new())])), body(Ticks(vec![tick(vec![(2, 2)])])));
    assert_eq!(now[..before.len()], before[..]);
    // [[h'09…', [2, 2]]]
    assert_eq!(now[before.len()..], [&[0x81, 0x82, 0x50][..], &[9; 16], &[0x82, 2, 2]].concat());
    // Lives stand behind that, with an empty array where nothing is lost.
    let lives = Ticks(vec![Tick { life: 7, ..tick(Vec::new()) }]);
    assert_eq!(body(lives.clone())[before.len()..], [&[0x80, 0x81, 0x82, 0x50][..], &[9; 16], &[7]].concat());
    let content = Content::decode(&lives.content([2; 16]).encode()).expect("own encoding");
    assert_eq!(Ticks::of(&content).expect("ticks").expect("own encoding"), lives);
    let many = (0..100).map(|n| (3 * n + 1, 3 * n + 1)).collect();
    let content = Ticks(vec![tick(many)]).content([2; 16]);
    let read = Ticks::of(&content).expect("ticks").expect("bounded");
    assert_eq!((read.0[0].lost.len(), read.0[0].lost.last()), (LOST_RANGES_MAX, Some(&(298, 298))));
}
