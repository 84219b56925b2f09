// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows and pages.

use super::*;

pub(super) async fn an_unknown_device_has_nothing(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let page = queues.read_page(everything(device(1))).await?;
    check!(page.rows.is_empty(), "rows of a device that never was: {page:?}");
    check_eq!(page.next, Position::MAX, "the page is complete");
    let found = state(&*queues, device(1)).await?;
    check_eq!((found.cursor, found.floor), (Position::ZERO, Position::ZERO), "registers of a device that never was");
    Ok(())
}

pub(super) async fn rows_are_read_in_order_of_position(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    for number in [7, 300, 1, 250, 99, 100] {
        write_rows(&*queues, vec![row(device(1), number)]).await?;
    }
    let expected: Vec<QueueRow> = [1, 7, 99, 100, 250, 300].map(|number| row(device(1), number)).into();
    check_eq!(rows(&*queues, device(1)).await?, expected, "rows");
    Ok(())
}

pub(super) async fn rows_of_devices_are_apart(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    // The same positions: recipients of one item share one.
    let both = |number| [row(device(1), number), row(device(2), number)];
    write_rows(&*queues, (0..3).flat_map(both).collect()).await?;
    write_rows(&*queues, vec![row(device(2), 9)]).await?;
    check_eq!(rows(&*queues, device(1)).await?, [0, 1, 2].map(|n| row(device(1), n)), "rows of the first device");
    check_eq!(rows(&*queues, device(2)).await?, [0, 1, 2, 9].map(|n| row(device(2), n)), "rows of the second device");
    Ok(())
}

pub(super) async fn large_envelopes_come_back_whole(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let body: Vec<u8> = (0..66_000u32).map(|n| (n % 251) as u8).collect();
    let large = QueueRow { envelope: Bytes::from(body), ..row(device(1), 1) };
    let empty = QueueRow { envelope: Bytes::new(), ..row(device(1), 2) };
    write_rows(&*queues, vec![large.clone(), empty.clone()]).await?;
    check!(rows(&*queues, device(1)).await? == [large, empty], "an envelope came back with other bytes");
    Ok(())
}

pub(super) async fn the_largest_settle_is_accepted(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let many: Vec<QueueRow> = (0..4).flat_map(|d| (0..1_024).map(move |n| row(device(d), n))).collect();
    write_rows(&*queues, many).await?;
    for number in 0..4 {
        check_eq!(rows(&*queues, device(number)).await?.len(), 1_024, "rows of device {number}");
    }
    Ok(())
}

pub(super) async fn the_ends_of_the_position_space_can_be_stored(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let ends = [Position::ZERO.next(), Position::new(LogEpoch::MAX, Seq::MAX, 1_022)];
    let made = ends.map(|position| QueueRow { position, ..row(device(1), 0) });
    write_rows(&*queues, made.to_vec()).await?;
    check_eq!(positions(&*queues, device(1)).await?, ends, "positions");
    let last = Checkpoint { position: Position::end_of(LogEpoch::MAX, Seq::MAX), entry: Some(entry_id(1)) };
    write_registers(&*queues, vec![cursor(device(1), Position::MAX)]).await?;
    write_checkpoint(&*queues, last).await?;
    check_eq!(state(&*queues, device(1)).await?.cursor, Position::MAX, "the last cursor");
    check_eq!(queues.shard_state(SHARD).await?.checkpoint, last, "the last checkpoint");
    Ok(())
}

pub(super) async fn a_page_has_at_most_the_rows_asked(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_rows(&*queues, (0..10).map(|number| row(device(1), number)).collect()).await?;
    let mut query = PageQuery { rows_max: 3, ..everything(device(1)) };
    let mut seen = Vec::new();
    for _ in 0..4 {
        let page = queues.read_page(query).await?;
        check!(page.rows.len() <= 3, "{} rows where 3 were asked", page.rows.len());
        check!(page.next > query.after, "a page that leads nowhere: {page:?}");
        check!(page.rows.len() < 3 || page.next >= page.rows[2].position, "next below its last row: {page:?}");
        check!(page.next == query.through || page.rows.last().is_some_and(|r| r.position == page.next), "{page:?}");
        query.after = page.next;
        seen.extend(page.rows);
    }
    check_eq!(seen, (0..10).map(|number| row(device(1), number)).collect::<Vec<_>>(), "rows over four pages");
    check_eq!(query.after, Position::MAX, "the last page is complete");
    Ok(())
}

pub(super) async fn a_page_stops_after_the_row_that_passes_its_bytes(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let made = |number| QueueRow { envelope: Bytes::from(vec![1; 1_000]), ..row(device(1), number) };
    write_rows(&*queues, (0..10).map(made).collect()).await?;
    let page = queues.read_page(PageQuery { bytes_max: 2_500, ..everything(device(1)) }).await?;
    check_eq!(page.rows.len(), 3, "rows of 1,000 bytes until 2,500 are passed");
    check_eq!(page.next, at(2), "the page ends at its last row");
    let rest = queues.read_page(PageQuery { after: page.next, ..everything(device(1)) }).await?;
    check_eq!(rest.rows.first().map(|row| row.position), Some(at(3)), "the next page goes on there");
    check_eq!(rest.rows.len(), 7, "rows of the next page");
    Ok(())
}

