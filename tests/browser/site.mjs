/** A site on this machine that serves the client and a page for it, as strict as a page can be about what it loads. */

import { createServer } from 'node:http'
import { readFile } from 'node:fs/promises'

const CLIENT = new URL('../../web/client/tandem.js', import.meta.url)
const PAGE = '<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script></html>'

/** What runs in the page: it keeps what it hears, for the check to ask. */
const SCRIPT = `
import * as client from './tandem.js'
Object.assign(window, { client, nodes: {}, heard: {} })
window.join = async (name, options) => {
  const node = await client.Node.connect(options)
  nodes[name] = node
  const heard = window.heard[name] = { AV: [], PP: [], TX: [], events: [] }
  for (const event of ['connected', 'disconnected', 'closed']) {
    node.addEventListener(event, ({ detail }) => heard.events.push({ event, at: performance.now(), detail: detail?.message ?? detail?.address ?? null }))
  }
  const listen = async () => { for await (const { tag, body } of node.on('AV', 'PP', 'TX')) heard[tag].push(tag === 'AV' ? new TextDecoder().decode(body) : body) }
  listen()
  return { relay: node.relay, peerId: node.peerId }
}
window.sha256 = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
document.title = 'ready'
`

/** In a worker of the page: joins, and tells the first vote. */
const WORKER = `
import { Node } from './tandem.js'
onmessage = async ({ data }) => {
  const node = await Node.connect(data)
  const votes = node.on('AV')
  postMessage({ joined: node.relay })
  postMessage({ vote: new TextDecoder().decode((await votes.next()).value.body) })
  node.close()
}
`

export async function serve () {
  const text = { '/': ['text/html', PAGE], '/page.js': ['text/javascript', SCRIPT], '/worker.js': ['text/javascript', WORKER], '/tandem.js': ['text/javascript', await readFile(CLIENT)] }
  const server = createServer((request, response) => {
    const [type, body] = text[new URL(request.url, 'http://x').pathname] ?? []
    // The page of the manual has its script in itself.
    const inline = request.url === '/manual' ? " 'unsafe-inline'" : ''
    const policy = `default-src 'none'; script-src 'self'${inline}; worker-src 'self'; img-src 'self' data:; connect-src ws://127.0.0.1:* http://127.0.0.1:*; base-uri 'none'`
    response.writeHead(body ? 200 : 404, { 'content-type': `${type ?? 'text/plain'}; charset=utf-8`, 'content-security-policy': policy, 'x-content-type-options': 'nosniff' })
    response.end(body)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close(), show: (html) => { text['/manual'] = ['text/html', html] } }
}
