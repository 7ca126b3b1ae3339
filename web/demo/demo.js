/**
 * The page of `tandem demo --browser`: joins the network of the demo as a peer, and shows what arrives.
 *
 * Every text of others is written as text, never as markup.
 */

import * as tandem from './tandem.js'

const CLASSES = ['votes', 'transactions', 'proposals']
const STAMP_BYTES = 24
/** Latencies of a node that are kept, of the last so many milliseconds. */
const KEPT = 4000
const WINDOW_MS = 10_000
const SECONDS = 60
const MAX_EVENTS = 100
const MODES = { ws: 'WebSocket', p2p: 'libp2p', hybrid: 'both' }

const $ = (selector) => document.querySelector(selector)
const make = (tag, text = '', kind = '') => { const made = document.createElement(tag); made.textContent = text; made.className = kind; return made }
const now = () => performance.timeOrigin + performance.now()
const ms = (value) => value === undefined ? '–' : value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`
const short = (id) => id ? `${id.slice(0, 6)}…${id.slice(-6)}` : 'anonymous'

/** Votes of each second, by mode. */
const seconds = new Map()
let nodes = []
let node
let client

/** The clients that `tandem.js` may be: how they join, the relays that they use, and how they ask a node that others lead to. */
const CLIENTS = {
  plain: {
    text: 'It runs the plain JavaScript client, web/client/tandem.js, without WebAssembly and without a build step.',
    join: (addresses, options) => tandem.Node.connect({ addresses, ...options }),
    used: () => [node.relay?.address],
    fetch: (peer, path) => node.fetch(path, { peer }),
    lost: ({ message }) => message,
    came: ({ address, peerId }) => ({ address, peerId })
  },
  wasm: {
    text: 'It runs the node as WebAssembly, made by web/node/build from the crates of the native node.',
    join: async (addresses, options) => {
      const started = await tandem.Node.start({ peers: addresses, ...options })
      await started.connected()
      return started
    },
    used: () => node.peers().map(({ http }) => `http://${http}`),
    fetch: (peer, path) => node.fetch(peer, path),
    lost: ({ reason }) => reason,
    came: ({ http, peerId }) => ({ address: `http://${http}`, peerId })
  }
}

$('#theme').addEventListener('click', () => {
  const isDark = getComputedStyle(document.documentElement).colorScheme === 'dark' || (!document.documentElement.dataset.theme && matchMedia('(prefers-color-scheme: dark)').matches)
  document.documentElement.dataset.theme = isDark ? 'light' : 'dark'
})

function tell (text) {
  const line = make('li')
  line.append(make('time', new Date().toLocaleTimeString()), text)
  $('#events').prepend(line)
  while ($('#events').children.length > MAX_EVENTS) $('#events').lastChild.remove()
}

/** The stamp with which a node of the demo begins every body; null for a message of anybody else. */
function stampOf (body) {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
  if (body.length < STAMP_BYTES || view.getUint32(0) !== 0x54444d31) return null
  const sent = Number(view.getBigUint64(16, true) / 1000n) / 1000
  return { kind: CLASSES[body[4]], sender: nodes[body[5]], number: view.getUint32(8, true), sent }
}

function hear ({ tag, body, at }) {
  const stamp = stampOf(body)
  // Probes, by which the nodes find out that they hear each other, are of no class.
  if (!stamp?.kind || !stamp.sender) return
  const { kind, sender, number, sent } = stamp
  const latency = at - sent
  sender.counts[kind] += 1
  sender.recent.push({ at, latency })
  if (sender.recent.length > KEPT) sender.recent.shift()
  if (kind === 'votes') {
    const second = Math.floor(at / 1000)
    const counts = seconds.get(second) ?? { ws: 0, p2p: 0, hybrid: 0 }
    counts[sender.mode] += 1
    seconds.set(second, counts)
    seconds.delete(second - SECONDS - 2)
  }
  if (tag === 'PP') {
    const line = make('li', `${sender.name} (${MODES[sender.mode]}), number ${number + 1}: ${(body.length / 1048576).toFixed(1)} MiB after ${ms(latency)}`)
    $('#proposals').prepend(line)
    while ($('#proposals').children.length > 12) $('#proposals').lastChild.remove()
  }
}

