// SPDX-License-Identifier: MIT OR Apache-2.0
// Conversations as this device knows them, and how it follows them: welcomes, commits and proposals in the order of the
// queue (docs/protocol.md, "Making, joining, changing, leaving").

import { sha256 } from "@noble/hashes/sha2.js";

import { concat, hex, same, utf8, type Bytes } from "./bytes.js";
import type { Directory } from "./directory.js";
import type { Tell } from "./events.js";
import { Conversations as Methods } from "./gen/pli/conversations/v1/conversations_pb.js";
import { Class, type Envelope } from "./gen/pli/log/v1/log_pb.js";
import { Kind } from "./gen/pli/sealed/v1/sealed_pb.js";
import type { KeyPackages } from "./keypackages.js";
import { beginAgain, noteStay, type Lane } from "./lanes.js";
import type { Link } from "./link.js";
import * as mls from "./mls.js";
import { BadObject, bodyOf, get } from "./objects.js";
import type { Profile } from "./profile.js";
import {
  ASKED_EVERY_MS,
  askedRenewal,
  hastened,
  nextRenewal,
  soonRenewal,
  type Renewal,
  type Spoken,
} from "./renewal.js";
import { Signal } from "./signal.js";
import type { Store, Table } from "./store.js";

/** A commit that was offered and not answered yet; it stays, durable, until the answer. */
export interface Pending {
  readonly epoch: number;
  readonly offer: mls.Offer;
}

/** What lane numbers were given, and from which one on the newest member is addressed. */
export interface Numbers {
  readonly given: number;
  readonly base: number;
  /** The last range of numbers whose messages were not sent: nobody is to wait for them. */
  readonly unsent?: [number, number];
}

export interface Conversation {
  readonly id: Bytes;
  readonly kind: Kind;
  readonly name: string;
  /** The first conversation of its line, where servers were restored meanwhile. */
  readonly root?: Bytes;
  /**
   * `making`: the server does not know it yet. `broken`: the thread is lost, it is joined again before anything is sealed.
   * `over`: this device is not in it any more.
   */
  readonly phase: "making" | "open" | "broken" | "over";
  /** Those for whom this device makes it are not in yet. */
  readonly unmade?: true | undefined;
  readonly state: Bytes;
  readonly group: mls.Group;
  readonly pending?: Pending | undefined;
  /** The epoch that a commit of this device began and its queue has not come to yet. */
  readonly ahead?: number | undefined;
  /** This device proposed to leave. */
  readonly leaving?: boolean | undefined;
  readonly numbers: Partial<Record<Class, Numbers>>;
  /** When this device renews its keys. */
  readonly renewal?: Renewal;
  /** When it was last asked to. */
  readonly asked?: number;
  /** How many messages of others were shown. */
  readonly heard?: number;
  /** How many bodies this device has sealed in it. */
  readonly sealed?: number;
}

const NO_NUMBERS: Numbers = { given: 0, base: 1 };
const NO_GROUP: mls.Group = { epoch: 0, suite: 1, members: [], ownLeaf: 0, leaving: [] };

export class Conversations {
  readonly #rows: Table<Conversation>;
  /** Fires whenever a conversation has changed. */
  readonly changed = new Signal();
  /** A conversation has to be joined again, or somebody wants to leave it; both are done outside of the queue. */
  onWork: (id: string) => void = () => {};
  /** Somebody has come in by a commit of this device. Within the change of the store by which it has won. */
  onNewcomers: (conversation: Conversation) => void = () => {};
  /** Somebody waits for new keys of this device. */
  onAsked: () => void = () => {};
  /** Server time. */
  now: () => number = Date.now;

  constructor(
    private readonly store: Store,
    private readonly link: Link,
    private readonly directory: Directory,
    private readonly keyPackages: KeyPackages,
    private readonly profile: Profile,
    private readonly tell: Tell,
  ) {
    this.#rows = store.table<Conversation>("conversation");
  }

  get(id: string): Conversation | undefined {
    return this.#rows.get(id);
  }

  all(): [string, Conversation][] {
    return this.#rows.entries();
  }

