// SPDX-License-Identifier: MIT OR Apache-2.0
// Commits of this device: made, offered, merged or dropped; one change of a conversation at a time. The next one waits
// until the one before has come back in the queue, so that this device never goes ahead of what waits for it there.

import { hex, same, type Bytes } from "./bytes.js";
import type { Conversation, Conversations, Pending } from "./conversations.js";
import type { Directory } from "./directory.js";
import { Refused } from "./frames.js";
import { ErrorCode, type DeviceAddress } from "./gen/pli/common/v1/common_pb.js";
import { Conversations as Methods, type CommitResponse } from "./gen/pli/conversations/v1/conversations_pb.js";
import { Directory as DirectoryMethods } from "./gen/pli/directory/v1/directory_pb.js";
import type { Link } from "./link.js";
import * as mls from "./mls.js";
import { put } from "./objects.js";
import { pause } from "./signal.js";
import type { Store } from "./store.js";

const CLAIM_MAX = 64;
const TRIES_MAX = 50;
const RACE_WAIT_MS = { first: 250, most: 8_000 };

/** What is still to be done, given how the group stands now; undefined where that is nothing. */
export type Plan = (conversation: Conversation) => Promise<mls.Changes | undefined>;

/** What became of a commit; a refusal says that the group would not hold the devices that its members' lists name. */
export type Outcome = "won" | "lost" | Refused;

/** Commits do not succeed for a reason that trying again does not change. */
export class ChangeFailed extends Error {
  override name = "ChangeFailed";
}

export class Commits {
  readonly #last = new Map<string, Promise<unknown>>();
  /** Commits in a row that others came before. */
  readonly #lost = new Map<string, number>();

  constructor(
    private readonly store: Store,
    private readonly link: Link,
    private readonly directory: Directory,
    private readonly conversations: Conversations,
  ) {}

  /** Once the link was stopped: waits for what is under way, which ends soon without it. */
  async ended(): Promise<void> {
    await Promise.all(this.#last.values());
  }

  /** Runs what changes a conversation after what was begun for it before. */
  inTurn<T>(id: string, run: () => Promise<T>): Promise<T> {
    const turn = (this.#last.get(id) ?? Promise.resolve()).then(run, run);
    this.#last.set(
      id,
      turn.catch(() => undefined),
    );
    return turn;
  }

  /** Makes a change in its turn. */
  change(id: string, plan: Plan): Promise<void> {
    return this.inTurn(id, () => this.carryOut(id, plan));
  }

  /** Commits until nothing is left to be done; within a turn. */
  async carryOut(id: string, plan: Plan): Promise<void> {
    let mismatch: Refused | undefined;
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      await this.settled(id);
      const conversation = this.changeable(id);
      const changes = await this.link.answered(async () =>
        mismatch === undefined ? plan(conversation) : this.#corrected(conversation, await plan(conversation), mismatch),
      );
      if (changes === undefined) return;
      if (!(await this.#make(id, conversation.group.epoch, changes))) continue;
      const outcome = await this.finish(id);
      mismatch = outcome instanceof Refused ? outcome : undefined;
    }
    throw new ChangeFailed("others change the group all the time; try again later");
  }

  /** Makes the commit and keeps it; false where the group has changed since the changes were planned. */
  #make(id: string, epoch: number, changes: mls.Changes): Promise<boolean> {
    return this.store.change(async () => {
      const conversation = this.changeable(id);
      if (conversation.group.epoch !== epoch || conversation.pending !== undefined) return false;
      const offer = await mls.makeCommit(conversation.state, changes);
      this.conversations.set({ ...conversation, pending: { epoch, offer } });
      return true;
    });
  }

  /** Waits until an own commit has come back, so that nothing in the queue gets too old to be opened. */
  async settled(id: string): Promise<void> {
    await this.finish(id);
    const waits = () => this.conversations.get(id)?.ahead === undefined;
    await this.conversations.changed.until(waits, this.link.stopped);
  }

  /** Offers the pending commit until it is answered, by the reply or by the queue; undefined where there is none. */
  async finish(id: string): Promise<Outcome | undefined> {
    const conversation = this.conversations.get(id);
    const pending = conversation?.pending;
    if (conversation === undefined || pending === undefined) return undefined;
    let answer: CommitResponse;
    try {
      answer = await this.link.answered(() => this.#offer(conversation.id, pending));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return this.#refused(id, pending, error);
    }
    const lostAt = await this.store.change(() => this.#answer(id, pending, answer));
    if (lostAt !== undefined) await this.reach(id, lostAt);
    if (answer.outcome.case === "won") {
      this.#lost.delete(id);
      return "won";
    }
    await this.#makeWay(id);
    return "lost";
  }

  /** Waits a random time, longer with each loss in a row: few of those who lost together meet again. */
  #makeWay(id: string): Promise<void> {
    const lost = this.#lost.get(id) ?? 0;
    this.#lost.set(id, lost + 1);
    return pause(Math.random() * Math.min(RACE_WAIT_MS.first * 2 ** lost, RACE_WAIT_MS.most), this.link.stopped);
  }

  async #offer(conversation: Bytes, { epoch, offer }: Pending): Promise<CommitResponse> {
    const commit = await put(this.link, offer.commit);
    const groupInfo = await put(this.link, offer.groupInfo);
    const welcome = offer.welcome && (await put(this.link, offer.welcome));
    return this.link.call(Methods.method.commit, {
      conversation,
      epoch: BigInt(epoch),
      commit,
      groupInfo,
      ...(welcome ? { welcome } : {}),
    });
  }

  /** The epoch that has to be reached before something else is offered, where the commit has lost. */
  async #answer(id: string, pending: Pending, { outcome }: CommitResponse): Promise<number | undefined> {
    const conversation = this.conversations.get(id)!;
    // The queue was faster: the commit has come back, or another one of its epoch.
    if (!isPending(conversation, pending)) return undefined;
    if (outcome.case === "won") {
      await this.conversations.merge(conversation, "reply");
      return undefined;
    }
    this.conversations.set({ ...conversation, pending: undefined });
    return outcome.case === "lost" ? Number(outcome.value.currentEpoch) : undefined;
  }

