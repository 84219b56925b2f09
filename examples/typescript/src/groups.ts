// SPDX-License-Identifier: MIT OR Apache-2.0
// Groups, and chats of two, as this device makes and changes them: who comes in, who goes, and how it comes back itself
// (docs/protocol.md, "Making, joining, changing, leaving").

import { hex, newId, same, type Bytes } from "./bytes.js";
import { ChangeFailed, type Commits, type Outcome } from "./commits.js";
import { accountsOf, isUnmade, spokenIn, type Conversation, type Conversations } from "./conversations.js";
import type { Directory } from "./directory.js";
import { isRefused } from "./frames.js";
import { ErrorCode } from "./gen/pli/common/v1/common_pb.js";
import { Conversations as Methods } from "./gen/pli/conversations/v1/conversations_pb.js";
import { Kind } from "./gen/pli/sealed/v1/sealed_pb.js";
import type { Link } from "./link.js";
import * as mls from "./mls.js";
import { get, put } from "./objects.js";
import type { Profile } from "./profile.js";
import { firstRenewal, look } from "./renewal.js";
import { pause } from "./signal.js";
import type { Store } from "./store.js";

const LEAVER_STEP_MS = 1_500;
const REJOIN_PAUSE_MS = { step: 200, most: 5_000 };
const REJOINS_MAX = 20;
/** Where nobody is there to vouch, after so many tries the group info is looked at so seldom, and when a commit comes. */
const LOOKED_AT_EVERY_MS = 10 * 60_000;
/** Members that are asked to renew their keys, and how long after them others are. */
const VOUCHERS_MAX = 8;
const VOUCHERS_EVERY_MS = 3_600_000;

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

export class Groups {
  readonly #scheduled = new Set<string>();
  readonly #comebacks = new Map<string, Comeback>();

  constructor(
    private readonly commits: Commits,
    private readonly store: Store,
    private readonly link: Link,
    private readonly directory: Directory,
    private readonly conversations: Conversations,
    private readonly profile: Profile,
  ) {}

  /** What an earlier run of the program began to make, and offered to nobody, does not go on; before the first session. */
  async forgetUnmade(): Promise<void> {
    await this.store.change(() => {
      for (const [, conversation] of this.conversations.all())
        if (isUnmade(conversation)) this.conversations.markUnmade(conversation);
    });
  }

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
        await this.commits
          .change(id, async (then) => (then.group.epoch === group.epoch ? { add: [], remove: [] } : undefined))
          .catch((error: unknown) => {
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
    const done = this.commits.inTurn(id, () => {
      this.#scheduled.delete(id);
      return this.#work(id);
    });
    // What fails for good stays as it is: the conversation says so by its phase.
    done.catch(() => this.#scheduled.delete(id));
  }

  /** Makes a conversation with these accounts. */
  create(kind: Kind, name: string, accounts: Bytes[]): Promise<string> {
    const id = newId();
    return this.commits.inTurn(`making ${hex(id)}`, () => this.#create(id, kind, name, accounts));
  }

  async #create(id: Bytes, kind: Kind, name: string, accounts: Bytes[]): Promise<string> {
    const { state, groupInfo } = await mls.createAlone(this.profile, id);
    const group = await mls.describe(state);
    await this.store.change(() => {
      this.conversations.set({ id, kind, name, phase: "making", unmade: true, state, group, numbers: {} });
    });
    try {
      await this.link.answered(async () => {
        const object = await put(this.link, groupInfo);
        return this.link.call(Methods.method.create, { groupInfo: object });
      });
      await this.#mark(hex(id), { phase: "open" });
      await this.add(hex(id), accounts);
      await this.#mark(hex(id), { unmade: undefined });
    } catch (error) {
      await this.#notMade(hex(id));
      throw error;
    }
    return hex(id);
  }

  async #mark(id: string, so: Partial<Conversation>): Promise<void> {
    await this.store.change(() => void this.conversations.set({ ...this.conversations.get(id)!, ...so }));
  }

  /** A conversation in which this device is alone, because nobody could be added, is forgotten; what was offered may still win. */
  #notMade(id: string): Promise<void> {
    return this.store.change(() => {
      const conversation = this.conversations.get(id);
      if (conversation !== undefined && isUnmade(conversation)) this.conversations.forget(id);
    });
  }