  set(conversation: Conversation): Conversation {
    this.#rows.set(hex(conversation.id), conversation);
    this.store.afterwards(() => this.changed.fire());
    return conversation;
  }

  forget(id: string): void {
    this.#rows.delete(id);
    this.store.afterwards(() => this.changed.fire());
  }

  /** Handles of everybody but this account, each once. */
  others(conversation: Conversation): string[] {
    return accountsOf(conversation)
      .filter((account) => !same(account, this.profile.account))
      .map((account) => this.directory.handleOf(account));
  }

  /** The chat of two with an account: of several that two people began at once both sides take the lowest. */
  chatWith(account: Bytes): Conversation | undefined {
    const found = this.all().find(([, conversation]) => isChatWith(conversation, this.profile.account, account));
    return found?.[1];
  }

  /** Messages of others were shown. Within a change of the store. */
  hears(id: string, messages: number): void {
    const conversation = this.get(id);
    if (conversation !== undefined) this.set({ ...conversation, heard: (conversation.heard ?? 0) + messages });
  }

  /** Goes on with the next state of the group. Within a change of the store. */
  async advance(conversation: Conversation, state: Bytes): Promise<Conversation> {
    const group = await mls.describe(state);
    const devices = conversation.group.members.map(({ device }) => hex(device));
    const newcomers = group.members.map(({ device }) => hex(device)).filter((device) => !devices.includes(device));
    for (const device of newcomers) this.#eachLane(`${hex(conversation.id)}/${device}/`, noteStay);
    const { renewal } = conversation;
    const { account } = this.profile;
    const next = this.set({
      ...conversation,
      ...(renewal && { renewal: hastened(renewal, conversation.group.members, group.members, account, this.now()) }),
      state,
      group,
      numbers: newcomers.length > 0 ? addressedFromNow(conversation.numbers) : conversation.numbers,
    });
    if (group.epoch !== conversation.group.epoch) await this.#learn(next, "members");
    return next;
  }

  /** The own pending commit has won; `by` says where that was heard first. Within a change of the store. */
  async merge(conversation: Conversation, by: "reply" | "queue"): Promise<void> {
    const { pending } = conversation;
    if (pending === undefined) return;
    const wasBroken = conversation.phase === "broken";
    let next = await this.advance(
      {
        ...conversation,
        phase: "open",
        unmade: undefined,
        pending: undefined,
        ahead: by === "queue" ? undefined : pending.epoch + 1,
      },
      pending.offer.next,
    );
    if (pending.offer.renews)
      next = this.set({ ...next, renewal: nextRenewal(next.group.members.length, this.now(), spokenIn(next)) });
    if (pending.offer.welcome !== undefined) this.onNewcomers(next);
    if (wasBroken) this.#later({ event: "rejoined", conversation: hex(conversation.id) });
  }

  markBroken(conversation: Conversation): Conversation {
    const id = hex(conversation.id);
    this.#later({ event: "rejoining", conversation: id });
    this.store.afterwards(() => this.onWork(id));
    return this.set({ ...conversation, phase: "broken", pending: undefined, ahead: undefined });
  }

