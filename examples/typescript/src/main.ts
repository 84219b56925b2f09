// SPDX-License-Identifier: MIT OR Apache-2.0
// A chat in the terminal:  npm run chat -- HANDLE [--server HOST:PORT --fingerprint HEX] [--data FOLDER] [--home FOLDER]
//
// Without --server it takes the server of a `pli dev` on this machine, from the server.json in its data folder.

import { mkdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { Chat } from "./chat.js";
import { Client } from "./client.js";
import type { Server } from "./connection.js";

async function main(): Promise<boolean> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      server: { type: "string" },
      fingerprint: { type: "string" },
      data: { type: "string", default: process.env["PLI_DATA"] ?? "../../pli-data" },
      home: {
        type: "string",
        default: join(process.env["XDG_DATA_HOME"] ?? join(homedir(), ".local", "share"), "pli-typescript"),
      },
    },
  });
  const [handle] = positionals;
  if (handle === undefined) throw new Error("name the profile: npm run chat -- alice");
  const server =
    values.server === undefined ? serverOf(values.data) : { address: values.server, fingerprint: values.fingerprint };
  const folder = join(values.home, server.address.replace(":", "_"), handle);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const chat = new Chat(await Client.open({ folder, handle, server }), server.address, folder);
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)
    process.once(signal, () => {
      // Who asks twice does not want to wait.
      process.on(signal, () => process.exit(code));
      chat.stop();
    });
  return chat.run();
}

function serverOf(data: string): Server {
  try {
    return JSON.parse(readFileSync(join(data, "server.json"), "utf8")) as Server;
  } catch (error) {
    throw new Error(
      `no server runs in ${data}: start one with \`make run\`, or name one with --server and --fingerprint`,
      { cause: error },
    );
  }
}

/** Ends the process at once: a connection that is closed, or that is being opened, would hold it for up to half a minute. */
main().then(
  (kept) => process.exit(kept ? 0 : 1),
  (error: unknown) => {
    console.error(`pli-typescript: ${(error as Error).message}`);
    process.exit(1);
  },
);
