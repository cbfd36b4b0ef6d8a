/** The commands of docs/kv.md, as they stand there, and what they print. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { freePorts } from '../support/free-ports.ts';
import { CLUSTER_PORTS, clusterOf } from '../support/page-cluster.ts';
import { isWriting, play, toolsMissing } from '../support/tutorial.ts';

const missing = toolsMissing(['redis-cli']);
if (missing !== null) console.log(`# skip: ${missing}`);
else {
  const test = suite('docs, the key-value store');

  test('each command does what the page shows', async () => {
    const shown = [...CLUSTER_PORTS, '6380'];
    const ports = isWriting ? shown : await freePorts(shown.length);
    // redis-cli is given the port alone.
    const places = shown.flatMap((port, i) => [
      [`127.0.0.1:${port}`, `127.0.0.1:${ports[i]}`] as const,
      [`-p ${port} `, `-p ${ports[i]} `] as const,
    ]);
    const findings = await play({
      path: 'docs/kv.md',
      places: () => places,
      ...clusterOf('--kv 127.0.0.1:6380', []),
    });
    assert.is(findings.join('\n\n'), '');
  });

  test.run();
}
