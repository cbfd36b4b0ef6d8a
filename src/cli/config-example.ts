/**
 * An example of a config file, made from the flags of the command.
 *
 * Guarantees: it passes the check as it is, and with every line taken out of its comment; a default that is shown is the
 * one that holds.
 */
import { stringify } from 'yaml';
import type { Key, Keys, Section } from './config-schema.ts';

const WIDTH = 100;
const HEAD: Record<Section, string[]> = {
  node: ['A node of a cluster: holdfast node --config FILE'],
  coordinator: ['The coordinator of a cluster: holdfast coordinator --config FILE'],
  serve: ['A volume by itself: holdfast serve DIR --config FILE'],
  nbd: ['A gateway: holdfast nbd URL --config FILE'],
  up: ['A cluster on this machine, to try it out: holdfast up --config FILE'],
};

function wrapped(text: string, indent: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && `${indent}# ${line} ${word}`.length > WIDTH) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line].map((one) => `${indent}# ${one}`);
}

/** A default that depends on this process's environment is none: the example is for another machine. */
function valueOf({ option, type }: Key): string {
  const { defaultValue } = option;
  if (option.isBoolean()) return 'false';
  if (typeof defaultValue !== 'string' || defaultValue === '') return type.example;
  const shown = stringify(type.schema.safeParse(Number(defaultValue)).success ? Number(defaultValue) : defaultValue);
  return shown.trimEnd();
}

export function exampleOf({ section, keys }: Keys): string {
  const lines = [
    ...HEAD[section].map((line) => `# ${line}`),
    '# Flags of the command line override what is here; what neither gives comes from the environment, then from the default.',
    '# Relative paths start from the folder of this file. Secrets are never in it: a key that ends in File names their file.',
    `${section}:`,
  ];
  const sorted = [...keys.filter(({ needed }) => needed), ...keys.filter(({ needed }) => !needed)];
  for (const one of sorted) {
    const { key, option, type, needed } = one;
    lines.push('', ...wrapped(`${option.description} (--${option.name()}).`, '  '));
    if (!option.description.includes(type.words)) lines.push(...wrapped(`Write ${type.words}.`, '  '));
    lines.push(`  ${needed ? '' : '#'}${key}: ${valueOf(one)}`);
  }
  return `${lines.join('\n')}\n`;
}
