// SPDX-License-Identifier: MIT OR Apache-2.0
// One authenticated session: hello, calls with their replies, pings (docs/protocol.md, "Opening" to "Calls").

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";

import { prefixed, utf8, type Bytes } from "./bytes.js";
import { Connection, Offline, WrongServer, type ChannelBinding, type Server } from "./connection.js";
import { decodeFrame, encodeFrame, Refused, type FromServer, type ToServer } from "./frames.js";
import {
  ServerInfoSchema,
  type Limits,
  type Ready,
  type ServerHello,
  type ServerInfo,
} from "./gen/pli/edge/v1/edge_pb.js";
import { sign, type Profile } from "./profile.js";

export const VERSION = 1;
const CALL_WITHIN_MS = 30_000;
const HELLO_WITHIN_MS = 10_000;

export interface HelloOptions {
  /** The device; left out, the session is anonymous and may register only. */
  readonly profile?: Profile | undefined;
  readonly committed?: bigint | undefined;
  readonly history?: Bytes | undefined;
  readonly userAgent?: string | undefined;
}

/** What a device signs to open a session. */
export function authenticationTranscript(
  host: string,
  profile: Pick<Profile, "account" | "device">,
  nonce: Bytes,
  binding: Bytes,
): Bytes {
  return prefixed(utf8("pli-auth-1"), utf8(host), profile.account, profile.device, nonce, binding);
}

export interface SessionEnd {
  readonly why: string;
  /** The server's last word, where it said one. */
  readonly refused?: Refused | undefined;
  /** Whether the server says that connecting again makes sense; true where it said nothing. */
  readonly reconnect: boolean;
}

interface OpenCall {
  resolve(body: Bytes): void;
  reject(error: Error): void;
}

export class Session {
  /** Frames that are not answers to calls or pings. */
  onFrame: (frame: FromServer) => void = () => {};
  readonly ended: Promise<SessionEnd>;
  readonly ready!: Ready;
  readonly #calls = new Map<bigint, OpenCall>();
  readonly #waiting: (() => void)[] = [];
  readonly #backlog: FromServer[] = [];
  #nextId = 1n;
  #end!: (end: SessionEnd) => void;
  #isEnded: SessionEnd | undefined;
  #hello: ((frame: FromServer) => void) | undefined;
  #heardAt = Date.now();
  #timer: NodeJS.Timeout | undefined;
  /** What `GoAway` asked for. */
  goAwayMs: number | undefined;

