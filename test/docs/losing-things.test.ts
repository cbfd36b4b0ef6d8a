/** The commands of docs/tutorials/losing-things.md, as they stand there, and what they print. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { freePorts } from '../support/free-ports.ts';
import { isWriting, play } from '../support/tutorial.ts';

const test = suite('docs, losing things on purpose');

test('each command does what the page shows', async () => {
  const shown = ['7400', '7401', '7402', '7403', '7441', '7442', '7443'];
  const ports = isWriting ? shown : await freePorts(shown.length);
  const at = (port: string): string => `127.0.0.1:${ports[shown.indexOf(port)]}`;
  const places = shown.map((port) => [`127.0.0.1:${port}`, at(port)] as const);
  // The function of the page makes a node's ports of its number.
  const numbered = ['740', '744'].map((stem) => {
    const ofNumber = `$(cut -d' ' -f$2 <<< '${['1', '2', '3'].map((n) => at(`${stem}${n}`)).join(' ')}')`;
    return [`127.0.0.1:${stem}$2`, ofNumber] as const;
  });
  const findings = await play({ path: 'docs/tutorials/losing-things.md', places: () => [...numbered, ...places] });
  assert.is(findings.join('\n\n'), '');
});

test.run();
