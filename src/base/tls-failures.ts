/**
 * What a failed TLS handshake means for whoever tried to connect: an error with what to do about it. Pure.
 *
 * Guarantees: what is no failure of TLS stays what it was (null).
 */
import { type ErrorDetails, HoldfastError } from './errors.ts';

/** Of OpenSSL's verification, as Node names them. */
const VERIFICATION: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'has expired',
  CERT_NOT_YET_VALID: 'is not valid yet',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'is signed by itself, not by the CA',
  SELF_SIGNED_CERT_IN_CHAIN: 'comes from another CA',
  UNABLE_TO_GET_ISSUER_CERT: 'comes from another CA',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'comes from another CA',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'comes from another CA',
  CERT_SIGNATURE_FAILURE: 'comes from another CA of the same name',
  INVALID_PURPOSE: 'is not made for this purpose (extendedKeyUsage)',
  INVALID_CA: 'was signed by one that is no CA',
};

/** What is wrong with a certificate, in words that go on after "the certificate". */
export function certificateFault(code: string): string {
  return VERIFICATION[code] ?? `is not accepted (${code})`;
}

function words(code: string, message: string): [detail: string, remedy: string] | null {
  if (code in VERIFICATION) {
    const detail = `the certificate of the other end ${certificateFault(code)}`;
    return [detail, 'renew it there, or give the CA that signed it (--tls-ca, HOLDFAST_TLS_CA)'];
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    const detail = `the certificate of the other end is for another name: ${message}`;
    return [detail, 'add the name or address to its subjectAltName, or say which name is meant (serverName)'];
  }
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER' || code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG') {
    return ['the other end speaks no TLS on this port', 'write the address for a port without TLS, or give it TLS'];
  }
  if (/ALERT_CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|ALERT_BAD_CERTIFICATE|ALERT_UNKNOWN_CA/.test(code)) {
    const detail = 'the other end does not take the certificate of this one, or misses one';
    return [detail, 'give a certificate of its CA with the key (HOLDFAST_TLS_CERT, HOLDFAST_TLS_KEY)'];
  }
  if (/PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/.test(code)) {
    return ['the two ends have no version of TLS in common', 'TLS 1.3 is the least'];
  }
  if (!/^ERR_(?:SSL|TLS|OSSL)_/.test(code)) return null;
  return [`the TLS handshake failed: ${message}`, 'look at the log of the other end'];
}

/** @returns null for what has nothing to do with TLS */
export function tlsFailure(error: unknown, where: ErrorDetails): HoldfastError | null {
  const { code, message } = error as { code?: unknown; message?: unknown };
  const known = typeof code === 'string' ? words(code, String(message)) : null;
  if (known === null) return null;
  const [detail, remedy] = known;
  return new HoldfastError('ACCESS', { ...where, detail, remedy, cause: error });
}
