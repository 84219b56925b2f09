// SPDX-License-Identifier: MIT OR Apache-2.0
// A device of Pli: puts the parts together and gives them a small surface. Begin reading here.

import { fromBinary } from "@bufbuild/protobuf";

import { hex, same, type Bytes } from "./bytes.js";
import { Commits } from "./commits.js";
import { Offline, type Server } from "./connection.js";
import { BadContent, checkName, encodeContent } from "./content.js";
import { Conversations, successorOf, unknownConversation, type Conversation } from "./conversations.js";
import { Directory, safetyNumber, signedList, type Account } from "./directory.js";
import type { Event, Tell } from "./events.js";
import { isRefused, type FromServer } from "./frames.js";
import { ErrorCode } from "./gen/pli/common/v1/common_pb.js";
import { Directory as DirectoryMethods } from "./gen/pli/directory/v1/directory_pb.js";
import { Class, EnvelopeSchema } from "./gen/pli/log/v1/log_pb.js";
import { Kind } from "./gen/pli/sealed/v1/sealed_pb.js";
import { Groups } from "./groups.js";
import { Inbox } from "./inbox.js";
import { KeyPackages } from "./keypackages.js";
import { Link } from "./link.js";
import { Outbox, type Sent } from "./outbox.js";
import { newProfile, type Profile, type Suite } from "./profile.js";
import { ASKED_FOR_MS, OWN_REMOVED_MS } from "./renewal.js";
import { Session } from "./session.js";
import { Signal } from "./signal.js";
import { Store, type Table } from "./store.js";

const HOLES_EVERY_MS = 500;
/** After a gap, or the first position of another log epoch, what is missing is asked for. */
const DOUBT_MS = 5_000;
/** Bits of a position below its log epoch. */
const LOG_EPOCH_SHIFT = 50n;

export interface ClientOptions {
  /** Where keys, history and outbox of this device lie; one process at a time uses it. */
  readonly folder: string;
  readonly handle: string;
  readonly server: Server;
  /** MLS suite of a device that is new: 0x0001 or 0x0003. */
  readonly suite?: Suite;
}

/** How far the queue is committed, and what the hello says of it. */
interface Place {
  readonly position: string;
  readonly history: Bytes;
  readonly registered: boolean;
  readonly published: boolean;
}

/** How often a session looks whether its key packages are old. */
const DAY_MS = 24 * 3_600_000;
const HOUR_MS = 3_600_000;

const NOWHERE: Place = { position: "0", history: new Uint8Array(), registered: false, published: false };

export class Client {
  readonly #listeners = new Set<Tell>();
  readonly #place: Table<Place>;
  readonly #link: Link;
  readonly #directory: Directory;
  readonly #keyPackages: KeyPackages;
  readonly #conversations: Conversations;
  readonly #commits: Commits;
  readonly #groups: Groups;
  readonly #outbox: Outbox;
  readonly #inbox: Inbox;
  readonly #changed = new Signal();
  readonly #chats = new Map<string, Promise<string>>();
  #frames: FromServer[] = [];
  #working: Promise<void> | undefined;
  #publishing: Promise<void> | undefined;
  #holes: NodeJS.Timeout | undefined;
  #doubting: NodeJS.Timeout | undefined;
  #clockAheadMs = 0;
  #caughtUp = false;
  /** After a restore of the server, or of this profile, or a gap: what the next `List` is for. */
  #compare = { gone: false, unknown: false };
  #gaveUp: Error | undefined;

