// SPDX-License-Identifier: MIT OR Apache-2.0
// Sessions one after the other: connects again with full jitter (docs/protocol.md, "Closing"), repeats calls that were
// refused for a while.

import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";

import { Offline, WrongCertificate, WrongServer, type Server } from "./connection.js";
import { isRefused, Refused } from "./frames.js";
import { ErrorCode } from "./gen/pli/common/v1/common_pb.js";
import { Session, type HelloOptions, type SessionEnd } from "./session.js";
import { pause, Signal } from "./signal.js";

const BACK_OFF_MS = { first: 500, most: 5_000 };
/** Between a session that was lost while something was asked and the next try. */
const OFFLINE_PAUSE_MS = 100;
/** How long a server that was connected to may show another certificate: somebody may have its address for a while. */
const WRONG_FOR_MS = 60_000;
const RETRY_MS = { least: 50, most: 5_000 };

export interface LinkEvents {
  /** What the next hello says. */
  hello(): HelloOptions;
  /** A session is open; calls may be made. */
  opened(session: Session): void;
  lost(why: string): void;
  /** The server does not know the device; true where the link should go on, since it was registered again. */
  unknownDevice(): Promise<boolean>;
  /** A server that was connected to shows another certificate; it is tried again for a minute. */
  wrongCertificate(why: string): void;
  /** Nothing will be tried any more. */
  gaveUp(error: Error): void;
}

export class Link {
  readonly #online = new Signal();
  readonly #stop = new AbortController();
  #session: Session | undefined;
  #running: Promise<void> | undefined;
  #wasOpen = false;
  /** Since when every attempt has met another certificate. */
  #wrongSince: number | undefined;

  constructor(
    readonly server: Server,
    private readonly events: LinkEvents,
  ) {}

  /** Connects, and again whenever the session was lost. */
  start(): void {
    this.#running ??= this.#run();
  }

  get session(): Session | undefined {
    return this.#session;
  }

  get stopped(): AbortSignal {
    return this.#stop.signal;
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Offline("this client was closed"));
    this.#session?.close();
    await this.#running;
  }

  /** Ends the connection as a lost network would; the link connects again. */
  cut(): void {
    this.#session?.connection.cut("cut by this client");
  }

  /** Calls a method over the session that is open; what is refused for a while is asked again. Throws `Offline` without one. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    const session = this.#session;
    if (session === undefined) throw new Offline(`no session with ${this.server.address}`);
    for (let tries = 0; ; tries += 1) {
      try {
        return await session.call(method, request);
      } catch (error) {
        if (!mayRepeat(error, tries)) throw error;
        await pause(Math.min(Math.max(error.retryAfterMs, RETRY_MS.least), RETRY_MS.most), this.stopped);
      }
    }
  }

  /** Asks until there is an answer: without a session it waits for the next one. */
  async answered<T>(ask: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (!(error instanceof Offline)) throw error;
        await this.#online.until(() => this.#session !== undefined, this.stopped);
        await pause(OFFLINE_PAUSE_MS, this.stopped);
      }
    }
  }

  async #run(): Promise<void> {
    let bound = BACK_OFF_MS.first;
    let registeredAgain = false;
    while (!this.stopped.aborted) {
      let wait = 0;
      try {
        const end = await this.#once(() => (bound = BACK_OFF_MS.first));
        wait = Math.max(end.session.goAwayMs ?? 0, end.refused?.retryAfterMs ?? 0);
        if (end.refused !== undefined && !end.reconnect && !end.refused.temporary) throw end.refused;
      } catch (error) {
        if (this.stopped.aborted) return;
        const again: boolean =
          isRefused(error, ErrorCode.UNKNOWN_DEVICE) && !registeredAgain && (await this.events.unknownDevice());
        registeredAgain ||= again;
        const borne = this.#bears(error);
        if (!again && !borne && isFinal(error)) return this.events.gaveUp(error as Error);
        if (isRefused(error)) wait = error.retryAfterMs;
      }
      if (this.stopped.aborted) return;
      await pause(Math.max(wait, Math.random() * bound), this.stopped).catch(() => {});
      bound = Math.min(bound * 2, BACK_OFF_MS.most);
    }
  }

  /** Another certificate is borne for a while where the right one was there before. */
  #bears(error: unknown): boolean {
    if (!this.#wasOpen || !(error instanceof WrongCertificate)) {
      this.#wrongSince = undefined;
      return false;
    }
    if (this.#wrongSince === undefined) this.events.wrongCertificate(error.message);
    this.#wrongSince ??= Date.now();
    return Date.now() < this.#wrongSince + WRONG_FOR_MS;
  }

  /** A session, unless the link is stopped first: whoever ends it does not wait until a silent server is given up. */
  async #opened(): Promise<Session> {
    const opening = Session.open(this.server, this.events.hello());
    let stop = () => {};
    const stopped = new Promise<never>((_, reject) => (stop = () => reject(this.stopped.reason as Error)));
    this.stopped.addEventListener("abort", stop);
    try {
      return await Promise.race([opening, stopped]);
    } catch (error) {
      if (this.stopped.aborted)
        opening.then(
          (session) => session.close(),
          () => undefined,
        );
      throw error;
    } finally {
      this.stopped.removeEventListener("abort", stop);
    }
  }

  /** One session from its opening to its end. */
  async #once(opened: () => void): Promise<SessionEnd & { session: Session }> {
    const session = await this.#opened();
    opened();
    this.#wasOpen = true;
    this.#wrongSince = undefined;
    this.#session = session;
    this.#online.fire();
    this.events.opened(session);
    const end = await session.ended;
    this.#session = undefined;
    this.events.lost(end.why);
    return { ...end, session };
  }
}

/** Codes that mean: the request itself has to change, or a wait of another kind. */
const NOT_BY_WAITING = [ErrorCode.WRONG_EPOCH, ErrorCode.DEVICES_MISMATCH, ErrorCode.DEVICE_LIST_VERSION];

const mayRepeat = (error: unknown, tries: number): error is Refused =>
  isRefused(error) && error.temporary && !NOT_BY_WAITING.includes(error.code) && tries < 20;

const isFinal = (error: unknown): boolean =>
  error instanceof WrongServer || (error instanceof Refused ? !error.temporary : !(error instanceof Offline));
