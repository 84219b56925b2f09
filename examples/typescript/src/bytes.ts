// SPDX-License-Identifier: MIT OR Apache-2.0
// Bytes as the protocol lays them out by hand: lengths and numbers are big-endian.

export type Bytes = Uint8Array;

export const random = (length: number): Bytes => crypto.getRandomValues(new Uint8Array(length));

/** Ids (account, device, conversation, send id) are 16 random bytes. */
export const newId = (): Bytes => random(16);

export const hex = (bytes: Bytes): string => Buffer.from(bytes).toString("hex");

export function unhex(text: string): Bytes {
  if (!/^([0-9a-f]{2})*$/i.test(text)) throw new Error(`${text} is no hexadecimal`);
  return new Uint8Array(Buffer.from(text, "hex"));
}

export const utf8 = (text: string): Bytes => new TextEncoder().encode(text);

export const same = (a: Bytes, b: Bytes): boolean => Buffer.compare(a, b) === 0;

export const concat = (...parts: Bytes[]): Bytes => new Uint8Array(Buffer.concat(parts));

/** What is signed: each part after its length as a 32-bit number, so that no two lists of parts give the same bytes. */
export function prefixed(...parts: Bytes[]): Bytes {
  return concat(
    ...parts.flatMap((part) => {
      const length = new Uint8Array(4);
      new DataView(length.buffer).setUint32(0, part.length);
      return [length, part];
    }),
  );
}