  markOver(conversation: Conversation, why: "removed" | "left" | "gone", successor?: Bytes): void {
    this.set({ ...conversation, phase: "over", pending: undefined, leaving: undefined });
    this.#later({
      event: "over",
      conversation: hex(conversation.id),
      why,
      ...(successor ? { successor: hex(successor) } : {}),
    });
  }

  /** Of what an earlier run of the program began: a conversation that nobody was let into is forgotten. */
  markUnmade({ id, name }: Conversation): void {
    this.forget(hex(id));
    this.#later({ event: "not_made", conversation: hex(id), name });
  }

  /** Of what an earlier run of the program began: those whom it would have added are not in. */
  notAdded(id: string): void {
    this.#later({ event: "not_added", conversation: id });
  }

  /** A conversation is joined again later, for a reason that people have to know. */
  waits(id: string, why: string): void {
    this.tell({ event: "waiting", conversation: id, why });
  }

  /** What the queue says by an envelope of any content: how far it has come. Within a change of the store. */
  reached(envelope: Envelope, isCommit: boolean): void {
    const conversation = this.get(hex(envelope.conversation));
    const begun = Number(envelope.epoch) + (isCommit ? 1 : 0);
    if (conversation?.ahead !== undefined && begun >= conversation.ahead)
      this.set({ ...conversation, ahead: undefined });
  }

  /** The ids of the conversations of which the server says that this device is in them. */
  async listed(): Promise<Map<string, Bytes>> {
    const listed = new Map<string, Bytes>();
    for (let after: Bytes = new Uint8Array(), more = true; more; ) {
      const page = await this.link.call(Methods.method.list, { after });
      for (const { conversation } of page.conversations) listed.set(hex(conversation), conversation);
      after = page.conversations.at(-1)?.conversation ?? after;
      more = page.more;
    }
    return listed;
  }

  /** Commits may have been in what the queue lost: nothing of it is waited for, and the server is asked. */
  async inDoubt(): Promise<void> {
    for (const [id] of this.all()) await this.store.change(() => this.#lookForCommits(this.get(id)));
  }

  async #lookForCommits(conversation: Conversation | undefined): Promise<void> {
    if (conversation?.phase !== "open") return;
    const current = this.set({ ...conversation, ahead: undefined });
    const from = current.group.epoch;
    const { currentEpoch } = await this.link.call(Methods.method.getCommits, {
      conversation: conversation.id,
      from: BigInt(from),
    });
    if (Number(currentEpoch) > from) await this.fetchMissing(current, Number(currentEpoch));
  }

  /** A commit in the queue. Within a change of the store. */
  async commit(envelope: Envelope): Promise<void> {
    const epoch = Number(envelope.epoch);
    let conversation = this.get(hex(envelope.conversation));
    if (conversation === undefined || conversation.phase === "over") return;
    const body = await this.#bodyOf(conversation, envelope);
    if (body === undefined) return;
    if (conversation.pending?.epoch === epoch && same(body, conversation.pending.offer.commit))
      return this.merge(conversation, "queue");
    // Whoever made it may be the one that brings this device back.
    if (conversation.phase === "broken") return this.store.afterwards(() => this.onWork(hex(envelope.conversation)));
    if (epoch > conversation.group.epoch) conversation = await this.fetchMissing(conversation, epoch);
    if (conversation.phase === "open" && epoch === conversation.group.epoch) await this.#apply(conversation, body);
  }

  /** Takes in the commits that the queue has lost, up to the beginning of `epoch`. Within a change of the store. */
  async fetchMissing(conversation: Conversation, epoch: number): Promise<Conversation> {
    let current = conversation;
    while (current.phase === "open" && current.group.epoch < epoch) {
      const from = current.group.epoch;
      const answer = await this.link.call(Methods.method.getCommits, { conversation: current.id, from: BigInt(from) });
      const wanted = answer.commits.filter((commit) => Number(commit.epoch) < epoch);
      if (answer.gone || wanted.length === 0) return this.markBroken(current);
      for (const commit of wanted) {
        if (Number(commit.epoch) === current.group.epoch)
          current = await this.#apply(current, await get(this.link, commit.commit));
      }
      if (current.group.epoch === from && current.phase === "open") return this.markBroken(current);
    }
    return current;
  }

  /** A welcome in the queue. Within a change of the store. */
  async welcome(envelope: Envelope): Promise<void> {
    const id = hex(envelope.conversation);
    const known = this.get(id);
    // It came twice, or the device came in by an external commit meanwhile. A welcome names the epoch that it begins.
    if (known?.phase === "open" && known.group.epoch >= Number(envelope.epoch)) return;
    const body = await this.#welcomeBody(envelope);
    const reference = body && mls.welcomeReferences(body).find((one) => this.keyPackages.get(one) !== undefined);
    if (body === undefined || reference === undefined) return void this.#joinInstead(envelope, known);
    try {
      const tree = async () =>
        get(
          this.link,
          (await this.link.call(Methods.method.getGroupInfo, { conversation: envelope.conversation })).ratchetTree,
        );
      const state = await mls.joinByWelcome(this.profile, body, this.keyPackages.get(reference)!, tree);
      const renewal = this.keyPackages.used(reference) ? { renewal: soonRenewal(this.now()) } : {};
      await this.#joined(id, envelope, state, known, renewal);
    } catch (error) {
      if (!(error instanceof mls.MlsFailure)) throw error;
      this.#joinInstead(envelope, known);
    }
  }

  /** The wish of a member to leave. Within a change of the store. */
  async proposal(envelope: Envelope): Promise<void> {
    const conversation = this.get(hex(envelope.conversation));
    if (conversation?.phase !== "open" || conversation.group.epoch !== Number(envelope.epoch)) return;
    try {
      const state = await mls.processHandshake(conversation.state, await bodyOf(this.link, envelope));
      if (state !== undefined) await this.advance(conversation, state);
      this.store.afterwards(() => this.onWork(hex(conversation.id)));
    } catch (error) {
      if (!(error instanceof mls.MlsFailure)) throw error;
    }
  }

  /** A member that lost the thread trusts this device to bring it back. Within a change of the store. */
  askedToRenew({ conversation: id, sender }: Envelope): void {
    const [conversation, now] = [this.get(hex(id)), this.now()];
    if (conversation?.phase !== "open" || sender === undefined) return;
    const isIn = conversation.group.members.some(({ device }) => same(device, sender.device));
    const lately = conversation.asked !== undefined && Math.abs(now - conversation.asked) < ASKED_EVERY_MS;
    if (!isIn || lately) return;
    this.set({ ...conversation, renewal: askedRenewal(now), asked: now });
    this.store.afterwards(() => this.onAsked());
  }

  /** Members that no signed device list vouches for; nothing is sent into such a group. Within a change of the store. */
  async foreign(conversation: Conversation): Promise<mls.Member[]> {
    const vouched = await Promise.all(
      conversation.group.members.map(({ account, device, key }) => this.directory.vouches(account, device, key)),
    );
    return conversation.group.members.filter((_, i) => !vouched[i]);
  }

  async #apply(conversation: Conversation, body: Bytes): Promise<Conversation> {
    try {
      const state = await mls.processHandshake(conversation.state, body);
      // A commit of this device for the same epoch has lost; the answer will say so too.
      if (state !== undefined) return await this.advance({ ...conversation, pending: undefined }, state);
      this.markOver(conversation, conversation.leaving === true ? "left" : "removed");
      return this.get(hex(conversation.id))!;
    } catch (error) {
      if (!(error instanceof mls.MlsFailure)) throw error;
      return this.markBroken(conversation);
    }
  }

  async #joined(
    id: string,
    envelope: Envelope,
    state: Bytes,
    known: Conversation | undefined,
    renewal: Pick<Conversation, "renewal">,
  ): Promise<void> {
    const group = await mls.describe(state);
    // Whoever comes in anew begins every lane anew; its own numbers go on.
    this.#eachLane(`${id}/`, beginAgain);
    const numbers = addressedFromNow(known?.numbers ?? {});
    const kind = known?.kind ?? Kind.UNSPECIFIED;
    await this.#learn(
      this.set({
        id: envelope.conversation,
        kind,
        name: known?.name ?? "",
        phase: "open",
        state,
        group,
        numbers,
        ...renewal,
      }),
      "joined",
    );
  }

  /** Changes the lanes whose keys begin so. */
  #eachLane(prefix: string, change: (lane: Lane<unknown>) => Lane<unknown>): void {
    const lanes = this.store.table<Lane<unknown>>("lane");
    for (const [key, lane] of lanes.entries()) if (key.startsWith(prefix)) lanes.set(key, change(lane));
  }

  /** The key package is gone: comes in by an external commit. */
  #joinInstead(envelope: Envelope, known: Conversation | undefined): void {
    this.markBroken(known ?? unknownConversation(envelope.conversation));
  }

  async #welcomeBody(envelope: Envelope): Promise<Bytes | undefined> {
    try {
      return await bodyOf(this.link, envelope);
    } catch (error) {
      if (error instanceof BadObject) return undefined;
      throw error;
    }
  }

  /** The body of a commit; where its object cannot be used, the commit is fetched by itself. */
  async #bodyOf(conversation: Conversation, envelope: Envelope): Promise<Bytes | undefined> {
    try {
      return await bodyOf(this.link, envelope);
    } catch (error) {
      if (!(error instanceof BadObject)) throw error;
      if (conversation.phase === "open") await this.fetchMissing(conversation, Number(envelope.epoch) + 1);
      return undefined;
    }
  }

  /** Learns who the members are, and tells it. */
  async #learn(conversation: Conversation, event: "joined" | "members"): Promise<void> {
    await this.foreign(conversation);
    this.#later({
      event,
      conversation: hex(conversation.id),
      epoch: conversation.group.epoch,
      members: this.others(conversation),
    });
  }

  #later(event: Parameters<Tell>[0]): void {
    this.store.afterwards(() => this.tell(event));
  }
}

