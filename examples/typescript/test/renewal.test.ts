// SPDX-License-Identifier: MIT OR Apache-2.0
// When keys are renewed.

import assert from "node:assert/strict";
import { test } from "node:test";

import type { Member } from "../src/mls.js";
import { firstRenewal, hastened, look, nextRenewal, soonRenewal, span } from "../src/renewal.js";

const HOUR_MS = 3_600_000;
const WEEK_MS = 7 * 24 * HOUR_MS;
const member = (n: number, account: number): Member => {
  const bytes = (of: number) => new Uint8Array(16).fill(of);
  return { leaf: n, account: bytes(account), device: bytes(n), key: bytes(n) };
};

const at = { said: 5, heard: 7 };
const said = (said: number) => ({ ...at, said });

test("the span is a week, and longer for large groups", () => {
  assert.equal(span(2), WEEK_MS);
  assert.equal(span(336), WEEK_MS);
  assert.equal(span(1_000), 500 * HOUR_MS);
});

test("dates are drawn in the span", () => {
  for (let n = 0; n < 100; n += 1) {
    const first = firstRenewal(2, 1_000, at);
    assert.ok(first.due >= 1_000 && first.due < 1_000 + WEEK_MS);
    const next = nextRenewal(2, 1_000, at);
    assert.ok(next.due >= 1_000 + 0.75 * WEEK_MS && next.due < 1_000 + 1.25 * WEEK_MS);
  }
});

test("much that was said brings a renewal about, but not at once", () => {
  const renewal = { due: WEEK_MS, since: 0, at };
  assert.equal(look(renewal, 2, WEEK_MS, said(6)), true);
  assert.equal(look(renewal, 2, WEEK_MS, { ...at, heard: 8 }), true);
  assert.equal(look(renewal, 2, 8 * HOUR_MS, said(1_004)), renewal);
  assert.equal(look(renewal, 2, 8 * HOUR_MS, said(1_005)), true);
  assert.equal(look(renewal, 2, 6 * HOUR_MS, said(1_005)), renewal);
});

test("where nothing was said the date goes by, and another one is drawn when something is", () => {
  const asleep = look({ due: WEEK_MS, since: 0, at }, 2, WEEK_MS, at);
  assert.ok(asleep !== true);
  assert.equal(look(asleep, 2, 3 * WEEK_MS, at), asleep);
  const awake = look(asleep, 2, 4 * WEEK_MS, said(6));
  assert.ok(awake !== true && awake.due >= 4 * WEEK_MS && awake.due <= 4 * WEEK_MS + HOUR_MS);
  assert.equal(look(awake, 2, 4 * WEEK_MS + HOUR_MS, said(6)), true);
});

test("a removal brings the date nearer, most of all of a device of one's own", () => {
  const [own, other, gone, mine] = [member(1, 1), member(2, 2), member(3, 3), member(4, 1)];
  const renewal = { due: WEEK_MS, since: 0, at };
  const account = own.account;
  assert.equal(hastened(renewal, [own, other], [own, other, gone], account, 0), renewal);
  const sooner = hastened(renewal, [own, other, gone], [own, other], account, 0);
  assert.ok(sooner.due <= HOUR_MS);
  assert.equal(hastened(sooner, [own, other, gone], [own, other], account, 1), sooner, "many draws would make it soon");
  assert.ok(hastened(renewal, [own, other, mine], [own, other], account, 0).due <= HOUR_MS / 6);
  assert.equal(hastened({ ...renewal, due: 0 }, [own, gone], [own], account, 1_000).due, 0);
  const stolen = hastened({ ...renewal, due: 0 }, [own, mine], [own], account, 1_000);
  assert.ok(stolen.due >= 1_000 && stolen.due <= 1_000 + HOUR_MS / 6);
  assert.equal(look(stolen, 2, HOUR_MS, at), true, "though nothing was said");
});

test("after a key package of last resort keys are renewed within minutes, in silence too", () => {
  const renewal = soonRenewal(1_000);
  assert.ok(renewal.due >= 1_000 && renewal.due <= 1_000 + HOUR_MS / 6);
  assert.equal(look(renewal, 2, renewal.due, { said: 0, heard: 0 }), true);
});
