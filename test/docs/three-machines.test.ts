/**
 * The commands of docs/tutorials/three-machines.md, as they stand there, and what they print: with a real etcd and TLS. A machine is
 * a network namespace and a folder.
 */
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Hosts, hostsMissing } from '../support/hosts.ts';
import { play, toolsMissing } from '../support/tutorial.ts';

/** Between machines that are folders side by side. */
const SCP = `#!/bin/bash
to="\${@: -1}"
exec cp "\${@:1:$#-1}" "$(sed "s/machine-[a-z]*/machine-\${to%%:*}/" <<< "\${to#*:}")"
`;

const missing = toolsMissing(['etcd', 'etcdctl', 'openssl']) ?? hostsMissing();
if (missing !== null) console.log(`# skip: ${missing}`);
else {
  const test = suite('docs, three machines with etcd');

  test('each command does what the page shows', async () => {
    const hosts = new Hosts(['a', 'b', 'c', 'd']);
    const address = (name: string): string => hosts.address(name);
    const findings = await play({
      path: 'docs/tutorials/three-machines.md',
      on: (name) => hosts.on(name),
      places: (_, folder) => [
        ...['a', 'b', 'c', 'd'].map((name, i): [string, string] => [`10.0.0.${i + 1}`, address(name)]),
        ['/etc/holdfast', join(folder, 'etc')],
        ['/var/lib/', join(folder, 'var/')],
      ],
      tools: { scp: SCP },
    });
    hosts.remove();
    assert.is(findings.join('\n\n'), '');
  });

  test.run();
}
