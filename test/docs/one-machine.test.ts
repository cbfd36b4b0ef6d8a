/** The commands of docs/tutorials/one-machine.md, as they stand there, and what they print. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { freePorts } from '../support/free-ports.ts';
import { isWriting, play, toolsMissing } from '../support/tutorial.ts';

const missing = toolsMissing(['qemu-io', 'nbdcopy', 'nbdinfo', 'redis-cli', 'curl']);
if (missing !== null) console.log(`# skip: ${missing}`);
else {
  const test = suite('docs, ten minutes on one machine');

  test('each command does what the page shows', async () => {
    const shown = ['7400', '7401', '7402', '7441', '7442', '7481', '7482', '6381', '6382', '10809'];
    const ports = isWriting ? shown : await freePorts(shown.length);
    // redis-cli is given the port alone.
    const places = shown.flatMap((port, i) => [
      [`127.0.0.1:${port}`, `127.0.0.1:${ports[i]}`] as const,
      [`-p ${port} `, `-p ${ports[i]} `] as const,
    ]);
    const findings = await play({ path: 'docs/tutorials/one-machine.md', places: () => places });
    assert.is(findings.join('\n\n'), '');
  });

  test.run();
}