function draw () {
  const canvas = $('#rate')
  const context = canvas.getContext('2d')
  const scale = devicePixelRatio
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [width * scale, height * scale]
  context.scale(scale, scale)
  const last = Math.floor(now() / 1000) - 1
  const shown = Array.from({ length: SECONDS }, (_, at) => seconds.get(last - SECONDS + 1 + at) ?? { ws: 0, p2p: 0, hybrid: 0 })
  const sums = shown.map(({ ws, p2p, hybrid }) => ws + p2p + hybrid)
  const most = Math.max(10, ...sums)
  const step = width / SECONDS
  shown.forEach((counts, at) => {
    let from = height
    for (const mode of Object.keys(MODES)) {
      const tall = counts[mode] / most * (height - 24)
      // The colours of the legend are those of the present scheme.
      context.fillStyle = getComputedStyle($(`.legend .${mode}`)).backgroundColor
      context.fillRect(at * step, from - tall, Math.max(1, step - 1), tall)
      from -= tall
    }
  })
  context.fillStyle = getComputedStyle($('#rate-words')).color
  context.font = '14px system-ui'
  context.fillText(`${most} a second`, 6, 16)
  const { ws, p2p, hybrid } = shown[SECONDS - 1]
  $('#rate-words').textContent = `In the last second: ${ws} from WebSocket nodes, ${p2p} from libp2p nodes, ${hybrid} from nodes with both.`
}

function show () {
  const from = now() - WINDOW_MS
  for (const { recent, counts, row } of nodes) {
    while (recent.length > 0 && recent[0].at < from) recent.shift()
    const sorted = recent.map(({ latency }) => latency).sort((one, other) => one - other)
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]
    const values = [...CLASSES.map((kind) => counts[kind].toLocaleString()), (recent.length * 1000 / WINDOW_MS).toFixed(0), ms(at(0.5)), ms(at(0.99))]
    values.forEach((value, index) => { row.cells[index + 2].textContent = value })
  }
  draw()
}

function showRelay ({ relays }) {
  const used = client.used()
  $('#relays').replaceChildren(...relays.map(({ name, address, pid }) => {
    const isUsed = used.includes(address)
    const line = make('li', '', isUsed ? 'used' : '')
    line.append(`${name} at ${address}${isUsed ? ', used now' : ''}: `, make('code', `kill -9 ${pid}`))
    return line
  }))
  const name = relays.filter(({ address }) => used.includes(address)).map(({ name }) => name).join(' and ')
  $('#state').textContent = name ? `joined by ${name}` : 'looking for a relay'
  $('#state').className = `pill ${name ? 'joined' : 'away'}`
}

async function start () {
  const network = await (await fetch('network')).json()
  nodes = network.nodes.map((told) => ({ ...told, counts: { votes: 0, transactions: 0, proposals: 0 }, recent: [], row: make('tr') }))
  for (const { name, mode, row } of nodes) {
    row.append(make('td', name, 'text'), make('td', MODES[mode], 'text'), ...Array.from({ length: 6 }, () => make('td')))
    $('#nodes tbody').append(row)
  }
  for (const { name, peer_id: id } of nodes.filter(({ mode }) => mode === 'p2p')) {
    const option = make('option', `${name}, ${short(id)}`)
    option.value = id
    $('#peer').append(option)
  }
  client = CLIENTS[network.client]
  document.documentElement.dataset.client = network.client
  $('#client').textContent = client.text
  node = await client.join(network.relays.map(({ address }) => address), { network: network.network, name: 'demo page' })
  globalThis.node = node
  const fact = (name, value) => { const pair = make('div'); pair.append(make('dt', name), make('dd', value)); return pair }
  $('#facts').append(fact('network', network.network), fact('this page', short(node.peerId)))
  const joined = ({ detail }) => {
    const { address, peerId } = client.came(detail)
    tell(`joined by ${network.relays.find((relay) => relay.address === address)?.name}, ${short(peerId)}`)
    showRelay(network)
  }
  node.addEventListener('connected', joined)
  node.addEventListener('disconnected', ({ detail }) => { tell(`cut off: ${client.lost(detail)}`); showRelay(network) })
  for (const peer of node.relay ? [node.relay] : node.peers()) joined({ detail: peer })
  setInterval(show, 250)
  for await (const message of node.on('AV', 'TX', 'PP')) hear(message)
}

$('#transaction').addEventListener('submit', (event) => {
  event.preventDefault()
  const admission = node?.broadcast('TX', $('#text').value) ?? 'not joined'
  $('#sent').textContent = admission === 'queued' ? `Sent: ${node.stats.sent} so far.` : `Not sent: ${admission}.`
})

$('#ask').addEventListener('submit', async (event) => {
  event.preventDefault()
  const began = performance.now()
  $('#asked').textContent = 'Asking …'
  try {
    const peer = $('#peer').value
    // `/status` says by its success alone that the node serves; `/health` says how it is.
    const status = await client.fetch(peer, '/status')
    const health = await client.fetch(peer, '/health')
    $('#answer').textContent = JSON.stringify(await health.json(), null, 2)
    $('#answer').hidden = false
    $('#asked').textContent = `/status: ${status.status}, and below it /health, after ${ms(performance.now() - began)}.`
  } catch (error) {
    $('#asked').textContent = `No answer: ${error.message}`
  }
})

start().catch((error) => {
  $('#trouble').textContent = `The page could not join: ${error.message}`
  $('#trouble').hidden = false
  $('#state').textContent = 'not joined'
  $('#state').className = 'pill away'
})
