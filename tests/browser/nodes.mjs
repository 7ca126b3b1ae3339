/** Nodes as processes, and their admin API. */

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const READY_MS = 30_000
const NETWORK = 'browser-check'
const children = new Set()

/** Starts a node of the network, and waits until it listens: on ports of the system's choice, unless `args` says where. */
export async function start (program, scratch, name, ...args) {
  const dir = `${scratch}/${name}`
  const listens = Object.entries({ '--listen-ws': '127.0.0.1:0', '--listen-p2p': '/ip4/127.0.0.1/tcp/0' }).filter(([flag]) => !args.includes(flag)).flat()
  const flags = ['--network', NETWORK, '--data-dir', dir, ...listens, '--admin-listen', '127.0.0.1:0', '--log', 'error']
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('TANDEM_')))
  const child = spawn(program, ['run', '--json', ...flags, ...args], { stdio: ['ignore', 'pipe', 'inherit'], env })
  children.add(child)
  child.once('exit', () => children.delete(child))
  const ready = await until(`${name} listens`, async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      const event = JSON.parse(line)
      if (event.event === 'ready') return event
    }
  }, READY_MS)
  // Nobody reads the rest.
  child.stdout.resume()
  return new Running(name, child, ready, readFileSync(`${dir}/admin.token`, 'utf8').trim())
}

/** Ends every node that was started here. */
export function stopAll () {
  for (const child of children) child.kill('SIGKILL')
}

class Running {
  network = NETWORK

  constructor (name, child, { ws, p2p, admin, peer_id: peerId }, token) {
    Object.assign(this, { name, child, ws, p2p: p2p[0], addresses: p2p, admin, peerId, token })
  }

  async ask (method, path, body) {
    const answer = await fetch(this.admin + path, { method, body, headers: { authorization: `Bearer ${this.token}` } })
    if (!answer.ok) throw new Error(`${this.name}: ${method} ${path}: ${answer.status} ${await answer.text()}`)
    return answer
  }

  async json (method, path, body) { return (await this.ask(method, path, body)).json() }

  async peers () { return (await this.json('GET', '/v1/peers')).peers }

  /** The sum of the samples of a metric whose labels hold a text. */
  async count (metric, label = '') {
    const lines = (await (await this.ask('GET', '/metrics')).text()).split('\n')
    const samples = lines.filter((line) => line.startsWith(`tandem_${metric}`) && line.includes(label))
    return samples.reduce((sum, line) => sum + Number(line.split(' ')[1]), 0)
  }

  /** The messages of a tag that the node hears from now on: their digests, in an array that grows. */
  async heard (tag) {
    const answer = await this.ask('GET', `/v1/listen?tags=${tag}`)
    const digests = []
    let started
    const listening = new Promise((resolve) => { started = resolve })
    const read = async () => {
      let text = ''
      for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
        text += chunk
        const lines = text.split('\n')
        text = lines.pop()
        for (const line of lines) {
          const message = JSON.parse(line)
          if (message.digest) digests.push(message.digest)
          started()
        }
      }
    }
    // The stream breaks when the node ends.
    read().catch(() => {})
    await listening
    return digests
  }

  /** Sends messages, sixteen at a time. */
  async send (tag, bodies) {
    const left = [...bodies]
    const worker = async () => {
      for (let body = left.shift(); body !== undefined; body = left.shift()) await this.ask('POST', `/v1/send?tag=${tag}`, body)
    }
    await Promise.all(Array.from({ length: 16 }, worker))
  }

  kill () { this.child.kill('SIGKILL') }
}

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')
export const names = (prefix, count) => Array.from({ length: count }, (_, at) => `${prefix} ${at}`)

/**
 * A check of a subject: `fail` writes a line to stderr for something that does not hold, and `run` ends the program, with the exit status 0 if nothing
 * failed, after `ends` and the end of every node.
 */
export function checking (subject) {
  let status = 0
  const fail = (text) => {
    console.error(`${subject}: ${`${text}`.slice(0, 600)}`)
    status = 1
  }
  const run = async (check, ...ends) => {
    await check().catch((error) => fail(`${error.stack}\n${error.stdout ?? ''}`))
    for (const end of ends) await end()
    stopAll()
    process.exit(status)
  }
  return { fail, run }
}

/** A program, whose lines are read, and which ends with its input. */
export function run (command, ...args) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const ended = new Promise((resolve) => child.once('exit', resolve))
  return { line: async () => (await lines.next()).value, end: async () => { child.stdin.end(); return ended }, kill: () => child.kill() }
}

/** Asks until there is something, and fails with `what` otherwise. */
export async function until (what, ask, patienceMs = 20_000) {
  const deadline = Date.now() + patienceMs
  for (;;) {
    const late = new Promise((resolve) => { setTimeout(resolve, Math.max(0, deadline - Date.now()), undefined).unref() })
    const found = await Promise.race([ask(), late])
    if (found) return found
    if (Date.now() >= deadline) throw new Error(`it never came: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