/** The conversation in which everybody goes on with one that a restored server does not know, after the first id of its line. */
export const successorOf = (root: Bytes, history: Bytes): Bytes =>
  sha256(concat(utf8("pli-successor-1"), root, history)).slice(0, 16);

/** One that this device is in and holds nothing of. */
export const unknownConversation = (id: Bytes): Conversation => ({
  id,
  kind: Kind.UNSPECIFIED,
  name: "",
  phase: "broken",
  state: new Uint8Array(),
  group: NO_GROUP,
  numbers: {},
});

export function accountsOf(conversation: Conversation): Bytes[] {
  const byId = new Map(conversation.group.members.map(({ account }) => [hex(account), account]));
  return [...byId.values()];
}

/** Nothing was offered to those for whom it is made. */
export const isUnmade = ({ phase, pending, unmade }: Conversation): boolean =>
  unmade === true && pending === undefined && phase !== "over";

function isChatWith(conversation: Conversation, own: Bytes, other: Bytes): boolean {
  const accounts = accountsOf(conversation);
  const both =
    accounts.length === 2 &&
    accounts.some((account) => same(account, own)) &&
    accounts.some((account) => same(account, other));
  return both && conversation.kind !== Kind.GROUP && conversation.phase !== "over";
}

/** The next number of each lane is the first one for whoever came in now. */
function addressedFromNow(numbers: Conversation["numbers"]): Conversation["numbers"] {
  return Object.fromEntries(Object.entries(numbers).map(([of, all]) => [of, { ...all, base: all.given + 1 }]));
}

