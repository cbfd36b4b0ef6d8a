#!/usr/bin/env node
/** The command line. Exit codes: 0 done, 1 an error that was reported, 2 a usage error, 74 a failed disk. */
import { Command } from 'commander';
import { PACKAGE_VERSION } from '../node/version.ts';
import { addCommands } from './commands.ts';
import { reportError } from './output.ts';

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
await addCommands(program, run, process.argv.slice(2));
program.exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
await program.parseAsync();
