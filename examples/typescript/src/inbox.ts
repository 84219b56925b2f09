// SPDX-License-Identifier: MIT OR Apache-2.0
// What arrives: opened, each content once, in the order of its lane, and told to the sender in ticks (docs/protocol.md,
// "Receiving" and "Ticks").

import { fromBinary } from "@bufbuild/protobuf";

import { hex, same, unhex, type Bytes } from "./bytes.js";
import { BadContent, decodeContent, encodeContent, isName, type Content, type Tick } from "./content.js";
import type { Conversation, Conversations } from "./conversations.js";
import type { Directory } from "./directory.js";
import type { Tell } from "./events.js";
import { Class, Content as Carried, type Envelope } from "./gen/pli/log/v1/log_pb.js";
import { FrameSchema, Kind, type Frame } from "./gen/pli/sealed/v1/sealed_pb.js";
import { giveUp, receive, watermark, type Lane, type Step } from "./lanes.js";
import type { Link } from "./link.js";
import { MlsFailure, open, type Opened } from "./mls.js";
import { BadObject, bodyOf } from "./objects.js";
import { authenticatedData, type Outbox } from "./outbox.js";
import type { Profile } from "./profile.js";
import type { Store, Table } from "./store.js";

const SEEN_KEPT_MS = 35 * 24 * 3_600_000;
/** A watermark further above the numbers that this device gave is not believed: anybody may write one. */
const AHEAD_MAX = 2 ** 20;

/** A message as a lane holds it. */
interface Item {
  readonly account: Bytes;
  readonly sendId: string;
  readonly sentAtMs: number;
  readonly content: Bytes;
  readonly written: Written;
}

/** Where a message stands in the order in which its sender wrote it; places of several lives are one history (`line`). */
interface Written {
  readonly place: number;
  readonly lives: string[];
}

export class Inbox {
  readonly #lanes: Table<Lane<Item>>;
  readonly #seen: Table<number>;
  readonly #read: Table<number>;
  /** The highest place of each life that was shown. */
  readonly #places: Table<number>;
  /** Conversations and devices of which something unreadable was told, and nothing could be read since. */
  readonly #unread = new Set<string>();

  constructor(
    private readonly store: Store,
    private readonly link: Link,
    private readonly conversations: Conversations,
    private readonly outbox: Outbox,
    private readonly directory: Directory,
    private readonly profile: Profile,
    private readonly tell: Tell,
  ) {
    this.#lanes = store.table("lane");
    this.#seen = store.table("seen");
    this.#read = store.table("read");
    this.#places = store.table("place of");
    for (const [key, at] of this.#seen.entries()) if (at < Date.now() - SEEN_KEPT_MS) this.#seen.delete(key);
  }

  /** One envelope of the queue. Within a change of the store. */
  async take(envelope: Envelope): Promise<void> {
    this.conversations.reached(envelope, envelope.content === Carried.COMMIT);
    if (envelope.content === Carried.APPLICATION) await this.#message(envelope);
    else if (envelope.content === Carried.COMMIT) await this.conversations.commit(envelope);
    else if (envelope.content === Carried.WELCOME) await this.conversations.welcome(envelope);
    else if (envelope.content === Carried.PROPOSAL) await this.conversations.proposal(envelope);
    else if (envelope.content === Carried.RENEW) this.conversations.askedToRenew(envelope);
  }

  /** Gives up holes whose time is over. */
  async giveUpHoles(): Promise<void> {
    const due = this.#lanes.entries().filter(([, lane]) => giveUp(lane, Date.now()) !== undefined);
    if (due.length === 0) return;
    await this.store.change(() => {
      for (const [key] of due) {
        const lane = this.#lanes.get(key);
        const step = lane && giveUp(lane, Date.now());
        if (step !== undefined) this.#show(key, step);
      }
    });
  }

  /** The user saw everything of a conversation. Within a change of the store. */
  read(id: string): void {
    for (const [key, lane] of this.#messageLanes(id)) this.#read.set(key, watermark(lane));
    this.#tick(id);
  }

  async #message(envelope: Envelope): Promise<void> {
    const { sender } = envelope;
    const known = this.conversations.get(hex(envelope.conversation));
    if (known === undefined || known.phase === "over" || sender === undefined) return;
    const once = `${hex(sender.device)}/${hex(envelope.sendId)}`;
    if (this.#seen.has(once)) return;
    const conversation = await this.#upTo(known, Number(envelope.epoch));
    try {
      const opened = await open(conversation.state, await bodyOf(this.link, envelope));
      this.#check(envelope, opened);
      if (!(await this.directory.vouches(opened.sender.account, opened.sender.device, opened.sender.key)))
        throw new MlsFailure("no device list vouches for its sender");
      this.#seen.set(once, Date.now());
      this.#opened(this.conversations.set({ ...conversation, state: opened.state }), envelope, opened);
    } catch (error) {
      if (!(error instanceof MlsFailure || error instanceof BadObject)) throw error;
      this.#unreadable(hex(conversation.id), hex(sender.device), sender.account, error.message);
      // Again, so that a sender who is behind learns of it.
      this.#tick(hex(conversation.id));
    }
  }

  /** A message of an epoch that is not here yet says that commits are missing. */
  async #upTo(conversation: Conversation, epoch: number): Promise<Conversation> {
    if (conversation.phase !== "open" || epoch <= conversation.group.epoch) return conversation;
    return this.conversations.fetchMissing(conversation, epoch);
  }

  /** What the server wrote on the envelope has to be what the sender sealed. */
  #check(envelope: Envelope, { sender, authenticated }: Opened): void {
    const claimed = envelope.sender!;
    if (!same(sender.account, claimed.account) || !same(sender.device, claimed.device))
      throw new MlsFailure("it is not of the device that the envelope names");
    if (!same(authenticated, authenticatedData(envelope.sendId, envelope.class)))
      throw new MlsFailure("its send id or class is not the sealed one");
  }

