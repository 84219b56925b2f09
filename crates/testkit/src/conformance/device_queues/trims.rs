// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trims and removed devices.

use super::*;

/// Ten rows of the device, acknowledged up to and including row `cursor_at`.
async fn acknowledged(queues: &Queues, of: DeviceId, cursor_at: u64) -> Outcome {
    write_rows(queues, (0..10).map(|number| row(of, number)).collect()).await?;
    write_registers(queues, vec![cursor(of, at(cursor_at))]).await
}

fn above(number: u64) -> Vec<Position> {
    (number + 1..10).map(at).collect()
}

pub(super) async fn a_trim_deletes_up_to_its_position(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    acknowledged(&*queues, device(1), 5).await?;
    queues.trim(vec![(device(1), at(5))]).await?;
    check_eq!(positions(&*queues, device(1)).await?, above(5), "rows above the trim");
    let floor = DeviceRegister { device: device(1), cursor: None, floor: Some(at(7)) };
    write_registers(&*queues, vec![floor]).await?;
    queues.trim(vec![(device(1), at(7))]).await?;
    check_eq!(positions(&*queues, device(1)).await?, above(7), "rows above the floor");
    Ok(())
}

pub(super) async fn a_trim_is_idempotent_and_spares_other_devices(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    for number in 1..4 {
        acknowledged(&*queues, device(number), 9).await?;
    }
    queues.trim(Vec::new()).await?;
    for _ in 0..2 {
        queues.trim(vec![(device(1), at(2)), (device(3), at(8)), (device(9), Position::ZERO)]).await?;
    }
    check_eq!(positions(&*queues, device(1)).await?, above(2), "rows of the first device");
    check_eq!(positions(&*queues, device(2)).await?.len(), 10, "rows of a device that was not trimmed");
    check_eq!(positions(&*queues, device(3)).await?, above(8), "rows of the third device");
    Ok(())
}

pub(super) async fn a_lower_trim_changes_nothing(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    acknowledged(&*queues, device(1), 6).await?;
    queues.trim(vec![(device(1), at(6))]).await?;
    queues.trim(vec![(device(1), at(2))]).await?;
    write_rows(&*queues, vec![row(device(1), 4)]).await?;
    check_eq!(positions(&*queues, device(1)).await?, above(6), "rows above the higher trim");
    Ok(())
}

pub(super) async fn a_row_replayed_after_a_trim_stays_deleted(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    acknowledged(&*queues, device(1), 5).await?;
    queues.trim(vec![(device(1), at(5))]).await?;
    for number in [0, 3, 5] {
        write_rows(&*queues, vec![row(device(1), number)]).await?;
    }
    write_rows(&*queues, (0..12).map(|number| row(device(1), number)).collect()).await?;
    let expected: Vec<Position> = (6..12).map(at).collect();
    check_eq!(positions(&*queues, device(1)).await?, expected, "rows after a replay");
    let bound = pli_ports::UsageBound { rows_max: 100, bytes_max: 1 << 20 };
    check_eq!(queues.usage(device(1), Position::ZERO, bound, NOW).await?.rows, 6, "rows counted after a replay");
    Ok(())
}

pub(super) async fn a_row_first_written_below_a_trim_stays_deleted(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_registers(&*queues, vec![cursor(device(1), at(50))]).await?;
    queues.trim(vec![(device(1), at(50))]).await?;
    write_rows(&*queues, vec![row(device(1), 20), row(device(1), 50), row(device(1), 51)]).await?;
    check_eq!(positions(&*queues, device(1)).await?, [at(51)], "rows above the trim");
    Ok(())
}

pub(super) async fn a_removed_device_has_nothing(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    acknowledged(&*queues, device(1), 5).await?;
    queues.remove_device(device(1)).await?;
    check!(rows(&*queues, device(1)).await?.is_empty(), "rows of a removed device");
    let found = state(&*queues, device(1)).await?;
    check_eq!((found.cursor, found.floor), (Position::ZERO, Position::ZERO), "registers of a removed device");
    let bound = pli_ports::UsageBound { rows_max: 1, bytes_max: 1 };
    check_eq!(queues.usage(device(1), Position::ZERO, bound, NOW).await?.rows, 0, "usage of a removed device");
    queues.remove_device(device(1)).await?;
    queues.remove_device(device(77)).await?;
    Ok(())
}

pub(super) async fn rows_of_a_removed_device_stay_gone(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    acknowledged(&*queues, device(1), 5).await?;
    queues.remove_device(device(1)).await?;
    write_rows(&*queues, (0..30).map(|number| row(device(1), number)).collect()).await?;
    check!(rows(&*queues, device(1)).await?.is_empty(), "a row written after the removal is there");
    queues.remove_device(device(2)).await?;
    write_rows(&*queues, vec![row(device(2), 1), row(device(3), 1)]).await?;
    check!(rows(&*queues, device(2)).await?.is_empty(), "a row of a device removed before its first row is there");
    check_eq!(rows(&*queues, device(3)).await?, [row(device(3), 1)], "the row beside it");
    Ok(())
}

pub(super) async fn removing_a_device_spares_others(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    acknowledged(&*queues, device(1), 5).await?;
    acknowledged(&*queues, device(2), 4).await?;
    queues.remove_device(device(1)).await?;
    check_eq!(positions(&*queues, device(2)).await?.len(), 10, "rows of the other device");
    check_eq!(state(&*queues, device(2)).await?.cursor, at(4), "cursor of the other device");
    Ok(())
}
