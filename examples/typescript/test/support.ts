// SPDX-License-Identifier: MIT OR Apache-2.0
// What the end-to-end tests share: a real server, the Rust client as a process of its own, clients of this folder, and
// waiting for conditions. Nothing sleeps; nothing is judged by the time it takes.

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { after } from "node:test";

import { Client, type ClientOptions } from "../src/client.js";
import type { Server } from "../src/connection.js";
import type { Event } from "../src/events.js";
import { Session } from "../src/session.js";

export const PLI = resolve(process.env["PLI_BIN"] ?? "../../target/debug/pli");
if (!existsSync(PLI)) throw new Error(`${PLI} is missing: build it with cargo build, or name another one in PLI_BIN`);
/** The environment of `pli`, which warns of variables that it does not know. */
const { PLI_BIN: _, ...ENVIRONMENT } = process.env;
/** Long beyond everything that happens on a busy machine: it ends tests that hang. */
export const DEADLINE_MS = Number(process.env["PLI_TEST_DEADLINE_S"] ?? 120) * 1000;

/** What is to be undone at the end of a test file, last first. */
const undo: (() => Promise<unknown> | void)[] = [];
after(async () => {
  for (const step of undo.reverse()) await step();
});

export function atEnd(step: () => Promise<unknown> | void): void {
  undo.push(step);
}

export function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "pli-typescript-"));
  atEnd(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Looks again whenever something happened, and now and then; fails with what it waited for. */
export async function until<T>(what: string, look: () => T | undefined | false): Promise<T> {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}

interface ReadyLine {
  readonly address: string;
  readonly fingerprint: string;
  readonly data: string;
}

/** `pli dev`; it may be killed and started again on the same folder and port. */
export class PliServer {
  #process: ChildProcess | undefined;
  ready!: ReadyLine;

  private constructor(
    private args: string[],
    private readonly environment: Record<string, string>,
  ) {}

  static async start({
    data,
    environment = {},
  }: { data?: string; environment?: Record<string, string> } = {}): Promise<PliServer> {
    const server = new PliServer(data === undefined ? ["--ephemeral"] : ["--data", data], environment);
    atEnd(() => server.stop("SIGTERM"));
    await server.up("0");
    return server;
  }

  get at(): Server {
    return { address: this.ready.address, fingerprint: this.ready.fingerprint };
  }

  async up(port = this.ready.address.split(":")[1]!): Promise<void> {
    const args = ["dev", ...this.args, "--port", port, "--admin-port", "0", "--ready-json"];
    const child = spawn(PLI, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...ENVIRONMENT, ...this.environment } });
    this.#process = child;
    const lines = gather(child);
    const text = await until("the server's ready line", () => {
      if (child.exitCode !== null) throw new Error(`${PLI} dev ended: ${lines.err.join("\n")}`);
      return lines.out.find((line) => line.startsWith("{"));
    });
    this.ready = JSON.parse(text) as ReadyLine;
  }

  /** Goes on with the data of another folder. */
  async moveTo(data: string): Promise<void> {
    await this.stop();
    this.args = ["--data", data];
    await this.up();
  }

  /** It keeps its connections and says nothing any more, until it is thawed. */
  freeze(): void {
    this.#process?.kill("SIGSTOP");
  }

  thaw(): void {
    this.#process?.kill("SIGCONT");
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await until("the server's end", () => child.exitCode !== null || child.signalCode !== null);
  }
}

/** The chat program, as a user starts it; it may be killed `before CALL` or `after CALL`, its first one of that name. */
export function startChat(args: string[], data: string, home = folder(), killed?: string): Following {
  const killing = killed === undefined ? [] : ["--import", "./dist/test/killing.js"];
  const child = spawn(process.execPath, [...killing, "dist/src/main.js", ...args, "--data", data, "--home", home], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, PLI_KILLED: killed },
  });
  const following = new Following(child);
  atEnd(() => following.end());
  return following;
}

function gather(child: ChildProcess): { out: string[]; err: string[] } {
  const lines = { out: [] as string[], err: [] as string[] };
  createInterface({ input: child.stdout! }).on("line", (line) => lines.out.push(line));
  createInterface({ input: child.stderr! }).on("line", (line) => lines.err.push(line));
  return lines;
}

export interface RustEvent {
  readonly event: string;
  readonly [field: string]: unknown;
}

/** The Rust client: a home of its own, one command at a time for each handle. */
export class RustClient {
  readonly #home = folder();

  constructor(private readonly server: PliServer) {}

  /** Runs a command to its end; `expected` is its exit code. */
  async run(args: string[], { expected = 0, input = "" } = {}): Promise<{ out: string; err: string }> {
    const child = this.#spawn(args);
    const lines = gather(child);
    child.stdin!.end(input);
    const code = await until(`pli ${args.join(" ")}`, () => child.exitCode ?? child.signalCode ?? undefined);
    const [out, err] = [lines.out.join("\n"), lines.err.join("\n")];
    if (code !== expected) throw new Error(`pli ${args.join(" ")} ended with ${code}:\n${out}\n${err}`);
    return { out, err };
  }

