/**
 * HTTP/1.1 by hand, over one js-libp2p stream: no more of it than the steps and
 * the routes need.
 *
 *   stream ──message──▶ Source ──▶ readHead ──▶ readBody ──▶ the caller
 *   the caller ──▶ write ──▶ stream
 *
 * Invariants
 *
 * - A body that ends before its framing says so throws; it is never taken as whole.
 * - A Source holds at most HIGH_WATER bytes before it pauses its stream.
 * - With INTEROP_DUMP=1 every byte read and written goes to stderr, escaped.
 */

import { Uint8ArrayList } from 'uint8arraylist'

/** Bytes kept unread before the stream is paused. Chosen: one Yamux window. */
const HIGH_WATER = 256 * 1024

/** Longest head that is read, in bytes. Chosen: eight times what Algorand nodes accept. */
const MAX_HEAD = 64 * 1024

/** Bytes written at a time. Chosen: well below the smallest Yamux window. */
const PIECE = 64 * 1024

/** Bytes of one read or write that the dump shows. Chosen: a head fits. */
const DUMP_BYTES = 600

const encoder = new TextEncoder()
const decoder = new TextDecoder('latin1')
const dumping = process.env.INTEROP_DUMP === '1'

/** What arrives on a stream, in pull style. */
export class Source {
  #stream
  #unread = new Uint8ArrayList()
  #ended = false
  #error
  #wake = () => {}

  constructor (stream) {
    this.#stream = stream
    // The receive window may grow past this while the stream is paused, which would reset it.
    stream.maxReadBufferLength = 32 * 1024 * 1024
    stream.addEventListener('message', ({ data }) => {
      dump('<', data.subarray())
      this.#unread.append(data.subarray())
      if (stream.readableEnded && stream.readBufferLength === 0) {
        this.#end()
      }
      if (this.#unread.byteLength > HIGH_WATER && stream.readStatus === 'readable' && stream.remoteWriteStatus !== 'closed') {
        stream.pause()
      }
      this.#wake()
    })
    stream.addEventListener('end', () => {
      // A reset fires this as well, with its 'close' and its error right behind.
      if (stream.status !== 'reset' && stream.status !== 'aborted') {
        this.#end()
      }
    })
    stream.addEventListener('close', ({ error }) => {
      // A clean close with bytes still in a paused stream is followed by 'end'.
      if (error != null || stream.readBufferLength === 0) {
        this.#end(error)
      }
    })
    // A request that came with its half-close in one go has 'end' behind it before this runs,
    // though its bytes are still to be dispatched: protocol negotiation puts them back.
    if (stream.readableEnded && stream.readBufferLength === 0) {
      this.#end()
    }
  }

