/**
 * The dashboard of a node: asks its admin API once a second while it can be seen, and at once after an event.
 *
 * Invariants
 *
 * - Whatever comes from the node, and through it from peers, becomes text of the page, never markup.
 * - Nothing is asked of any other host; the token stays in this tab.
 * - At most one round of requests is under way, and each has a deadline.
 * - A token that the node has not taken yet is named in one request: a host that names ten wrong ones is not heard for a minute.
 */

const EVERY_MS = 1_000
/** With more peers than this the list of them is asked for less often: it is a megabyte at a thousand. */
const MANY = 200
const MANY_EVERY_MS = 5_000
const DEADLINE_MS = 5_000
/** Most peers that one answer holds. Source: the API. */
const MAX_PEERS = 1_000
const PAGE_ROWS = 100
const KEPT_EVENTS = 200
const KEPT_RATES = 120
/** Seconds over which latencies are told. */
const LATENCY_S = 10
/** The list of traced messages is asked for less often. */
const TRACES_EVERY_MS = 3_000
const SHOWN_TRACES = 12
/** Longest wait for a node that asks others. Chosen: a little more than the node waits for them. */
const TREE_DEADLINE_MS = 8_000
/** Longest text of a peer that is shown. */
const MAX_TEXT = 200

const $ = (id) => document.getElementById(id)
const SVG = 'http://www.w3.org/2000/svg'