  /** Makes a profile. */
  async register(handle: string): Promise<void> {
    await this.run(["recv", handle]);
  }

  /** `pli recv --json` with all its events, to its end. */
  async receive(handle: string, count: number): Promise<RustEvent[]> {
    const { out } = await this.run(["recv", handle, "--json", "--count", String(count), "--read", "--timeout", "100"]);
    return out
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as RustEvent);
  }

  /** A command that goes on, for example `recv --json --follow`, `pipe` or `chat`. */
  follow(args: string[]): Following {
    const following = new Following(this.#spawn(args));
    atEnd(() => following.end());
    return following;
  }

  /** A command about the server's data. */
  async admin(args: string[]): Promise<void> {
    const child = spawn(PLI, args, { stdio: ["ignore", "pipe", "pipe"], env: ENVIRONMENT });
    const lines = gather(child);
    const code = await until(`pli ${args.join(" ")}`, () => child.exitCode ?? undefined);
    if (code !== 0) throw new Error(`pli ${args.join(" ")} ended with ${code}: ${lines.err.join("\n")}`);
  }

  #spawn(args: string[]): ChildProcess {
    const { address, fingerprint } = this.server.ready;
    const common = ["--server", address, "--fingerprint", fingerprint, "--home", this.#home];
    return spawn(PLI, [...args, ...common], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...ENVIRONMENT, NO_COLOR: "1" },
    });
  }
}

/** A process that goes on: what it printed, and what is written to it. */
export class Following {
  readonly lines: { out: string[]; err: string[] };

  constructor(private readonly child: ChildProcess) {
    this.lines = gather(child);
  }

  write(line: string): void {
    this.child.stdin!.write(`${line}\n`);
  }

  /** The end of its input. */
  endInput(): void {
    this.child.stdin!.end();
  }

  interrupt(): void {
    this.child.kill("SIGINT");
  }

  events(): RustEvent[] {
    return this.lines.out.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as RustEvent);
  }

  seen(what: string, is: (event: RustEvent) => boolean): Promise<RustEvent> {
    return until(`${what} (pli printed ${this.lines.out.length} lines)`, () => this.events().find(is));
  }

  said(text: string): Promise<string> {
    return until(`pli to print ${text}`, () => this.lines.out.find((line) => line.includes(text)));
  }

  /** Its exit code, once it has ended by itself. */
  ended(): Promise<number> {
    return until("the program's end", () => this.child.exitCode ?? undefined);
  }

  async killed(): Promise<void> {
    await until("the program to be killed", () => this.child.signalCode === "SIGKILL");
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.stdin!.end();
    this.child.kill("SIGINT");
    await until("pli to end", () => this.child.exitCode !== null || this.child.signalCode !== null);
  }
}

interface Called {
  readonly name: string;
  readonly request: Record<string, unknown>;
}

const { open } = Session;
const { call } = Session.prototype;
const handles = new WeakMap<Session, string>();

/** What the clients of a handle ask the server for from now on, in sessions that they open from now on. */
export function callsOf(handle: string): readonly Called[] {
  const calls: Called[] = [];
  Session.open = async (server, options) => {
    const session = await open.call(Session, server, options);
    if (options?.profile !== undefined) handles.set(session, options.profile.handle);
    return session;
  };
  Session.prototype.call = function (this: Session, method, request) {
    if (handles.get(this) === handle) calls.push({ name: method.name, request: request as Record<string, unknown> });
    return call.call(this, method, request) as ReturnType<typeof call<typeof method.input, typeof method.output>>;
  } as typeof call;
  return calls;
}

/** An event by its name; some have several names. */
type Told<E> = Event extends infer T ? (T extends { event: infer N } ? (E extends N ? T : never) : never) : never;

/** A client of this folder with everything that it told. */
export class Person {
  readonly told: Event[] = [];

  constructor(readonly client: Client) {
    client.listen((event) => this.told.push(event));
  }

  static async open(server: Server, handle: string, more: Partial<ClientOptions> = {}): Promise<Person> {
    const client = await Client.open({ folder: more.folder ?? folder(), handle, server, ...more });
    const person = new Person(client);
    let open = true;
    person.close = async () => {
      if (open) await client.close();
      open = false;
    };
    atEnd(() => person.close());
    await client.start();
    await client.ready();
    return person;
  }

  close: () => Promise<void> = async () => {};

  async heard<E extends Event["event"]>(event: E, is: (told: Told<E>) => boolean = () => true): Promise<Told<E>> {
    try {
      return await until(event, () =>
        this.told.find((told): told is Told<E> => told.event === event && is(told as Told<E>)),
      );
    } catch (error) {
      const brief = this.told.map((told) =>
        JSON.stringify(told, (_, value: unknown) => (value instanceof Error ? value.message : value)),
      );
      throw new Error(`${this.client.profile.handle}: ${(error as Error).message}; it was told\n${brief.join("\n")}`);
    }
  }

  text(text: string): Promise<Told<"message">> {
    return this.heard("message", (message) => message.text === text);
  }

  texts(conversation?: string): string[] {
    return this.told.flatMap((told) =>
      told.event === "message" && (conversation ?? told.conversation) === told.conversation ? [told.text] : [],
    );
  }
}
