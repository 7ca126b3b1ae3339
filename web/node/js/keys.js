/**
 * The seed of a page's key, kept in IndexedDB, sealed by a key of WebCrypto that no script can read. The node signs inside WebAssembly and at
 * once, which WebCrypto's own keys cannot, so the seed is in the memory of the page while the node runs, and only sealed on the disk.
 */

/** The kept seed of this origin under a name, made the first time. Null where there is no storage, or another page has it. */
export async function keptSeed (name) {
  if (!globalThis.indexedDB || !globalThis.crypto?.subtle) return null
  // A browser may deny a page the locks, as in a sandbox.
  const release = await takeLock(`tandem-node-${name}`).catch(() => null)
  if (!release) return null
  try {
    const database = await openDatabase()
    const kept = await inStore(database, 'readonly', (store) => store.get(name))
    const seed = kept ? await open(kept) : crypto.getRandomValues(new Uint8Array(32))
    if (!kept) {
      const sealed = await seal(seed)
      await inStore(database, 'readwrite', (store) => store.put(sealed, name))
    }
    database.close()
    return { seed, release }
  } catch {
    // A browser may deny a page the storage, as in a private window.
    release()
    return null
  }
}

async function seal (seed) {
  const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, false, ['encrypt', 'decrypt'])
  const iv = crypto.getRandomValues(new Uint8Array(12))
  return { key, iv, sealed: await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, seed) }
}

async function open ({ key, iv, sealed }) {
  return new Uint8Array(await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, key, sealed))
}

/** Takes a lock without waiting, and returns the function that releases it; null if another page has it. */
async function takeLock (name) {
  const locks = globalThis.navigator?.locks
  if (!locks) return () => {}
  return new Promise((resolve, reject) => {
    const hold = (lock) => lock ? new Promise((release) => resolve(release)) : resolve(null)
    locks.request(name, { ifAvailable: true }, hold).catch(reject)
  })
}

const done = (asked) => new Promise((resolve, reject) => {
  asked.onsuccess = () => resolve(asked.result)
  asked.onerror = asked.onblocked = () => reject(asked.error ?? new Error('another page keeps an older store open'))
})

function openDatabase () {
  const opening = indexedDB.open('tandem-node', 1)
  opening.onupgradeneeded = () => opening.result.createObjectStore('seeds')
  return done(opening)
}
const inStore = (database, mode, ask) => done(ask(database.transaction('seeds', mode).objectStore('seeds')))
