// SPDX-License-Identifier: MIT OR Apache-2.0
// MLS (RFC 9420) by ts-mls, as Pli uses it (docs/protocol.md, "MLS"). States go in and come out encoded: what is stored
// is what the next operation begins with, and an operation that fails has changed nothing.

import {
  acceptAll,
  createApplicationMessage,
  createCommit,
  createGroup,
  createProposal,
  decodeGroupState,
  decodeMlsMessage,
  defaultCapabilities,
  encodeGroupState,
  encodeMlsMessage,
  emptyPskIndex,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  processPrivateMessage,
  processPublicMessage,
  zeroOutUint8Array,
  type AuthenticationService,
  type CiphersuiteImpl,
  type CiphersuiteName,
  type ClientConfig,
  type ClientState,
  type Credential,
  type Extension,
  type GroupInfo,
  type KeyPackage,
  type MLSMessage,
  type PrivateKeyPackage,
  type Proposal,
  type RatchetTree,
  type Welcome,
} from "ts-mls";
import { encode } from "ts-mls/codec/tlsEncoder.js";
import { decodeVarLenData, varLenDataEncoder } from "ts-mls/codec/variableLength.js";
import { createGroupInfo, createGroupInfoWithRatchetTree } from "ts-mls/createCommit.js";
import { makeKeyPackageRef, verifyKeyPackage } from "ts-mls/keyPackage.js";
import { decryptSenderData } from "ts-mls/privateMessage.js";
import { decodeRatchetTree } from "ts-mls/ratchetTree.js";

import { concat, hex, same, type Bytes } from "./bytes.js";
import * as joining from "./joining.js";
import type { Profile, Suite } from "./profile.js";

const SUITES: Record<Suite, CiphersuiteName> = {
  1: "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
  3: "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519",
};
const LAST_RESORT = 0x000a;
const KEY_PACKAGE_LIFE_S = 84 * 24 * 3600;
const CLOCK_SLACK_S = 3600;
/** Sealed messages have lengths that are multiples of this, the tag of the AEAD counted. */
const PADDING = 128;
const TAG = 16;

/** A member's leaf. */
export interface Member {
  readonly leaf: number;
  readonly account: Bytes;
  readonly device: Bytes;
  readonly key: Bytes;
}

/** A key package with its private keys, as it is kept until its welcome was used. */
export interface OwnKeyPackage {
  readonly message: Bytes;
  readonly initKey: Bytes;
  readonly leafKey: Bytes;
  readonly lastResort: boolean;
  readonly suite: Suite;
}

export interface Offer {
  /** The PublicMessage. */
  readonly commit: Bytes;
  readonly welcome?: Bytes | undefined;
  readonly groupInfo: Bytes;
  /** The group once the commit has won. */
  readonly next: Bytes;
  /** It carries a path: this device has new keys by it. */
  readonly renews: boolean;
}

/** Who signed the group info by which a device joins again, among the members that it names. */
export interface Vouched {
  readonly signer: Member;
  readonly members: Member[];
}

export interface Opened {
  readonly state: Bytes;
  readonly data: Bytes;
  readonly authenticated: Bytes;
  readonly sender: Member;
}

/** What MLS does not accept: a commit, welcome or message that does not verify, or keys that are gone. */
export class MlsFailure extends Error {
  override name = "MlsFailure";
}

const impls = new Map<CiphersuiteName, Promise<CiphersuiteImpl>>();

function implOf(name: CiphersuiteName): Promise<CiphersuiteImpl> {
  const impl = impls.get(name) ?? getCiphersuiteImpl(getCiphersuiteFromName(name));
  impls.set(name, impl);
  return impl;
}

/** Leaves have to be of the form that Pli uses; whether a device list vouches for them is asked before something is sealed. */
const wellFormed: AuthenticationService = {
  validateCredential: async (credential) => credential.credentialType === "basic" && credential.identity.length === 32,
};

