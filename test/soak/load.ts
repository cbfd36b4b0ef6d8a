/** Clients of a soak: writers with registers of their own and readers of all, on a disk and on a key-value volume. */
import type { KvStore, Volume } from '../../src/client/index.ts';
import { Versions } from './versions.ts';

const BLOCK = 4096;
/** A register of the disk: its writes are not aligned, and reach into three blocks. */
export const REGISTER_BYTES = 2 * BLOCK;
const STRIDE_BYTES = 3 * BLOCK;
const SHIFT_BYTES = 1536;
const VALUE_BYTES = 600;

export const offsetOf = (register: number): number => register * STRIDE_BYTES + SHIFT_BYTES;

interface Registers {
  write(register: number, version: number): Promise<unknown>;
  /** @returns its version; NaN: it is torn */
  read(register: number): Promise<number>;
}

/** A version, again and again. */
function filled(bytes: number, version: number): Buffer {
  const words = new Float64Array(bytes / 8).fill(version);
  return Buffer.from(words.buffer);
}

function versionOf(bytes: Uint8Array): number {
  const words = new Float64Array(bytes.slice().buffer);
  return words.every((word) => word === words[0]) ? words[0]! : NaN;
}

export function onDisk(volume: Volume): Registers {
  return {
    write: (register, version) => volume.write(offsetOf(register), filled(REGISTER_BYTES, version)),
    read: async (register) => versionOf(await volume.read(offsetOf(register), REGISTER_BYTES)),
  };
}

export function inKeys(store: KvStore): Registers {
  return {
    write: (register, version) => store.put(`soak/${register}`, filled(VALUE_BYTES, version)),
    read: async (register) => {
      const entry = await store.get(`soak/${register}`);
      return entry === null ? 0 : versionOf(entry.value);
    },
  };
}

/** Operations until `stop`; what goes wrong is collected, at most so many of it. */
export class SoakLoad {
  readonly versions: Versions;
  readonly wrong: string[] = [];
  /** Longest time that an operation took since `resetLongest`, and that of all. */
  longestMs = 0;
  longestEverMs = 0;
  private readonly name: string;
  private readonly tasks: Array<Promise<void>> = [];
  private readonly asked: Map<number, number> = new Map();
  private next = 0;
  private stopped = false;

  constructor(name: string, count: number) {
    this.name = name;
    this.versions = new Versions(count);
  }

  /** Writers share the registers among themselves. */
  write(device: Registers, writer: number, writers: number, thinkMs: number): void {
    let n = writer;
    this.run(thinkMs, async () => {
      n = (n * 48_271 + 11) % 2_147_483_647;
      const register = writer + writers * (n % Math.floor(this.versions.count / writers));
      const version = this.versions.next(register);
      await device.write(register, version);
      this.versions.wrote(register, version);
    });
  }

  read(device: Registers, seed: number, thinkMs: number): void {
    let n = seed;
    this.run(thinkMs, async () => {
      n = (n * 48_271 + 11) % 2_147_483_647;
      const register = n % this.versions.count;
      const judge = this.versions.reads(register);
      const wrong = judge(await device.read(register));
      if (wrong !== null) this.tell(wrong);
    });
  }

  private run(thinkMs: number, one: () => Promise<void>): void {
    this.tasks.push(
      (async () => {
        while (!this.stopped) {
          const id = this.next++;
          const askedMs = performance.now();
          this.asked.set(id, askedMs);
          try {
            await one();
          } catch (error) {
            this.tell(`a client got an error: ${String(error)}`);
          }
          this.asked.delete(id);
          this.took(performance.now() - askedMs);
          await new Promise((resolve) => setTimeout(resolve, thinkMs));
        }
      })(),
    );
  }

  private took(ms: number): void {
    this.longestMs = Math.max(this.longestMs, ms);
    this.longestEverMs = Math.max(this.longestEverMs, ms);
  }

  /** Those included that wait now. @returns the longest since the last call */
  takeLongestMs(): number {
    for (const askedMs of this.asked.values()) this.took(performance.now() - askedMs);
    const longest = this.longestMs;
    this.longestMs = 0;
    return longest;
  }

  private tell(what: string): void {
    if (this.wrong.length < 50) this.wrong.push(`${this.name}: ${what}`);
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.tasks);
  }
}
