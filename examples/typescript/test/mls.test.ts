// SPDX-License-Identifier: MIT OR Apache-2.0
// MLS as Pli uses it, without a server, in both suites.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  decodeGroupState,
  decodeMlsMessage,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  type RatchetTree,
} from "ts-mls";
import { defaultClientConfig } from "ts-mls/clientConfig.js";
import { encodeRatchetTree } from "ts-mls/ratchetTree.js";
import { treeHashRoot } from "ts-mls/treeHash.js";

import { newId, random, same, utf8, type Bytes } from "../src/bytes.js";
import { checkTree } from "../src/joining.js";
import { KeyPackages } from "../src/keypackages.js";
import type { Link } from "../src/link.js";
import * as mls from "../src/mls.js";
import { isNear, mayFollow } from "../src/order.js";
import { newProfile, type Profile, type Suite } from "../src/profile.js";
import { Closed, Store } from "../src/store.js";
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

/** Who is added to a group, and what lets them in. */
async function added(state: Bytes, names: string[]): Promise<{ devices: Device[]; next: Bytes }> {
  const profiles = names.map((name) => newProfile(name, 1));
  const own = await Promise.all(profiles.map(async (profile) => (await mls.newKeyPackage(profile, false))[1]));
  const add = await Promise.all(
    profiles.map(({ account, device, deviceKey }, i) =>
      mls.checkKeyPackage(own[i]!.message, 1, { account, device, key: deviceKey.public }),
    ),
  );
  const { welcome, next } = await mls.makeCommit(state, { add, remove: [] });
  const within = () => Promise.reject(new Error("the welcome has the tree"));
  const devices = profiles.map(async (profile, i) => ({
    profile,
    state: await mls.joinByWelcome(profile, welcome!, own[i]!, within),
  }));
  return { devices: await Promise.all(devices), next };
}

/** Six leaves: the second was removed and filled again, so it is unmerged where the sixth is not. */
async function refilled(): Promise<{ first: Bytes; last: Device }> {
  const alone = await mls.createAlone(newProfile("one", 1), newId());
  const five = await added(alone.state, ["two", "three", "four", "five"]);
  const { next: four } = await mls.makeCommit(five.next, { add: [], remove: [1] });
  const again = await added(four, ["another"]);
  const six = await added(again.next, ["six"]);
  return { first: six.next, last: six.devices[0]! };
}

const treeOf = (state: Bytes) => decodeGroupState(state, 0)![0];
const unmergedIn = (tree: RatchetTree) =>
  tree.flatMap((node, place) => (node?.nodeType === "parent" ? [[place, node.parent.unmergedLeaves]] : []));

test("a group in which a leaf was filled again is joined by a welcome, and by an external commit", async () => {
  const { first, last } = await refilled();
  assert.deepEqual(unmergedIn(treeOf(last.state).ratchetTree), [
    [3, [1]],
    [7, [1, 5]],
  ]);
  const sealed = await mls.seal(first, utf8("hello"), utf8("x"));
  assert.ok(same((await mls.open(last.state, sealed.body)).data, utf8("hello")));
  // A commit that renews the path of whoever gives the group info.
  const offer = await mls.makeCommit(first, { add: [], remove: [] });
  const heard = (await mls.processHandshake(last.state, offer.commit))!;
  const { groupId } = treeOf(first).groupContext;
  const encoded = encodeRatchetTree(treeOf(offer.next).ratchetTree);
  for (const profile of [last.profile, newProfile("seven", 1)]) {
    const joined = await mls.joinExternally(profile, groupId, offer.groupInfo, encoded);
    const next = (await mls.processHandshake(offer.next, joined.commit))!;
    const said = await mls.seal(joined.next, utf8("in"), utf8("x"));
    assert.ok(same((await mls.open(next, said.body)).data, utf8("in")));
  }
  assert.equal((await mls.describe(heard)).members.length, 6);
});

test("a tree whose parents are wrong is not joined", async () => {
  const { ratchetTree: tree, groupContext } = treeOf((await refilled()).last.state);
  const impl = await getCiphersuiteImpl(getCiphersuiteFromName("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"));
  /** With a tree hash that fits, as whoever forges a tree would make it. */
  const check = async (changed: RatchetTree) => {
    const treeHash = await treeHashRoot(changed, impl.hash);
    return checkTree(changed, { ...groupContext, treeHash }, impl, defaultClientConfig);
  };
  const withParent = (place: number, change: object): RatchetTree =>
    tree.map((node, at) =>
      at === place && node?.nodeType === "parent" ? { ...node, parent: { ...node.parent, ...change } } : node,
    );
  await check(tree);
  await assert.rejects(
    checkTree(tree, { ...groupContext, treeHash: random(32) }, impl, defaultClientConfig),
    /another/,
  );
  const unmerged: [number, number[]][] = [
    [7, [5, 1]],
    [7, [1, 1, 5]],
    [7, [1, 5, 6]],
    [7, [1, 5, 1_000_000]],
    [3, [1, 5]],
  ];
  for (const [place, unmergedLeaves] of unmerged)
    await assert.rejects(check(withParent(place, { unmergedLeaves })), /unmerged leaves of node/, `${unmergedLeaves}`);
  // Keys of leaves that came later, and that nobody vouches for.
  await assert.rejects(check(withParent(3, { unmergedLeaves: [] })), /no parent hash/);
  await assert.rejects(check(withParent(7, { unmergedLeaves: [1] })), /no parent hash/);
  // Leaves that were there when the key was made do not have it.
  await assert.rejects(check(withParent(7, { unmergedLeaves: [1, 2, 5] })), /unmerged leaves of node|no parent hash/);
  await assert.rejects(check(withParent(3, { hpkePublicKey: random(32) })), /no parent hash/);
  await assert.rejects(check(withParent(7, { parentHash: random(32) })), /no parent hash/);
  const { hpkePublicKey } = (tree[0] as Extract<RatchetTree[number], { nodeType: "leaf" }>).leaf;
  await assert.rejects(check(withParent(3, { hpkePublicKey })), /twice/);
  const misplaced = tree.map((node, at) => (at === 1 ? tree[0] : node));
  await assert.rejects(check(misplaced));
});

test("the store finishes what was begun before it is closed, and begins nothing after", async () => {
  const home = folder();
  const store = await Store.open(home);
  const table = store.table<number>("numbers");
  const under = store.change(async () => {
    await new Promise((wake) => setTimeout(wake, 20));
    table.set("one", 1);
  });
  const closing = store.close();
  await assert.rejects(
    store.change(() => table.set("two", 2)),
    Closed,
  );
  await Promise.all([under, closing]);
  const again = await Store.open(home);
  assert.deepEqual(again.table<number>("numbers").entries(), [["one", 1]]);
  await again.close();
});

test("who signed is looked up in the tree that is joined, and another group is not joined at all", async () => {
  const [stranger, device, id] = [newProfile("stranger", 1), newProfile("device", 1), newId()];
  const { groupInfo } = await mls.createAlone(stranger, id);
  // Whatever tree is given beside it: the one within is joined.
  const { signer, members } = await mls.joinExternally(device, id, groupInfo, random(100));
  assert.ok(same(signer.device, stranger.device) && same(signer.key, stranger.deviceKey.public));
  assert.equal(members.length, 1);
  await assert.rejects(mls.joinExternally(device, newId(), groupInfo, random(100)), /of another group/);
});