  add(id: string, accounts: Bytes[]): Promise<void> {
    const claimed = new Map<string, Bytes>();
    return this.commits.change(id, async (conversation) => {
      // Whoever has asked to leave goes first: taken out afterwards they would not be in.
      const leaving = leavingAccounts(conversation.group);
      if (accounts.some((account) => leaving.has(hex(account))))
        return { add: [], remove: alsoLeaving(conversation.group) };
      const isIn = accountsOf(conversation).map(hex);
      const missing = accounts.filter((account) => !isIn.includes(hex(account)));
      if (missing.length === 0) return undefined;
      await this.store.change(() => this.directory.refresh(missing));
      return { add: await this.commits.claim(conversation, this.commits.devicesOf(missing), claimed), remove: [] };
    });
  }

  remove(id: string, accounts: Bytes[]): Promise<void> {
    return this.commits.change(id, async ({ group }) => {
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
      const conversation = forsaken ? this.conversations.get(id)! : this.commits.changeable(id);
      if (!forsaken && accountsOf(conversation).length > 1)
        return void this.conversations.set({ ...conversation, leaving: true });
      // Nobody is left who could commit it.
      this.conversations.markOver(conversation, "left");
      return true;
    });
    if (alone === true) return;
    await this.commits.inTurn(id, () => this.#leave(id));
  }

  /** Comes in by an external commit, for example because a commit could not be processed. */
  async rejoin(id: string): Promise<void> {
    await this.store.change(() => {
      const conversation = this.conversations.get(id);
      if (conversation === undefined) throw new ChangeFailed(`there is no conversation ${id}`);
      if (conversation.phase !== "broken") this.conversations.markBroken({ ...conversation, phase: "open" });
    });
    await this.commits.inTurn(id, () => this.#work(id));
  }

  async #work(id: string): Promise<void> {
    await this.#finishEarlier(id);
    while (this.conversations.get(id)?.phase === "broken") if (!(await this.#joinAgain(id))) return;
    clearTimeout(this.#comebacks.get(id)?.look);
    this.#comebacks.delete(id);
    const conversation = this.conversations.get(id);
    if (conversation?.phase !== "open") return;
    if (conversation.leaving === true) return this.#leave(id);
    if (conversation.group.leaving.length > 0) await this.#removeLeavers(id, conversation);
  }

  /** What an earlier run of the program offered is answered. Where it adds somebody and does not win, that is told. */
  async #finishEarlier(id: string): Promise<void> {
    const adds = this.conversations.get(id)?.pending?.offer.welcome !== undefined;
    let outcome: Outcome | undefined;
    try {
      outcome = await this.commits.finish(id);
    } finally {
      if (adds && outcome !== "won") await this.#notAdded(id);
    }
  }

  #notAdded(id: string): Promise<void> {
    return this.store.change(() => {
      const conversation = this.conversations.get(id);
      if (conversation === undefined) return;
      if (isUnmade(conversation)) this.conversations.markUnmade(conversation);
      else if (conversation.phase === "open" && conversation.pending === undefined) this.conversations.notAdded(id);
    });
  }

  /** False where there is nothing more to try before the next commit, or the next session. */
  async #joinAgain(id: string): Promise<boolean> {
    const conversation = this.conversations.get(id)!;
    const comeback = this.#comeback(conversation);
    const tries = comeback.tries++;
    try {
      await this.link.answered(() => this.#joinExternally(conversation, comeback));
      await this.commits.finish(id);
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
      await this.commits.settled(id);
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
      await this.commits.reach(id, epoch + 1);
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
    await this.commits.carryOut(id, async (now) =>
      now.group.leaving.length > 0 && now.group.epoch === group.epoch
        ? { add: [], remove: alsoLeaving(now.group) }
        : undefined,
    );
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
