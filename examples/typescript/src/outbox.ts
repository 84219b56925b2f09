// SPDX-License-Identifier: MIT OR Apache-2.0
// What is to be sent: durable before it is shown as sent, in order within its lane, kept until the server has settled it
// (docs/protocol.md, "Sending" and "Duties").

import { create, toBinary, type MessageInitShape } from "@bufbuild/protobuf";

import { concat, hex, newId, unhex, type Bytes } from "./bytes.js";
import { Offline } from "./connection.js";
import {
  laneBase,
  number,
  unsentBefore,
  withoutNumber,
  type Conversation,
  type Conversations,
} from "./conversations.js";
import type { Tell } from "./events.js";
import { Refused } from "./frames.js";
import { ErrorCode } from "./gen/pli/common/v1/common_pb.js";
import type { SendResult, SendSchema, Settled } from "./gen/pli/edge/v1/edge_pb.js";
import { Class } from "./gen/pli/log/v1/log_pb.js";
import { FrameSchema } from "./gen/pli/sealed/v1/sealed_pb.js";
import type { Link } from "./link.js";
import * as mls from "./mls.js";
import { isNear, mayFollow } from "./order.js";
import type { Store, Table } from "./store.js";

/** Of the 30 days that a server allows; the rest is for clocks that differ. */
const LIFE_MS = (30 * 24 - 1) * 3_600_000;
const ENTRIES_MAX = 10_000;
const BATCH = { sends: 32, bytes: 48 * 1024 };
const RECEIPTS_MAX = 256;
const PRESENT_EVERY_MS = 120_000;
/** Ticks wait a little, so that one tells of many messages. */
const TICK_DELAY_MS = 100;
const RETRY_LEAST_MS = 100;

interface Entry {
  readonly sendId: string;
  readonly conversation: string;
  readonly class: Class;
  readonly laneNo: number;
  readonly sentAtMs: number;
  /** Fixed at the first try, in server time. */
  readonly expiresAtMs: number;
  readonly content: Bytes;
  /** As it was sealed last, the `nth` of its conversation: the same epoch needs no other key while that is near. */
  readonly sealed?: { readonly epoch: number; readonly nth: number; readonly body: Bytes } | undefined;
  /** A durable log has it; presented until it is settled. */
  readonly receipt?: string | undefined;
}

export interface Sent {
  readonly conversation: string;
  readonly sendId: string;
  readonly laneNo: number;
}

export class OutboxFull extends Error {
  override name = "OutboxFull";
}

export class Outbox {
  readonly #rows: Table<Entry>;
  readonly #inFlight = new Set<string>();
  readonly #notBefore = new Map<string, number>();
  readonly #fromEpoch = new Map<string, number>();
  readonly #told = new Set<string>();
  readonly #timer: NodeJS.Timeout;
  #pumping = false;
  #again = false;
  #last = 0;

  constructor(
    private readonly store: Store,
    private readonly link: Link,
    private readonly conversations: Conversations,
    private readonly tell: Tell,
    private readonly serverTime: () => number,
  ) {
    this.#rows = store.table<Entry>("outbox");
    this.#last = Number(this.#rows.entries().at(-1)?.[0] ?? 0);
    this.#timer = setInterval(() => this.present(), PRESENT_EVERY_MS);
    this.#timer.unref();
  }

  get size(): number {
    return this.#rows.size;
  }

