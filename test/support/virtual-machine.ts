/**
 * A virtual machine under software emulation, whose disk is an NBD export: QEMU, the kernel in `/boot`, and an initramfs
 * made of busybox, e2fsprogs and the modules that the disk needs.
 *
 * Guarantees: nothing of the machine outlives this process, and what the guest says is a line on its serial console
 * that begins with `@` and ends with a full stop, so that a line cut by a kill, or by a message of the kernel, is none.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

const MODULES = ['virtio_pci', 'virtio_blk', 'ext4'];
const PROGRAMS = ['mke2fs', 'e2fsck'];
/** A guess that is never right for long: emulation beside other work. It only ends a test that hangs. */
const PATIENCE_MS = 90_000;
const ENV = { ...process.env, PATH: `${process.env['PATH']}:/sbin:/usr/sbin` };

/**
 * The guest's only program. Settings come from the kernel's command line:
 * `FORMAT=yes` makes the file system, else it is checked and all kept files are told;
 * `WRITE=NAME` writes files NAME-1, NAME-2 ... until somebody stops it, else the machine is shut down in order.
 */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
PATH=/bin:/sbin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
say() { echo "@ $* ."; }
give_up() { say failed "$*"; poweroff -f; }
while read -r module; do insmod "/modules/$module" || give_up "insmod $module"; done </modules/order
[ -b /dev/vda ] || give_up no disk
# By their paths: busybox has a program of one of these names.
if [ "$FORMAT" = yes ]; then
  /sbin/mke2fs -q -F -t ext4 -b 4096 /dev/vda || give_up mke2fs
else
  /sbin/e2fsck -p /dev/vda; say preened $?
  /sbin/e2fsck -fn /dev/vda; say checked $?
fi
mount -t ext4 -o discard /dev/vda /disk || give_up mount
mkdir -p /disk/kept /disk/churn
for file in /disk/kept/*; do
  [ -f "$file" ] && sum=$(sha256sum <"$file") && say has "\${file##*/}" "\${sum%% *}"
done
say mounted
if [ "$WRITE" = "" ]; then
  umount /disk || give_up umount
  say done
  poweroff -f
fi
# Beside what is kept: files that come, grow, change their names and go, and are never synced.
churn() {
  at=0
  while :; do
    at=$((at + 1))
    dd if=/dev/urandom of=/disk/churn/new bs=4k count=$((at * 37 % 97 + 1))
    mv /disk/churn/new "/disk/churn/$((at % 5))"
    rm -f "/disk/churn/$((at * 3 % 5))"
  done >/dev/null 2>&1
}
churn &
at=0
while [ $at -lt 3000 ]; do
  at=$((at + 1))
  head -c $((at * at * 3701 % 90001 + 1)) /dev/urandom >/content
  sum=$(sha256sum </content)
  # The program fails when the fsync does.
  dd if=/content "of=/disk/kept/$WRITE-$at" bs=32k conv=fsync 2>/dev/null || give_up write
  say kept "$WRITE-$at" "\${sum%% *}"
