// SPDX-License-Identifier: MIT OR Apache-2.0
// MLS as Pli uses it, without a server, in both suites.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { decodeMlsMessage } from "ts-mls";

import { newId, random, same, utf8, type Bytes } from "../src/bytes.js";
import { KeyPackages } from "../src/keypackages.js";
import type { Link } from "../src/link.js";
import * as mls from "../src/mls.js";
import { isNear, mayFollow } from "../src/order.js";
import { newProfile, type Profile, type Suite } from "../src/profile.js";
import { Store } from "../src/store.js";
import { folder } from "./support.js";

test("key packages are made anew a third of their life after the last ones", async () => {
  const published: number[] = [];
  const link = { call: (_: unknown, { keyPackages }: { keyPackages: Bytes[] }) => published.push(keyPackages.length) };
  const store = await Store.open(folder());
  const packages = new KeyPackages(store, link as unknown as Link, newProfile("one", 1));
  assert.ok(packages.areOld(), "there are none");
  await packages.publish();
  const day = 24 * 3_600_000;
  assert.deepEqual(published, [100]);
  assert.deepEqual(
    [0, 27, 29, -27, -29].map((days) => packages.areOld(Date.now() + days * day)),
    [false, false, true, false, true],
  );
  await store.close();
});

interface Device {
  profile: Profile;
  state: Bytes;
}

/** A group of two: who made it, and who was added. */
async function pair(suite: Suite): Promise<[Device, Device]> {
  const [one, other] = [newProfile("one", suite), newProfile("other", suite)];
  const [, own] = await mls.newKeyPackage(other, false);
  const member = { account: other.account, device: other.device, key: other.deviceKey.public };
  const keyPackage = await mls.checkKeyPackage(own.message, suite, member);
  const alone = await mls.createAlone(one, newId());
  const offer = await mls.makeCommit(alone.state, { add: [keyPackage], remove: [] });
  const joined = await mls.joinByWelcome(other, offer.welcome!, own, () =>
    Promise.reject(new Error("the welcome has the tree")),
  );
  return [
    { profile: one, state: offer.next },
    { profile: other, state: joined },
  ];
}

function ciphertextLength(body: Bytes): number {
  const message = decodeMlsMessage(body, 0)![0];
  return message.wireformat === "mls_private_message" ? message.privateMessage.ciphertext.length : NaN;
}