const config = (plaintext = 0): ClientConfig => ({
  keyRetentionConfig: { retainKeysForGenerations: 128, maximumForwardRatchetSteps: 20_000, retainKeysForEpochs: 3 },
  // The device list decides who is in, so that a member who stayed away for long does not make a group unusable.
  lifetimeConfig: { maximumTotalLifetime: 3n * 31n * 24n * 3600n, validateLifetimeOnReceive: false },
  keyPackageEqualityConfig: {
    compareKeyPackages: (a, b) => same(a.leafNode.signaturePublicKey, b.leafNode.signaturePublicKey),
    compareKeyPackageToLeafNode: (a, b) => same(a.leafNode.signaturePublicKey, b.signaturePublicKey),
  },
  paddingConfig: { kind: "padUntilLength", padUntilLength: Math.ceil((plaintext + TAG) / PADDING) * PADDING - TAG },
  authService: wellFormed,
});

/** Length of the PrivateMessageContent of `data` bytes: they and a signature of 64, each after its length (RFC 9420 section 2.1.2). */
const plaintextLength = (data: number): number => (data < 64 ? 1 : data < 16_384 ? 2 : 4) + data + 2 + 64;

async function load(state: Bytes, plaintext = 0): Promise<{ state: ClientState; impl: CiphersuiteImpl }> {
  const decoded = decodeGroupState(state, 0)?.[0];
  if (decoded === undefined) throw new MlsFailure("the stored group cannot be read");
  return {
    state: { ...decoded, clientConfig: config(plaintext) },
    impl: await implOf(decoded.groupContext.cipherSuite),
  };
}

function message<W extends MLSMessage["wireformat"]>(
  bytes: Bytes,
  wireformat: W,
): Extract<MLSMessage, { wireformat: W }> {
  const [decoded, end] = decodeMlsMessage(bytes, 0) ?? [undefined, 0];
  if (decoded?.wireformat !== wireformat || end !== bytes.length)
    throw new MlsFailure(`these bytes are no ${wireformat}`);
  return decoded as Extract<MLSMessage, { wireformat: W }>;
}

/** ts-mls throws errors of many kinds for what it does not accept. */
async function attempt<T>(what: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw new MlsFailure(`${what}: ${(error as Error).message}`, { cause: error });
  }
}

const credentialOf = (profile: Profile): Credential => ({
  credentialType: "basic",
  identity: concat(profile.account, profile.device),
});

function memberOf(leaf: number, { credential, signaturePublicKey }: KeyPackage["leafNode"] | LeafOf): Member {
  const identity = credential.credentialType === "basic" ? credential.identity : new Uint8Array(32);
  return { leaf, account: identity.slice(0, 16), device: identity.slice(16), key: signaturePublicKey };
}

type LeafOf = Extract<NonNullable<RatchetTree[number]>, { nodeType: "leaf" }>["leaf"];

function membersOf(tree: RatchetTree): Member[] {
  // In the array of nodes a leaf's index is half its place (RFC 9420 appendix C).
  return tree.flatMap((node, place) => (node?.nodeType === "leaf" ? [memberOf(place / 2, node.leaf)] : []));
}

// Key packages

interface Generated {
  publicPackage: KeyPackage;
  privatePackage: PrivateKeyPackage;
}

async function generate(profile: Profile, lastResort: boolean): Promise<Generated> {
  const now = Math.floor(Date.now() / 1000);
  const capabilities = {
    ...defaultCapabilities(),
    ciphersuites: Object.values(SUITES),
    credentials: ["basic" as const],
  };
  return generateKeyPackageWithKey(
    credentialOf(profile),
    { ...capabilities, extensions: [...capabilities.extensions, ...(lastResort ? [LAST_RESORT] : [])] },
    { notBefore: BigInt(now - CLOCK_SLACK_S), notAfter: BigInt(now + KEY_PACKAGE_LIFE_S) },
    lastResort ? [{ extensionType: LAST_RESORT, extensionData: new Uint8Array() }] : [],
    { signKey: profile.deviceKey.secret, publicKey: profile.deviceKey.public },
    await implOf(SUITES[profile.suite]),
  );
}