/** Control characters and those that turn the direction of writing would make one text look like another. */
const shown = (text) => [...String(text)].slice(0, MAX_TEXT).join('').replace(/[\p{Cc}\p{Cf}]/gu, '�')
const count = (number) => number.toLocaleString('en', { maximumFractionDigits: number < 10 ? 1 : 0 })
const bytes = (number) => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = number < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(number) / 10))
  return `${count(number / 1024 ** power)} ${units[power]}`
}
const span = (ms) => {
  const s = Math.floor(ms / 1000)
  return s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 86_400 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86_400)} d`
}
const time = (us) => us == null ? '–' : us < 1_000 ? `${Math.round(us)} µs` : us < 1e6 ? `${count(us / 1e3)} ms` : `${count(us / 1e6)} s`
const rtt = (us) => us == null ? '' : us < 10_000 ? `${count(us / 1000)} ms` : `${Math.round(us / 1000)} ms`
const short = (id) => id == null ? '' : `…${shown(id).slice(-8)}`

function element (name, text, attributes = {}, space) {
  const made = space ? document.createElementNS(space, name) : document.createElement(name)
  if (text != null) made.textContent = text
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

// ---- the API ----

class Unauthorized extends Error {}

let token = new URLSearchParams(location.hash.slice(1)).get('token') ?? sessionStorage.getItem('token')
if (location.hash) {
  // So that it is in no history and no link that is passed on.
  history.replaceState(null, '', location.pathname)
}

async function ask (path, options = {}) {
  if (token == null) throw new Unauthorized()
  const response = await fetch(path, {
    method: options.method ?? 'GET',
    body: options.body,
    headers: { authorization: `Bearer ${token}`, ...options.headers },
    signal: options.signal ?? AbortSignal.timeout(DEADLINE_MS),
    cache: 'no-store',
    redirect: 'error'
  })
  if (response.status === 401) throw new Unauthorized()
  if (!response.ok) {
    const problem = await response.json().catch(() => null)
    throw new Error(problem?.detail ?? `${path} was answered ${response.status}`)
  }
  return response
}

const json = async (path) => (await ask(path)).json()

/** The samples of an OpenMetrics text: name, labels, value. */
function samples (text) {
  const found = []
  for (const line of text.split('\n')) {
    const parts = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line)
    if (parts == null) continue
    const labels = {}
    for (const [, key, value] of (parts[2] ?? '').matchAll(/(\w+)="([^"]*)"/g)) labels[key] = value
    found.push({ name: parts[1], labels, value: Number(parts[3]) })
  }
  return found
}

// ---- what is shown ----

const state = { node: null, peers: [], total: 0, rates: [], counted: null, drops: new Map(), sort: ['peer', 1], page: 0, other: {}, latencies: [], traces: null, digest: '' }

const COLUMNS = [
  ['peer', 'Link', (p) => p.peer],
  ['peer_id', 'Peer', (p) => p.peer_id ?? '', (p) => short(p.peer_id) || 'anonymous', 'text'],
  ['transport', 'Over', (p) => p.transport, null, 'text'],
  ['direction', 'Dialled', (p) => p.direction, (p) => p.direction === 'in' ? 'by it' : 'by us', 'text'],
  ['address', 'Address', (p) => p.address, (p) => shown(p.address), 'text'],
  ['rtt', 'RTT', (p) => p.rtt_us ?? Infinity, (p) => rtt(p.rtt_us)],
  ['queued', 'Waiting', (p) => p.lanes.priority.queued_bytes + p.lanes.bulk.queued_bytes, (p) => bytes(p.lanes.priority.queued_bytes + p.lanes.bulk.queued_bytes)],
  ['in', 'In /s', (p) => rateOf(p, 'received'), (p) => count(rateOf(p, 'received'))],
  ['out', 'Out /s', (p) => rateOf(p, 'sent'), (p) => count(rateOf(p, 'sent'))],
  ['dropped', 'Dropped', (p) => p.dropped, (p) => count(p.dropped)],
  ['age', 'Age', (p) => p.connected_ms, (p) => span(p.connected_ms)],
  ['agent', 'Agent', (p) => p.agent ?? '', (p) => shown(p.agent ?? ''), 'text']
]

const rateOf = (peer, way) => peer.lanes.priority[`${way}_messages_per_s`] + peer.lanes.bulk[`${way}_messages_per_s`]

function pairs (into, entries) {
  into.replaceChildren(...entries.map(([name, value]) => {
    const pair = element('div')
    pair.append(element('dt', name), element('dd', value))
    return pair
  }))
}

function showNode ({ node }) {
  $('state').textContent = node.state
  $('state').className = `pill ${node.state}`
  document.title = `${node.network}: ${node.peers} peers`
  pairs($('facts'), [
    ['network', shown(node.network)], ['peer', short(node.peer_id)], ['peers', count(node.peers)], ['mode', node.mode],
    ['up', span(node.uptime_ms)], ['version', node.version]
  ])
  $('facts').querySelector('div:nth-child(2) dd').title = node.peer_id
  say(node.reasons.length === 0 ? null : `The node is ${node.state}: ${node.reasons.map((reason) => shown(reason).replaceAll('_', ' ')).join(', ')}.`)
}

function say (text) {
  $('trouble').hidden = text == null
  // An alert that is written again would be read out again.
  if ($('trouble').textContent !== (text ?? '')) $('trouble').textContent = text ?? ''
}

/** Places of peers around the node: rings with more room the farther out they are. */
function places (number) {
  const found = []
  for (let ring = 1; found.length < number; ring++) {
    const radius = 100 + 32 * (ring - 1) + (number <= 16 ? 90 : 0)
    const room = number <= 16 ? 16 : Math.floor(2 * Math.PI * radius / 26)
    const here = Math.min(room, number - found.length)
    for (let at = 0; at < here; at++) {
      const angle = 2 * Math.PI * at / here + ring / 2
      found.push([1.7 * radius * Math.cos(angle), radius * Math.sin(angle)])
    }
  }
  return found
}

function showGraph ({ peers, total }) {
  const graph = $('graph')
  const positions = places(peers.length)
  const lines = element('g', null, {}, SVG)
  const dots = element('g', null, {}, SVG)
  const isSmall = peers.length > 40
  peers.forEach((peer, at) => {
    const [x, y] = positions[at]
    lines.append(element('line', null, { x1: 0, y1: 0, x2: x.toFixed(1), y2: y.toFixed(1), class: peer.direction }, SVG))
    const size = isSmall ? 6 : 11
    const kind = peer.transport === 'ws' ? 'ws' : 'p2p'
    const dot = peer.roles.includes('relay')
      ? element('rect', null, { x: x - size, y: y - size, width: 2 * size, height: 2 * size, class: kind }, SVG)
      : element('circle', null, { cx: x, cy: y, r: size, class: kind }, SVG)
    dot.append(element('title', `${short(peer.peer_id) || 'anonymous'} over ${peer.transport}, ${shown(peer.address)}`, {}, SVG))
    dots.append(dot)
    if (!isSmall) dots.append(element('text', short(peer.peer_id) || shown(peer.address).slice(0, 21), { x, y: y + 28 }, SVG))
  })
  const self = element('circle', null, { r: 18, class: 'self' }, SVG)
  graph.replaceChildren(lines, dots, self, element('text', 'this node', { y: 38 }, SVG))
  const farthest = Math.max(210, ...positions.map(([, y]) => Math.abs(y))) + 40
  graph.setAttribute('viewBox', `${-1.8 * farthest} ${-farthest} ${3.6 * farthest} ${2 * farthest}`)
  const by = (transport) => peers.filter((peer) => peer.transport === transport).length
  const left = total > peers.length ? `, the first ${count(peers.length)} of ${count(total)}` : ''
  $('graph-words').textContent = `${count(by('ws'))} over WebSocket, ${count(by('p2p'))} over libp2p${left}. ` +
    `${count(peers.filter((peer) => peer.direction === 'in').length)} of them dialled this node.`
}

function showRates ({ rates }) {
  const canvas = $('rates')
  const context = canvas.getContext('2d')
  const style = getComputedStyle(document.documentElement)
  const [width, height] = [canvas.width, canvas.height]
  context.clearRect(0, 0, width, height)
  const highest = Math.max(1, ...rates.flatMap(({ received, sent }) => [received, sent]))
  for (const [way, colour] of [['received', '--ws'], ['sent', '--p2p']]) {
    context.strokeStyle = resolved(style.getPropertyValue(colour))
    context.lineWidth = 2
    context.beginPath()
    rates.forEach((rate, at) => {
      const x = width - (rates.length - 1 - at) * width / (KEPT_RATES - 1)
      context.lineTo(x, height - 4 - rate[way] / highest * (height - 10))
    })
    context.stroke()
  }
  const last = rates.at(-1)
  $('rates-words').textContent = last == null
    ? 'Nothing is measured yet.'
    : `Now ${count(last.received)} in (blue) and ${count(last.sent)} out (orange), ${bytes(last.receivedBytes)}/s and ${bytes(last.sentBytes)}/s; ` +
      `at most ${count(highest)} in the last two minutes.`
}

/** The colour that an expression stands for: a canvas reads no `light-dark()`. */
function resolved (colour) {
  const probe = $('theme')
  probe.style.borderColor = colour
  const found = getComputedStyle(probe).borderTopColor
  probe.style.borderColor = ''
  return found
}

/** The time that a part of the messages of a histogram stayed below, as if those of a bucket were spread evenly over it. */
function quantile (buckets, part) {
  const rank = Math.max(1, part * buckets.reduce((sum, { messages }) => sum + messages, 0))
  let [below, lower] = [0, 0]
  for (const { up_to_us: upper, messages } of buckets) {
    if (messages > 0 && below + messages >= rank) return lower + ((upper ?? lower) - lower) * (rank - below) / messages
    below += messages
    lower = upper ?? lower
  }
  return null
}

function showLatency ({ latencies }) {
  const [before, now] = [latencies[0], latencies.at(-1)]
  const of = (lane, part) => now[lane][part].map(({ up_to_us: upper, messages }, at) =>
    ({ up_to_us: upper, messages: Math.max(0, messages - before[lane][part][at].messages) }))
  const parts = [['handling', 'handled'], ['sending', 'sent']]
  const rows = ['priority', 'bulk'].flatMap((lane) => parts.map(([part, word]) => {
    const buckets = of(lane, part)
    return [`${lane}, ${word}`, time(quantile(buckets, 0.5)), time(quantile(buckets, 0.99))]
  }))
  $('latency').replaceChildren(tableRow(['', 'half in', '99 of 100 in'], 'th'), ...rows.map((cells) => tableRow(cells, 'td')))
}

function tableRow (cells, kind) {
  const row = element('tr')
  row.append(...cells.map((cell) => element(kind, cell)))
  return row
}

function showTraces ({ traces }) {
  const { one_in: oneIn, traces: kept } = traces
  $('sample').textContent = oneIn === 0 ? 'The node keeps the way of no message unasked.' : oneIn === 1 ? 'The node keeps the way of every message.' : `The node keeps the way of one message in ${count(oneIn)}.`
  const rows = kept.map((trace) => {
    const row = tableRow(['', shown(trace.tag), bytes(trace.bytes), new Date(trace.began_us / 1e3).toLocaleTimeString('en-GB'), count(trace.copies),
      time(trace.handled_us), count(trace.written), count(trace.dropped)], 'td')
    const button = element('button', `${shown(trace.digest).slice(0, 16)}…`, { type: 'button', title: shown(trace.digest) })
    button.addEventListener('click', () => {
      $('digest').value = trace.digest
      showWay(trace.digest)
    })
    row.cells[0].append(button)
    return row
  })
  $('traces').tHead.replaceChildren(tableRow(['Message', 'Tag', 'Size', 'Came at', 'Copies', 'Handled after', 'Written to', 'Drops'], 'th'))
  // The list is not made anew under somebody's finger: a focused button would lose the focus.
  if (!$('traces').tBodies[0].contains(document.activeElement)) $('traces').tBodies[0].replaceChildren(...rows)
}

const STEPS = {
  submitted: () => 'sent by this node',
  came: (who) => `came from ${who}`,
  heard: (who) => `heard on its topic from ${who}`,
  accepted: () => 'accepted',
  handled: () => 'handled',
  published: () => 'published on its topic',
  queued: (who) => `queued for ${who}`,
  written: (who) => `written to ${who}`
}

/** Nodes that were named in this tab. Their tokens stand in them, so they are kept where this node's is. */
const named = () => $('nodes').value.split('\n').map((line) => line.trim()).filter((line) => line !== '')

/** The message from node to node, as `tandem trace` prints it; the node asks the others. */
async function showTree (digest) {
  const nodes = named()
  $('tree').hidden = true
  if (nodes.length === 0 || !/^[0-9a-f]{64}$/i.test(digest)) return
  const order = { method: 'POST', body: JSON.stringify({ nodes }), signal: AbortSignal.timeout(TREE_DEADLINE_MS) }
  const told = await ask(`/v1/traces/${digest}/tree`, order).then((answer) => answer.json()).catch((error) => error)
  // Another one may have been asked for meanwhile, or other nodes.
  if (state.digest !== digest || named().join() !== nodes.join()) return
  const lines = told instanceof Error ? [told.message] : [...told.lines, ...told.missing.map(({ node, error }) => `${node}: ${error}`)]
  $('tree').textContent = lines.map(shown).join('\n')
  $('tree').hidden = false
}

async function showWay (digest) {
  state.digest = digest
  showTree(digest)
  const found = /^[0-9a-f]{64}$/i.test(digest) ? await json(`/v1/traces/${digest}`).catch((error) => error) : null
  // Another one may have been asked for meanwhile.
  if (state.digest !== digest) return
  if (found == null || found instanceof Error) {
    $('way').replaceChildren()
    $('way-words').textContent = found?.message ?? (digest === '' ? '' : 'A digest has 64 hexadecimal digits.')
    return
  }
  const left = found.left_out > 0 ? `; ${count(found.left_out)} further steps were not kept` : ''
  $('way-words').textContent = `${shown(found.tag)}, ${bytes(found.bytes)}, first seen ${new Date(found.began_us / 1e3).toLocaleTimeString('en-GB')}${left}.`
  $('way').replaceChildren(...found.steps.map(({ after_us: after, event, reason, peer }) => {
    const who = peer == null ? 'somebody' : `${peer.peer_id == null ? shown(peer.address ?? `#${peer.peer}`) : short(peer.peer_id)} over ${shown(peer.transport)}`
    const text = event === 'dropped'
      ? `dropped: ${shown(reason).replaceAll('_', ' ')}${peer == null ? '' : `, ${who}`}`
      : STEPS[event]?.(who) ?? shown(event)
    const line = element('li', null, { class: `${event === 'dropped' ? 'dropped' : ''}${peer == null ? '' : ' peer'}` })
    line.append(element('time', `+${time(after)}`), text)
    return line
  }))
}

/** Lanes side by side, since a card is narrow and the totals of a node that has run for long are not. */
function showLanes ({ peers, counted }) {
  const lanes = ['priority', 'bulk']
  const sum = (field) => (lane) => peers.reduce((sum, peer) => sum + peer.lanes[lane][field], 0)
  const fullest = (lane) => peers.reduce((most, peer) => Math.max(most, peer.lanes[lane].queued_bytes), 0)
  const total = (way) => (lane) => count(counted?.totals[`tandem_${way}_total ${lane}`] ?? 0)
  const rows = [
    ['messages waiting', (lane) => count(sum('queued_messages')(lane))],
    ['bytes waiting', (lane) => bytes(sum('queued_bytes')(lane))],
    ['of the fullest peer', (lane) => bytes(fullest(lane))],
    ['messages in', total('received')],
    ['messages out', total('sent')]
  ]
  $('lanes').replaceChildren(tableRow(['', ...lanes], 'th'), ...rows.map(([name, of]) => tableRow([name, ...lanes.map(of)], 'td')))
}

function bars (into, entries, written) {
  const most = Math.max(1, ...entries.map(([, value]) => value))
  into.replaceChildren(...entries.map(([name, value]) => {
    const bar = element('div', null, { class: 'bar' })
    const fill = element('i')
    fill.style.width = `${100 * value / most}%`
    bar.append(element('span', name), fill, element('span', written(value)))
    return bar
  }))
  if (entries.length === 0) into.append(element('p', 'None.', { class: 'words' }))
}

function showDrops ({ drops }) {
  bars($('drops'), [...drops].filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1]).slice(0, 12), count)
}

function showRtt ({ peers }) {
  const bounds = [1, 3, 10, 30, 100, 300, Infinity]
  const measured = peers.filter((peer) => peer.rtt_us != null).map((peer) => peer.rtt_us / 1000)
  if (measured.length === 0) {
    bars($('rtt'), [], count)
    return
  }
  bars($('rtt'), bounds.map((bound, at) => {
    const from = at === 0 ? 0 : bounds[at - 1]
    const name = bound === Infinity ? `over ${from} ms` : `${from} to ${bound} ms`
    return [name, measured.filter((ms) => ms >= from && ms < bound).length]
  }), (value) => value === 0 ? '' : value === 1 ? '1 peer' : `${count(value)} peers`)
}

function showOther ({ other }) {
  const { http, dht, topics } = other
  const entries = []
  if (http) entries.push(['HTTP connections', `${count(http.connections)}, ${count(http.connections_waiting)} waiting`], ['requests', `${count(http.requests)} now, ${count(http.requests_total)} in all`])
  if (dht) entries.push(['DHT', `${shown(dht.part)}, ${count(dht.servers)} servers connected`])
  for (const topic of topics ?? []) entries.push([shown(topic.topic), `${count(topic.subscribed)} subscribed, ${count(topic.mesh.length)} in the mesh`])
  pairs($('other'), entries)
}

function showTable ({ peers, sort: [key, order] }) {
  const column = COLUMNS.find(([name]) => name === key)
  const wanted = $('filter').value.trim().toLowerCase()
  const matches = (peer) => wanted === '' || [peer.peer_id, peer.address, peer.agent, peer.transport, ...peer.roles].some((text) => text?.toLowerCase().includes(wanted))
  const rows = peers.filter(matches).sort((a, b) => {
    const [x, y] = [column[2](a), column[2](b)]
    return order * (x < y ? -1 : x > y ? 1 : 0)
  })
  const pages = Math.max(1, Math.ceil(rows.length / PAGE_ROWS))
  state.page = Math.min(state.page, pages - 1)
  $('page').textContent = `page ${state.page + 1} of ${pages}, ${count(rows.length)} peers`
  $('before').disabled = state.page === 0
  $('after').disabled = state.page === pages - 1
  const made = rows.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS).map((peer) => {
    const row = element('tr')
    row.append(...COLUMNS.map(([, , value, written, kind]) => {
      const text = String((written ?? value)(peer))
      return element('td', text, kind === 'text' ? { class: 'text', title: text } : {})
    }))
    return row
  })
  $('table').tBodies[0].replaceChildren(...made)
}

function headings () {
  const [key, order] = state.sort
  const row = $('table').tHead.rows[0]
  if (row.cells.length === 0) {
    row.append(...COLUMNS.map(([name, title, , , kind]) => {
      const cell = element('th', null, { scope: 'col', ...(kind === 'text' && { class: 'text' }) })
      const button = element('button', title, { type: 'button' })
      button.addEventListener('click', () => {
        state.sort = [name, state.sort[0] === name ? -state.sort[1] : 1]
        headings()
        showTable(state)
      })
      cell.append(button)
      return cell
    }))
  }
  COLUMNS.forEach(([name], at) => {
    if (name === key) row.cells[at].setAttribute('aria-sort', order > 0 ? 'ascending' : 'descending')
    else row.cells[at].removeAttribute('aria-sort')
  })
}

function showEvent ({ at_ms: at, event, seq, ...rest }) {
  const time = new Date(at)
  const words = Object.entries(rest).filter(([, value]) => value != null && value !== '')
    .map(([key, value]) => `${key.replaceAll('_', ' ')} ${shown(typeof value === 'object' ? JSON.stringify(value) : value)}`)
  const line = element('li')
  line.append(element('time', time.toLocaleTimeString('en-GB'), { datetime: time.toISOString() }),
    [shown(event).replaceAll('_', ' '), ...words].join(' · '))
  $('events').prepend(line)
  while ($('events').childElementCount > KEPT_EVENTS) $('events').lastElementChild.remove()
}

// ---- rounds ----

function counts (text, at) {
  const totals = {}
  const drops = new Map()
  const sums = { received: 0, sent: 0, receivedBytes: 0, sentBytes: 0 }
  for (const { name, labels, value } of samples(text)) {
    const way = /^tandem_(received|sent)(_bytes)?_total$/.exec(name)
    if (way != null) {
      sums[way[1] + (way[2] ? 'Bytes' : '')] += value
      if (way[2] == null) totals[`${name} ${labels.lane}`] = (totals[`${name} ${labels.lane}`] ?? 0) + value
    } else if (name === 'tandem_dropped_total') {
      const reason = labels.reason.replaceAll('_', ' ')
      drops.set(reason, (drops.get(reason) ?? 0) + value)
    }
  }
  return { at, totals, drops, sums }
}

let isKnown = false
let peersAt = -Infinity
let tracesAt = -Infinity
let underWay = false
let again = false

/** Asks for everything, and shows it. */
async function round (isUrgent) {
  if (underWay) {
    again ||= isUrgent
    return
  }
  underWay = true
  try {
    if (!isKnown) {
      await ask('/v1/node')
      isKnown = true
    }
    const wantsPeers = isUrgent || state.total <= MANY || performance.now() - peersAt >= MANY_EVERY_MS
    const wantsTraces = performance.now() - tracesAt >= TRACES_EVERY_MS
    const [node, page, metrics, http, dht, topics, latency, traces] = await Promise.all([
      json('/v1/node'), wantsPeers ? json(`/v1/peers?limit=${MAX_PEERS}`) : null, ask('/metrics').then((response) => response.text()),
      json('/v1/http'), json('/v1/dht'), json('/v1/topics'),
      json('/v1/latency'), wantsTraces ? json(`/v1/traces?limit=${SHOWN_TRACES}`) : null
    ])
    const counted = counts(metrics, performance.now())
    if (state.counted != null) {
      const seconds = (counted.at - state.counted.at) / 1000
      const rate = {}
      for (const [key, value] of Object.entries(counted.sums)) rate[key] = Math.max(0, value - state.counted.sums[key]) / seconds
      // Two rounds right after each other say nothing about a second.
      if (seconds > 0.2) state.rates = [...state.rates, rate].slice(-KEPT_RATES)
    }
    if (traces != null) {
      state.traces = traces
      tracesAt = performance.now()
      showTraces(state)
    }
    state.latencies = [...state.latencies, latency].slice(-LATENCY_S)
    Object.assign(state, { node, counted, drops: counted.drops, other: { http, dht, topics } })
    if (page != null) {
      Object.assign(state, { peers: page.peers, total: page.total })
      peersAt = performance.now()
      for (const show of [showGraph, showTable, showRtt]) show(state)
    }
    for (const show of [showNode, showRates, showLanes, showLatency, showDrops, showOther]) show(state)
    $('main').hidden = false
    $('ask').hidden = true
  } catch (error) {
    away(error)
  } finally {
    underWay = false
    if (again) {
      again = false
      round(true)
    }
  }
}

function away (error) {
  $('state').textContent = 'no answer'
  $('state').className = 'pill away'
  if (error instanceof Unauthorized) {
    say(token == null ? null : 'The node does not know this token.')
    sessionStorage.removeItem('token')
    token = null
    isKnown = false
    $('main').hidden = true
    $('ask').hidden = false
    $('token').value = ''
    $('token').focus()
  } else {
    say(`The node does not answer: ${error.message}`)
  }
}

/** Reads the stream of events for ever. `EventSource` can't name the token. */
async function follow () {
  let last = null
  for (let pause = EVERY_MS; ; pause = Math.min(2 * pause, 30_000)) {
    if (isKnown) {
      try {
        const headers = last == null ? {} : { 'last-event-id': last }
        const response = await ask('/v1/events/stream', { headers, signal: new AbortController().signal })
        pause = EVERY_MS
        let rest = ''
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
        for (;;) {
          const { value, done } = await reader.read()
          if (done) break
          const parts = (rest + value).split('\n\n')
          rest = parts.pop()
          for (const part of parts) {
            const field = (name) => part.split('\n').find((line) => line.startsWith(`${name}:`))?.slice(name.length + 1).trim()
            last = field('id') ?? last
            if (field('data') == null) continue
            showEvent(JSON.parse(field('data')))
            round(true)
          }
        }
      } catch {
        // The rounds tell that the node does not answer.
      }
    }
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
}

// ---- the page ----

$('ask').addEventListener('submit', (event) => {
  event.preventDefault()
  token = $('token').value.trim()
  sessionStorage.setItem('token', token)
  round(true)
})
$('filter').addEventListener('input', () => { state.page = 0; showTable(state) })
$('digest').addEventListener('input', () => showWay($('digest').value.trim()))
$('nodes').value = sessionStorage.getItem('nodes') ?? ''
// Not while somebody types: half a token is a wrong one.
$('nodes').addEventListener('change', () => {
  sessionStorage.setItem('nodes', $('nodes').value)
  showTree($('digest').value.trim())
})
$('before').addEventListener('click', () => { state.page--; showTable(state) })
$('after').addEventListener('click', () => { state.page++; showTable(state) })
$('theme').addEventListener('click', () => {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches
  document.documentElement.dataset.theme = isDark ? 'light' : 'dark'
  if (state.node != null) showRates(state)
})
document.addEventListener('visibilitychange', () => { if (!document.hidden) round(true) })

headings()
if (token != null) sessionStorage.setItem('token', token)
follow()
await round(true)
setInterval(() => { if (!document.hidden && token != null) round(false) }, EVERY_MS)
