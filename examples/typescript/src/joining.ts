// SPDX-License-Identifier: MIT OR Apache-2.0
// Joining a group by a welcome or an external commit (RFC 9420 sections 12.4.3.1 and 12.4.3.2), out of the parts of ts-mls.
// Its own joinGroup and joinGroupExternal refuse trees that are right, and have no setting for that: they want all parents
// above an unmerged leaf to list the same unmerged leaves. The RFC wants that leaf to be listed below the parent that lists
// it, no more: whoever is added later, in another part of the tree, is unmerged further up only.

import {
  zeroOutUint8Array,
  type CiphersuiteImpl,
  type ClientConfig,
  type ClientState,
  type GroupContext,
  type GroupInfo,
  type KeyPackage,
  type PrivateKeyPackage,
  type Proposal,
  type PublicMessage,
  type RatchetTree,
  type Welcome,
} from "ts-mls";
import { exportSecret, nextEpochContext, throwIfDefined, validateRatchetTree } from "ts-mls/clientState.js";
import { extensionsSupportedByCapabilities } from "ts-mls/extension.js";
import { createConfirmationTag, createContentCommitSignature } from "ts-mls/framedContent.js";
import {
  ratchetTreeFromExtension,
  verifyGroupInfoConfirmationTag,
  verifyGroupInfoSignature,
} from "ts-mls/groupInfo.js";
import { makeKeyPackageRef } from "ts-mls/keyPackage.js";
import { deriveKeySchedule, initializeEpoch } from "ts-mls/keySchedule.js";
import { protectPublicMessage } from "ts-mls/messageProtectionPublic.js";
import { calculateParentHash } from "ts-mls/parentHash.js";
import { getCommitSecret, pathToPathSecrets, pathToRoot } from "ts-mls/pathSecrets.js";
import { mergePrivateKeyPaths, toPrivateKeyPath, updateLeafKey } from "ts-mls/privateKeyPath.js";
import { addLeafNode, findLeafIndex, getHpkePublicKey, removeLeafNode, resolution } from "ts-mls/ratchetTree.js";
import { createSecretTree } from "ts-mls/secretTree.js";
import { treeHashRoot } from "ts-mls/treeHash.js";
import {
  isAncestor,
  left,
  leafToNodeIndex,
  leafWidth,
  nodeToLeafIndex,
  right,
  toLeafIndex,
  toNodeIndex,
  type NodeIndex,
} from "ts-mls/treemath.js";
import { createUpdatePath, firstCommonAncestor } from "ts-mls/updatePath.js";
import { decryptGroupInfo, decryptGroupSecrets } from "ts-mls/welcome.js";

import { hex, same, type Bytes } from "./bytes.js";

/** `tree` is asked for where the welcome does not carry it. */
export async function joinByWelcome(
  welcome: Welcome,
  keyPackage: KeyPackage,
  keys: PrivateKeyPackage,
  tree: () => Promise<RatchetTree>,
  impl: CiphersuiteImpl,
  clientConfig: ClientConfig,
): Promise<ClientState> {
  const reference = await makeKeyPackageRef(keyPackage, impl.hash);
  const initKey = await impl.hpke.importPrivateKey(keys.initPrivateKey);
  const secrets = await decryptGroupSecrets(initKey, reference, welcome, impl.hpke);
  if (secrets === undefined) throw new Error("it has no group secrets");
  if (secrets.psks.length > 0) throw new Error("it needs pre-shared keys");
  const noPsk = new Uint8Array(impl.kdf.size);
  const info = await decryptGroupInfo(welcome, secrets.joinerSecret, noPsk, impl);
  if (info === undefined) throw new Error("it has no group info");
  const { groupContext, confirmationTag } = info;
  if (groupContext.cipherSuite !== keyPackage.cipherSuite) throw new Error("it is for another suite");
  const ratchetTree = ratchetTreeFromExtension(info) ?? (await tree());
  await checkGroup(info, ratchetTree, keyPackage, impl, clientConfig);
  const own = findLeafIndex(ratchetTree, keyPackage.leafNode);
  if (own === undefined) throw new Error("the key package is not in the tree");
  const leafKey = { leafIndex: own, privateKeys: { [leafToNodeIndex(own)]: keys.hpkePrivateKey } };
  const { pathSecret } = secrets;
  const path =
    pathSecret &&
    (await pathToRoot(
      ratchetTree,
      firstCommonAncestor(ratchetTree, own, toLeafIndex(info.signer)),
      pathSecret,
      impl.kdf,
    ));
  const privatePath = path ? mergePrivateKeyPaths(await toPrivateKeyPath(path, own, impl), leafKey) : leafKey;
  const confirmed = await verifyGroupInfoConfirmationTag(info, secrets.joinerSecret, noPsk, impl);
  if (!confirmed) throw new Error("its confirmation tag does not verify");
  const [keySchedule, encryptionSecret] = await deriveKeySchedule(secrets.joinerSecret, noPsk, groupContext, impl.kdf);
  const secretTree = await createSecretTree(leafWidth(ratchetTree.length), encryptionSecret, impl.kdf);
  [encryptionSecret, secrets.joinerSecret].forEach(zeroOutUint8Array);
  const signaturePrivateKey = keys.signaturePrivateKey;
  return begun({
    groupContext,
    ratchetTree,
    privatePath,
    signaturePrivateKey,
    confirmationTag,
    keySchedule,
    secretTree,
    clientConfig,
  });
}

