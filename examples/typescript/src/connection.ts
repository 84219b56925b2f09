// SPDX-License-Identifier: MIT OR Apache-2.0
// One WebSocket over TLS 1.3, and what ties an authentication to it (docs/protocol.md, "Carriers" and "Opening").

import { createHash } from "node:crypto";
import { connect as tlsConnect, type TLSSocket } from "node:tls";

import { WebSocket } from "ws";

import { hex, utf8, type Bytes } from "./bytes.js";
import { FRAME_BYTES_MAX } from "./frames.js";
import { Binding } from "./gen/pli/edge/v1/edge_pb.js";

/**
 * How a hello is bound to the connection. `exporter` is the strongest; `certificate` is for platforms whose TLS hides
 * the exporter; an origin is what a browser has, and the server must list it.
 */
export type BindingChoice = "exporter" | "certificate" | { origin: string };

export interface Server {
  /** HOST:PORT; the port may be left out where it is 443. */
  readonly address: string;
  /** SHA-256 of the server's certificate in hexadecimal, for a certificate that no authority signed. */
  readonly fingerprint?: string | undefined;
  readonly binding?: BindingChoice | undefined;
}

/** The connection ended, or there was none. */
export class Offline extends Error {
  override name = "Offline";
}

/** The server is not the one that was asked for; connecting again does not help. */
export class WrongServer extends Error {
  override name = "WrongServer";
}

/** Whoever answers under the address has another certificate than the one that is trusted. */
export class WrongCertificate extends WrongServer {
  override name = "WrongCertificate";
}

export interface ChannelBinding {
  readonly kind: Binding;
  readonly value: Bytes;
}

const CONNECT_WITHIN_MS = 10_000;

/** What Node says of a certificate for which no authority of this machine speaks: another try says the same. */
const UNTRUSTED = [
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
];

export class Connection {
  onFrame: (bytes: Bytes) => void = () => {};
  onEnd: (why: string) => void = () => {};
  readonly #early: Bytes[] = [];
  #ended: string | undefined;

  readonly #socket: WebSocket;

  private constructor(
    socket: WebSocket,
    readonly binding: ChannelBinding,
  ) {
    this.#socket = socket;
    this.onFrame = (bytes) => this.#early.push(bytes);
    socket.on("message", (data) => this.onFrame(new Uint8Array(data as Buffer)));
    socket.on("error", (error) => this.#end(error.message));
    socket.on("close", (code) => this.#end(`the connection was closed (${code})`));
  }

  static async open(server: Server): Promise<Connection> {
    const tls = await openTls(server);
    const choice = server.binding ?? "exporter";
    const socket = new WebSocket(`wss://${server.address}/v1/session`, {
      createConnection: () => tls,
      perMessageDeflate: false,
      maxPayload: FRAME_BYTES_MAX,
      handshakeTimeout: CONNECT_WITHIN_MS,
      ...(typeof choice === "object" ? { origin: choice.origin } : {}),
    });
    const connection = new Connection(socket, bindingOf(tls, choice));
    await new Promise<void>((resolve, reject) => {
      socket.once("open", resolve);
      socket.once("error", (error) => reject(new Offline(`no session at ${server.address}: ${error.message}`)));
    });
    return connection;
  }

  /** Hands over what came so far, then each frame as it comes. */
  listen(onFrame: (bytes: Bytes) => void, onEnd: (why: string) => void): void {
    this.onFrame = onFrame;
    this.onEnd = onEnd;
    for (const bytes of this.#early.splice(0)) onFrame(bytes);
    if (this.#ended !== undefined) onEnd(this.#ended);
  }

  send(bytes: Bytes): void {
    if (this.#ended !== undefined) throw new Offline(this.#ended);
    this.#socket.send(bytes);
  }

  close(): void {
    this.#socket.close();
  }

  /** Ends it at once, without the closing handshake: what a lost network does. */
  cut(why: string): void {
    this.#end(why);
    this.#socket.terminate();
  }

  #end(why: string): void {
    if (this.#ended !== undefined) return;
    this.#ended = why;
    this.onEnd(why);
  }
}

function openTls(server: Server): Promise<TLSSocket> {
  const url = new URL(`https://${server.address}`);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return new Promise((resolve, reject) => {
    const socket = tlsConnect({
      host,
      port: Number(url.port || 443),
      minVersion: "TLSv1.3",
      ALPNProtocols: ["http/1.1"],
      timeout: CONNECT_WITHIN_MS,
      // A pinned certificate is judged by its fingerprint below, any other by the authorities of this machine.
      rejectUnauthorized: server.fingerprint === undefined,
      ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }),
    });
    const fail = (error: Error) => {
      socket.destroy();
      reject(error);
    };
    socket.once("timeout", () => fail(new Offline(`${server.address} does not answer`)));
    socket.once("error", (error: NodeJS.ErrnoException) =>
      fail(
        UNTRUSTED.includes(error.code ?? "")
          ? untrusted(server, error)
          : new Offline(`${server.address} cannot be reached: ${error.message}`),
      ),
    );
    socket.once("secureConnect", () => {
      socket.setTimeout(0);
      const found = hex(certificateHash(socket));
      if (server.fingerprint === undefined || server.fingerprint.toLowerCase() === found) resolve(socket);
      else fail(new WrongCertificate(`${server.address} has the certificate ${found}, not the pinned one`));
    });
  });
}

/** It does not name the fingerprint that was found: one is to come from the server's machine, not from whoever answers. */
const untrusted = ({ address }: Server, { message }: Error): WrongCertificate =>
  new WrongCertificate(
    `${address} has a certificate that no authority of this machine signed (${message}): name its fingerprint with ` +
      "--fingerprint HEX. The server prints it at its start, behind `certificate`, and `server.json` in its data folder " +
      "holds it",
  );

const certificateHash = (socket: TLSSocket): Bytes =>
  new Uint8Array(createHash("sha256").update(socket.getPeerCertificate().raw).digest());

function bindingOf(socket: TLSSocket, choice: BindingChoice): ChannelBinding {
  if (choice === "exporter") {
    const value = new Uint8Array(socket.exportKeyingMaterial(32, "EXPORTER-pli-auth-1", Buffer.alloc(0)));
    return { kind: Binding.TLS_EXPORTER, value };
  }
  if (choice === "certificate") return { kind: Binding.SERVER_CERTIFICATE, value: certificateHash(socket) };
  return { kind: Binding.ORIGIN, value: utf8(choice.origin) };
}
