// SPDX-License-Identifier: MIT OR Apache-2.0
// A chat in the terminal:  npm run chat -- HANDLE [--server HOST:PORT --fingerprint HEX] [--data FOLDER] [--home FOLDER]
//
// Without --server it takes the server of a `pli dev` on this machine, from the server.json in its data folder.

import { mkdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

import { Client } from "./client.js";
import type { Server } from "./connection.js";
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

async function main(): Promise<void> {
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
  await new Chat(await Client.open({ folder, handle, server })).run();
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

class Chat {
  /** Where lines without @ or # go. */
  #current: string | undefined;

  constructor(private readonly client: Client) {}

  async run(): Promise<void> {
    this.client.listen((event) => this.#show(event));
    await this.client.start();
    await this.client.ready();
    console.log(`you are @${this.client.profile.handle}; /help says what can be typed`);
    for await (const line of createInterface({ input: process.stdin })) {
      if (line.trim() === "/quit") break;
      await this.#line(line.trim()).catch((error: unknown) => console.log(`! ${(error as Error).message}`));
    }
    process.stdin.destroy();
    await this.client.sent();
    await this.client.close();
  }

  async #line(line: string): Promise<void> {
    const [first = "", ...rest] = line.split(" ");
    if (first === "") return;
    if (first.startsWith("/")) return this.#command(first.slice(1), rest.filter(Boolean));
    if (first === "@") throw new Error("to whom? @NAME TEXT");
    if (first.startsWith("@")) this.#current = await this.client.chat(first.slice(1));
    if (first.startsWith("#")) this.#current = this.#group(first);
    if (this.#current === undefined) throw new Error("write to somebody: @bob hello");
    const text = /^[@#]/.test(first) ? rest.join(" ") : line;
    if (text !== "") await this.client.send(this.#current, text);
  }

  async #command(name: string, [group = "", ...names]: string[]): Promise<void> {
    const usage = USAGE[name];
    if (usage !== undefined && (group === "" || (usage.endsWith("NAMES") && names.length === 0)))
      throw new Error(`type ${usage}`);
    if (name === "group") this.#current = await this.client.createGroup(group.replace(/^#/, ""), names);
    else if (name === "add") await this.client.add(this.#group(group), names);
    else if (name === "remove") await this.client.remove(this.#group(group), names);
    else if (name === "leave") await this.client.leave(this.#group(group));
    else if (name === "safety") console.log(await this.client.safetyNumber(group.replace(/^@/, "")));
    else if (name === "list")
      for (const [id, { phase }] of this.client.conversations())
        console.log(`${this.#label(id)} ${phase}: ${this.client.members(id).join(", ")}`);
    else console.log(HELP);
  }

  #group(label: string): string {
    const name = label.replace(/^#/, "");
    const found = this.client
      .conversations()
      .find(([, conversation]) => conversation.name === name && conversation.phase !== "over");
    if (found === undefined) throw new Error(`there is no group #${name}`);
    return found[0];
  }

  #label(id: string): string {
    const name = this.client.conversation(id)?.name ?? "";
    if (name !== "") return `#${name}`;
    const members = this.client.members(id);
    // Of a conversation that the device is not in yet it knows neither.
    return members.length === 0 ? `conversation ${id.slice(0, 8)}` : `@${members.join(",@")}`;
  }

  #show(event: Event): void {
    const where = "conversation" in event ? this.#label(event.conversation) : "";
    if (event.event === "message") {
      console.log(`${where} ${event.from}: ${event.text}${event.late ? "  (late)" : ""}`);
      void this.client.read(event.conversation).catch(() => undefined);
    } else if (event.event === "delivered" || event.event === "read")
      console.log(`${where} ${event.event} by ${event.by}, up to ${event.upTo}`);
    else if (event.event === "failed") console.log(`${where} not sent: ${event.error.message}`);
    else if (event.event === "members" || event.event === "joined")
      console.log(`${where} ${event.event}: ${event.members.join(", ")}`);
    else if (event.event === "unreadable")
      console.log(`${where} messages of ${event.from} cannot be read: ${event.why}`);
    else if (event.event === "waiting") console.log(`${where} waits: ${event.why}`);
    else if (event.event === "hole")
      console.log(`${where} messages ${event.first} to ${event.last} of ${event.from} are missing`);
    else if (event.event === "stopped" || event.event === "warning") console.log(`! ${event.error.message}`);
    else if (event.event === "list_refused")
      console.log(
        `! the server's device list of @${event.handle} is refused (${event.why}); the one from before stands`,
      );
    else if ("handle" in event) console.log(`${event.event.replaceAll("_", " ")}: @${event.handle}`);
    else console.log(`${where} ${event.event}`.trim());
  }
}

main().catch((error: unknown) => {
  console.error(`pli-typescript: ${(error as Error).message}`);
  process.exitCode = 1;
});