/** The state of a device that has just come in. */
const begun = (
  known: Omit<ClientState, "unappliedProposals" | "groupActiveState" | "historicalReceiverData">,
): ClientState => ({
  ...known,
  unappliedProposals: {},
  groupActiveState: { kind: "active" },
  historicalReceiverData: new Map(),
});

/** `externalKey` is what `external_pub` holds; `former` is the leaf that the device had, which it removes. */
export async function joinByCommit(
  info: GroupInfo,
  externalKey: Bytes,
  tree: RatchetTree,
  keyPackage: KeyPackage,
  keys: PrivateKeyPackage,
  former: number | undefined,
  impl: CiphersuiteImpl,
  clientConfig: ClientConfig,
): Promise<{ publicMessage: PublicMessage; newState: ClientState }> {
  const wireformat = "mls_public_message" as const;
  const { kdf, hash } = impl;
  const { signaturePrivateKey } = keys;
  await checkGroup(info, tree, keyPackage, impl, clientConfig);
  const { enc: kemOutput, secret: initSecret } = await exportSecret(externalKey, impl);
  const without = former === undefined ? tree : removeLeafNode(tree, toLeafIndex(former));
  const [withLeaf, place] = addLeafNode(without, keyPackage.leafNode);
  const own = nodeToLeafIndex(place);
  const [ratchetTree, path, pathSecrets, leafKey] = await createUpdatePath(
    withLeaf,
    own,
    info.groupContext,
    signaturePrivateKey,
    impl,
  );
  const privatePath = updateLeafKey(
    await toPrivateKeyPath(pathToPathSecrets(pathSecrets), own, impl),
    await impl.hpke.exportPrivateKey(leafKey),
  );
  const last = pathSecrets.at(-1);
  const commitSecret =
    last === undefined
      ? new Uint8Array(kdf.size)
      : await getCommitSecret(ratchetTree, toNodeIndex(last.nodeIndex), last.secret, kdf);
  const proposals: Proposal[] = [
    ...(former === undefined ? [] : [{ proposalType: "remove" as const, remove: { removed: former } }]),
    { proposalType: "external_init", externalInit: { kemOutput } },
  ];
  const { signature, framedContent } = await createContentCommitSignature(
    info.groupContext,
    wireformat,
    { proposals: proposals.map((proposal) => ({ proposalOrRefType: "proposal", proposal })), path },
    { senderType: "new_member_commit" },
    new Uint8Array(),
    signaturePrivateKey,
    impl.signature,
  );
  const groupContext = await nextEpochContext(
    info.groupContext,
    wireformat,
    framedContent,
    signature,
    await treeHashRoot(ratchetTree, hash),
    info.confirmationTag,
    hash,
  );
  const epoch = await initializeEpoch(initSecret, commitSecret, groupContext, new Uint8Array(kdf.size), kdf);
  const { keySchedule } = epoch;
  const { confirmedTranscriptHash } = groupContext;
  const confirmationTag = await createConfirmationTag(keySchedule.confirmationKey, confirmedTranscriptHash, hash);
  const publicMessage = await protectPublicMessage(
    keySchedule.membershipKey,
    groupContext,
    { content: framedContent, auth: { signature, confirmationTag, contentType: "commit" }, wireformat },
    impl,
  );
  const secretTree = await createSecretTree(leafWidth(ratchetTree.length), epoch.encryptionSecret, kdf);
  [commitSecret, initSecret, epoch.encryptionSecret, epoch.joinerSecret].forEach(zeroOutUint8Array);
  const newState = begun({
    groupContext,
    ratchetTree,
    privatePath,
    signaturePrivateKey,
    confirmationTag,
    keySchedule,
    secretTree,
    clientConfig,
  });
  return { publicMessage, newState };
}

