/** HTTP with a peer over streams of libp2p, as `fetch` does it. */

/** Statuses whose answers have no body. */
const BODILESS = [204, 205, 304]

/** Sends a request to the peer of a multiaddr; `signal` gives it up. */
export async function fetchOver (raw, multiaddr, path, init, signal) {
  signal.throwIfAborted()
  // The host's own request checks and completes what was given; its URL leads nowhere.
  const request = new Request(`http://peer.invalid${path.startsWith('/') ? path : `/${path}`}`, { ...init, signal: undefined })
  const body = new Uint8Array(await request.arrayBuffer())
  const { pathname, search } = new URL(request.url)
  const exchange = raw.exchange(multiaddr, { method: request.method, path: pathname + search, headers: [...request.headers], body })
  const cancel = () => exchange.cancel()
  signal.addEventListener('abort', cancel, { once: true })
  // Its memory can be used again at once.
  const done = () => {
    signal.removeEventListener('abort', cancel)
    exchange.free()
  }
  let head
  try {
    head = await exchange.send()
  } catch (error) {
    done()
    throw signal.aborted ? signal.reason : error
  }
  const stream = new ReadableStream({
    async pull (controller) {
      try {
        const bytes = await exchange.pull()
        if (bytes) return controller.enqueue(bytes)
        controller.close()
      } catch (error) {
        controller.error(signal.aborted ? signal.reason : error)
      }
      done()
    },
    // A piece may be on its way, so the memory is left to the collector.
    cancel () {
      signal.removeEventListener('abort', cancel)
      cancel()
    }
  }, { highWaterMark: 0 })
  const { status, headers } = head
  if (BODILESS.includes(status)) stream.cancel()
  return new Response(BODILESS.includes(status) ? null : stream, { status, headers })
}
