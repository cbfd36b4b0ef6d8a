/** Ports for servers that are started anew at the same address: benches need the same. */
export { freePorts } from '../../bench/load/free-ports.ts';