  private constructor(
    readonly store: Store,
    readonly profile: Profile,
    server: Server,
  ) {
    const tell: Tell = (event) => this.#tell(event);
    this.#place = store.table<Place>("place");
    this.#link = new Link(server, {
      hello: () => ({ profile, committed: BigInt(this.#here.position), history: this.#here.history }),
      opened: (session) => void this.#opened(session).catch((error: unknown) => this.#failed(error)),
      lost: (why) => this.#lost(why),
      unknownDevice: () => this.#registerAgain(),
      wrongCertificate: (why) => this.#tell({ event: "wrong_certificate", why }),
      gaveUp: (error) => this.#giveUp(error),
    });
    this.#directory = new Directory(store, this.#link, profile);
    this.#keyPackages = new KeyPackages(store, this.#link, profile);
    this.#conversations = new Conversations(store, this.#link, this.#directory, this.#keyPackages, profile, tell);
    this.#commits = new Commits(store, this.#link, this.#directory, this.#conversations);
    this.#groups = new Groups(this.#commits, store, this.#link, this.#directory, this.#conversations, profile);
    this.#outbox = new Outbox(store, this.#link, this.#conversations, tell, () => Date.now() + this.#clockAheadMs);
    this.#inbox = new Inbox(store, this.#link, this.#conversations, this.#outbox, this.#directory, profile, tell);
    this.#directory.onNotice = (event, { handle }) => this.#tell({ event, handle });
    this.#directory.onRefused = (why, { handle }) => this.#tell({ event: "list_refused", handle, why });
    this.#keyPackages.onLastResort = () => this.#lastResortUsed();
    this.#conversations.onWork = (id) => this.#groups.work(id);
    this.#conversations.onNewcomers = (conversation) => this.#tellName(conversation);
    this.#conversations.onAsked = () => this.#renewIn(ASKED_FOR_MS);
    this.#conversations.now = () => Date.now() + this.#clockAheadMs;
  }

  /** Opens the device in a folder; a new one draws its ids and keys. */
  static async open({ folder, handle, server, suite }: ClientOptions): Promise<Client> {
    const store = await Store.open(folder);
    const profiles = store.table<Profile>("profile");
    const kept = profiles.get("own");
    if (kept !== undefined && kept.handle !== handle) {
      await store.close();
      throw new Error(`the profile in ${folder} is of ${kept.handle}, not of ${handle}`);
    }
    const profile = kept ?? newProfile(handle, suite ?? 1);
    if (kept === undefined) await store.change(() => profiles.set("own", profile));
    return new Client(store, profile, server);
  }

  /** Registers a new device, then connects, and again whenever the connection is lost. */
  async start(): Promise<void> {
    await this.#groups.forgetUnmade();
    if (!this.#here.registered) await this.#register();
    this.#holes = setInterval(
      () => void this.#inbox.giveUpHoles().catch((error: unknown) => this.#failed(error)),
      HOLES_EVERY_MS,
    );
    this.#link.start();
  }

  get online(): boolean {
    return this.#link.session !== undefined;
  }

  /** Waits until the queue has been worked through and key packages are published. */
  async ready(): Promise<void> {
    await this.#changed.until(
      () => this.#gaveUp !== undefined || (this.#caughtUp && this.#here.published),
      this.#link.stopped,
    );
    if (this.#gaveUp !== undefined) throw this.#gaveUp;
  }

  async close(): Promise<void> {
    clearInterval(this.#holes);
    clearTimeout(this.#doubting);
    this.#outbox.stop();
    await this.#link.stop();
    await this.#working;
    await this.#commits.ended();
    await this.store.close();
  }

  /** Tells a listener everything from now on; the returned function ends it. */
  listen(listener: Tell): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Loses the connection, as networks do. */
  cut(): void {
    this.#link.cut();
  }

  // People

  async lookup(handle: string): Promise<Account> {
    try {
      return (
        this.#directory.byHandle(handle) ??
        (await this.#link.answered(() => this.store.change(() => this.#directory.lookup(handle))))
      );
    } catch (error) {
      if (isRefused(error, ErrorCode.NOT_FOUND)) throw new Error(`nobody is called ${handle}`, { cause: error });
      throw error;
    }
  }

  async safetyNumber(handle: string): Promise<string> {
    return safetyNumber(
      { account: this.profile.account, identityKey: this.profile.identity.public },
      await this.lookup(handle),
    );
  }

  // Messages

  /** Writes to somebody; begins the chat where there is none. */
  async sendTo(handle: string, text: string): Promise<Sent> {
    const content = encodeContent({ kind: "text", text });
    const id = await this.chat(handle);
    return this.store.change(() => this.#outbox.write(id, Class.MESSAGE, content));
  }

  async send(conversation: string, text: string): Promise<Sent> {
    const content = encodeContent({ kind: "text", text });
    return this.store.change(() => this.#outbox.write(conversation, Class.MESSAGE, content));
  }

  /** The user saw everything of a conversation. */
  async read(conversation: string): Promise<void> {
    await this.store.change(() => this.#inbox.read(conversation));
  }

  /** Messages and ticks that the server has not settled yet. */
  get waiting(): number {
    return this.#outbox.size;
  }

  /** How many messages of each conversation no durable log has yet. */
  get unsent(): Map<string, number> {
    return this.#outbox.unsent;
  }

  /** Waits until a durable log has every message. */
  async sent(): Promise<void> {
    await this.#changed.until(() => this.#gaveUp !== undefined || this.unsent.size === 0, this.#link.stopped);
  }

  // Conversations

  conversations(): [string, Conversation][] {
    return this.#conversations.all();
  }

  conversation(id: string): Conversation | undefined {
    return this.#conversations.get(id);
  }

  members(id: string): string[] {
    const conversation = this.#conversations.get(id);
    return conversation === undefined ? [] : this.#conversations.others(conversation);
  }

  /** The chat of two with somebody. */
  async chat(handle: string): Promise<string> {
    if (handle === this.profile.handle) throw new BadContent("nobody writes to themselves; name somebody else");
    const { account } = await this.lookup(handle);
    const known = this.#conversations.chatWith(account);
    if (known !== undefined) return hex(known.id);
    const making = this.#chats.get(hex(account)) ?? this.#groups.create(Kind.CHAT, "", [account]);
    this.#chats.set(hex(account), making);
    return making.finally(() => this.#chats.delete(hex(account)));
  }

  async createGroup(name: string, handles: string[]): Promise<string> {
    checkName(name);
    const accounts = await this.#accounts(handles);
    return this.#groups.create(Kind.GROUP, name, accounts);
  }

  async add(id: string, handles: string[]): Promise<void> {
    await this.#groups.add(id, await this.#accounts(handles));
  }

  async remove(id: string, handles: string[]): Promise<void> {
    await this.#groups.remove(id, await this.#accounts(handles));
  }

  async leave(id: string): Promise<void> {
    await this.#groups.leave(id);
  }

  /** Joins a conversation again by an external commit. */
  async rejoin(id: string): Promise<void> {
    await this.#groups.rejoin(id);
  }

  /** Renews this device's keys wherever that is due at a server time, by itself every hour; for whoever suspects something. */
  async renewKeys(now?: number): Promise<void> {
    await this.#groups.renew(now);
  }

  async #accounts(handles: string[]): Promise<Bytes[]> {
    const accounts: Bytes[] = [];
    for (const handle of handles) accounts.push((await this.lookup(handle)).account);
    return accounts;
  }

  /** Newcomers learn what a group is called. */
  #tellName({ id, name }: Conversation): void {
    if (name !== "") this.#outbox.say(hex(id), Class.MESSAGE, encodeContent({ kind: "group", name }));
  }

  // Registration

  async #register(): Promise<void> {
    const session = await Session.open(this.#link.server);
    try {
      await session.call(DirectoryMethods.method.register, {
        handle: this.profile.handle,
        devices: signedList(this.profile),
      });
    } finally {
      session.close();
    }
    await this.store.change(() => this.#place.set("here", { ...this.#here, registered: true }));
  }

  /** A server that was restored from a backup may not know the device: once it is registered again, as it was. */
  async #registerAgain(): Promise<boolean> {
    try {
      await this.#register();
      return true;
    } catch {
      return false;
    }
  }

  // Sessions

  get #here(): Place {
    return this.#place.get("here") ?? NOWHERE;
  }

  async #opened(session: Session): Promise<void> {
    this.#clockAheadMs = Number(session.ready.nowMs) - Date.now();
    await this.store.change(() => this.#readySaid(session));
    session.listen((frame) => this.#frame(frame));
    this.#tell({ event: "connected" });
    this.#outbox.online();
    this.#groups.online();
    await this.#publishIfDue();
    const daily = setInterval(() => void this.#publishIfDue().catch((error: unknown) => this.#failed(error)), DAY_MS);
    const hourly = setInterval(() => void this.#renewIfCaughtUp(), HOUR_MS);
    for (const timer of [daily, hourly]) {
      timer.unref();
      void session.ended.then(() => clearInterval(timer));
    }
  }

  #readySaid({ ready }: Session): void {
    const here = this.#here;
    const position = ready.from.toString();
    if (!same(here.history, ready.history)) {
      this.#compare.gone = true;
      return this.#place.set("here", { ...here, position, history: ready.history, published: false });
    }
    const older = ready.from > BigInt(here.position) && !ready.positionIgnored;
    if (older || ready.positionIgnored) this.#place.set("here", { ...here, position });
    // More was acknowledged with this profile than it knows: no MLS key may be used twice.
    if (!older) return;
    this.#compare.unknown = true;
    for (const [, conversation] of this.#conversations.all())
      if (conversation.phase === "open") this.#conversations.markBroken(conversation);
  }

  #lost(why: string): void {
    this.#frames = [];
    this.#caughtUp = false;
    this.#tell({ event: "disconnected", why });
  }

  #giveUp(error: Error): void {
    this.#gaveUp = error;
    this.#tell({ event: "stopped", error });
    this.#changed.fire();
  }

  async #publishIfDue(): Promise<void> {
    if (!this.#here.published || this.#keyPackages.areOld() || this.#keyPackages.isSpent()) await this.#publish();
  }

  /** Publishes key packages; a notice that they are low meanwhile asks for nothing more. */
  #publish(): Promise<void> {
    const publish = async () => {
      await this.#keyPackages.publish();
      await this.store.change(() => this.#place.set("here", { ...this.#here, published: true }));
      this.#changed.fire();
    };
    this.#publishing ??= publish().finally(() => (this.#publishing = undefined));
    return this.#publishing;
  }

  // The queue

  #frame(frame: FromServer): void {
    if (frame.case === "notice" && frame.value.notice.case === "keyPackagesLow") {
      void this.#publish().catch((error: unknown) => this.#failed(error));
      return;
    }
    this.#frames.push(frame);
    this.#working ??= this.#work().finally(() => (this.#working = undefined));
  }

  /** Works through what came, in order: committed first, then acknowledged. */
  async #work(): Promise<void> {
    for (let frame = this.#frames.shift(); frame !== undefined; frame = this.#frames.shift()) {
      try {
        await this.store.change(() => this.#take(frame!));
        await this.#after(frame);
      } catch (error) {
        this.#failed(error);
        // Once it is closed nothing can be written any more: the next start is given it again.
        if (this.#link.stopped.aborted) return;
        // A session that was lost brings it again; what cannot be worked through for another reason is passed over.
        if (!(error instanceof Offline) && frame.case === "deliver") await this.store.change(() => this.#reach(frame!));
      }
    }
  }

  async #take(frame: FromServer): Promise<void> {
    if (frame.case === "sendResults") this.#outbox.results(frame.value.results);
    else if (frame.case === "settled") this.#outbox.settled(frame.value.settled);
    else if (frame.case === "deliver" && frame.value.position > BigInt(this.#here.position)) {
      await this.#inbox.take(fromBinary(EnvelopeSchema, frame.value.envelope));
      this.#reach(frame);
    } else if (frame.case === "gap") this.#reach(frame);
  }

  #reach(frame: FromServer): void {
    const position = frame.case === "deliver" ? frame.value.position : frame.case === "gap" ? frame.value.to : 0n;
    const before = BigInt(this.#here.position);
    if (position <= before) return;
    this.#place.set("here", { ...this.#here, position: position.toString() });
    const anotherLog = before > 0n && position >> LOG_EPOCH_SHIFT !== before >> LOG_EPOCH_SHIFT;
    if (frame.case === "gap" || anotherLog) this.store.afterwards(() => this.#doubt());
  }

  #doubt(): void {
    clearTimeout(this.#doubting);
    this.#doubting = setTimeout(
      () => void this.#conversations.inDoubt().catch((error: unknown) => this.#failed(error)),
      DOUBT_MS,
    );
  }

  async #after(frame: FromServer): Promise<void> {
    const { session } = this.#link;
    const isOfQueue = frame.case === "deliver" || frame.case === "gap";
    if (isOfQueue && !this.#frames.some((next) => next.case === "deliver"))
      session?.send({ case: "ack", value: { position: BigInt(this.#here.position) } });
    if (frame.case === "gap") {
      this.#compare.unknown = true;
      this.#tell({ event: "gap" });
    }
    if (frame.case === "caughtUp") await this.#isCaughtUp();
  }

  async #isCaughtUp(): Promise<void> {
    if (this.#compare.gone || this.#compare.unknown) await this.#compareWithList();
    this.#compare = { gone: false, unknown: false };
    this.#caughtUp = true;
    this.#changed.fire();
    void this.#renewIfCaughtUp();
  }

  async #renewIfCaughtUp(): Promise<void> {
    if (!this.#caughtUp || this.#frames.length > 0) return;
    try {
      await this.store.change(() => this.#keyPackages.forgetSpent());
      await this.#groups.renew();
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Somebody let this device in by its key package of last resort (docs/protocol.md, "Key packages"). */
  #lastResortUsed(): void {
    void this.#publishIfDue().catch((error: unknown) => this.#failed(error));
    this.#renewIn(OWN_REMOVED_MS);
  }

  #renewIn(ms: number): void {
    setTimeout(() => void this.#renewIfCaughtUp(), ms).unref();
  }

  /** Conversations that a restored server does not know are over; those whose welcome this device never saw are joined. */
  async #compareWithList(): Promise<void> {
    const listed = await this.#conversations.listed();
    await this.store.change(() => {
      const gone = this.#conversations.all().filter(([id, { phase }]) => phase !== "over" && !listed.has(id));
      if (this.#compare.gone)
        for (const [, conversation] of gone)
          this.#conversations.markOver(
            conversation,
            "gone",
            successorOf(conversation.root ?? conversation.id, this.#here.history),
          );
      const unknown = [...listed].filter(([id]) => this.#conversations.get(id) === undefined);
      if (this.#compare.unknown) for (const [, id] of unknown) this.#conversations.markBroken(unknownConversation(id));
    });
  }

  #failed(error: unknown): void {
    if (error instanceof Offline || this.#link.stopped.aborted) return;
    this.#tell({ event: "warning", error: error as Error });
  }

  #tell(event: Event): void {
    for (const listener of this.#listeners) listener(event);
    this.#changed.fire();
  }
}
