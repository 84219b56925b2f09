// SPDX-License-Identifier: MIT OR Apache-2.0
// What is durable: tables in memory over a LevelDB folder. Everything that one operation changed is written as one
// synced batch, or not at all. In a browser the same code runs over `browser-level` (IndexedDB).

import { decode, encode } from "cborg";
import { ClassicLevel } from "classic-level";

import type { Bytes } from "./bytes.js";

interface Written {
  readonly key: string;
  readonly value: unknown;
}

/** Rows by key, in the order of the keys. A row is replaced, never changed in place: that is what makes undoing cheap. */
export class Table<Row> {
  readonly #rows = new Map<string, Row>();
  readonly #before = new Map<string, Row | undefined>();

  get(key: string): Row | undefined {
    return this.#rows.get(key);
  }

  has(key: string): boolean {
    return this.#rows.has(key);
  }

  entries(): [string, Row][] {
    return [...this.#rows.entries()].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  get size(): number {
    return this.#rows.size;
  }

  set(key: string, row: Row): void {
    this.#remember(key);
    this.#rows.set(key, row);
  }

  delete(key: string): void {
    this.#remember(key);
    this.#rows.delete(key);
  }

  load(key: string, row: Row): void {
    this.#rows.set(key, row);
  }

  changes(): Written[] {
    return [...this.#before.keys()].map((key) => ({ key, value: this.#rows.get(key) }));
  }

  settled(): void {
    this.#before.clear();
  }

  undo(): void {
    for (const [key, row] of this.#before) {
      if (row === undefined) this.#rows.delete(key);
      else this.#rows.set(key, row);
    }
    this.#before.clear();
  }

  #remember(key: string): void {
    if (!this.#before.has(key)) this.#before.set(key, this.#rows.get(key));
  }
}

/** Something was to be changed after the store was closed. */
export class Closed extends Error {
  override name = "Closed";
}

export class Store {
  readonly #tables = new Map<string, Table<unknown>>();
  #queue: Promise<unknown> = Promise.resolve();
  #afterwards: (() => void)[] = [];
  #closed = false;

  private constructor(private readonly level: ClassicLevel<string, Bytes>) {}

  static async open(folder: string): Promise<Store> {
    const level = new ClassicLevel<string, Bytes>(folder, { valueEncoding: "view" });
    try {
      await level.open();
    } catch (error) {
      const locked = (error as { cause?: { code?: string } }).cause?.code === "LEVEL_LOCKED";
      throw new Error(locked ? `another process uses the profile ${folder}` : `${folder} cannot be opened`, {
        cause: error,
      });
    }
    const store = new Store(level);
    for await (const [key, value] of level.iterator()) {
      const cut = key.indexOf("/");
      store.table(key.slice(0, cut)).load(key.slice(cut + 1), decode(value, { useMaps: false }));
    }
    return store;
  }

  table<Row>(name: string): Table<Row> {
    const table = this.#tables.get(name) ?? new Table<unknown>();
    this.#tables.set(name, table);
    return table as Table<Row>;
  }

  /**
   * Runs one operation at a time. What it changed is durable when this returns; where it throws, nothing has changed.
   * `afterwards` callbacks of the operation run once it is durable. Once the store is being closed nothing begins any more.
   */
  change<T>(operation: () => Promise<T> | T): Promise<T> {
    if (this.#closed) return Promise.reject(new Closed("this client was closed"));
    const run = this.#queue.then(() => this.#transaction(operation));
    this.#queue = run.catch(() => undefined);
    return run;
  }

  /** To be run when the operation under way is durable, for example to show a message. */
  afterwards(callback: () => void): void {
    this.#afterwards.push(callback);
  }

  /** What was begun is finished first. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#queue;
    await this.level.close();
  }

  async #transaction<T>(operation: () => Promise<T> | T): Promise<T> {
    this.#afterwards = [];
    try {
      const result = await operation();
      await this.#write();
      for (const callback of this.#afterwards.splice(0)) callback();
      return result;
    } catch (error) {
      for (const table of this.#tables.values()) table.undo();
      throw error;
    }
  }

  async #write(): Promise<void> {
    const batch = [...this.#tables].flatMap(([name, table]) =>
      table
        .changes()
        .map(({ key, value }) =>
          value === undefined
            ? { type: "del" as const, key: `${name}/${key}` }
            : { type: "put" as const, key: `${name}/${key}`, value: encode(value) },
        ),
    );
    if (batch.length > 0) await this.level.batch(batch, { sync: true });
    for (const table of this.#tables.values()) table.settled();
  }
}
