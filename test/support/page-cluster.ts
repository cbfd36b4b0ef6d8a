/**
 * The cluster that pages of docs take as given, as commands of a shell: a coordinator on 7400, nodes a and b on 7401 and 7402, whose ports
 * for each other are 7441 and 7442. They run before the page's first command, and are ended behind its last one.
 */

/** What stands in the commands and is another port in each run; a page may have more. */
export const CLUSTER_PORTS = ['7400', '7401', '7402', '7441', '7442'];

/** @param flags of node a, besides. @param volumes commands that make what the page begins with */
export function clusterOf(flags: string, volumes: readonly string[]): { before: string; after: string } {
  const before = [
    'holdfast coordinator --dir ./coordinator --listen 127.0.0.1:7400 > coordinator.log 2>&1 & coordinator=$!',
    'export HOLDFAST_COORDINATOR=holdfast://127.0.0.1:7400',
    `holdfast node --name a --dir ./a --listen 127.0.0.1:7401 --peer-listen 127.0.0.1:7441 ${flags} > a.log 2>&1 & a=$!`,
    'holdfast node --name b --dir ./b --listen 127.0.0.1:7402 --peer-listen 127.0.0.1:7442 > b.log 2>&1 & b=$!',
    'until [ $(holdfast status 2> /dev/null | grep -c 127.0.0.1) = 2 ]; do sleep 0.2; done',
    ...volumes,
    'until holdfast status > /dev/null; do sleep 0.2; done',
  ];
  return {
    before: before.join('\n'),
    after: 'kill $a && wait $a; kill $b && wait $b; kill $coordinator && wait $coordinator',
  };
}
