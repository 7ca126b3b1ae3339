/** HTTP that is served to peers over streams of libp2p, by handlers of requests and responses. */

/** Longest piece of an answer that is handed to the node at once, in bytes. */
const PIECE_BYTES = 64 * 1024
/** Statuses whose answers have no body. */
const BODILESS = [204, 205, 304]
/** Paths that are served: one, or all below one that ends with a slash. */
const PATH = /^\/[!-~]*$/

/** The handlers of a node. */
export class Services {
  #handlers = new Map()
  #report

  /** `report` gets what handlers throw. */
  constructor (report) { this.#report = report }

  /** Has a path served, until the function is called that this returns. */
  add (path, handler) {
    if (typeof path !== 'string' || !PATH.test(path) || /[?#]/.test(path)) throw new TypeError(`${path} is no path of a service`)
    if (typeof handler !== 'function') throw new TypeError('the handler of a service is a function')
    if (this.#handlers.has(path)) throw new TypeError(`${path} is served already`)
    this.#handlers.set(path, handler)
    return () => { if (this.#handlers.get(path) === handler) this.#handlers.delete(path) }
  }

  /** Answers a request of the node: the promise of an answer, and a function for a client that is gone. */
  answer (raw) {
    const gone = new AbortController()
    const content = new Content(raw)
    // The node calls this from within its own work, and listeners of the signal may call the node.
    const cancel = () => queueMicrotask(() => {
      gone.abort(new DOMException('the client is gone', 'AbortError'))
      content.end()
    })
    return { answer: this.#answer(raw, content, gone.signal), cancel }
  }

  async #answer (raw, content, signal) {
    const { path, peerId = null, address = null } = raw
    const handler = this.#handlerOf(path.replace(/[?#].*/s, ''))
    try {
      const request = ServedRequest.of(raw, content, signal)
      const { status, headers, body } = handler ? await handler(request, { peerId, address }) : notFound()
      // The body of an answer may be made of that of the request, which is given up at its end.
      if (body && !BODILESS.includes(status)) return { status, headers: [...headers], body: this.#pieces(body, content, signal) }
      content.end()
      return { status, headers: [...headers], body: null }
    } catch (error) {
      content.end()
      if (!signal.aborted) this.#report(error)
      throw error
    }
  }

  /** The pieces of the body of an answer; `next` gives undefined at its end. */
  #pieces (body, content, signal) {
    const reader = body.getReader()
    // The application's stream may refuse to be cancelled.
    signal.addEventListener('abort', () => { reader.cancel(signal.reason).catch(() => {}) }, { once: true })
    let left = new Uint8Array(0)
    const next = async () => {
      try {
        while (left.length === 0) {
          const { done, value } = await reader.read()
          if (done) return content.end()
          if (!(value instanceof Uint8Array)) throw new TypeError('the body of a response is bytes')
          left = value
        }
      } catch (error) {
        if (!signal.aborted) this.#report(error)
        throw error
      }
      const piece = left.subarray(0, PIECE_BYTES)
      left = left.subarray(piece.length)
      return piece
    }
    return { next }
  }

  /** The handler of a path: its own, or that of the longest path above it. */
  #handlerOf (path) {
    const own = this.#handlers.get(path)
    if (own) return own
    for (let at = path.lastIndexOf('/'); at >= 0; at = path.lastIndexOf('/', at - 1)) {
      const above = this.#handlers.get(path.slice(0, at + 1))
      if (above || at === 0) return above
    }
  }
}

/**
 * A request of a peer. Browsers take headers that are a page's to send alone out of a `Request`, and Firefox gives it no stream as its body: so both
 * are those of a `Response`, which every host has.
 */
class ServedRequest extends Request {
  #signal; #headers; #content

  constructor (url, method, signal, headers, content) {
    super(url, { method })
    // A signal that follows another one is forgotten with its request, in Node.js, even where somebody listens to it.
    this.#signal = signal
    this.#headers = headers
    this.#content = content
  }

  static of (raw, content, signal) {
    const headers = new Headers(raw.headers)
    // For `blob` and `formData`.
    const type = headers.get('content-type')
    const body = new Response(content.stream(), { headers: type ? { 'content-type': type } : {} })
    return new ServedRequest(`http://node.invalid${raw.path}`, raw.method, signal, headers, body)
  }

  get signal () { return this.#signal }
  get headers () { return this.#headers }
  get body () { return this.#content.body }
  get bodyUsed () { return this.#content.bodyUsed }
  arrayBuffer () { return this.#content.arrayBuffer() }
  blob () { return this.#content.blob() }
  async bytes () { return new Uint8Array(await this.#content.arrayBuffer()) }
  formData () { return this.#content.formData() }
  json () { return this.#content.json() }
  text () { return this.#content.text() }

  clone () { return new ServedRequest(this.url, this.method, this.#signal, new Headers(this.#headers), this.#content.clone()) }
}

/** The body of a request inside WebAssembly, whose memory is given back at the end of the exchange: a collector would know nothing of its size. */
class Content {
  #raw; #reading = false; #ended = false

  constructor (raw) { this.#raw = raw }

  /** The body, read as the handler reads it; null if there is none. */
  stream () {
    if (!this.#raw.hasBody) return null
    const pull = async (controller) => {
      const bytes = await this.#pull()
      if (bytes) controller.enqueue(bytes)
      else controller.close()
    }
    return new ReadableStream({ pull, cancel: () => this.end() }, { highWaterMark: 0 })
  }

  async #pull () {
    if (this.#ended) throw new DOMException('the exchange has ended', 'AbortError')
    this.#reading = true
    try {
      return await this.#raw.pull()
    } finally {
      this.#reading = false
      if (this.#ended) this.#raw.free()
    }
  }

  /** Gives up what was not read. */
  end () {
    if (this.#ended) return
    this.#ended = true
    this.#raw.discard()
    if (!this.#reading) this.#raw.free()
  }
}

const notFound = () => new Response('404 page not found\n', { status: 404, headers: { 'content-type': 'text/plain; charset=utf-8' } })
