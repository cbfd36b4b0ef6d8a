/** The commands of docs/backup.md, as they stand there, and what they print. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { freePorts } from '../support/free-ports.ts';
import { CLUSTER_PORTS, clusterOf } from '../support/page-cluster.ts';
import { isWriting, play } from '../support/tutorial.ts';

const test = suite('docs, backup');

test('each command does what the page shows', async () => {
  const ports = isWriting ? CLUSTER_PORTS : await freePorts(CLUSTER_PORTS.length);
  const at = (port: string): string => `127.0.0.1:${ports[CLUSTER_PORTS.indexOf(port)]}`;
  const findings = await play({
    path: 'docs/backup.md',
    places: () => [
      ...CLUSTER_PORTS.map((port) => [`127.0.0.1:${port}`, at(port)] as const),
      // Last: what is printed is read from the end of this list.
      ['10.0.0.1:7401', at('7401')],
      ['10.0.0.2:7401', at('7402')],
    ],
    ...clusterOf('', [
      'holdfast volume create vm1 --size 16MiB --replicas 2 --node a',
      'head -c 8M /dev/urandom | holdfast write holdfast://10.0.0.1:7401/vm1 --offset 0',
    ]),
  });
  assert.is(findings.join('\n\n'), '');
});

test.run();
