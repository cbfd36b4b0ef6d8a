/**
 * The commands, and where each is built. All of them are a hundred files and a quarter of a second of loading, which
 * `status` in a loop does not want to pay: what is asked for is loaded, and everything when help may be wanted.
 */
import type { Command } from 'commander';

export type Run = (work: () => Promise<void>, json?: boolean) => Promise<void>;
type Add = (program: Command, run: Run) => void;

interface Entry {
  names: readonly string[];
  load: () => Promise<Add>;
}

/** As the help lists them. */
const ENTRIES: readonly Entry[] = [
  { names: ['up'], load: async () => (await import('./up-command.ts')).addUpCommand },
  { names: ['serve', 'demo'], load: async () => (await import('./serve-command.ts')).addServeCommand },
  { names: ['node'], load: async () => (await import('./node-command.ts')).addNodeCommand },
  { names: ['status'], load: async () => (await import('./status-command.ts')).addStatusCommand },
  { names: ['events'], load: async () => (await import('./events-command.ts')).addEventsCommand },
  { names: ['volume'], load: async () => (await import('./volume-command.ts')).addVolumeCommand },
  { names: ['read', 'write'], load: async () => (await import('./data-command.ts')).addDataCommands },
  { names: ['kv'], load: async () => (await import('./kv-command.ts')).addKvCommand },
  { names: ['nbd'], load: async () => (await import('./nbd-command.ts')).addNbdCommand },
  { names: ['coordinator'], load: async () => (await import('./coordinator-command.ts')).addCoordinatorCommand },
  // Behind those whose flags it reads.
  { names: ['config'], load: async () => (await import('./config-command.ts')).addConfigCommand },
  { names: ['token'], load: async () => (await import('./token-command.ts')).addTokenCommand },
  { names: ['bench'], load: async () => (await import('./bench-command.ts')).addBenchCommand },
  { names: ['fault'], load: async () => (await import('./fault-command.ts')).addFaultCommand },
];

/** Options before the command that take a value. */
const WITH_VALUE = ['--token-file'];

/** The command's name, if there is one before any option that is not known here. */
export function commandAsked(words: readonly string[]): string | null {
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (WITH_VALUE.includes(word)) i++;
    else if (!WITH_VALUE.some((option) => word.startsWith(`${option}=`))) return word.startsWith('-') ? null : word;
  }
  return null;
}

/** Help lists everything; a config file has keys of other commands than the one that reads it. */
const NEEDS_ALL = /^(?:config|help|-h|--help|--config(?:=.*)?)$/;

const VERSION = /^(?:-V|--version)$/;

/** @param words what is behind `holdfast`; of a command that is not known, all others are loaded, to be suggested */
export async function addCommands(program: Command, run: Run, words: readonly string[]): Promise<void> {
  if (words.length === 1 && VERSION.test(words[0]!)) return;
  const name = commandAsked(words);
  const alone = name !== null && !words.some((word) => NEEDS_ALL.test(word));
  const asked = ENTRIES.filter(({ names }) => alone && names.includes(name));
  for (const { load } of asked.length > 0 ? asked : ENTRIES) (await load())(program, run);
}
