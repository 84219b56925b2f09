// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that the environment gives: seeds, and how many of them.

/// The number in this variable; none where it is not set. What is no number is told: a run of other seeds than were
/// asked for proves nothing.
pub fn number(variable: &str) -> Option<u64> {
    read(variable, std::env::var_os(variable).as_deref()).unwrap_or_else(|told| panic!("{told}"))
}

fn read(variable: &str, text: Option<&std::ffi::OsStr>) -> Result<Option<u64>, String> {
    let Some(text) = text else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| format!("{variable}={} is no number; write one, as {variable}=7", text.display()))
}

#[test]
fn a_garbled_number_is_told_with_its_variable() {
    let read = |text: &str| read("PLI_SIM_SEED", Some(text.as_ref()));
    assert_eq!(read("7"), Ok(Some(7)));
    for text in ["", "0x7", "7 8", "-1", "seven"] {
        let told = read(text).expect_err("no number");
        assert!(told.contains(&format!("PLI_SIM_SEED={text} is no number")), "{told}");
    }
    assert_eq!(super::seeds::read("PLI_SIM_SEED", None), Ok(None));
}