for (const suite of [1, 3] as const) {
  describe(`MLS, suite ${suite}`, () => {
    test("what one seals the other opens, with the sender and the authenticated data", async () => {
      const [one, other] = await pair(suite);
      const sealed = await mls.seal(one.state, utf8("hello"), utf8("readable"));
      const opened = await mls.open(other.state, sealed.body);
      assert.ok(same(opened.data, utf8("hello")) && same(opened.authenticated, utf8("readable")));
      assert.ok(
        same(opened.sender.device, one.profile.device) && same(opened.sender.key, one.profile.deviceKey.public),
      );
      await assert.rejects(mls.open(opened.state, sealed.body), mls.MlsFailure, "a key is used once");
    });

    test("lengths tell little", async () => {
      const [one] = await pair(suite);
      let { state } = one;
      for (const length of [0, 1, 45, 46, 47, 63, 64, 173, 174, 5_000, 16_383, 16_384]) {
        const sealed = await mls.seal(state, random(length), utf8("x"));
        ({ state } = sealed);
        assert.equal(ciphertextLength(sealed.body) % 128, 0, `${length} bytes`);
      }
    });

    test("a message that was changed on its way is not opened, and costs nothing", async () => {
      const [one, other] = await pair(suite);
      const sealed = await mls.seal(one.state, utf8("hello"), utf8("readable"));
      const body = sealed.body.slice();
      body[body.length - 1]! ^= 1;
      await assert.rejects(mls.open(other.state, body), mls.MlsFailure);
      assert.ok(same((await mls.open(other.state, sealed.body)).data, utf8("hello")));
    });

    test("what stays within the keys that receivers keep is opened however late it comes", async () => {
      const [one, other] = await pair(suite);
      const bodies: Bytes[] = [];
      let { state } = one;
      const seal = async (): Promise<void> => {
        const sealed = await mls.seal(state, utf8(`${bodies.length}`), utf8("x"));
        ({ state } = sealed);
        bodies.push(sealed.body);
      };
      await seal();
      while (mayFollow(bodies.length, [1])) await seal();
      assert.ok(bodies.length > 100 && isNear(bodies.length, 1) && !isNear(bodies.length + 1, 1));
      let heard = other.state;
      for (const body of [...bodies.slice(1), bodies[0]!]) heard = (await mls.open(heard, body)).state;
    });

    test("messages arrive in any order, and from the epochs before", async () => {
      const [one, other] = await pair(suite);
      const bodies: Bytes[] = [];
      let { state } = one;
      for (let i = 0; i < 4; i += 1) {
        const sealed = await mls.seal(state, utf8(`${i}`), utf8("x"));
        bodies.push(sealed.body);
        ({ state } = sealed);
      }
      let theirs = (await mls.open(other.state, bodies[3]!)).state;
      for (let epochs = 0; epochs < 2; epochs += 1) {
        const offer = await mls.makeCommit(state, { add: [], remove: [] });
        theirs = (await mls.processHandshake(theirs, offer.commit))!;
        state = offer.next;
      }
      for (const i of [1, 0, 2]) {
        const opened = await mls.open(theirs, bodies[i]!);
        assert.ok(same(opened.data, utf8(`${i}`)));
        theirs = opened.state;
      }
      assert.equal((await mls.describe(theirs)).epoch, 3);
    });

    test("a proposal to leave is committed by the other one, and the leaver is out", async () => {
      const [one, other] = await pair(suite);
      const proposal = await mls.proposeLeaving(other.state);
      const proposed = (await mls.processHandshake(one.state, proposal))!;
      assert.deepEqual((await mls.describe(proposed)).leaving, [1]);
      await assert.rejects(mls.seal(proposed, utf8("not before a commit"), utf8("x")), mls.MlsFailure);
      const offer = await mls.makeCommit(proposed, { add: [], remove: [] });
      assert.equal((await mls.describe(offer.next)).members.length, 1);
    });

    test("key packages of others, and what is no MLS, are refused", async () => {
      const profile = newProfile("one", suite);
      const [, own] = await mls.newKeyPackage(profile, true);
      const member = { account: profile.account, device: profile.device, key: profile.deviceKey.public };
      await mls.checkKeyPackage(own.message, suite, member);
      await assert.rejects(
        mls.checkKeyPackage(own.message, suite, { ...member, device: newId() }),
        /is not of this device/,
      );
      await assert.rejects(mls.checkKeyPackage(own.message, suite === 1 ? 3 : 1, member), /takes part in groups of/);
      const changed = own.message.slice();
      changed[changed.length - 1]! ^= 1;
      await assert.rejects(mls.checkKeyPackage(changed, suite, member), /does not verify/);
      await assert.rejects(mls.checkKeyPackage(random(40), suite, member), mls.MlsFailure);
    });
  });
}

test("who signed is looked up in the tree that is joined, and another group is not joined at all", async () => {
  const [stranger, device, id] = [newProfile("stranger", 1), newProfile("device", 1), newId()];
  const { groupInfo } = await mls.createAlone(stranger, id);
  // Whatever tree is given beside it: the one within is joined.
  const { signer, members } = await mls.joinExternally(device, id, groupInfo, random(100));
  assert.ok(same(signer.device, stranger.device) && same(signer.key, stranger.deviceKey.public));
  assert.equal(members.length, 1);
  await assert.rejects(mls.joinExternally(device, newId(), groupInfo, random(100)), /of another group/);
});