  private constructor(readonly connection: Connection) {
    this.onFrame = (frame) => this.#backlog.push(frame);
    this.ended = new Promise((resolve) => (this.#end = resolve));
  }

  static async open(server: Server, options: HelloOptions = {}): Promise<Session> {
    const session = new Session(await Connection.open(server));
    try {
      await session.#open(server, options);
    } catch (error) {
      session.connection.cut("the session was not opened");
      throw error;
    }
    return session;
  }

  async #open(server: Server, options: HelloOptions): Promise<void> {
    const first = this.#next();
    this.connection.listen(
      (bytes) => this.#frame(decodeFrame(bytes)),
      (why) => this.#close({ why, reconnect: true }),
    );
    const hello = await first;
    if (hello.case !== "hello")
      throw new WrongServer(
        `${server.address} began with ${hello.case ?? "a frame that is not known"}, not with a hello`,
      );
    checkVersion(server, hello.value);
    const answer = this.#next();
    this.send(helloFrame(server, options, hello.value, this.connection.binding));
    const ready = await answer;
    if (ready.case !== "ready")
      throw new WrongServer(`${server.address} answered the hello with ${ready.case ?? "a frame that is not known"}`);
    (this as { ready: Ready }).ready = ready.value;
    this.#keepAlive();
  }

  /** The limits that the server told. */
  get limits(): Limits {
    if (this.ready.limits === undefined) throw new WrongServer("the server told no limits");
    return this.ready.limits;
  }

  /** Gives frames to `onFrame`, first those that came meanwhile. */
  listen(onFrame: (frame: FromServer) => void): void {
    this.onFrame = onFrame;
    for (const frame of this.#backlog.splice(0)) onFrame(frame);
  }

  send(frame: ToServer): void {
    if (this.#isEnded !== undefined) throw new Offline(this.#isEnded.why);
    this.connection.send(encodeFrame(frame));
  }

  /** Runs a method of a service and waits for its answer. Throws `Refused`, or `Offline` when the session ends first. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    const body = toBinary(method.input, create(method.input, request));
    return fromBinary(method.output, await this.#call(`/${method.parent.typeName}/${method.name}`, body));
  }

  /** Server info; it has no service of its own, the edge answers by itself. */
  async info(): Promise<ServerInfo> {
    const body = toBinary(EmptySchema, create(EmptySchema));
    return fromBinary(ServerInfoSchema, await this.#call("/pli.edge.v1.Edge/Info", body));
  }

  close(): void {
    this.connection.close();
    this.#close({ why: "closed by this client", reconnect: false });
  }

  async #call(method: string, body: Bytes): Promise<Bytes> {
    while (this.#calls.size >= this.limits.callWindow && this.#isEnded === undefined) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    const id = this.#nextId++;
    const answer = new Promise<Bytes>((resolve, reject) => this.#calls.set(id, { resolve, reject }));
    const timer = setTimeout(() => this.connection.cut(`no answer to ${method}`), CALL_WITHIN_MS);
    try {
      this.send({ case: "call", value: { id, method, body } });
      return await answer;
    } finally {
      clearTimeout(timer);
      this.#calls.delete(id);
      this.#waiting.shift()?.();
    }
  }

  #frame(frame: FromServer): void {
    this.#heardAt = Date.now();
    if (frame.case === "close") {
      const refused = frame.value.reason && new Refused(frame.value.reason);
      this.#close({ why: refused?.message ?? "closed by the server", refused, reconnect: frame.value.reconnect });
    } else if (this.#hello !== undefined) {
      this.#hello(frame);
    } else if (frame.case === "ping") {
      this.send({ case: "pong", value: { id: frame.value.id } });
    } else if (frame.case === "goAway") {
      this.goAwayMs = frame.value.reconnectAfterMs;
    } else if (frame.case === "reply") {
      const call = this.#calls.get(frame.value.id);
      const { result } = frame.value;
      if (result.case === "error") call?.reject(new Refused(result.value));
      else call?.resolve(result.value ?? new Uint8Array());
    } else if (frame.case !== "pong" && frame.case !== undefined) {
      this.onFrame(frame);
    }
  }

  /** The next frame of the opening. */
  #next(): Promise<FromServer> {
    const next = new Promise<FromServer>((resolve, reject) => {
      const timer = setTimeout(() => this.connection.cut("the server said nothing"), HELLO_WITHIN_MS);
      const done = () => {
        clearTimeout(timer);
        this.#hello = undefined;
      };
      this.#hello = (frame) => {
        done();
        resolve(frame);
      };
      void this.ended.then((end) => {
        done();
        reject(end.refused ?? new Offline(end.why));
      });
    });
    // Where the opening fails before anybody waits for it.
    next.catch(() => undefined);
    return next;
  }

  /** A ping in a third of the time after which the server closes a silent session; silence that long ends it here too. */
  #keepAlive(): void {
    const idle = this.limits.idleTimeoutMs;
    this.#timer = setInterval(() => {
      if (Date.now() - this.#heardAt > idle) this.connection.cut("the server is silent");
      else if (this.#isEnded === undefined) this.send({ case: "ping", value: { id: this.#nextId++ } });
    }, idle / 3);
  }

  #close(end: SessionEnd): void {
    if (this.#isEnded !== undefined) return;
    this.#isEnded = end;
    clearInterval(this.#timer);
    for (const call of this.#calls.values()) call.reject(new Offline(end.why));
    for (const wake of this.#waiting.splice(0)) wake();
    this.#end(end);
  }
}

function checkVersion(server: Server, hello: ServerHello): void {
  if (hello.versions.includes(VERSION)) return;
  const newer = hello.versions.every((version) => version > VERSION);
  const fix = newer ? "update this client" : "the server is older than this client";
  throw new WrongServer(
    `${server.address} speaks version ${hello.versions.join(", ")} of the protocol, this client ${VERSION}: ${fix}`,
  );
}

function helloFrame(server: Server, options: HelloOptions, hello: ServerHello, binding: ChannelBinding): ToServer {
  const { profile } = options;
  const common = {
    version: VERSION,
    host: server.address,
    userAgent: options.userAgent ?? "pli-typescript/0.1.0",
  };
  if (profile === undefined) return { case: "hello", value: common };
  const signed = authenticationTranscript(server.address, profile, hello.nonce, binding.value);
  return {
    case: "hello",
    value: {
      ...common,
      account: profile.account,
      device: profile.device,
      binding: binding.kind,
      signature: sign(profile.deviceKey, signed),
      committed: options.committed ?? 0n,
      history: options.history ?? new Uint8Array(),
    },
  };
}
