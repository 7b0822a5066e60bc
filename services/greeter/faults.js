// Faults that user endpoints show: from the environment at start, changed at run time over /fault.
"use strict";

const {randomInt} = require("node:crypto");

// The highest value of each field; the lowest is 0.
const LIMITS = {error_rate: 1, latency_ms: 60_000, latency_jitter_ms: 60_000};
const LONGEST_S = 86_400;

class BadFault extends Error {}

// Even between 0 and 1, and not in step with other replicas
const chance = () => randomInt(2 ** 47) / 2 ** 47;

function number(name, value, highest) {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new BadFault(`${name} must be a number`);
  if (value < 0 || value > highest) throw new BadFault(`${name} must lie between 0 and ${highest}`);
  return value;
}

// ERROR_RATE, LATENCY_MS and LATENCY_JITTER_MS. Throws BadFault, which ends the program at its start.
function fromEnvironment(environment) {
  return Object.fromEntries(Object.entries(LIMITS).map(([name, highest]) => {
    const text = (environment[name.toUpperCase()] || "").trim();
    return [name, number(name.toUpperCase(), text === "" ? 0 : Number(text), highest)];
  }));
}

class Faults {
  #initial;
  #current;
  #until = Infinity; // performance.now(), milliseconds

  constructor(initial) {
    this.#initial = this.#current = initial;
  }

  get current() {
    if (performance.now() >= this.#until) this.reset();
    return this.#current;
  }

  // The fields, and left_s: seconds until the reset, null where there is none
  show() {
    const current = this.current;
    const left = this.#until === Infinity ? null : Math.max(0, this.#until - performance.now()) / 1000;
    return {...current, left_s: left};
  }

  // Takes the fields named in `wanted`; the others stay. for_s seconds later (0: never) all are reset.
  change(wanted) {
    const named = wanted !== null && typeof wanted === "object" && !Array.isArray(wanted) ? Object.keys(wanted) : [];
    if (named.length === 0) {
      throw new BadFault("an object with error_rate, latency_ms, latency_jitter_ms or for_s is expected");
    }
    const unknown = named.filter((name) => !Object.hasOwn(LIMITS, name) && name !== "for_s").sort();
    if (unknown.length > 0) throw new BadFault(`unknown: ${unknown.join(", ")}`);
    const values = named.filter((name) => name !== "for_s").map((name) => [name, number(name, wanted[name], LIMITS[name])]);
    const lasting = number("for_s", named.includes("for_s") ? wanted.for_s : 0, LONGEST_S) || Infinity;
    this.#current = {...this.current, ...Object.fromEntries(values)};
    this.#until = performance.now() + lasting * 1000;
  }

  // Back to what the environment said at the start
  reset() {
    this.#current = this.#initial;
    this.#until = Infinity;
  }

  // Waits as long as the latency says; true where this request is to fail
  async strike() {
    const fault = this.current;
    const wait = fault.latency_ms + (2 * chance() - 1) * fault.latency_jitter_ms;
    if (wait > 0) await new Promise((done) => setTimeout(done, wait));
    return chance() < fault.error_rate;
  }
}

module.exports = {BadFault, Faults, fromEnvironment};
