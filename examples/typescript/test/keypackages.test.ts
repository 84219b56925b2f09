// SPDX-License-Identifier: MIT OR Apache-2.0
// Private keys of key packages that were used.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { KeyPackages } from "../src/keypackages.js";
import type { Link } from "../src/link.js";
import type { OwnKeyPackage } from "../src/mls.js";
import { newProfile } from "../src/profile.js";
import { Store } from "../src/store.js";

const HOUR_MS = 3_600_000;

test("the key of a package of last resort is kept for an hour after its first use, and the package replaced", async () => {
  const folder = await mkdtemp(join(tmpdir(), "pli-keypackages-"));
  const store = await Store.open(folder);
  const link = { call: () => Promise.resolve({}) } as unknown as Link;
  const packages = new KeyPackages(store, link, newProfile("bob", 1));
  const all = () => store.table<OwnKeyPackage>("keypackage").entries();
  let told = 0;
  packages.onLastResort = () => void (told += 1);
  try {
    await packages.publish();
    const [lastResort] = all().find(([, own]) => own.lastResort)!;
    const [single] = all().find(([, own]) => !own.lastResort)!;
    await store.change(() => assert.equal(packages.used(single), false));
    assert.deepEqual([packages.get(single), packages.isSpent(), told], [undefined, false, 0]);
    const now = Date.now();
    await store.change(() => assert.equal(packages.used(lastResort, now), true));
    await store.change(() => assert.equal(packages.used(lastResort, now + HOUR_MS / 2), true));
    assert.deepEqual([packages.isSpent(), told], [true, 2]);
    await packages.publish();
    assert.equal(packages.isSpent(), false);
    await store.change(() => packages.forgetSpent(now + HOUR_MS - 1));
    assert.notEqual(packages.get(lastResort), undefined, "welcomes may be under way");
    await store.change(() => packages.forgetSpent(now + HOUR_MS));
    assert.equal(packages.get(lastResort), undefined);
    assert.equal(all().filter(([, own]) => own.lastResort).length, 1);
  } finally {
    await store.close();
    await rm(folder, { recursive: true });
  }
});
