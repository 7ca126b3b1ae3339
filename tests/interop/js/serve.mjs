/**
 * The server: answers HTTP/1.1 by hand on every `/http/1.1` stream, keeping the
 * stream for further requests unless the client says `Connection: close`.
 *
 * Invariants
 *
 * - A response starts without waiting for the half-close of the client.
 * - The stream is closed for writing after the last response, and reset if a body breaks off.
 */

import { blake3 } from '@noble/hashes/blake3.js'
import { Source, collect, dump, framing, pattern, readBody, readHead, write } from './wire.mjs'

const PROTOCOL_NAME = '/tandem-interop/1'

/** Largest body that a route sends. Chosen: ten times what the steps ask for. */
const MAX_BYTES = 100_000_000

/** Bytes of pattern sent at a time: a multiple of 251, so that pieces join without a seam. */
const BLOCK = pattern(251 * 256)

/** Serves one stream to its end. */
export async function serveStream (stream) {
  try {
    const source = new Source(stream)
    while (await serveRequest(stream, source)) {
      // Each round is one request.
    }
    await stream.close()
  } catch (error) {
    dump('>', `[reset: ${error.message}]`)
    stream.abort(error)
  }
}

/** Answers one request. False when the stream is to be closed. */
async function serveRequest (stream, source) {
  const head = await readHead(source)
  if (head == null) {
    return false
  }
  const request = /^([A-Z]+) (\S+) HTTP\/1\.([01])$/.exec(head.start)
  // An empty Host is fine, and what go-libp2p sends; a missing one is not.
  if (request == null || (request[3] === '1' && !head.headers.has('host'))) {
    await respond(stream, '400 Bad Request', [], 'bad request', false)
    return false
  }
  const [, method, target, minor] = request
  const kept = minor === '1' && !/\bclose\b/i.test(head.headers.get('connection') ?? '')
  const body = readBody(source, head, 'none')
  if (/^100-continue$/i.test(head.headers.get('expect') ?? '')) {
    await write(stream, 'HTTP/1.1 100 Continue\r\n\r\n')
  }
  await route(stream, method, target, head, body, kept)
  if (target.startsWith('/until-close/')) {
    return false
  }
  // What a route did not read must not be taken for the next request.
  await collect(body)
  return kept
}

async function route (stream, method, target, head, body, kept) {
  const path = target.split('?')[0]
  const sized = /^\/(bytes|until-close|cut)\/(\d{1,9})$/.exec(path)
  if (method === 'GET' && path === '/hello') {
    await respond(stream, '200 OK', ['Content-Type: text/plain'], 'hi', kept)
  } else if (method === 'GET' && path === '/.well-known/libp2p/protocols') {
    const document = JSON.stringify({ [PROTOCOL_NAME]: { path: '/' } })
    await respond(stream, '200 OK', ['Content-Type: application/json'], document, kept)
  } else if (method === 'POST' && path === '/echo') {
    await echo(stream, head, body, kept)
  } else if (method === 'POST' && path === '/sink') {
    await respond(stream, '200 OK', ['Content-Type: application/json'], await swallow(body), kept)
  } else if (method === 'GET' && sized != null && Number(sized[2]) <= MAX_BYTES) {
    await sendPattern(stream, Number(sized[2]), sized[1], kept)
  } else {
    await respond(stream, '404 Not Found', [], 'no such route', kept)
  }
}

/** Sends a whole response. */
async function respond (stream, status, headers, body, kept) {
  await write(stream, responseHead(status, [...headers, `Content-Length: ${body.length}`], kept) + body)
}

/** Reads a body to its end and says what it was. */
async function swallow (body) {
  const hash = blake3.create()
  let bytes = 0
  for await (const piece of body) {
    hash.update(piece)
    bytes += piece.byteLength
  }
  return JSON.stringify({ bytes, blake3: Buffer.from(hash.digest()).toString('hex') })
}

/** Sends the body back while it still arrives, framed as the request was. */
async function echo (stream, head, body, kept) {
  const chunked = framing(head, 'none') === 'chunked'
  const length = chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${head.headers.get('content-length') ?? 0}`
  await write(stream, responseHead('200 OK', ['Content-Type: application/octet-stream', length], kept))
  for await (const bytes of body) {
    if (chunked) {
      await write(stream, `${bytes.byteLength.toString(16)}\r\n`)
    }
    await write(stream, bytes)
    if (chunked) {
      await write(stream, '\r\n')
    }
  }
  if (chunked) {
    await write(stream, '0\r\n\r\n')
  }
}

async function sendPattern (stream, length, kind, kept) {
  const promise = kind === 'until-close' ? [] : [`Content-Length: ${length}`]
  const last = kept && kind !== 'until-close'
  await write(stream, responseHead('200 OK', ['Content-Type: application/octet-stream', ...promise], last))
  const sent = kind === 'cut' ? Math.floor(length / 2) : length
  for (let left = sent; left > 0; left -= BLOCK.byteLength) {
    await write(stream, BLOCK.subarray(0, Math.min(left, BLOCK.byteLength)))
  }
  if (kind === 'cut') {
    throw new Error('cut on purpose')
  }
}

function responseHead (status, headers, kept) {
  const last = kept ? [] : ['Connection: close']
  return [`HTTP/1.1 ${status}`, ...headers, ...last, '', ''].join('\r\n')
}