/** Gives the next number of a lane. */
export function number(conversation: Conversation, of: Class): { conversation: Conversation; no: number } {
  const before = conversation.numbers[of] ?? NO_NUMBERS;
  const no = before.given + 1;
  return {
    no,
    conversation: { ...conversation, numbers: { ...conversation.numbers, [of]: { ...before, given: no } } },
  };
}

/** The conversation, where the message with this number is not sent. */
export function withoutNumber(conversation: Conversation, of: Class, no: number): Conversation {
  const before = conversation.numbers[of] ?? NO_NUMBERS;
  const [first, last] = before.unsent ?? [no, no - 1];
  const unsent: [number, number] = last + 1 === no ? [first, no] : [no, no];
  return { ...conversation, numbers: { ...conversation.numbers, [of]: { ...before, unsent } } };
}

/** The first of the numbers before this one that stand for nothing; 0 for none. */
export function unsentBefore(conversation: Conversation, of: Class, no: number): number {
  const [first, last] = conversation.numbers[of]?.unsent ?? [0, 0];
  return last === no - 1 ? first : 0;
}

export const laneBase = (conversation: Conversation, of: Class): number =>
  conversation.numbers[of]?.base ?? NO_NUMBERS.base;

export const spokenIn = ({ numbers, heard }: Conversation): Spoken => ({
  said: numbers[Class.MESSAGE]?.given ?? 0,
  heard: heard ?? 0,
});