pub(super) async fn a_page_has_at_least_one_row(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_rows(&*queues, (0..3).map(|number| row(device(1), number)).collect()).await?;
    let page = queues.read_page(PageQuery { rows_max: 1, bytes_max: 1, ..everything(device(1)) }).await?;
    check_eq!(page.rows, [row(device(1), 0)], "rows within 1 byte");
    check_eq!(page.next, at(0), "the page ends at its row");
    Ok(())
}

pub(super) async fn a_page_reads_above_after_and_through_through(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_rows(&*queues, (0..10).map(|number| row(device(1), number)).collect()).await?;
    let page = queues.read_page(PageQuery { after: at(3), through: at(6), ..everything(device(1)) }).await?;
    check_eq!(page.rows, [4, 5, 6].map(|number| row(device(1), number)), "rows above 3 up to 6");
    check_eq!(page.next, at(6), "the page is complete");
    let none = queues.read_page(PageQuery { after: at(6), through: at(6), ..everything(device(1)) }).await?;
    check!(none.rows.is_empty() && none.next == at(6), "an empty range: {none:?}");
    Ok(())
}

pub(super) async fn an_empty_page_is_complete_up_to_through(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_rows(&*queues, vec![row(device(1), 1), row(device(1), 500)]).await?;
    let page = queues.read_page(PageQuery { after: at(1), through: at(400), ..everything(device(1)) }).await?;
    check!(page.rows.is_empty(), "rows between 1 and 400: {page:?}");
    check_eq!(page.next, at(400), "the page is complete");
    Ok(())
}

pub(super) async fn expired_rows_are_left_out(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let expiring = |number, ms| QueueRow { expires_at: UnixMillis(NOW.0 + ms), ..row(device(1), number) };
    write_rows(&*queues, vec![expiring(1, 90_000), expiring(2, 90_001), expiring(3, 89_999)]).await?;
    check_eq!(positions(&*queues, device(1)).await?, [at(1), at(2), at(3)], "before any expires");
    let then = UnixMillis(NOW.0 + 90_000);
    let page = queues.read_page(PageQuery { now: then, ..everything(device(1)) }).await?;
    check_eq!(page.rows, [expiring(2, 90_001)], "rows that expire after now");
    check_eq!(page.next, Position::MAX, "the page is complete");
    Ok(())
}

pub(super) async fn paging_crosses_many_expired_rows(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    let soon = UnixMillis(NOW.0 + 61_000);
    let made = |n: u64| QueueRow { expires_at: if n % 100 == 99 { LATER } else { soon }, ..row(device(1), n) };
    write_rows(&*queues, (0..1_000).map(made).collect()).await?;
    let mut query = PageQuery { now: soon, rows_max: 4, ..everything(device(1)) };
    let mut seen = Vec::new();
    for _ in 0..1_000 {
        let page = queues.read_page(query).await?;
        check!(page.next > query.after, "a page that leads nowhere: {page:?}");
        seen.extend(page.rows.iter().map(|row| row.position));
        query.after = page.next;
        if page.next == query.through {
            break;
        }
    }
    check_eq!(seen, (0..10).map(|n| at(n * 100 + 99)).collect::<Vec<_>>(), "live rows among expired ones");
    Ok(())
}

pub(super) async fn a_row_durable_after_a_higher_one_was_read_is_delivered(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    write_rows(&*queues, vec![row(device(1), 10)]).await?;
    check_eq!(positions(&*queues, device(1)).await?, [at(10)], "the higher row");
    write_rows(&*queues, vec![row(device(1), 5)]).await?;
    check_eq!(positions(&*queues, device(1)).await?, [at(5), at(10)], "both rows");
    let below = queues.read_page(PageQuery { through: at(9), ..everything(device(1)) }).await?;
    check_eq!(below.rows, [row(device(1), 5)], "the row below");
    Ok(())
}

pub(super) async fn an_acknowledged_row_is_read_at_once(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    for number in 0..50 {
        write_rows(&*queues, vec![row(device(1), number)]).await?;
        let found = positions(&*queues, device(1)).await?;
        check_eq!(found.last().copied(), Some(at(number)), "the row just acknowledged");
        check_eq!(found.len() as u64, number + 1, "rows so far");
    }
    Ok(())
}

pub(super) async fn a_row_written_again_is_one_row(h: &mut dyn Harness<Queues>) -> Outcome {
    let queues = h.fresh().await;
    for _ in 0..3 {
        write_rows(&*queues, vec![row(device(1), 1), row(device(1), 2)]).await?;
    }
    write_rows(&*queues, vec![row(device(1), 1), row(device(1), 1)]).await?;
    check_eq!(rows(&*queues, device(1)).await?, [1, 2].map(|number| row(device(1), number)), "rows");
    Ok(())
}