  async #refused(id: string, pending: Pending, error: Refused): Promise<Outcome> {
    await this.store.change(() => {
      const conversation = this.conversations.get(id)!;
      if (!isPending(conversation, pending)) return;
      if (error.code === ErrorCode.UNKNOWN_CONVERSATION) this.conversations.markOver(conversation, "gone");
      else this.conversations.set({ ...conversation, pending: undefined });
    });
    if (error.code === ErrorCode.DEVICES_MISMATCH) return error;
    if (error.code === ErrorCode.WRONG_EPOCH) return "lost";
    throw error;
  }

  /** Waits until the queue has brought the commits up to an epoch; of a conversation that is joined again nobody waits. */
  reach(id: string, epoch: number): Promise<void> {
    const there = () => {
      const conversation = this.conversations.get(id);
      return conversation?.phase !== "open" || conversation.group.epoch >= epoch;
    };
    return this.conversations.changed.until(there, this.link.stopped);
  }

  /** As the newest lists of these accounts name them. */
  devicesOf(accounts: Bytes[]): Omit<mls.Member, "leaf">[] {
    return accounts.flatMap((account) => {
      const known = this.directory.known(account);
      if (known === undefined) throw new ChangeFailed(`there is no account ${hex(account)}`);
      return known.devices.map(({ device, key }) => ({ account, device, key }));
    });
  }

  /** A key package of each device; what was claimed for a commit that lost is used for the next one. */
  async claim(
    conversation: Conversation,
    devices: Omit<mls.Member, "leaf">[],
    claimed: Map<string, Bytes>,
  ): Promise<mls.Changes["add"]> {
    for (let missing = devices; (missing = devices.filter(({ device }) => !claimed.has(hex(device)))).length > 0; ) {
      const asked = missing.slice(0, CLAIM_MAX).map(({ account, device }) => ({ account, device }));
      const answer = await this.link.call(DirectoryMethods.method.claimKeyPackages, { devices: asked });
      if (answer.keyPackages.length === 0) throw new ChangeFailed("the server gave no key package");
      for (const { device, keyPackage } of answer.keyPackages)
        if (device !== undefined) claimed.set(hex(device.device), keyPackage);
    }
    return Promise.all(
      devices.map((member) => mls.checkKeyPackage(claimed.get(hex(member.device))!, conversation.group.suite, member)),
    );
  }

  /** What a refusal for other devices than those of the members' lists asks for. */
  async #corrected(conversation: Conversation, changes: mls.Changes | undefined, error: Refused): Promise<mls.Changes> {
    const wanted = changes ?? { add: [], remove: [] };
    const named = (addresses: DeviceAddress[], member: mls.Member) =>
      addresses.some(({ device }) => same(device, member.device));
    const gone = conversation.group.members
      .filter((member) => named([...error.extra, ...error.stale], member))
      .map(({ leaf }) => leaf);
    const accounts = [...error.missing, ...error.stale].map(({ account }) => account);
    await this.store.change(() => this.directory.refresh(accounts));
    const listed = this.devicesOf(accounts).filter(({ device }) =>
      [...error.missing, ...error.stale].some((address) => same(address.device, device)),
    );
    const add = await this.claim(conversation, listed, new Map());
    return { add: [...wanted.add, ...add], remove: [...new Set([...wanted.remove, ...gone])] };
  }

  /** The conversation, where it can be changed now. */
  changeable(id: string): Conversation {
    const conversation = this.conversations.get(id);
    if (conversation === undefined) throw new ChangeFailed(`there is no conversation ${id}`);
    if (conversation.phase !== "open")
      throw new ChangeFailed(
        `the conversation is ${conversation.phase === "over" ? "over for this device" : "not ready yet"}`,
      );
    return conversation;
  }
}

const isPending = (conversation: Conversation, { offer }: Pending): boolean =>
  conversation.pending !== undefined && same(conversation.pending.offer.commit, offer.commit);
