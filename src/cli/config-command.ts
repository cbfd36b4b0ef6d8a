/**
 * `--config FILE` of the commands that run for long, and `holdfast config check | example`.
 *
 * Guarantees: a flag overrides the file, wherever on the command line it stands; a file with a fault starts nothing, and
 * ends the process with code 2, as a wrong flag does.
 */
import type { Command } from 'commander';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { exampleOf } from './config-example.ts';
import { type Config, lineOf, readConfig } from './config-file.ts';
import { type Keys, SECTIONS, type Section, keysOf } from './config-schema.ts';
import { endQuietlyWithoutReader, printJson } from './output.ts';

/** Exit code of wrong usage. A supervisor does not start such a process again. */
const EXIT_USAGE = 2;

function refuse(file: string, lines: string[]): never {
  for (const line of lines) process.stderr.write(`holdfast: ${line}\n`);
  process.stderr.write(`holdfast: nothing is started; to try again: holdfast config check ${file}\n`);
  process.exit(EXIT_USAGE);
}

/** Gives the command what the file says, for flags that the command line does not have. */
function apply(file: string, command: Command, keys: Keys, all: readonly Keys[]): void {
  if (keys.keys.some(({ option }) => command.getOptionValueSource(option.attributeName()) === 'config')) {
    return refuse(file, ['--config is there twice']);
  }
  let config: Config;
  try {
    config = readConfig(file, all);
  } catch (error) {
    return refuse(file, [asHoldfastError(error).message]);
  }
  if (config.findings.length > 0) {
    return refuse(
      file,
      config.findings.map((one) => lineOf(file, one)),
    );
  }
  const values = config.values.get(keys.section);
  if (values === undefined) return refuse(file, [`${file}:1:1: ${keys.section}: there is no such section`]);
  for (const { key, option } of keys.keys) {
    const name = option.attributeName();
    const value = values[key];
    if (value === undefined || command.getOptionValueSource(name) === 'cli') continue;
    command.setOptionValueWithSource(name, asFlag(value), 'config');
  }
}

/** As it would have come from the command line. */
function asFlag(value: unknown): unknown {
  return typeof value === 'boolean' || Array.isArray(value) ? value : String(value);
}

function check(file: string, flags: { json?: boolean }, all: readonly Keys[]): void {
  const { findings, values } = readConfig(file, all);
  const missing = all.flatMap(({ section, keys }) =>
    values.has(section)
      ? keys
          .filter(({ key, needed }) => needed && values.get(section)![key] === undefined)
          .map(({ key }) => `${section}.${key}`)
      : [],
  );
  const sections = [...values.keys()];
  const good = findings.length === 0 && sections.length > 0;
  if (flags.json) printJson({ ok: good, file, sections, findings, missing });
  else {
    for (const one of findings) process.stdout.write(`${lineOf(file, one)}\n`);
    if (good) process.stdout.write(`${file}: good, for ${sections.join(' and ')}\n`);
    else if (findings.length === 0)
      process.stdout.write(`${file}:1:1: it has no section: write ${SECTIONS.join(': or ')}:\n`);
    for (const key of missing)
      process.stdout.write(`  ${key} is not in it: the command line or the environment must give it\n`);
  }
  if (!good) process.exitCode = 1;
}

/** Comes after the commands whose flags it reads. */
export function addConfigCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const all = configKeys(program);
  for (const keys of all) {
    const command = program.commands.find((one) => one.name() === keys.section)!;
    command.option('--config <file>', 'YAML with these flags as keys; flags override it: holdfast config example');
    command.on('option:config', (file: string) => apply(file, command, keys, all));
  }
  const config = program.command('config').description('config files of the commands that run for long');
  config
    .command('check <file>')
    .description('what is wrong in it, with line, column and key. Exit codes: 0 good, 1 not')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  holdfast config check /etc/holdfast/node.yaml')
    .action((file: string, flags: { json?: boolean }) =>
      run(() => Promise.resolve(check(file, flags, all)), flags.json),
    );
  config
    .command('example [section]')
    .description(`print a file with all keys, explained: ${SECTIONS.join(', ')}`)
    .addHelpText('after', '\nExample:\n  holdfast config example node > node.yaml')
    .action((section: string = 'node') => run(() => Promise.resolve(example(section, all))));
}

/** The keys of all commands that take a file. */
export function configKeys(program: Command): Keys[] {
  return SECTIONS.map((section: Section) =>
    keysOf(
      program.commands.find((one) => one.name() === section)!,
      section,
    ),
  );
}

function example(section: string, all: readonly Keys[]): void {
  endQuietlyWithoutReader();
  const keys = all.find((one) => one.section === section);
  if (keys === undefined) {
    const remedy = `write ${SECTIONS.join(' or ')}`;
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'config example', detail: `"${section}"`, remedy });
  }
  process.stdout.write(exampleOf(keys));
}