/** Who signed the group info is in the tree, the tree is the one that it means, and everything in it is right. */
async function checkGroup(
  info: GroupInfo,
  tree: RatchetTree,
  { leafNode }: KeyPackage,
  impl: CiphersuiteImpl,
  config: ClientConfig,
): Promise<void> {
  const { groupContext } = info;
  const supported = extensionsSupportedByCapabilities(groupContext.extensions, leafNode.capabilities);
  if (!supported) throw new Error("the group has extensions that this device does not know");
  const signer = tree[leafToNodeIndex(toLeafIndex(info.signer))];
  if (signer?.nodeType !== "leaf") throw new Error("the group info is signed by nobody in the group");
  const signed = await verifyGroupInfoSignature(info, signer.leaf.signaturePublicKey, impl.signature);
  if (!signed) throw new Error("the signature of the group info does not verify");
  await checkTree(tree, groupContext, impl, config);
}

/** The ratchet tree of a group that is joined (RFC 9420 section 12.4.3.1). */
export async function checkTree(
  tree: RatchetTree,
  groupContext: GroupContext,
  impl: CiphersuiteImpl,
  { lifetimeConfig, authService }: ClientConfig,
): Promise<void> {
  // The leaves by ts-mls, which sees a tree of nothing else. The parents here.
  const leaves = tree.map((node) => (node?.nodeType === "leaf" ? node : undefined));
  const leavesHash = await treeHashRoot(leaves, impl.hash);
  throwIfDefined(await validateRatchetTree(leaves, groupContext, lifetimeConfig, authService, leavesHash, impl));
  if (!same(groupContext.treeHash, await treeHashRoot(tree, impl.hash))) throw new Error("the tree is another one");
  const nodes = tree.filter((node) => node !== undefined);
  if (new Set(nodes.map((node) => hex(getHpkePublicKey(node)))).size < nodes.length)
    throw new Error("a key is in the tree twice");
  for (const place of tree.keys()) {
    const parent = toNodeIndex(place);
    if (tree[parent]?.nodeType !== "parent") continue;
    if (!hasUnmergedBelow(tree, parent)) throw new Error(`the unmerged leaves of node ${place} are wrong`);
    if (!(await hasParentHash(tree, parent, impl))) throw new Error(`no parent hash vouches for node ${place}`);
  }
}

const isUnder = (tree: RatchetTree, leaf: NodeIndex, node: NodeIndex): boolean =>
  leaf === node || isAncestor(leaf, node, tree.length);

function unmergedOf(tree: RatchetTree, place: NodeIndex): NodeIndex[] {
  const node = tree[place];
  const leaves = node?.nodeType === "parent" ? node.parent.unmergedLeaves : [];
  return leaves.map((leaf) => leafToNodeIndex(toLeafIndex(leaf)));
}

/** They are members below in ascending order, each once, and unmerged for every parent between. */
function hasUnmergedBelow(tree: RatchetTree, place: NodeIndex): boolean {
  const unmerged = unmergedOf(tree, place);
  // Whether it is in the tree comes first: what lies beyond has no path to the root.
  const areBelow = unmerged.every((leaf) => tree[leaf]?.nodeType === "leaf" && isUnder(tree, leaf, place));
  const areSorted = unmerged.every((leaf, i) => i === 0 || unmerged[i - 1]! < leaf);
  if (!areBelow || !areSorted) return false;
  return [...tree.keys()].map(toNodeIndex).every((between) => {
    if (tree[between]?.nodeType !== "parent" || !isAncestor(between, place, tree.length)) return true;
    const listed = unmergedOf(tree, between);
    return unmerged.every((leaf) => !isUnder(tree, leaf, between) || listed.includes(leaf));
  });
}

/** Exactly one node below was set together with this one (RFC 9420 section 7.9.2). */
async function hasParentHash(tree: RatchetTree, place: NodeIndex, impl: CiphersuiteImpl): Promise<boolean> {
  let vouching = 0;
  for (const child of [left(place), right(place)]) {
    const unmerged = unmergedOf(tree, place).filter((leaf) => isUnder(tree, leaf, child));
    const covered = resolution(tree, child);
    for (const below of covered) {
      // Beside it nobody is there but who was added since.
      const others = covered.filter((node) => node !== below);
      if (others.length !== unmerged.length || !others.every((node) => unmerged.includes(node))) continue;
      const [hash, above] = await calculateParentHash(tree, below, impl.hash);
      const given = parentHashOf(tree, below);
      if (above === place && given !== undefined && same(given, hash)) vouching += 1;
    }
  }
  return vouching === 1;
}

function parentHashOf(tree: RatchetTree, place: NodeIndex): Bytes | undefined {
  const node = tree[place];
  if (node?.nodeType === "parent") return node.parent.parentHash;
  return node?.leaf.leafNodeSource === "commit" ? node.leaf.parentHash : undefined;
}
