// SPDX-License-Identifier: MIT OR Apache-2.0
// What the chat program does with lines and events. A line never waits for one that goes elsewhere: lines to the same chat
// or group run in turn, so that what is typed goes out in order. It ends soon, whatever is open, and says what was not done.

import { createInterface, type Interface } from "node:readline";

import type { Client } from "./client.js";
import type { Event } from "./events.js";

const HELP = `@NAME TEXT            write to somebody; what follows without @ or # goes to the same chat
#GROUP TEXT           write to a group
/group GROUP NAMES    make a group of these people
/add GROUP NAMES      add people, /remove GROUP NAMES removes them, /leave GROUP leaves it
/safety NAME          the number to compare with somebody
/list                 conversations with their members
/quit                 end`;

/** What is typed behind each command that takes something. */
const USAGE: Partial<Record<string, string>> = {
  group: "/group GROUP NAMES",
  add: "/add GROUP NAMES",
  remove: "/remove GROUP NAMES",
  leave: "/leave GROUP",
  safety: "/safety NAME",
};

/** After so long it is said what something waits for. */
const SAID_AFTER_MS = 3_000;
/** It ends when nothing has gone on for so long. */
const QUIET_MS = 3_000;
/** Where every line was taken it ends after so long, also while messages go out one by one: the outbox keeps the rest. */
const SENDING_MS = 8_000;
const LOOKED_AT_EVERY_MS = 50;
/** For what ends with the connection. */
const CLOSE_WITHIN_MS = 1_000;
const LOST_SHOWN_MAX = 20;

/** A line that was typed, until it is done. */
interface Job {
  readonly line: string;
  /** The group of a command. */
  readonly group?: string | undefined;
  running: boolean;
  done: boolean;
}

export class Chat {
  /** Where lines without @ or # go: @NAME or #GROUP, which need not exist yet. */
  #current: string | undefined;
  /** The last line of each chat or group. */
  readonly #lanes = new Map<string, Promise<void>>();
  readonly #open = new Set<Job>();
  /** Of several groups of a name, the one that was made here. */
  readonly #made = new Map<string, string>();
  readonly #leaving = new Set<string>();
  /** What was told last of how far somebody is. */
  readonly #ticks = new Map<string, number>();
  #input: Interface | undefined;
  #begun: Promise<unknown> = Promise.resolve();
  #failed: Error | undefined;
  #goneOnAt = Date.now();
  #closing = false;

  constructor(
    private readonly client: Client,
    private readonly address: string,
    private readonly folder: string,
  ) {}