/** A fresh key package, under the reference (RFC 9420 section 5.2) by which a welcome names it. */
export async function newKeyPackage(profile: Profile, lastResort: boolean): Promise<[string, OwnKeyPackage]> {
  const { publicPackage, privatePackage } = await generate(profile, lastResort);
  const reference = await makeKeyPackageRef(publicPackage, (await implOf(SUITES[profile.suite])).hash);
  const message = encodeMlsMessage({ version: "mls10", wireformat: "mls_key_package", keyPackage: publicPackage });
  const { initPrivateKey: initKey, hpkePrivateKey: leafKey } = privatePackage;
  return [hex(reference), { message, initKey, leafKey, lastResort, suite: profile.suite }];
}

/** Checks a claimed key package as the directory does. */
export async function checkKeyPackage(bytes: Bytes, suite: Suite, expected: Omit<Member, "leaf">): Promise<KeyPackage> {
  const { keyPackage } = message(bytes, "mls_key_package");
  const found = memberOf(0, keyPackage.leafNode);
  const whose = hex(expected.device);
  if (keyPackage.cipherSuite !== SUITES[suite])
    throw new MlsFailure(
      `device ${whose} takes part in groups of ${keyPackage.cipherSuite} only, this one has suite ${suite}`,
    );
  const matches =
    same(found.account, expected.account) && same(found.device, expected.device) && same(found.key, expected.key);
  if (!matches) throw new MlsFailure(`the key package of device ${whose} is not of this device`);
  const verified = await verifyKeyPackage(keyPackage, (await implOf(SUITES[suite])).signature);
  if (!verified) throw new MlsFailure(`the key package of device ${whose} does not verify`);
  return keyPackage;
}

// Making and joining

/** A group of one at epoch 0, with the GroupInfo that makes a conversation of it. */
export async function createAlone(profile: Profile, conversation: Bytes): Promise<{ state: Bytes; groupInfo: Bytes }> {
  const impl = await implOf(SUITES[profile.suite]);
  const { publicPackage, privatePackage } = await generate(profile, false);
  const state = await createGroup(conversation, publicPackage, privatePackage, [], impl, config());
  const extensions = [await externalPub(state, impl)];
  const info = await createGroupInfoWithRatchetTree(
    state.groupContext,
    state.confirmationTag,
    state,
    state.ratchetTree,
    extensions,
    impl,
  );
  return { state: encodeGroupState(state), groupInfo: groupInfoMessage(info) };
}

const groupInfoMessage = (groupInfo: GroupInfo): Bytes =>
  encodeMlsMessage({ version: "mls10", wireformat: "mls_group_info", groupInfo });

// ts-mls 1.6 writes and reads the key of `external_pub` without the length that RFC 9420 section 12.4.3.2 gives it. Here it
// is written and read as the RFC says.

async function externalPub(state: ClientState, impl: CiphersuiteImpl): Promise<Extension> {
  const { publicKey } = await impl.hpke.deriveKeyPair(state.keySchedule.externalSecret);
  return {
    extensionType: "external_pub",
    extensionData: encode(varLenDataEncoder)(await impl.hpke.exportPublicKey(publicKey)),
  };
}

function externalKeyOf(info: GroupInfo): Bytes {
  const wire = info.extensions.find(({ extensionType }) => extensionType === "external_pub")?.extensionData;
  const key = wire && decodeVarLenData(wire, 0)?.[0];
  if (key === undefined) throw new MlsFailure("the group info has no key for external commits");
  return key;
}

/** References of the key packages that a welcome is for. */
export const welcomeReferences = (bytes: Bytes): string[] =>
  welcomeOf(bytes).secrets.map(({ newMember }) => hex(newMember));

const welcomeOf = (bytes: Bytes): Welcome => message(bytes, "mls_welcome").welcome;