done
give_up nobody stopped it
`;

const tool = (
  name: string,
  args: string[],
  cwd?: string,
): { status: number | null; stdout: string; failed: boolean } => {
  const options = { encoding: 'utf8', env: ENV, ...(cwd === undefined ? {} : { cwd }) } as const;
  const { status, stdout, error } = spawnSync(name, args, options);
  return { status, stdout: stdout ?? '', failed: error !== undefined };
};

const which = (name: string): string => tool('sh', ['-c', `command -v ${name}`]).stdout.trim();

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

/** Modules to load, by their paths under `modules`, in an order that suits; null if one is not there for busybox. */
export function loadOrder(modules: string, names: readonly string[]): string[] | null {
  if (!isReadable(join(modules, 'modules.dep'))) return null;
  const builtIn = readFileSync(join(modules, 'modules.builtin'), 'utf8').split('\n');
  const needs = readFileSync(join(modules, 'modules.dep'), 'utf8').split('\n');
  const order: string[] = [];
  for (const name of names) {
    if (builtIn.some((path) => path.endsWith(`/${name}.ko`))) continue;
    // What is packed is passed over: busybox loads plain files.
    const line = needs.find((text) => text.split(':')[0]!.endsWith(`/${name}.ko`));
    if (line === undefined) return null;
    // A line names the module and then what it needs, the innermost last.
    const paths = line.replace(':', '').trim().split(/\s+/).reverse();
    order.push(...paths.filter((path) => !order.includes(path)));
  }
  return order;
}

interface Kernel {
  image: string;
  modules: string;
  order: string[];
}

function findKernel(): Kernel | null {
  const images = readdirSync('/boot').filter((name) => name.startsWith('vmlinuz-') && isReadable(`/boot/${name}`));
  // The one for clouds boots fastest.
  images.sort((a, b) => Number(b.includes('cloud')) - Number(a.includes('cloud')));
  for (const name of images) {
    const modules = `/lib/modules/${name.slice('vmlinuz-'.length)}`;
    const order = loadOrder(modules, MODULES);
    if (order !== null) return { image: `/boot/${name}`, modules, order };
  }
  return null;
}

/** Why no machine can be made here; null if one can. */
export function whyNoMachine(): string | null {
  const missing = ['qemu-system-x86_64', 'busybox', 'ldd', ...PROGRAMS].filter((name) => which(name) === '');
  if (missing.length > 0) return `not installed: ${missing.join(', ')}`;
  if (tool('ldd', [which('busybox')]).status === 0) return 'this busybox is not linked statically';
  if (findKernel() === null) return 'no kernel in /boot that can be read, with its modules unpacked';
  return null;
}

export interface GuestImage {
  kernel: string;
  initramfs: string;
}

/** Makes the initramfs in `folder`. */
export function makeGuest(folder: string): GuestImage {
  const { image, modules, order } = findKernel()!;
  const root = join(folder, 'root');
  const put = (from: string, to: string): void => {
    mkdirSync(dirname(join(root, to)), { recursive: true });
    copyFileSync(from, join(root, to));
  };
  for (const empty of ['proc', 'dev', 'disk', 'sbin']) mkdirSync(join(root, empty), { recursive: true });
  put(which('busybox'), 'bin/busybox');
  for (const name of PROGRAMS) {
    const path = which(name);
    put(path, `sbin/${name}`);
    for (const [library] of tool('ldd', [path]).stdout.matchAll(/\/\S+/g)) put(library, library);
  }
  for (const path of order) put(join(modules, path), `modules/${basename(path)}`);
  writeFileSync(join(root, 'modules/order'), order.map((path) => `${basename(path)}\n`).join(''));
  writeFileSync(join(root, 'init'), INIT, { mode: 0o755 });
  const initramfs = join(folder, 'initramfs');
  const packed = tool('sh', ['-c', 'find . | busybox cpio -o -H newc >"$0"', initramfs], root);
  if (packed.status !== 0) throw new Error('cannot pack the initramfs');
  return { kernel: image, initramfs };
}

export interface Disk {
  port: number;
  exportName: string;
  /** How long requests wait for a server that went away; 0: the guest is told at once that they failed. */
  reconnectSeconds: number;
}

export class VirtualMachine {
  readonly #child: ChildProcess;
  readonly exited: Promise<void>;
  #console = '';
  #changed: () => void = () => {};

  constructor(guest: GuestImage, disk: Disk, settings: Record<string, string>) {
    const words = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
    const server = `file.server.type=inet,file.server.host=127.0.0.1,file.server.port=${disk.port}`;
    const nbd = `driver=raw,file.driver=nbd,${server},file.export=${disk.exportName}`;
    // With `writeback` the guest sees a disk with a cache, and its flushes are sent to the server.
    const drive = `${nbd},file.reconnect-delay=${disk.reconnectSeconds},if=virtio,cache=writeback,discard=unmap`;
    const kernel = ['-kernel', guest.kernel, '-initrd', guest.initramfs];
    const append = ['console=ttyS0', 'quiet', 'panic=-1', 'random.trust_cpu=on', ...words].join(' ');
    const machine = ['-accel', 'tcg', '-cpu', 'qemu64,+rdrand', '-smp', '1', '-m', '256M', '-nodefaults', '-no-reboot'];
    const args = [...machine, '-display', 'none', '-serial', 'stdio', ...kernel, '-append', append, '-drive', drive];
    this.#child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const killChild = (): void => void this.#child.kill('SIGKILL');
    process.once('exit', killChild);
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.on('data', (chunk: Buffer) => {
        this.#console += chunk.toString('latin1').replaceAll('\r', '');
        this.#changed();
      });
    }
    this.exited = new Promise((resolve) =>
      this.#child.once('close', () => {
        process.off('exit', killChild);
        resolve();
        this.#changed();
      }),
    );
  }

  /** All that was printed so far. */
  get console(): string {
    return this.#console;
  }

  /** The words of each whole line that the guest said and that begins with `verb`, without it. */
  said(verb: string): string[][] {
    const lines = [...this.#console.matchAll(/^@ ([^\n]*) \.$/gm)].map((match) => match[1]!.split(' '));
    return lines.filter(([first]) => first === verb).map((words) => words.slice(1));
  }

  /**
   * Waits until what is on the console satisfies `condition`.
   * @throws an error with the end of the console when the machine ends first, or nothing comes for too long
   */
  async until(condition: () => boolean, what: string): Promise<void> {
    let over = false;
    const timer = setTimeout(() => {
      over = true;
      this.#changed();
    }, PATIENCE_MS);
    void this.exited.then(() => (over = true));
    while (!condition()) {
      if (over || this.said('failed').length > 0) {
        clearTimeout(timer);
        throw new Error(`no ${what} on the console, which ends with:\n${this.#console.slice(-3000)}`);
      }
      await new Promise<void>((resolve) => (this.#changed = resolve));
    }
    clearTimeout(timer);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited;
  }
}