  #end (error) {
    if (!this.#ended) {
      dump('<', error == null ? '[end]' : `[${error.name}: ${error.message}]`)
      this.#ended = true
      this.#error = error
      this.#wake()
    }
  }

  /** Waits for more than is unread now. False at the end of the stream; throws if it was reset. */
  async #more () {
    const before = this.#unread.byteLength
    if (this.#stream.readStatus === 'paused') {
      // May hand over bytes, and the end as well, before it returns.
      this.#stream.resume()
    }
    while (this.#unread.byteLength === before && !this.#ended) {
      await new Promise((resolve) => { this.#wake = resolve })
    }
    if (this.#unread.byteLength === before && this.#error != null) {
      throw this.#error
    }
    return this.#unread.byteLength > before
  }

  /** Takes up to `max` bytes; undefined at the end of the stream. */
  async take (max = Infinity) {
    if (this.#unread.byteLength === 0 && !(await this.#more())) {
      return undefined
    }
    const bytes = this.#unread.slice(0, Math.min(max, this.#unread.byteLength))
    this.#unread.consume(bytes.byteLength)
    return bytes
  }

  /** Takes everything up to and with `mark`; undefined if the stream ends before the first byte. */
  async takeThrough (mark, max) {
    const needle = encoder.encode(mark)
    let searched = 0
    for (;;) {
      const at = this.#unread.indexOf(needle, searched)
      if (at >= 0) {
        const bytes = this.#unread.slice(0, at + needle.byteLength)
        this.#unread.consume(bytes.byteLength)
        return decoder.decode(bytes)
      }
      if (this.#unread.byteLength > max) {
        throw new Error(`no ${JSON.stringify(mark)} in ${max} bytes`)
      }
      searched = Math.max(0, this.#unread.byteLength - needle.byteLength)
      if (!(await this.#more())) {
        if (this.#unread.byteLength === 0) {
          return undefined
        }
        throw new Error('the stream ended inside a head')
      }
    }
  }
}

/** Reads a request or response head: `{ start, headers }`, names in lower case; undefined at a clean end. */
export async function readHead (source) {
  const text = await source.takeThrough('\r\n\r\n', MAX_HEAD)
  if (text == null) {
    return undefined
  }
  const [start, ...lines] = text.slice(0, -4).split('\r\n')
  const headers = new Map()
  for (const line of lines) {
    const colon = line.indexOf(':')
    if (colon < 1) {
      throw new Error(`not a header line: ${JSON.stringify(line)}`)
    }
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1).trim()
    headers.set(name, headers.has(name) ? `${headers.get(name)}, ${value}` : value)
  }
  return { start, headers }
}

/** How the end of the body after `head` is marked. `otherwise` is for a head that does not say. */
export function framing (head, otherwise) {
  if (/\bchunked\b/i.test(head.headers.get('transfer-encoding') ?? '')) {
    return 'chunked'
  }
  return head.headers.has('content-length') ? 'content-length' : otherwise
}

/** Yields the body after `head`; throws if it ends early. */
export async function * readBody (source, head, otherwise) {
  switch (framing(head, otherwise)) {
    case 'chunked':
      for (;;) {
        const line = await source.takeThrough('\r\n', 1024)
        if (line == null || !/^[0-9a-f]+(;.*)?\r\n$/i.test(line)) {
          throw new Error(`not a chunk length: ${JSON.stringify(line)}`)
        }
        const length = parseInt(line, 16)
        if (length === 0) {
          break
        }
        yield * exactly(source, length)
        if (await source.takeThrough('\r\n', 2) !== '\r\n') {
          throw new Error('a chunk is longer than its length')
        }
      }
      // Trailers, up to the empty line.
      for (;;) {
        const line = await source.takeThrough('\r\n', MAX_HEAD)
        if (line === '\r\n') {
          return
        }
        if (line == null) {
          throw new Error('the stream ended inside the trailers')
        }
      }
    case 'content-length': {
      const length = head.headers.get('content-length')
      if (!/^\d+$/.test(length)) {
        throw new Error(`not a length: ${JSON.stringify(length)}`)
      }
      yield * exactly(source, Number(length))
      return
    }
    case 'until close':
      for (let bytes = await source.take(); bytes != null; bytes = await source.take()) {
        yield bytes
      }
  }
}

async function * exactly (source, length) {
  for (let left = length; left > 0;) {
    const bytes = await source.take(left)
    if (bytes == null) {
      throw new Error(`the body ended after ${length - left} of ${length} bytes`)
    }
    left -= bytes.byteLength
    yield bytes
  }
}

/** Reads a whole body into one array. */
export async function collect (body) {
  const list = new Uint8ArrayList()
  for await (const bytes of body) {
    list.append(bytes)
  }
  return list.subarray()
}

/** Writes text or bytes, waiting whenever the stream is full. */
export async function write (stream, data) {
  const bytes = typeof data === 'string' ? encoder.encode(data) : data
  for (let at = 0; at < bytes.byteLength; at += PIECE) {
    const piece = bytes.subarray(at, at + PIECE)
    dump('>', piece)
    if (!stream.send(piece)) {
      // Not stream.onDrain(): after its first use that promise stays resolved.
      await drained(stream)
    }
  }
}

function drained (stream) {
  return new Promise((resolve, reject) => {
    const onDrain = () => { settle(); resolve() }
    const onClose = ({ error }) => { settle(); reject(error ?? new Error('the stream closed')) }
    const settle = () => {
      stream.removeEventListener('drain', onDrain)
      stream.removeEventListener('close', onClose)
    }
    stream.addEventListener('drain', onDrain)
    stream.addEventListener('close', onClose)
  })
}

/** The first `length` bytes of the pattern that every program here sends: byte i is i mod 251. */
export function pattern (length) {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) {
    bytes[i] = i % 251
  }
  return bytes
}

export function equal (a, b) {
  return Buffer.compare(a, b) === 0
}

/** With INTEROP_DUMP=1 writes bytes, or a remark, to stderr. */
export function dump (direction, data) {
  if (dumping) {
    const bytes = typeof data === 'string' ? encoder.encode(data) : data
    const shown = JSON.stringify(decoder.decode(bytes.subarray(0, DUMP_BYTES)))
      .replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
    const rest = bytes.byteLength > DUMP_BYTES ? ` ..${bytes.byteLength} bytes` : ''
    process.stderr.write(`${direction} ${shown}${rest}\n`)
  }
}