/** `tree` is asked for where the welcome does not carry it. */
export function joinByWelcome(
  profile: Profile,
  bytes: Bytes,
  own: OwnKeyPackage,
  tree: () => Promise<Bytes>,
): Promise<Bytes> {
  return attempt("the welcome cannot be used", async () => {
    const welcome = welcomeOf(bytes);
    const impl = await implOf(SUITES[own.suite]);
    const { keyPackage } = message(own.message, "mls_key_package");
    const keys = {
      initPrivateKey: own.initKey,
      hpkePrivateKey: own.leafKey,
      signaturePrivateKey: profile.deviceKey.secret,
    };
    const given = async () => treeOf(await tree());
    return encodeGroupState(await joining.joinByWelcome(welcome, keyPackage, keys, given, impl, config()));
  });
}

function treeOf(bytes: Bytes): RatchetTree {
  const tree = decodeRatchetTree(bytes, 0)?.[0];
  if (tree === undefined) throw new MlsFailure("the ratchet tree cannot be read");
  return tree;
}

/** An external commit (RFC 9420 section 12.4.3.2) that removes the device's old leaf, where it has one. */
export function joinExternally(
  profile: Profile,
  conversation: Bytes,
  groupInfo: Bytes,
  ratchetTree: Bytes,
): Promise<Offer & Vouched> {
  return attempt("the group cannot be joined", async () => {
    const info = message(groupInfo, "mls_group_info").groupInfo;
    if (!same(info.groupContext.groupId, conversation)) throw new MlsFailure("the group info is of another group");
    const impl = await implOf(info.groupContext.cipherSuite);
    const own = info.extensions.find(({ extensionType }) => extensionType === "ratchet_tree");
    const tree = treeOf(own?.extensionData ?? ratchetTree);
    const { publicPackage, privatePackage } = await generate(
      { ...profile, suite: suiteOf(info.groupContext.cipherSuite) },
      false,
    );
    const members = membersOf(tree);
    const { publicMessage, newState } = await joining.joinByCommit(
      info,
      externalKeyOf(info),
      tree,
      publicPackage,
      privatePackage,
      members.find((member) => same(member.key, profile.deviceKey.public))?.leaf,
      impl,
      config(),
    );
    const commit = encodeMlsMessage({ version: "mls10", wireformat: "mls_public_message", publicMessage });
    const signer = members.find(({ leaf }) => leaf === info.signer);
    if (signer === undefined) throw new MlsFailure("the group info is signed by nobody in the group");
    const offer = { commit, groupInfo: await newGroupInfo(newState, impl), next: encodeGroupState(newState) };
    return { ...offer, renews: true, signer, members };
  });
}

function suiteOf(name: CiphersuiteName): Suite {
  if (name === SUITES[1]) return 1;
  if (name === SUITES[3]) return 3;
  throw new MlsFailure(`${name} is no suite of Pli`);
}

const newGroupInfo = async (state: ClientState, impl: CiphersuiteImpl): Promise<Bytes> =>
  groupInfoMessage(
    await createGroupInfo(state.groupContext, state.confirmationTag, state, [await externalPub(state, impl)], impl),
  );

// Changing and leaving

export interface Changes {
  readonly add: KeyPackage[];
  /** Indices of leaves. */
  readonly remove: number[];
}

/** A commit of these changes and of what was proposed. The group goes on only once it has won. */
export function makeCommit(encoded: Bytes, changes: Changes): Promise<Offer> {
  return attempt("no commit can be made", async () => {
    const { state, impl } = await load(encoded);
    const extraProposals: Proposal[] = [
      ...changes.remove.map((removed): Proposal => ({ proposalType: "remove", remove: { removed } })),
      ...changes.add.map((keyPackage): Proposal => ({ proposalType: "add", add: { keyPackage } })),
    ];
    const made = await createCommit(
      { state, cipherSuite: impl },
      { wireAsPublicMessage: true, extraProposals, ratchetTreeExtension: true },
    );
    const { welcome } = made;
    return {
      commit: encodeMlsMessage(made.commit),
      welcome: welcome && encodeMlsMessage({ version: "mls10", wireformat: "mls_welcome", welcome }),
      groupInfo: await newGroupInfo(made.newState, impl),
      next: encodeGroupState(made.newState),
      renews: changes.add.length === 0 || changes.remove.length > 0,
    };
  });
}