  /** Until `/quit`, the end of the input or `stop`; false where something is lost. */
  async run(): Promise<boolean> {
    this.client.listen((event) => this.#show(event));
    const ready = this.#ready();
    // Without a connection, what was typed goes to the outbox all the same.
    const late = setTimeout(
      () => console.log(`no connection to ${this.address} yet; type on, it is sent later`),
      SAID_AFTER_MS,
    );
    const waited = new Promise((resolve) => setTimeout(resolve, SAID_AFTER_MS).unref());
    this.#begun = Promise.race([ready, waited]);
    void ready.finally(() => clearTimeout(late));
    this.#input = createInterface({ input: process.stdin });
    for await (const line of this.#input) {
      if (line.trim() === "/quit") break;
      this.#typed(line.trim());
    }
    clearTimeout(late);
    if (this.#failed === undefined) await this.#finish();
    return this.#close();
  }

  /** Ends it as `/quit` does. */
  stop(): void {
    this.#input?.close();
  }

  async #ready(): Promise<void> {
    try {
      await this.client.start();
      await this.client.ready();
      console.log(`you are @${this.client.profile.handle}; /help says what can be typed`);
    } catch (error) {
      if (this.#closing) return;
      this.#failed = error as Error;
      this.stop();
    }
  }

  #typed(line: string): void {
    try {
      this.#line(line);
    } catch (error) {
      console.log(`! ${(error as Error).message}`);
    }
  }

  #line(line: string): void {
    const [first = "", ...rest] = line.split(" ");
    if (first === "") return;
    if (first.startsWith("/")) return this.#command(line, first.slice(1), rest.filter(Boolean));
    if (first === "@") throw new Error("to whom? @NAME TEXT");
    const named = /^[@#]/.test(first);
    if (named) this.#current = first;
    const to = this.#current;
    if (to === undefined) throw new Error("write to somebody: @bob hello");
    const text = named ? rest.join(" ") : line;
    this.#inTurn(to, { line: named ? line : `${to} ${line}` }, async () => {
      const id = to.startsWith("@") ? await this.client.chat(to.slice(1)) : this.#group(to);
      if (text !== "") await this.client.send(id, text);
    });
  }

  #command(line: string, name: string, [named = "", ...names]: string[]): void {
    const usage = USAGE[name];
    if (usage !== undefined && (named === "" || (usage.endsWith("NAMES") && names.length === 0)))
      throw new Error(`type ${usage}`);
    const group = named.replace(/^#/, "");
    const { client } = this;
    const inTurn = (run: () => Promise<unknown>) => this.#inTurn(`#${group}`, { line, group }, run);
    if (name === "group") {
      this.#current = `#${group}`;
      inTurn(async () => {
        if (this.#named(group).length > 0) throw new Error(`there is a group #${group} already; choose another name`);
        this.#made.set(group, await client.createGroup(group, names));
      });
    } else if (name === "add") inTurn(() => client.add(this.#group(group), names));
    else if (name === "remove") inTurn(() => client.remove(this.#group(group), names));
    else if (name === "leave") inTurn(async () => this.#leave(line, group));
    else if (name === "safety")
      this.#run({ line }, async () => {
        const digits = await client.safetyNumber(named.replace(/^@/, ""));
        console.log(digits.match(/.{5}/g)?.join(" "));
      });
    else if (name === "list")
      for (const [id, { phase }] of client.conversations())
        console.log(`${this.#label(id)} ${phase}: ${client.members(id).join(", ")}`);
    else if (name === "help") console.log(HELP);
    else throw new Error(`there is no /${name}; /help says what can be typed`);
  }

  /** Runs after what was typed before for the same chat or group. */
  #inTurn(to: string, of: Pick<Job, "line" | "group">, run: () => Promise<unknown>): void {
    const lane = to.toLowerCase();
    this.#lanes.set(lane, this.#run(of, run, this.#lanes.get(lane)));
  }

  async #run(of: Pick<Job, "line" | "group">, run: () => Promise<unknown>, before?: Promise<void>): Promise<void> {
    const job: Job = { ...of, running: false, done: false };
    this.#open.add(job);
    await this.#begun;
    await before;
    job.running = true;
    const late = setTimeout(() => this.#waits(job), SAID_AFTER_MS);
    try {
      await run();
      job.done = true;
    } catch (error) {
      // What the end cut off is told there.
      if (!this.#closing) {
        job.done = true;
        console.log(`! ${(error as Error).message}`);
      }
    }
    clearTimeout(late);
    this.#goneOnAt = Date.now();
    if (job.done) this.#open.delete(job);
  }

  #waits({ line, group }: Job): void {
    if (this.#closing) return;
    const leaves = line.startsWith("/leave");
    const why = !this.client.online
      ? `a connection to ${this.address}`
      : leaves
        ? `another member of #${group} to be online, whose device has to confirm it`
        : `the answer of ${this.address}`;
    console.log(`${line.startsWith("/") ? line : line.split(" ")[0]} waits for ${why}; type on`);
  }

  /** Nothing that is typed for the group waits for its end, which another member brings about. */
  #leave(line: string, group: string): void {
    const id = this.#group(group);
    this.#leaving.add(id);
    void this.#run({ line, group }, () => this.client.leave(id).finally(() => this.#leaving.delete(id)));
  }

  #group(label: string): string {
    const name = label.replace(/^#/, "");
    const made = this.#made.get(name);
    const found = this.#named(name).sort(([a], [b]) => Number(b === made) - Number(a === made))[0];
    if (found === undefined) throw new Error(`there is no group #${name}`);
    const [id, { leaving }] = found;
    if (leaving === true || this.#leaving.has(id)) throw new Error(`you are leaving #${name}; nothing goes there now`);
    return id;
  }

  #named(name: string) {
    return this.client.conversations().filter(([, { name: called, phase }]) => called === name && phase !== "over");
  }

  #label(id: string): string {
    const name = this.client.conversation(id)?.name ?? "";
    if (name !== "") return `#${name}`;
    const members = this.client.members(id);
    // Of a conversation that the device is not in yet it knows neither.
    return members.length === 0 ? `conversation ${id.slice(0, 8)}` : `@${members.join(",@")}`;
  }

  #show(event: Event): void {
    if (event.event === "accepted") this.#goneOnAt = Date.now();
    const where = "conversation" in event ? this.#label(event.conversation) : "";
    if (event.event === "message") {
      console.log(`${where} ${event.from}: ${event.text}${event.late ? "  (late)" : ""}`);
      void this.client.read(event.conversation).catch(() => undefined);
    } else if (event.event === "delivered" || event.event === "read") {
      const told = `${where} ${event.event} by ${event.by}`;
      // A tick says all that is so, also what was so before.
      if (this.#ticks.get(told) !== event.upTo) console.log(`${told}, up to ${event.upTo}`);
      this.#ticks.set(told, event.upTo);
    } else if (event.event === "failed") console.log(`${where} not sent: ${event.error.message}`);
    else if (event.event === "members" || event.event === "joined")
      console.log(`${where} ${event.event}: ${event.members.join(", ")}`);
    else if (event.event === "unreadable")
      console.log(`${where} messages of ${event.from} cannot be read: ${event.why}`);
    else if (event.event === "waiting") console.log(`${where} waits: ${event.why}`);
    else if (event.event === "hole")
      console.log(`${where} messages ${event.first} to ${event.last} of ${event.from} are missing`);
    else if (event.event === "not_made")
      console.log(
        `! ${event.name === "" ? "a chat" : `#${event.name}`} was not made before the program ended; begin anew`,
      );
    else if (event.event === "not_added")
      console.log(`! nobody was added to ${where} before the program ended; add them again`);
    else if (event.event === "wrong_certificate") console.log(`! ${event.why}; trying again for a minute`);
    else if (event.event === "stopped" || event.event === "warning") console.log(`! ${event.error.message}`);
    else if (event.event === "list_refused")
      console.log(
        `! the server's device list of @${event.handle} is refused (${event.why}); the one from before stands`,
      );
    else if ("handle" in event) console.log(`${event.event.replaceAll("_", " ")}: @${event.handle}`);
    else console.log(`${where} ${event.event}`.trim());
  }

  /** Gives what is open the time to be done, as long as something goes on. */
  async #finish(): Promise<void> {
    const asked = Date.now();
    const isOpen = () => this.#open.size > 0 || this.client.unsent.size > 0;
    if (isOpen()) await this.#begun;
    this.#goneOnAt = Date.now();
    while (isOpen() && this.#failed === undefined && Date.now() - this.#goneOnAt < QUIET_MS) {
      if (this.#open.size === 0 && Date.now() - asked > SENDING_MS) return;
      await soon(LOOKED_AT_EVERY_MS);
    }
  }

  /** Ends the client and says what was not done; false where something is lost. */
  async #close(): Promise<boolean> {
    this.#closing = true;
    const begun = new Set([...this.#open].filter(({ running }) => running));
    await Promise.race([this.client.close(), soon(CLOSE_WITHIN_MS)]);
    // What was open ends with the connection.
    await soon(0);
    this.#sayUnsent();
    const lost: string[] = [];
    for (const job of this.#open) {
      if (begun.has(job) && this.#goesOn(job)) console.log(`not done yet, it goes on at the next start: ${job.line}`);
      else lost.push(job.line);
    }
    for (const line of lost.slice(0, LOST_SHOWN_MAX)) console.log(`! not done, and not kept: ${line}`);
    if (lost.length > LOST_SHOWN_MAX) console.log(`! and ${lost.length - LOST_SHOWN_MAX} more lines`);
    if (this.#failed !== undefined) throw this.#failed;
    return lost.length === 0;
  }

  #sayUnsent(): void {
    const unsent = [...this.client.unsent].map(([id, count]) => `${count} to ${this.#label(id)}`);
    if (unsent.length > 0)
      console.log(`not sent yet: ${unsent.join(", ")}; kept in ${this.folder}, and sent after the next start`);
  }

  /** Whether the profile holds what a command has begun. */
  #goesOn({ group }: Job): boolean {
    return this.client
      .conversations()
      .some(
        ([, { name, phase, pending, leaving }]) =>
          name === group && phase !== "over" && (pending !== undefined || leaving === true),
      );
  }
}

const soon = (milliseconds: number): Promise<void> => new Promise((wake) => setTimeout(wake, milliseconds));
