/** Requests to an HTTP port, with TLS or without, each on a connection of its own. */
import { readFileSync } from 'node:fs';
import { type IncomingMessage, request as requestPlain } from 'node:http';
import { request as requestTls } from 'node:https';
import type { TLSSocket } from 'node:tls';
import type { Pair } from './tls-files.ts';

export interface HttpAnswer {
  status: number;
  headers: IncomingMessage['headers'];
  body: string;
  /** Of the server's certificate. */
  fingerprint: string | null;
}

export interface HttpAsked {
  /** Of the CA to trust. */
  caFile?: string;
  pair?: Pair | undefined;
  authorization?: string | undefined;
  method?: string;
}

/** The head of an answer. Rejects when there is none. */
export function openGet(url: string, asked: HttpAsked = {}): Promise<IncomingMessage> {
  const { caFile, pair, authorization, method = 'GET' } = asked;
  const headers = authorization === undefined ? {} : { authorization };
  const own = pair && { cert: readFileSync(pair.certFile), key: readFileSync(pair.keyFile) };
  const options = { method, headers, agent: false as const };
  return new Promise((resolve, reject) => {
    const sent = url.startsWith('https:')
      ? requestTls(url, { ...options, ca: readFileSync(caFile!), ...own }, resolve)
      : requestPlain(url, options, resolve);
    sent.on('error', reject);
    sent.end();
  });
}

export async function httpGet(url: string, asked: HttpAsked = {}): Promise<HttpAnswer> {
  const response = await openGet(url, asked);
  const socket = response.socket as Partial<TLSSocket>;
  const fingerprint = socket.getPeerCertificate?.().fingerprint256 ?? null;
  let body = '';
  for await (const chunk of response.setEncoding('utf8')) body += String(chunk);
  return { status: response.statusCode!, headers: response.headers, body, fingerprint };
}

export const bearer = (token: string): string => `Bearer ${token}`;
/** As a browser sends what was typed. */
export const basic = (token: string): string => `Basic ${Buffer.from(`me:${token}`).toString('base64')}`;
