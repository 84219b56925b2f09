// SPDX-License-Identifier: MIT OR Apache-2.0
// Commits of this device: made, offered, merged or dropped; one change of a conversation at a time. The next one waits
// until the one before has come back in the queue, so that this device never goes ahead of what waits for it there.

import { hex, newId, same, type Bytes } from "./bytes.js";
import { accountsOf, spokenIn, type Conversation, type Conversations } from "./conversations.js";
import type { Directory } from "./directory.js";
import { isRefused, Refused } from "./frames.js";
import { ErrorCode, type DeviceAddress } from "./gen/pli/common/v1/common_pb.js";
import { Conversations as Methods, type CommitResponse } from "./gen/pli/conversations/v1/conversations_pb.js";
import { Directory as DirectoryMethods } from "./gen/pli/directory/v1/directory_pb.js";
import { Kind } from "./gen/pli/sealed/v1/sealed_pb.js";
import type { Link } from "./link.js";
import * as mls from "./mls.js";
import { get, put } from "./objects.js";
import type { Profile } from "./profile.js";
import { firstRenewal, look } from "./renewal.js";
import { pause } from "./signal.js";
import type { Store } from "./store.js";

const CLAIM_MAX = 64;
const LEAVER_STEP_MS = 1_500;
const REJOIN_PAUSE_MS = { step: 200, most: 5_000 };
const REJOINS_MAX = 20;
/** Where nobody is there to vouch, after so many tries the group info is looked at so seldom, and when a commit comes. */
const LOOKED_AT_EVERY_MS = 10 * 60_000;
/** Members that are asked to renew their keys, and how long after them others are. */
const VOUCHERS_MAX = 8;
const VOUCHERS_EVERY_MS = 3_600_000;
const TRIES_MAX = 50;
const RACE_WAIT_MS = { first: 250, most: 8_000 };

/** What is still to be done, given how the group stands now; undefined where that is nothing. */
type Plan = (conversation: Conversation) => Promise<mls.Changes | undefined>;

/** Commits do not succeed for a reason that trying again does not change. */
export class ChangeFailed extends Error {
  override name = "ChangeFailed";
}

/** Of a conversation that this device cannot come back to yet. */
const WAITS = "until a member whom this device knew there is online; messages wait until then";
const FORSAKEN =
  "nobody whom this device knew there is left: leave it, and have a member remove this account and add it again";

/** Nobody whom this device knew in the group has signed what it would join again by. */
class NotVouched extends Error {
  override name = "NotVouched";
}

/** How far a conversation that lost the thread at an epoch has come back; kept until it has, or the program ends. */
interface Comeback {
  readonly epoch: number;
  tries: number;
  reported: boolean;
  /** When members were asked to renew their keys, in server time. */
  asked?: number;
  /** What the user was told last of who could bring it back. */
  told?: string;
  look?: NodeJS.Timeout;
}

export class Changes {
  readonly #last = new Map<string, Promise<unknown>>();
  readonly #scheduled = new Set<string>();
  /** Commits in a row that others came before. */
  readonly #lost = new Map<string, number>();
  readonly #comebacks = new Map<string, Comeback>();

  constructor(
    private readonly store: Store,
    private readonly link: Link,
    private readonly directory: Directory,
    private readonly conversations: Conversations,
    private readonly profile: Profile,
  ) {}

  /** A session is open: what was left undone goes on. */
  online(): void {
    for (const [id] of this.conversations.all()) this.work(id);
  }