  #opened(conversation: Conversation, envelope: Envelope, { data, sender }: Opened): void {
    const frame = decodeSealed(data);
    if (conversation.kind === Kind.UNSPECIFIED && frame.kind !== Kind.UNSPECIFIED)
      this.conversations.set({ ...conversation, kind: frame.kind });
    const own = frame.addressed.find(({ device }) => same(device, this.profile.device));
    const first = Number(own?.first ?? frame.laneBase);
    const item = {
      account: sender.account,
      sendId: hex(envelope.sendId),
      sentAtMs: Number(frame.sentAtMs),
      content: frame.content,
      written: writtenOf(frame),
    };
    const key = `${hex(conversation.id)}/${hex(sender.device)}/${envelope.class}`;
    this.#show(
      key,
      receive(this.#lanes.get(key), first, Number(frame.laneNo), item, Date.now(), Number(frame.unsentFrom)),
    );
  }

  #show(key: string, { lane, shown, hole }: Step<Item>): void {
    const [id, device, of] = key.split("/") as [string, string, string];
    this.#lanes.set(key, lane);
    if (hole !== undefined && Number(of) === Class.MESSAGE && shown[0] !== undefined) {
      const from = this.directory.handleOf(shown[0].item.account);
      this.#later({ event: "hole", conversation: id, from, first: hole[0], last: hole[1] });
    }
    for (const { no, item, late } of shown) this.#showOne(id, device, no, item, late);
    if (shown.length > 0 && Number(of) === Class.MESSAGE) {
      this.conversations.hears(id, shown.length);
      this.#tick(id);
    }
  }

  #showOne(id: string, device: string, laneNo: number, item: Item, late: boolean): void {
    if (item.content.length === 0) return;
    const conversation = this.conversations.get(id)!;
    const content = this.#decoded(id, device, item);
    if (content === undefined) return;
    this.store.afterwards(() => this.#unread.delete(`${id}/${device}`));
    if (content.kind === "group") return this.#named(conversation, content);
    if (content.kind === "ticks") return this.#ticks(conversation, item.account, content.ticks);
    const text = content.kind === "text" ? content.text : `[${content.mediaType}, which this client cannot show]`;
    const from = this.directory.handleOf(item.account);
    const behind = this.#isBehind(conversation, device, item.written);
    this.#later({
      event: "message",
      conversation: id,
      from,
      device,
      sendId: item.sendId,
      laneNo,
      text,
      sentAtMs: item.sentAtMs,
      late: late || behind,
    });
  }

  /** Whether one that was written later, perhaps in another conversation of the chat, was shown already. */
  #isBehind(conversation: Conversation, device: string, { place, lives }: Written): boolean {
    if (place === 0 || lives[0] === undefined) return false;
    const chat = conversation.kind === Kind.GROUP ? hex(conversation.id) : "chat";
    const highest = (life: string) => this.#places.get(`${chat}/${device}/${life}`) ?? 0;
    const behind = lives.some((life) => highest(life) > place);
    this.#places.set(`${chat}/${device}/${lives[0]}`, Math.max(place, highest(lives[0])));
    return behind;
  }

  #decoded(id: string, device: string, item: Item): Content | undefined {
    try {
      return decodeContent(item.content);
    } catch (error) {
      if (!(error instanceof BadContent || error instanceof TypeError)) throw error;
      this.#unreadable(id, device, item.account, error.message);
      return undefined;
    }
  }

  #named(conversation: Conversation, { name, root }: Extract<Content, { kind: "group" }>): void {
    if (!isName(name) || name === conversation.name) return;
    this.conversations.set({ ...conversation, name, kind: Kind.GROUP, ...(root === undefined ? {} : { root }) });
    this.#later({ event: "named", conversation: hex(conversation.id), name });
  }

  #ticks(conversation: Conversation, by: Bytes, ticks: Tick[]): void {
    const own = ticks.find(({ device }) => same(device, this.profile.device));
    if (own === undefined) return;
    const numbers = conversation.numbers[Class.MESSAGE] ?? { given: 0, base: 1 };
    if (own.delivered > numbers.given + AHEAD_MAX) return;
    if (own.delivered > numbers.given) return this.#older(conversation, own.delivered);
    const common = { conversation: hex(conversation.id), by: this.directory.handleOf(by) };
    if (own.delivered > 0) this.#later({ event: "delivered", ...common, upTo: own.delivered });
    if (own.read > 0) this.#later({ event: "read", ...common, upTo: Math.min(own.read, own.delivered) });
  }

  /** Somebody was shown numbers that this profile has not given: it is older than what was sent from it. */
  #older(conversation: Conversation, delivered: number): void {
    const numbers = { ...conversation.numbers, [Class.MESSAGE]: { given: delivered, base: delivered + 1 } };
    this.conversations.markBroken({ ...conversation, numbers });
  }

  /** Tells everybody in a conversation how far this device has come. */
  #tick(id: string): void {
    const conversation = this.conversations.get(id);
    if (conversation === undefined || conversation.phase === "over") return;
    const ticks = this.#messageLanes(id).flatMap(([key, lane]): Tick[] => {
      const device = unhex(key.split("/")[1]!);
      const read = this.#read.get(key) ?? 0;
      const upTo = (delivered: number) => ({ device, delivered, read: Math.min(read, delivered) });
      return [{ ...upTo(watermark(lane)), lost: lane.lost }, ...(lane.stays ?? []).map(upTo)];
    });
    if (ticks.length > 0) this.outbox.writeTicks(id, encodeContent({ kind: "ticks", ticks }));
  }

  #messageLanes(id: string): [string, Lane<Item>][] {
    return this.#lanes.entries().filter(([key]) => key.startsWith(`${id}/`) && key.endsWith(`/${Class.MESSAGE}`));
  }

  /** It is told once until something of that device can be read. */
  #unreadable(id: string, device: string, account: Bytes, why: string): void {
    const from = this.directory.handleOf(account);
    this.store.afterwards(() => {
      const isNew = !this.#unread.has(`${id}/${device}`);
      this.#unread.add(`${id}/${device}`);
      if (isNew) this.tell({ event: "unreadable", conversation: id, from, why });
    });
  }

  #later(event: Parameters<Tell>[0]): void {
    this.store.afterwards(() => this.tell(event));
  }
}

const writtenOf = ({ place, writtenIn, line }: Frame): Written => ({
  place: Number(place),
  lives: writtenIn === 0n ? [] : [writtenIn, ...line].map(String),
});

function decodeSealed(data: Bytes): Frame {
  try {
    const frame = fromBinary(FrameSchema, data);
    if (frame.laneNo > 0n && frame.laneNo <= BigInt(Number.MAX_SAFE_INTEGER)) return frame;
    throw new MlsFailure("what was sealed has no number");
  } catch (error) {
    throw error instanceof MlsFailure
      ? error
      : new MlsFailure(`what was sealed is no frame: ${(error as Error).message}`);
  }
}
