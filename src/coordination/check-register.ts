/**
 * Is it a register? The form of everything that comes over the wire or out of a file, checked by hand.
 *
 * Guarantees: what is returned has exactly the fields of its type, each within its bounds, and nothing else of the
 * input; a refusal names the field. A checked register takes at most MAX_REGISTER_BYTES as JSON.
 */
import { type ErrorCode, HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MAX_VOLUME_BYTES } from '../base/units.ts';
import type { Member, NextRegister, NewRegister, NodeInfo, Register, SeenNode } from './register.ts';

export const MAX_MEMBERS = 16;
export const MAX_REGISTER_BYTES = 16 * 1024;
/** As in node/node-folder.ts: members are named in 64 bytes, of which the disk's id takes 33. */
const MAX_NODE_NAME = 31;
const MAX_VOLUME_NAME = 128;
const MAX_ADDRESS = 262;
const MAX_BOOT_ID = 64;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const ID = /^[0-9a-f]{32}$/;
const ADDRESS = /^(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$/;
const BOOT_ID = /^[\x21-\x7e]+$/;

type Fields = Record<string, unknown>;

/** How a field is wrong. It becomes a HoldfastError in `checked`. */
class Wrong extends Error {}

const is = (condition: boolean, field: string, what: string): void => {
  if (!condition) throw new Wrong(`${field} is not ${what}`);
};

function fieldsOf(value: unknown, field: string): Fields {
  is(typeof value === 'object' && value !== null && !Array.isArray(value), field, 'an object');
  return value as Fields;
}

function text(value: unknown, field: string, form: RegExp, max: number, what: string): string {
  is(typeof value === 'string' && value.length <= max && form.test(value), field, what);
  return value as string;
}

const id = (value: unknown, field: string): string => text(value, field, ID, 32, '32 hexadecimal digits');
const nodeName = (value: unknown, field: string): string =>
  text(value, field, NAME, MAX_NODE_NAME, `a node's name of at most ${MAX_NODE_NAME} letters, digits, ".", "_", "-"`);

function address(value: unknown, field: string): string {
  const found = text(value, field, ADDRESS, MAX_ADDRESS, 'an address host:port');
  is(Number(found.slice(found.lastIndexOf(':') + 1)) <= 65_535, field, 'an address host:port');
  return found;
}

function count(value: unknown, field: string, least: number): number {
  is(Number.isSafeInteger(value) && (value as number) >= least, field, `a whole number from ${least}`);
  return value as number;
}

function listOf(value: unknown, field: string, least: number, most: number): unknown[] {
  const fits = Array.isArray(value) && value.length >= least && value.length <= most;
  is(fits, field, `a list of ${least} to ${most}`);
  return value as unknown[];
}

function member(value: unknown, field: string): Member {
  const f = fieldsOf(value, field);
  return {
    node: nodeName(f['node'], `${field}.node`),
    diskId: id(f['diskId'], `${field}.diskId`),
    address: address(f['address'], `${field}.address`),
    clientAddress: address(f['clientAddress'], `${field}.clientAddress`),
  };
}

function newRegister(value: unknown): NewRegister {
  const f = fieldsOf(value, 'register');
  const members = listOf(f['members'], 'members', 1, MAX_MEMBERS).map((each, i) => member(each, `members[${i}]`));
  const nodes = members.map(({ node }) => node);
  is(new Set(nodes).size === nodes.length, 'members', 'one entry per node');
  const inSync = listOf(f['inSync'], 'inSync', 1, MAX_MEMBERS).map((each, i) => nodeName(each, `inSync[${i}]`));
  is(new Set(inSync).size === inSync.length, 'inSync', 'one entry per node');
  for (const node of inSync) is(nodes.includes(node), 'inSync', `of members only: "${node}"`);
  const primary = f['primary'] === '' ? '' : nodeName(f['primary'], 'primary');
  is(primary === '' || inSync.includes(primary), 'primary', `in sync: "${primary}"`);
  const by = fieldsOf(f['by'], 'by');
  const sizeBytes = count(f['sizeBytes'], 'sizeBytes', BLOCK_BYTES);
  is(sizeBytes <= MAX_VOLUME_BYTES && sizeBytes % BLOCK_BYTES === 0, 'sizeBytes', 'whole blocks of 4 KiB up to 16 TiB');
  return {
    volumeId: id(f['volumeId'], 'volumeId'),
    volume: text(f['volume'], 'volume', NAME, MAX_VOLUME_NAME, `a volume's name of at most ${MAX_VOLUME_NAME} letters`),
    sizeBytes,
    epoch: count(f['epoch'], 'epoch', 0),
    primary,
    inSync,
    members,
    by: {
      node: nodeName(by['node'], 'by.node'),
      bootId: text(by['bootId'], 'by.bootId', BOOT_ID, MAX_BOOT_ID, 'a boot id'),
      n: count(by['n'], 'by.n', 0),
    },
  };
}

function nextRegister(value: unknown): NextRegister {
  return { registerId: id(fieldsOf(value, 'register')['registerId'], 'registerId'), ...newRegister(value) };
}

function register(value: unknown): Register {
  return { ...nextRegister(value), version: count(fieldsOf(value, 'register')['version'], 'version', 1) };
}

function nodeInfo(value: unknown): NodeInfo {
  const f = fieldsOf(value, 'node');
  return {
    node: nodeName(f['node'], 'node.node'),
    address: address(f['address'], 'node.address'),
    clientAddress: address(f['clientAddress'], 'node.clientAddress'),
    freeBytes: count(f['freeBytes'], 'node.freeBytes', 0),
  };
}

function seenNode(value: unknown): SeenNode {
  return { ...nodeInfo(value), seenAgoMs: count(fieldsOf(value, 'node')['seenAgoMs'], 'node.seenAgoMs', 0) };
}

/** Where the value came from decides what is to be said of one that is wrong. */
export interface Origin {
  operation: string;
  code: ErrorCode;
  where?: string | undefined;
  remedy?: string | undefined;
}

function checked<T>(check: (value: unknown) => T, value: unknown, origin: Origin): T {
  try {
    return check(value);
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    const { operation, code, where, remedy } = origin;
    const detail = where === undefined ? error.message : `${where}: ${error.message}`;
    throw new HoldfastError(code, { operation, detail, remedy });
  }
}

/** Each throws a HoldfastError with the code of `origin`. */
export const checkNewRegister = (value: unknown, origin: Origin): NewRegister => checked(newRegister, value, origin);
export const checkNextRegister = (value: unknown, origin: Origin): NextRegister => checked(nextRegister, value, origin);
export const checkRegister = (value: unknown, origin: Origin): Register => checked(register, value, origin);
export const checkNodeInfo = (value: unknown, origin: Origin): NodeInfo => checked(nodeInfo, value, origin);
export const checkSeenNode = (value: unknown, origin: Origin): SeenNode => checked(seenNode, value, origin);
export const checkVolumeId = (value: unknown, origin: Origin): string =>
  checked((each) => id(each, 'volumeId'), value, origin);
export const checkVersion = (value: unknown, origin: Origin): number =>
  checked((each) => count(each, 'expectedVersion', 1), value, origin);

/** What a caller hands to a client is checked before it leaves. */
export const given = (operation: string): Origin => ({ operation, code: 'INVALID_ARGUMENT' });

/** @throws HoldfastError as `origin` says, also when it is no object */
export function checkFields(value: unknown, origin: Origin): Record<string, unknown> {
  return checked((each) => fieldsOf(each, 'the message'), value, origin);
}
