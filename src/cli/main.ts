#!/usr/bin/env node
/** The command line. Exit codes: 0 done, 1 an error that was reported, 2 a usage error, 74 a failed disk. */
import { Command } from 'commander';
import { PACKAGE_VERSION } from '../node/version.ts';
import { addBenchCommand } from './bench-command.ts';
import { addCoordinatorCommand } from './coordinator-command.ts';
import { addDataCommands } from './data-command.ts';
import { addEventsCommand } from './events-command.ts';
import { addFaultCommand } from './fault-command.ts';
import { addKvCommand } from './kv-command.ts';
import { addNbdCommand } from './nbd-command.ts';
import { addNodeCommand } from './node-command.ts';
import { reportError } from './output.ts';
import { addServeCommand } from './serve-command.ts';
import { addStatusCommand } from './status-command.ts';
import { addTokenCommand } from './token-command.ts';
import { addUpCommand } from './up-command.ts';
import { addVolumeCommand } from './volume-command.ts';

async function run(work: () => Promise<void>, json = false): Promise<void> {
  try {
    await work();
  } catch (error) {
    reportError(error, json);
  }
}

const program = new Command('holdfast')
  .description('A replicated block store: volumes of fixed size, served over TCP')
  .version(PACKAGE_VERSION)
  .option('--token-file <file>', 'the token that this command gives to nodes; or HOLDFAST_TOKEN')
  .hook('preAction', (command) => {
    const { tokenFile } = command.opts<{ tokenFile?: string }>();
    if (tokenFile === undefined) return;
    // Where the client library looks for it; what the environment said before counts no more.
    process.env['HOLDFAST_TOKEN_FILE'] = tokenFile;
    delete process.env['HOLDFAST_TOKEN'];
  })
  .showHelpAfterError()
  .configureHelp({ sortSubcommands: false });
addUpCommand(program, run);
addServeCommand(program, run);
addNodeCommand(program, run);
addStatusCommand(program, run);
addEventsCommand(program, run);
addVolumeCommand(program, run);
addDataCommands(program, run);
addKvCommand(program, run);
addNbdCommand(program, run);
addCoordinatorCommand(program, run);
// YAML and its schemas take a tenth of a second to load: for those only who may want them.
const asked = process.argv.slice(2);
if (asked.length === 0 || asked.some((one) => /^(?:config|help|-h|--help|--config(?:=.*)?)$/.test(one))) {
  const { addConfigCommand } = await import('./config-command.ts');
  addConfigCommand(program, run);
}
addTokenCommand(program, run);
addBenchCommand(program, run);
addFaultCommand(program, run);
program.exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
await program.parseAsync();
