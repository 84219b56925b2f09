// SPDX-License-Identifier: MIT OR Apache-2.0
// Order in a lane: random arrivals are shown once, in order or as late, and no number is forgotten.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { beginAgain, giveUp, HOLE_HELD_MS, noteStay, receive, watermark, type Lane, type Shown } from "../src/lanes.js";

/** Small and seeded (mulberry32), so that a failure can be seen again. */
function draws(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffled(count: number, draw: () => number): number[] {
  const numbers = Array.from({ length: count }, (_, i) => i + 1);
  for (let i = count - 1; i > 0; i -= 1) {
    const j = Math.floor(draw() * (i + 1));
    [numbers[i], numbers[j]] = [numbers[j]!, numbers[i]!];
  }
  return numbers;
}

describe("a lane", () => {
  test("a lane goes on where its sender says, and not above what comes", () => {
    assert.deepEqual(receive(undefined, 5, 5, "first", 0).shown, [{ no: 5, item: "first", late: false }]);
    const below = receive(undefined, 5, 3, "sealed again", 0);
    assert.deepEqual(below.shown, [{ no: 3, item: "sealed again", late: false }]);
  });

  test("a hole is held, then marked, and what fills it later is late", () => {
    const ahead = receive(receive(undefined, 1, 1, "one", 0).lane, 1, 4, "four", 100);
    assert.deepEqual(ahead.shown, []);
    assert.equal(giveUp(ahead.lane, 100 + HOLE_HELD_MS - 1), undefined);
    const given = giveUp(ahead.lane, 100 + HOLE_HELD_MS)!;
    assert.deepEqual(given.hole, [2, 3]);
    assert.deepEqual(given.shown, [{ no: 4, item: "four", late: false }]);
    assert.deepEqual(given.lane.lost, [[2, 3]]);
    const late = receive(given.lane, 1, 2, "two", 200);
    assert.deepEqual(late.shown, [{ no: 2, item: "two", late: true }]);
    assert.deepEqual(late.lane.lost, [[3, 3]]);
    assert.equal(watermark(late.lane), 4);
  });

  test("numbers whose messages were refused are no hole", () => {
    const one = receive(undefined, 1, 1, "one", 0).lane;
    const four = receive(one, 1, 4, "four", 0, 2);
    assert.deepEqual(four.shown, [{ no: 4, item: "four", late: false }]);
    assert.deepEqual(four.lane.lost, []);
    const held = receive(one, 1, 5, "five", 0, 3);
    assert.deepEqual(held.shown, []);
    assert.deepEqual(giveUp(held.lane, HOLE_HELD_MS)!.hole, [2, 2]);
    const both = receive(held.lane, 1, 2, "two", 0);
    assert.deepEqual(
      both.shown.map(({ no }) => no),
      [2, 5],
    );
  });

  test("what was numbered while this device was out is no hole, and each stay is told", () => {
    const two = receive(receive(undefined, 1, 1, "one", 0).lane, 1, 2, "two", 0).lane;
    const again = receive(beginAgain(two), 6, 6, "six", 0);
    assert.deepEqual(again.shown, [{ no: 6, item: "six", late: false }]);
    assert.deepEqual([watermark(again.lane), again.lane.stays], [6, [2]]);
    assert.deepEqual(receive(again.lane, 6, 8, "eight", 0).shown, [], "a hole is one again");
    const late = receive(beginAgain(two), 1, 2, "two again", 0);
    assert.deepEqual(receive(late.lane, 6, 6, "six", 0).shown, [{ no: 6, item: "six", late: false }]);
    const ahead = receive(two, 1, 4, "four", 0).lane;
    const shown = receive(beginAgain(ahead), 6, 6, "six", 0);
    assert.deepEqual(
      shown.shown.map(({ item }) => item),
      ["four", "six"],
      "what was held is shown",
    );
    assert.deepEqual(shown.lane.lost, [[3, 3]]);
    assert.equal(noteStay(noteStay(two)).stays?.length, 1);
    let often = two;
    for (let no = 10; no < 20; no += 1) often = receive(beginAgain(often), no * 2, no * 2, "again", 0).lane;
    assert.deepEqual(often.stays, [30, 32, 34, 36]);
  });

  const seed = Number(process.env["PLI_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  test(`any order of arrival (PLI_SEED=${seed})`, () => {
    const draw = draws(seed);
    for (let round = 0; round < 200; round += 1) {
      const count = 1 + Math.floor(draw() * 40);
      let lane: Lane<number> | undefined;
      let now = 0;
      const shown: Shown<number>[] = [];
      for (const no of shuffled(count, draw)) {
        now += Math.floor(draw() * 4_000);
        const step = receive<number>(lane, 1, no, no, now);
        shown.push(...step.shown);
        const given = giveUp(step.lane, now);
        lane = given?.lane ?? step.lane;
        shown.push(...(given?.shown ?? []));
      }
      for (let given = giveUp(lane!, Infinity); given !== undefined; given = giveUp(given.lane, Infinity)) {
        lane = given.lane;
        shown.push(...given.shown);
      }
      assert.deepEqual(
        shown.map(({ no }) => no).sort((a, b) => a - b),
        Array.from({ length: count }, (_, i) => i + 1),
      );
      const inOrder = shown.filter(({ late }) => !late).map(({ no }) => no);
      assert.deepEqual(
        inOrder,
        [...inOrder].sort((a, b) => a - b),
      );
      assert.deepEqual(lane!.lost, []);
      assert.equal(watermark(lane!), count);
    }
  });
});