/** The wish to leave: nobody can remove themselves (RFC 9420 section 12.1.3). */
export function proposeLeaving(encoded: Bytes): Promise<Bytes> {
  return attempt("nothing can be proposed", async () => {
    const { state, impl } = await load(encoded);
    const proposal: Proposal = { proposalType: "remove", remove: { removed: state.privatePath.leafIndex } };
    return encodeMlsMessage((await createProposal(state, true, proposal, impl)).message);
  });
}

/** Takes in a commit or a proposal; undefined where it removed this device. */
export function processHandshake(encoded: Bytes, bytes: Bytes): Promise<Bytes | undefined> {
  return attempt("the handshake message cannot be processed", async () => {
    const { state, impl } = await load(encoded);
    const { publicMessage } = message(bytes, "mls_public_message");
    const { newState, consumed } = await processPublicMessage(state, publicMessage, emptyPskIndex, impl, acceptAll);
    consumed.forEach(zeroOutUint8Array);
    return newState.groupActiveState.kind === "active" ? encodeGroupState(newState) : undefined;
  });
}

// Messages

/** Seals `data`; `authenticated` is readable for the server and cannot be changed by it. */
export function seal(encoded: Bytes, data: Bytes, authenticated: Bytes): Promise<{ state: Bytes; body: Bytes }> {
  return attempt("the message cannot be sealed", async () => {
    const { state, impl } = await load(encoded, plaintextLength(data.length));
    const { newState, privateMessage, consumed } = await createApplicationMessage(state, data, impl, authenticated);
    const body = encodeMlsMessage({ version: "mls10", wireformat: "mls_private_message", privateMessage });
    consumed.forEach(zeroOutUint8Array);
    return { state: encodeGroupState(newState), body };
  });
}

export function open(encoded: Bytes, body: Bytes): Promise<Opened> {
  return attempt("the message cannot be opened", async () => {
    const { state, impl } = await load(encoded);
    const { privateMessage } = message(body, "mls_private_message");
    const past =
      privateMessage.epoch === state.groupContext.epoch
        ? undefined
        : state.historicalReceiverData.get(privateMessage.epoch);
    const { tree, secret } =
      past === undefined
        ? { tree: state.ratchetTree, secret: state.keySchedule.senderDataSecret }
        : { tree: past.ratchetTree, secret: past.senderDataSecret };
    // Before it is opened: opening uses up the key. Who sent it is authenticated with it.
    const senderData = await decryptSenderData(privateMessage, secret, impl);
    const sender = membersOf(tree).find((member) => member.leaf === senderData?.leafIndex);
    const opened = await processPrivateMessage(state, privateMessage, emptyPskIndex, impl);
    if (opened.kind !== "applicationMessage" || sender === undefined)
      throw new MlsFailure("it is no message of a member");
    opened.consumed.forEach(zeroOutUint8Array);
    return {
      state: encodeGroupState(opened.newState),
      data: opened.message,
      authenticated: privateMessage.authenticatedData,
      sender,
    };
  });
}

// What a group is

export interface Group {
  readonly epoch: number;
  readonly suite: Suite;
  readonly members: Member[];
  readonly ownLeaf: number;
  /** Leaves that somebody proposed to remove and nobody has removed yet. */
  readonly leaving: number[];
}

export async function describe(encoded: Bytes): Promise<Group> {
  const { state } = await load(encoded);
  const proposed = Object.values(state.unappliedProposals).map(({ proposal }) => proposal);
  return {
    epoch: Number(state.groupContext.epoch),
    suite: suiteOf(state.groupContext.cipherSuite),
    members: membersOf(state.ratchetTree),
    ownLeaf: state.privatePath.leafIndex,
    leaving: proposed.flatMap((proposal) => (proposal.proposalType === "remove" ? [proposal.remove.removed] : [])),
  };
}
