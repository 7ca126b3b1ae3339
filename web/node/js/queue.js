/** A bounded queue of messages with one reader: an async iterator. Without room it drops the oldest, and counts them. */
export class Messages {
  /** Messages that were dropped because the loop was too slow. */
  dropped = 0
  #limits; #end
  #messages = []; #bytes = 0; #waiting = []; #ended = false

  constructor (limits, end) { [this.#limits, this.#end] = [limits, end] }

  push (message) {
    const next = this.#waiting.shift()
    if (next) return next({ done: false, value: message })
    this.#messages.push(message)
    this.#bytes += message.body.length
    while (this.#messages.length > this.#limits.queueMessages || (this.#bytes > this.#limits.queueBytes && this.#messages.length > 1)) {
      this.#bytes -= this.#messages.shift().body.length
      this.dropped += 1
    }
  }

  /** Ends the loop once it has read what is there. */
  end () {
    if (this.#ended) return
    this.#ended = true
    this.#end()
    for (const next of this.#waiting.splice(0)) next({ done: true, value: undefined })
  }

  [Symbol.asyncIterator] () { return this }

  next () {
    const message = this.#messages.shift()
    if (message) {
      this.#bytes -= message.body.length
      return Promise.resolve({ done: false, value: message })
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve) => { this.#waiting.push(resolve) })
  }

  return (value) {
    this.end()
    ;[this.#messages, this.#bytes] = [[], 0]
    return Promise.resolve({ done: true, value })
  }
}