  /** How many messages of each conversation no durable log has yet. */
  get unsent(): Map<string, number> {
    const unsent = new Map<string, number>();
    for (const [, { class: of, receipt, conversation }] of this.#rows.entries())
      if (of === Class.MESSAGE && receipt === undefined) unsent.set(conversation, (unsent.get(conversation) ?? 0) + 1);
    return unsent;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** What the user writes: numbered and kept. Within a change of the store. */
  write(id: string, of: Class, content: Bytes): Sent {
    if (this.#rows.size >= ENTRIES_MAX)
      throw new OutboxFull(`${ENTRIES_MAX} messages wait to be sent; wait until some are`);
    return this.say(id, of, content);
  }

  /** What this client says by itself, also where the outbox is full: what made it say so has happened. */
  say(id: string, of: Class, content: Bytes): Sent {
    const conversation = this.conversations.get(id);
    if (conversation === undefined || conversation.phase === "over")
      throw new Error(`the conversation ${id} is over for this device`);
    const numbered = number(conversation, of);
    this.conversations.set(numbered.conversation);
    const sentAtMs = this.serverTime();
    const sent = { conversation: id, sendId: hex(newId()), laneNo: numbered.no };
    this.#append({ ...sent, class: of, sentAtMs, expiresAtMs: sentAtMs + LIFE_MS, content });
    this.store.afterwards(() => this.wake());
    return sent;
  }

  /** The newest ticks of a conversation: those that were not sealed yet give way to them. Within a change of the store. */
  writeTicks(id: string, content: Bytes): void {
    const waiting = this.#rows
      .entries()
      .find(([, entry]) => entry.conversation === id && entry.class === Class.TICK && entry.sealed === undefined);
    if (waiting !== undefined) return this.#rows.set(waiting[0], { ...waiting[1], content });
    this.say(id, Class.TICK, content);
    this.#delay(key(this.#last), TICK_DELAY_MS);
  }

  /** A session is open: what had no result is sent again, open receipts are presented. */
  online(): void {
    this.#inFlight.clear();
    this.#notBefore.clear();
    this.#fromEpoch.clear();
    this.present();
    this.wake();
  }

  present(): void {
    const receipts = this.#rows.entries().flatMap(([, { receipt }]) => (receipt === undefined ? [] : [unhex(receipt)]));
    for (let at = 0; at < receipts.length; at += RECEIPTS_MAX) {
      this.link.session?.send({ case: "pending", value: { receipts: receipts.slice(at, at + RECEIPTS_MAX) } });
    }
  }

  /** Sends what can be sent now. */
  wake(): void {
    this.#again = true;
    if (!this.#pumping) void this.#pump();
  }

  /** Answers to sends. Within a change of the store. */
  results(results: SendResult[]): void {
    for (const { sendId, result } of results) {
      const found = this.#rows.entries().find(([, entry]) => entry.sendId === hex(sendId));
      if (found === undefined) continue;
      this.#inFlight.delete(found[0]);
      if (result.case === "accepted") this.#accepted(...found, hex(result.value.receipt));
      else if (result.case === "refused") this.#refused(...found, new Refused(result.value));
    }
    this.store.afterwards(() => this.wake());
  }

  /** What became of receipts. Within a change of the store. */
  settled(settled: Settled[]): void {
    for (const { receipt, outcome } of settled) {
      const found = this.#rows.entries().find(([, entry]) => entry.receipt === hex(receipt));
      if (found === undefined) continue;
      if (outcome.case === "stored") this.#stored(...found);
      else this.#resend(...found);
    }
    this.store.afterwards(() => this.wake());
  }

  async #pump(): Promise<void> {
    this.#pumping = true;
    try {
      while (this.#again) {
        this.#again = false;
        const batch = await this.store.change(() => this.#seal());
        const { session } = this.link;
        if (batch.length === 0 || session === undefined) continue;
        for (const [at] of batch) this.#inFlight.add(at);
        session.send({ case: "send", value: { sends: batch.map(([, send]) => send) } });
        this.#again = true;
      }
    } catch (error) {
      // Where the session was lost, the next one begins here again.
      if (!(error instanceof Offline || this.link.stopped.aborted))
        this.tell({ event: "warning", error: error as Error });
    } finally {
      this.#pumping = false;
    }
  }

  /** The next batch: of each lane from its first waiting message on, and nothing behind one that cannot go yet. */
  async #seal(): Promise<[string, MessageInitShape<typeof SendSchema>][]> {
    const batch: [string, MessageInitShape<typeof SendSchema>][] = [];
    const blocked = new Set<string>();
    let bytes = 0;
    for (const [at, entry] of this.#rows.entries()) {
      const lane = `${entry.conversation}/${entry.class}`;
      if (this.#inFlight.has(at) || entry.receipt !== undefined || blocked.has(lane)) continue;
      if (this.#ended(at, entry)) continue;
      const conversation = await this.#ready(at, entry);
      if (conversation === undefined || bytes >= BATCH.bytes || batch.length >= this.#window()) {
        blocked.add(lane);
        continue;
      }
      const onWire = this.#onWire(entry.conversation, batch);
      const send = await this.#sealed(at, entry, conversation, onWire);
      if (send === undefined) {
        blocked.add(lane);
        continue;
      }
      bytes += send.body?.length ?? 0;
      batch.push([at, send]);
    }
    return batch;
  }

  /** Which bodies of a conversation wait for their answer. */
  #onWire(conversation: string, batch: [string, unknown][]): number[] {
    const waiting = [...this.#inFlight, ...batch.map(([at]) => at)].map((at) => this.#rows.get(at));
    return waiting.flatMap((entry) =>
      entry?.conversation === conversation && entry.sealed !== undefined ? [entry.sealed.nth] : [],
    );
  }

  #window(): number {
    const free = (this.link.session?.limits.sendWindow ?? 0) - this.#inFlight.size;
    return Math.min(free, BATCH.sends);
  }

  /** Drops what cannot be sent any more. */
  #ended(at: string, entry: Entry): boolean {
    const over = (this.conversations.get(entry.conversation)?.phase ?? "over") === "over";
    if (!over && this.serverTime() < entry.expiresAtMs) return false;
    this.#drop(at, entry, new Error(over ? "the conversation is over for this device" : "it was not sent in time"));
    return true;
  }

  /** The conversation, where its next message may be sealed now. */
  async #ready(at: string, entry: Entry): Promise<Conversation | undefined> {
    const conversation = this.conversations.get(entry.conversation);
    if (this.link.session === undefined || conversation?.phase !== "open" || conversation.group.members.length < 2)
      return undefined;
    // Whoever has seen a proposal commits it before it seals anything (RFC 9420 section 12.4).
    if (conversation.group.leaving.length > 0 || conversation.group.epoch < (this.#fromEpoch.get(at) ?? 0))
      return undefined;
    if (Date.now() < (this.#notBefore.get(at) ?? 0)) return undefined;
    const foreign = await this.conversations.foreign(conversation);
    if (foreign.length === 0) return conversation;
    const once = `${entry.conversation}/${conversation.group.epoch}`;
    if (!this.#told.has(once))
      this.tell({
        event: "foreign",
        conversation: entry.conversation,
        members: foreign.map(({ account }) => hex(account)),
      });
    this.#told.add(once);
    return undefined;
  }

  /** The send, or nothing while it would run too far ahead of what is on the wire. */
  async #sealed(
    at: string,
    entry: Entry,
    conversation: Conversation,
    onWire: number[],
  ): Promise<MessageInitShape<typeof SendSchema> | undefined> {
    const { epoch } = conversation.group;
    const sendId = unhex(entry.sendId);
    const before = conversation.sealed ?? 0;
    let body: Bytes | undefined;
    if (entry.sealed?.epoch === epoch && isNear(before, entry.sealed.nth)) ({ body } = entry.sealed);
    if (body === undefined) {
      if (!mayFollow(before, onWire)) return undefined;
      const frame = create(FrameSchema, {
        laneNo: BigInt(entry.laneNo),
        laneBase: BigInt(laneBase(conversation, entry.class)),
        kind: conversation.kind,
        sentAtMs: BigInt(entry.sentAtMs),
        content: entry.content,
        unsentFrom: BigInt(unsentBefore(conversation, entry.class, entry.laneNo)),
      });
      const sealed = await mls.seal(
        conversation.state,
        toBinary(FrameSchema, frame),
        authenticatedData(sendId, entry.class),
      );
      body = sealed.body;
      const nth = before + 1;
      this.conversations.set({ ...conversation, state: sealed.state, sealed: nth });
      this.#rows.set(at, { ...entry, sealed: { epoch, nth, body } });
    }
    const expiresAtMs = BigInt(entry.expiresAtMs);
    return { sendId, conversation: conversation.id, epoch: BigInt(epoch), class: entry.class, expiresAtMs, body };
  }

  #accepted(at: string, entry: Entry, receipt: string): void {
    this.#rows.set(at, { ...entry, receipt });
    if (entry.receipt === undefined) this.#tellOf("accepted", entry);
  }

  #stored(at: string, entry: Entry): void {
    this.#rows.delete(at);
    this.#tellOf("stored", entry);
  }

  #resend(at: string, entry: Entry): void {
    this.#rows.set(at, { ...entry, receipt: undefined });
    this.#tellOf("resending", entry);
  }

  #refused(at: string, entry: Entry, error: Refused): void {
    if (error.code === ErrorCode.WRONG_EPOCH) {
      this.#rows.set(at, { ...entry, sealed: undefined });
      this.#fromEpoch.set(at, error.currentEpoch);
      this.#delay(at, RETRY_LEAST_MS);
    } else if (error.temporary) {
      this.#delay(at, Math.max(error.retryAfterMs, RETRY_LEAST_MS));
    } else {
      this.#drop(at, entry, error);
    }
  }

  #drop(at: string, entry: Entry, error: Error): void {
    this.#rows.delete(at);
    if (entry.class === Class.TICK) return;
    const { conversation, sendId } = entry;
    const known = this.conversations.get(conversation);
    if (known !== undefined) this.conversations.set(withoutNumber(known, entry.class, entry.laneNo));
    this.store.afterwards(() => this.tell({ event: "failed", conversation, sendId, error }));
  }

  #tellOf(event: "accepted" | "stored" | "resending", { conversation, sendId, class: of }: Entry): void {
    if (of === Class.MESSAGE) this.store.afterwards(() => this.tell({ event, conversation, sendId }));
  }

  #append(entry: Entry): void {
    this.#last += 1;
    this.#rows.set(key(this.#last), entry);
  }

  #delay(at: string, milliseconds: number): void {
    this.#notBefore.set(at, Date.now() + milliseconds);
    setTimeout(() => this.wake(), milliseconds + 1).unref();
  }
}

const key = (place: number): string => place.toString().padStart(12, "0");

/** Readable for the server, and bound to the ciphertext: the send id and the class. */
export const authenticatedData = (sendId: Bytes, of: Class): Bytes => concat(sendId, new Uint8Array([of]));
