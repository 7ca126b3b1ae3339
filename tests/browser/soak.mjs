#!/usr/bin/env node
/**
 * Several pages in the gossip of a demo for a while: what they miss, how late messages are, and whether memory grows.
 *
 *   soak.mjs CHROMIUM PROGRAM [SECONDS] [PAGES] [RATE] [PACKAGE]      600 seconds, 8 pages, 0.5 of the demo's usual load
 *
 * The pages run the plain client, or the node as WebAssembly in the folder PACKAGE, with the memory of which they are told too.
 * Prints a line for each page and each relay, and what the demo's own nodes say of theirs. How late the votes of a page are is counted from the first
 * figures on: before, the pages that open beside it hold up the machine. The nodes count from their start. Exit status 1 if a page missed a message, or dropped one for
 * want of a reader. Not a part of `check`: it takes as long as it is told to, and a machine that does little else.
 */

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import puppeteer from 'puppeteer-core'

const [chromium, program, seconds = '600', pages = '8', rate = '0.5', folder] = process.argv.slice(2)
/** Part of the time after which the first figures are taken: what is kept for long has its size by then. */
const SETTLED = 0.2
/** The pages end a while before the demo, so that they hear the end of no node, and a busy machine can still look at them. */
const EARLY_S = 30

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const mib = (bytes) => `${(bytes / 1048576).toFixed(1)} MiB`
const rss = (pid) => 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1])

/** Runs in each page: what came of each source, and how late the votes were. */
function watch () {
  const sources = new Map()
  const latencies = new Uint32Array(200_000) // by tenths of a millisecond
  globalThis.watched = { sources, latencies }
  ;(async () => {
    for await (const { body, at } of globalThis.node.on('AV', 'TX', 'PP')) {
      const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
      if (body.length < 24 || view.getUint32(0) !== 0x54444d31 || body[4] > 2) continue
      const [key, number] = [body[4] * 256 + body[5], view.getUint32(8, true)]
      const source = sources.get(key) ?? { first: number, last: number, count: 0 }
      // A message of before the page joined was overtaken by later ones.
      if (number < source.first) continue
      source.last = Math.max(source.last, number)
      source.count += 1
      sources.set(key, source)
      if (body[4] === 0) latencies[Math.min(199_999, Math.max(0, Math.round((at - Number(view.getBigUint64(16, true) / 1000n) / 1000) * 10)))] += 1
    }
  })()
}

/** Runs in each page at the end. */
function sum () {
  const { sources, latencies } = globalThis.watched
  const lists = [...sources.values()]
  const votes = latencies.reduce((all, count) => all + count, 0)
  const at = (share) => {
    let left = votes * share
    return latencies.findIndex((count) => { left -= count; return left <= 0 }) / 10
  }
  return {
    heard: lists.reduce((all, { count }) => all + count, 0),
    missed: lists.reduce((all, { first, last, count }) => all + last - first + 1 - count, 0),
    p50: at(0.5),
    p99: at(0.99),
    stats: globalThis.node.stats
  }
}

const demo = spawn(program, ['demo', '--browser', '--no-open', '--seconds', seconds, '--rate', rate, ...(folder ? ['--web-node', folder] : [])], { stdio: ['ignore', 'pipe', 'pipe'] })
let report = ''
demo.stdout.on('data', (data) => { report += data })
const ended = new Promise((resolve) => demo.once('close', resolve))
const address = await new Promise((resolve, reject) => {
  createInterface({ input: demo.stderr }).on('line', (line) => { const found = /^page (\S+)/.exec(line); if (found) resolve(found[1]) })
  ended.then(() => reject(new Error('the demo ended')))
})
const began = performance.now()
const { relays } = await (await fetch(`${address}network`)).json()
const browser = await puppeteer.launch({ executablePath: chromium, args: ['--no-sandbox', '--disable-gpu'] })
let status = 0
try {
  const open = []
  for (let number = 0; number < Number(pages); number++) {
    // A profile each, and so an identity each.
    const page = await (await browser.createBrowserContext()).newPage()
    await page.goto(address)
    await page.waitForFunction(() => globalThis.node?.relay ?? globalThis.node?.peers?.()[0], { timeout: 60_000 })
    await page.evaluate(watch)
    open.push(page)
  }
  const figures = async () => {
    const heaps = []
    const memories = []
    for (const page of open) {
      const session = await page.createCDPSession()
      await session.send('HeapProfiler.collectGarbage')
      heaps.push((await page.metrics()).JSHeapUsedSize)
      if (folder) memories.push(await page.evaluate(async () => (await (await import('/wasm/tandem_web.js')).default()).memory.buffer.byteLength))
      await session.detach()
    }
    return { heaps, memories, relays: relays.map(({ pid }) => rss(pid)) }
  }
  await sleep(1000 * Number(seconds) * SETTLED)
  const early = await figures()
  for (const page of open) await page.evaluate(() => globalThis.watched.latencies.fill(0))
  await sleep(1000 * (Number(seconds) - EARLY_S) - (performance.now() - began))
  const late = await figures()
  for (const [number, page] of open.entries()) {
    const { heard, missed, p50, p99, stats } = await page.evaluate(sum)
    console.log(`page ${number + 1}: ${heard} heard, ${missed} missed, ${stats.dropped} dropped; votes ${p50} ms, p99 ${p99} ms; heap ${mib(early.heaps[number])}, then ${mib(late.heaps[number])}${folder ? `; WebAssembly ${mib(early.memories[number])}, then ${mib(late.memories[number])}` : ''}`)
    if (missed > 0 || stats.dropped > 0 || heard === 0) status = 1
  }
  relays.forEach(({ name }, at) => console.log(`${name}: ${mib(early.relays[at])}, then ${mib(late.relays[at])}`))
} finally {
  await browser.close()
  await ended
}
console.log(report)
process.exit(status)
