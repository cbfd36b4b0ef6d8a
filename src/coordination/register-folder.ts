/**
 * Registers in a folder: one file each, replaced whole.
 *
 * Guarantees: `put` and `remove` settle when the change is durable (temporary file, fsync, rename, fsync of the folder);
 * a crash at any instant leaves the register before or after the change, never a torn one; what was ever read from here
 * is still so after a power cut; one process has the folder.
 *
 * The caller makes one change at a time.
 */
import { type FileHandle, mkdir, open, readFile, readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { crc32 } from '../base/checksum.ts';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { type FolderLock, isLockEntry, lockFolder } from '../storage/lock.ts';
import { checkRegister } from './check-register.ts';
import type { Register } from './register.ts';

const MARKER = 'coordinator.json';
const REGISTERS = 'registers';
const TEMPORARY = '.tmp';
const FORMAT_VERSION = 1;
const FILE_NAME = /^[0-9a-f]{32}\.json$/;
const OPERATION = 'open the coordinator';

/** The change may be on the disk or not: nothing that this folder says can be relied on before it is opened anew. */
export class FolderFailure extends Error {
  readonly error: HoldfastError;

  constructor(error: HoldfastError) {
    super(error.message);
    this.error = error;
  }
}

export class RegisterFolder {
  readonly registers: Map<string, Register>;
  private readonly where: string;
  private readonly lock: FolderLock;

  private constructor(where: string, lock: FolderLock, registers: Map<string, Register>) {
    this.where = where;
    this.lock = lock;
    this.registers = registers;
  }

  /**
   * Makes the folder if need be; it must hold nothing else.
   * @throws HoldfastError LOCKED, EXISTS, DAMAGED, WRONG_VERSION, ACCESS, READ_ONLY, NO_SPACE, IO_ERROR
   */
  static async open(dir: string): Promise<RegisterFolder> {
    const where = resolve(dir);
    let lock: FolderLock | null = null;
    try {
      await mkdir(where, { recursive: true });
      lock = lockFolder(where);
      await prepare(where);
      return new RegisterFolder(where, lock, await load(join(where, REGISTERS)));
    } catch (error) {
      lock?.release();
      throw asHoldfastError(error, { operation: OPERATION, volume: where });
    }
  }

  /**
   * @throws HoldfastError NO_SPACE, IO_ERROR...: nothing was changed
   * @throws FolderFailure: it may have been
   */
  async put(register: Register): Promise<void> {
    const folder = join(this.where, REGISTERS);
    const path = join(folder, `${register.volumeId}.json`);
    try {
      await writeDurably(`${path}${TEMPORARY}`, fileText(register));
    } catch (error) {
      await rm(`${path}${TEMPORARY}`, { force: true }).catch(() => {});
      throw asHoldfastError(error, { operation: 'write the register', volume: register.volume });
    }
    await this.finish(register, async () => {
      await rename(`${path}${TEMPORARY}`, path);
      await syncFolder(folder);
    });
    this.registers.set(register.volumeId, register);
  }

  /** @throws FolderFailure */
  async remove(register: Register): Promise<void> {
    const folder = join(this.where, REGISTERS);
    await this.finish(register, async () => {
      await rm(join(folder, `${register.volumeId}.json`));
      await syncFolder(folder);
    });
    this.registers.delete(register.volumeId);
  }

  close(): void {
    this.lock.release();
  }

  private async finish(register: Register, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      throw new FolderFailure(
        asHoldfastError(error, {
          operation: 'write the register',
          volume: register.volume,
          remedy: `look after the disk under ${this.where}, then start the coordinator again`,
        }),
      );
    }
  }
}

async function prepare(where: string): Promise<void> {
  const marker = join(where, MARKER);
  const entries = (await readdir(where)).filter((entry) => !isLockEntry(entry) && entry !== 'lost+found');
  if (!entries.includes(MARKER)) {
    const other = entries.find((entry) => entry !== MARKER + TEMPORARY);
    if (other !== undefined) {
      throw new HoldfastError('EXISTS', {
        operation: OPERATION,
        volume: where,
        detail: `the folder holds ${other}, and no ${MARKER}`,
        remedy: 'take the folder of a coordinator, or one that is empty or not there',
      });
    }
    const text = `${JSON.stringify({ format: 'holdfast-coordinator', formatVersion: FORMAT_VERSION })}\n`;
    await writeDurably(marker + TEMPORARY, text);
    await rename(marker + TEMPORARY, marker);
    await syncFolder(where);
    await syncFolder(resolve(where, '..'));
  }
  const version = (parsed(await readFile(marker, 'utf8')) as { formatVersion?: unknown } | null)?.formatVersion;
  if (version !== FORMAT_VERSION) {
    throw new HoldfastError('WRONG_VERSION', {
      operation: OPERATION,
      volume: where,
      detail: `${MARKER} says version ${String(version)}, and this program knows ${FORMAT_VERSION}`,
      remedy: 'use the program that wrote it, or a newer one',
    });
  }
  if ((await mkdir(join(where, REGISTERS), { recursive: true })) !== undefined) await syncFolder(where);
}

async function load(folder: string): Promise<Map<string, Register>> {
  const registers = new Map<string, Register>();
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    // Of a change that was cut off before its rename, so it was never answered.
    if (name.endsWith(TEMPORARY)) await rm(path);
    if (!FILE_NAME.test(name)) continue;
    const register = registerOf(await readFile(path, 'utf8'), path);
    registers.set(register.volumeId, register);
  }
  // A rename that we see may not be durable yet, and what we once say must stay true.
  await syncFolder(folder);
  return registers;
}

function fileText(register: Register): string {
  return `${JSON.stringify({ formatVersion: FORMAT_VERSION, crc32: crcOf(register), register }, null, 1)}\n`;
}

const crcOf = (register: unknown): number => crc32(Buffer.from(JSON.stringify(register)));

function registerOf(text: string, path: string): Register {
  const origin = {
    operation: OPERATION,
    code: 'DAMAGED' as const,
    where: path,
    remedy: 'restore the file from a backup of the same state; without it the volume gets no new primary',
  };
  const file = parsed(text) as { crc32?: unknown; register?: unknown } | null;
  const register = checkRegister(file?.register, origin);
  if (file?.crc32 === crcOf(file?.register) && path.endsWith(`${register.volumeId}.json`)) return register;
  throw new HoldfastError('DAMAGED', {
    operation: OPERATION,
    detail: `${path} does not match its checksum or its name`,
    remedy: origin.remedy,
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  const handle = await open(path, 'w');
  await syncAndClose(handle, () => handle.writeFile(text));
}

async function syncFolder(dir: string): Promise<void> {
  await syncAndClose(await open(dir, 'r'), async () => {});
}

async function syncAndClose(handle: FileHandle, work: () => Promise<void>): Promise<void> {
  try {
    await work();
    await handle.sync();
  } finally {
    await handle.close();
  }
}