  /** Renews this device's keys wherever that is due; what fails, or loses, is looked at again the next time. */
  async renew(now = this.conversations.now()): Promise<void> {
    for (const [id, { phase, leaving, pending, ahead, renewal, group }] of this.conversations.all()) {
      if (phase !== "open" || leaving === true || pending !== undefined || ahead !== undefined) continue;
      const [devices, spoken] = [group.members.length, spokenIn(this.conversations.get(id)!)];
      const next = renewal === undefined ? firstRenewal(devices, now, spoken) : look(renewal, devices, now, spoken);
      if (next !== true && next !== renewal) await this.#plan(id, next);
      if (next === true && devices > 1)
        await this.#change(id, async (then) =>
          then.group.epoch === group.epoch ? { add: [], remove: [] } : undefined,
        ).catch((error: unknown) => {
          if (!isRefused(error) && !(error instanceof ChangeFailed)) throw error;
        });
    }
  }

  async #plan(id: string, renewal: NonNullable<Conversation["renewal"]>): Promise<void> {
    await this.store.change(() => {
      const conversation = this.conversations.get(id);
      if (conversation?.phase === "open") this.conversations.set({ ...conversation, renewal });
    });
  }

  /** Does what a conversation needs by itself: the answer to an offered commit, joining again, the wish of a leaver. */
  work(id: string): void {
    if (this.#scheduled.has(id)) return;
    this.#scheduled.add(id);
    const done = this.#inTurn(id, () => {
      this.#scheduled.delete(id);
      return this.#work(id);
    });
    // What fails for good stays as it is: the conversation says so by its phase.
    done.catch(() => this.#scheduled.delete(id));
  }

  /** Once the link was stopped: waits for what is under way, which ends soon without it. */
  async ended(): Promise<void> {
    await Promise.all(this.#last.values());
  }

  /** Makes a conversation with these accounts. */
  create(kind: Kind, name: string, accounts: Bytes[]): Promise<string> {
    const id = newId();
    return this.#inTurn(`making ${hex(id)}`, () => this.#create(id, kind, name, accounts));
  }

  async #create(id: Bytes, kind: Kind, name: string, accounts: Bytes[]): Promise<string> {
    const { state, groupInfo } = await mls.createAlone(this.profile, id);
    const group = await mls.describe(state);
    await this.store.change(() => {
      this.conversations.set({ id, kind, name, phase: "making", state, group, numbers: {} });
    });
    try {
      await this.link.answered(async () => {
        const object = await put(this.link, groupInfo);
        return this.link.call(Methods.method.create, { groupInfo: object });
      });
      await this.store.change(
        () => void this.conversations.set({ ...this.conversations.get(hex(id))!, phase: "open" }),
      );
      await this.add(hex(id), accounts);
    } catch (error) {
      await this.#notMade(hex(id));
      throw error;
    }
    return hex(id);
  }

  /** A conversation in which this device is alone, because nobody could be added, is forgotten; what was offered may still win. */
  #notMade(id: string): Promise<void> {
    return this.store.change(() => {
      const conversation = this.conversations.get(id);
      if (conversation !== undefined && conversation.pending === undefined && accountsOf(conversation).length === 1)
        this.conversations.forget(id);
    });
  }

  add(id: string, accounts: Bytes[]): Promise<void> {
    const claimed = new Map<string, Bytes>();
    return this.#change(id, async (conversation) => {
      // Whoever has asked to leave goes first: taken out afterwards they would not be in.
      const leaving = leavingAccounts(conversation.group);
      if (accounts.some((account) => leaving.has(hex(account))))
        return { add: [], remove: alsoLeaving(conversation.group) };
      const isIn = accountsOf(conversation).map(hex);
      const missing = accounts.filter((account) => !isIn.includes(hex(account)));
      if (missing.length === 0) return undefined;
      await this.store.change(() => this.directory.refresh(missing));
      return { add: await this.#claim(conversation, this.#devicesOf(missing), claimed), remove: [] };
    });
  }

  remove(id: string, accounts: Bytes[]): Promise<void> {
    return this.#change(id, async ({ group }) => {
      const gone = group.members.filter((member) => accounts.some((account) => same(account, member.account)));
      return gone.length === 0
        ? undefined
        : { add: [], remove: gone.map(({ leaf }) => leaf).filter((leaf) => !group.leaving.includes(leaf)) };
    });
  }

  /** Proposes to leave, again in each epoch, until a member has committed it. */
  async leave(id: string): Promise<void> {
    const alone = await this.store.change(() => {
      const forsaken = this.#comebacks.get(id)?.told === FORSAKEN && this.conversations.get(id)?.phase === "broken";
      const conversation = forsaken ? this.conversations.get(id)! : this.#open(id);
      if (!forsaken && accountsOf(conversation).length > 1)
        return void this.conversations.set({ ...conversation, leaving: true });
      // Nobody is left who could commit it.
      this.conversations.markOver(conversation, "left");
      return true;
    });
    if (alone === true) return;
    await this.#inTurn(id, () => this.#leave(id));
  }

  /** Comes in by an external commit, for example because a commit could not be processed. */
  async rejoin(id: string): Promise<void> {
    await this.store.change(() => {
      const conversation = this.conversations.get(id);
      if (conversation === undefined) throw new ChangeFailed(`there is no conversation ${id}`);
      if (conversation.phase !== "broken") this.conversations.markBroken({ ...conversation, phase: "open" });
    });
    await this.#inTurn(id, () => this.#work(id));
  }

  #inTurn<T>(id: string, run: () => Promise<T>): Promise<T> {
    const turn = (this.#last.get(id) ?? Promise.resolve()).then(run, run);
    this.#last.set(
      id,
      turn.catch(() => undefined),
    );
    return turn;
  }

  #change(id: string, plan: Plan): Promise<void> {
    return this.#inTurn(id, () => this.#commits(id, plan));
  }

  async #work(id: string): Promise<void> {
    await this.#finishPending(id);
    while (this.conversations.get(id)?.phase === "broken") if (!(await this.#joinAgain(id))) return;
    clearTimeout(this.#comebacks.get(id)?.look);
    this.#comebacks.delete(id);
    const conversation = this.conversations.get(id);
    if (conversation?.phase !== "open") return;
    if (conversation.leaving === true) return this.#leave(id);
    if (conversation.group.leaving.length > 0) await this.#removeLeavers(id, conversation);
  }

  /** Commits until nothing is left to be done. */
  async #commits(id: string, plan: Plan): Promise<void> {
    let mismatch: Refused | undefined;
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      await this.#settled(id);
      const conversation = this.#open(id);
      const changes = await this.link.answered(async () =>
        mismatch === undefined ? plan(conversation) : this.#corrected(conversation, await plan(conversation), mismatch),
      );
      if (changes === undefined) return;
      if (!(await this.#make(id, conversation.group.epoch, changes))) continue;
      mismatch = await this.#finishPending(id);
    }
    throw new ChangeFailed("others change the group all the time; try again later");
  }

  /** Makes the commit and keeps it; false where the group has changed since the changes were planned. */
  #make(id: string, epoch: number, changes: mls.Changes): Promise<boolean> {
    return this.store.change(async () => {
      const conversation = this.#open(id);
      if (conversation.group.epoch !== epoch || conversation.pending !== undefined) return false;
      const offer = await mls.makeCommit(conversation.state, changes);
      this.conversations.set({ ...conversation, pending: { epoch, offer } });
      return true;
    });
  }

  /** Waits until an own commit has come back, so that nothing in the queue gets too old to be opened. */
  async #settled(id: string): Promise<void> {
    await this.#finishPending(id);
    const waits = () => this.conversations.get(id)?.ahead === undefined;
    await this.conversations.changed.until(waits, this.link.stopped);
  }

  /** Offers the pending commit until it is answered, by the reply or by the queue. A mismatch is handed back. */
  async #finishPending(id: string): Promise<Refused | undefined> {
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
    if (lostAt !== undefined) await this.#reach(id, lostAt);
    if (answer.outcome.case === "lost") await this.#makeWay(id);
    else this.#lost.delete(id);
    return undefined;
  }

  /** Waits a random time, longer with each loss in a row: few of those who lost together meet again. */
  #makeWay(id: string): Promise<void> {
    const lost = this.#lost.get(id) ?? 0;
    this.#lost.set(id, lost + 1);
    return pause(Math.random() * Math.min(RACE_WAIT_MS.first * 2 ** lost, RACE_WAIT_MS.most), this.link.stopped);
  }

  async #offer(conversation: Bytes, { epoch, offer }: NonNullable<Conversation["pending"]>): Promise<CommitResponse> {
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
  async #answer(
    id: string,
    pending: NonNullable<Conversation["pending"]>,
    { outcome }: CommitResponse,
  ): Promise<number | undefined> {
    const conversation = this.conversations.get(id)!;
    // The queue was faster: the commit has come back, or another one of its epoch.
    if (!isPending(conversation, pending)) return undefined;
    if (outcome.case === "won") return void (await this.conversations.merge(conversation, "reply"));
    this.conversations.set({ ...conversation, pending: undefined });
    return outcome.case === "lost" ? Number(outcome.value.currentEpoch) : undefined;
  }

  async #refused(
    id: string,
    pending: NonNullable<Conversation["pending"]>,
    error: Refused,
  ): Promise<Refused | undefined> {
    await this.store.change(() => {
      const conversation = this.conversations.get(id)!;
      if (!isPending(conversation, pending)) return;
      if (error.code === ErrorCode.UNKNOWN_CONVERSATION) this.conversations.markOver(conversation, "gone");
      else this.conversations.set({ ...conversation, pending: undefined });
    });
    if (error.code === ErrorCode.DEVICES_MISMATCH) return error;
    if (error.code === ErrorCode.WRONG_EPOCH) return undefined;
    throw error;
  }

  /** Waits until the queue has brought the commits up to an epoch; of a conversation that is joined again nobody waits. */
  #reach(id: string, epoch: number): Promise<void> {
    const there = () => {
      const conversation = this.conversations.get(id);
      return conversation?.phase !== "open" || conversation.group.epoch >= epoch;
    };
    return this.conversations.changed.until(there, this.link.stopped);
  }

  /** False where there is nothing more to try before the next commit, or the next session. */
  async #joinAgain(id: string): Promise<boolean> {
    const conversation = this.conversations.get(id)!;
    const comeback = this.#comeback(conversation);
    const tries = comeback.tries++;
    try {
      await this.link.answered(() => this.#joinExternally(conversation, comeback));
      await this.#finishPending(id);
    } catch (error) {
      if (isRefused(error, ErrorCode.NOT_FOUND, ErrorCode.UNKNOWN_CONVERSATION)) {
        await this.store.change(() => this.conversations.markOver(conversation, "removed"));
        return false;
      }
      if (tries >= REJOINS_MAX && error instanceof NotVouched) return this.#lookLater(id, comeback);
      if (tries >= REJOINS_MAX) {
        comeback.tries = 0;
        throw error;
      }
    }
    if (this.conversations.get(id)?.phase === "broken")
      await pause(Math.min(REJOIN_PAUSE_MS.step * (tries + 1), REJOIN_PAUSE_MS.most), this.link.stopped);
    return true;
  }

  #comeback({ id, group: { epoch } }: Conversation): Comeback {
    const known = this.#comebacks.get(hex(id));
    if (known?.epoch === epoch) return known;
    clearTimeout(known?.look);
    const comeback = { epoch, tries: 0, reported: false };
    this.#comebacks.set(hex(id), comeback);
    return comeback;
  }

  #lookLater(id: string, comeback: Comeback): false {
    clearTimeout(comeback.look);
    comeback.look = setTimeout(() => this.work(id), LOOKED_AT_EVERY_MS).unref();
    return false;
  }

  async #joinExternally(conversation: Conversation, comeback: Comeback): Promise<void> {
    const { id, group } = conversation;
    if (!comeback.reported) await this.#report(conversation, []);
    comeback.reported = true;
    const info = await this.link.call(Methods.method.getGroupInfo, { conversation: id });
    const [groupInfo, tree] = [await get(this.link, info.groupInfo), await get(this.link, info.ratchetTree)];
    const { signer, members, ...offer } = await mls.joinExternally(this.profile, id, groupInfo, tree);
    // Of a group that it was never in this device knows nobody.
    if (group.members.length > 0 && !(await this.#knew(group.members, signer))) {
      await this.#askToVouch(conversation, members, comeback);
      throw new NotVouched("nobody whom this device knew in the group vouches for it");
    }
    await this.store.change(() => {
      const now = this.conversations.get(hex(id));
      if (now?.phase === "broken") this.conversations.set({ ...now, pending: { epoch: Number(info.epoch), offer } });
    });
  }

  async #report({ id: conversation, group }: Conversation, renew: mls.Member[]): Promise<void> {
    const report = { conversation, epoch: BigInt(group.epoch), reason: "rejoin", renew };
    try {
      await this.link.call(Methods.method.reportFailure, report);
    } catch (error) {
      if (!isRefused(error)) throw error;
    }
  }

  /** Whether a leaf is of somebody who was in the group, with the key of then or one that its account's list names. */
  async #knew(before: mls.Member[], { account, device, key }: mls.Member): Promise<boolean> {
    if (before.some((one) => same(one.device, device) && same(one.key, key))) return true;
    if (!before.some((one) => same(one.account, account))) return false;
    return this.store.change(() => this.directory.vouches(account, device, key));
  }

  /**
   * Asks some of those whom it knew, and who are still there, to renew their keys: the group info is then theirs. Says once
   * that it waits for that, and that nobody of them is left.
   */
  async #askToVouch(conversation: Conversation, members: mls.Member[], comeback: Comeback): Promise<void> {
    const now = this.conversations.now();
    const lately = comeback.asked !== undefined && Math.abs(now - comeback.asked) < VOUCHERS_EVERY_MS;
    if (lately && comeback.tries <= REJOINS_MAX) return;
    const others = members.filter(({ device }) => !same(device, this.profile.device));
    const known: mls.Member[] = [];
    for (const one of others) if (await this.#knew(conversation.group.members, one)) known.push(one);
    if (known.length === 0) return this.#tell(conversation, comeback, FORSAKEN);
    const drawn = known.map((one) => ({ one, at: Math.random() })).sort((a, b) => a.at - b.at);
    if (!lately) {
      await this.#report(
        conversation,
        drawn.slice(0, VOUCHERS_MAX).map(({ one }) => one),
      );
      comeback.asked = now;
    }
    if (comeback.tries > REJOINS_MAX) this.#tell(conversation, comeback, WAITS);
  }

  #tell({ id }: Conversation, comeback: Comeback, why: string): void {
    if (comeback.told !== why) this.conversations.waits(hex(id), why);
    comeback.told = why;
  }

  async #leave(id: string): Promise<void> {
    for (;;) {
      await this.#settled(id);
      const conversation = this.conversations.get(id);
      if (conversation?.phase !== "open") return;
      const { epoch } = conversation.group;
      const proposal = await mls.proposeLeaving(conversation.state);
      const sendId = newId();
      try {
        await this.link.answered(() =>
          this.link.call(Methods.method.propose, {
            conversation: conversation.id,
            epoch: BigInt(epoch),
            proposal,
            sendId,
          }),
        );
      } catch (error) {
        if (!isRefused(error, ErrorCode.WRONG_EPOCH)) throw error;
      }
      // Proposals of another epoch are void.
      await this.#reach(id, epoch + 1);
    }
  }

  /** The member with the lowest address commits a leaver's removal at once, each further one a little later. */
  async #removeLeavers(id: string, { group }: Conversation): Promise<void> {
    const leaving = leavingAccounts(group);
    if (leaving.has(hex(this.profile.account))) return;
    const address = ({ account, device }: mls.Member) => hex(account) + hex(device);
    const stay = group.members
      .filter(({ account }) => !leaving.has(hex(account)))
      .sort((a, b) => (address(a) < address(b) ? -1 : 1));
    const place = stay.findIndex(({ leaf }) => leaf === group.ownLeaf);
    await pause(place * LEAVER_STEP_MS, this.link.stopped);
    await this.#commits(id, async (now) =>
      now.group.leaving.length > 0 && now.group.epoch === group.epoch
        ? { add: [], remove: alsoLeaving(now.group) }
        : undefined,
    );
  }

  #devicesOf(accounts: Bytes[]): Omit<mls.Member, "leaf">[] {
    return accounts.flatMap((account) => {
      const known = this.directory.known(account);
      if (known === undefined) throw new ChangeFailed(`there is no account ${hex(account)}`);
      return known.devices.map(({ device, key }) => ({ account, device, key }));
    });
  }

  /** A key package of each device; what was claimed for a commit that lost is used for the next one. */
  async #claim(
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
    const listed = this.#devicesOf(accounts).filter(({ device }) =>
      [...error.missing, ...error.stale].some((address) => same(address.device, device)),
    );
    const add = await this.#claim(conversation, listed, new Map());
    return { add: [...wanted.add, ...add], remove: [...new Set([...wanted.remove, ...gone])] };
  }

  #open(id: string): Conversation {
    const conversation = this.conversations.get(id);
    if (conversation === undefined) throw new ChangeFailed(`there is no conversation ${id}`);
    if (conversation.phase !== "open")
      throw new ChangeFailed(
        `the conversation is ${conversation.phase === "over" ? "over for this device" : "not ready yet"}`,
      );
    return conversation;
  }
}

/** A device that proposes to leave speaks for its account. */
const leavingAccounts = ({ members, leaving }: mls.Group): Set<string> =>
  new Set(members.filter(({ leaf }) => leaving.includes(leaf)).map(({ account }) => hex(account)));

/** Leaves of accounts that leave by the proposal of another of their devices. */
export function alsoLeaving(group: mls.Group): number[] {
  const accounts = leavingAccounts(group);
  return group.members
    .filter(({ account, leaf }) => accounts.has(hex(account)) && !group.leaving.includes(leaf))
    .map(({ leaf }) => leaf);
}

const isPending = (conversation: Conversation, { offer }: NonNullable<Conversation["pending"]>): boolean =>
  conversation.pending !== undefined && same(conversation.pending.offer.commit, offer.commit);
