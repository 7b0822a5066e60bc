// greeter: the same small app as colors, in Node.js without dependencies.
//
// Environment: COLOR, VERSION, REPLICA; faults ERROR_RATE (0-1), LATENCY_MS, LATENCY_JITTER_MS. With FAULTS=1 the faults
// can also be set at run time (POST /fault), and /panic ends the process. Faults touch / and /work, never the probes.
"use strict";

const http = require("node:http");
const os = require("node:os");

const env = process.env;
const COLOR = env.COLOR || "teal";
const VERSION = env.VERSION || "v1";
const REPLICA = env.REPLICA || os.hostname();
const SWITCHED_ON = env.FAULTS === "1";
const SHOWN = ["COLOR", "VERSION", "ERROR_RATE", "LATENCY_MS", "LATENCY_JITTER_MS", "PORT", "REPLICA"];
const BOUNDS = { error_rate: 1, latency_ms: 60000, latency_jitter_ms: 60000, for_s: 86400 };

const number = (name) => Math.max(0, Number(env[name] || 0) || 0);
const fromEnvironment = () => ({
  error_rate: number("ERROR_RATE"),
  latency_ms: number("LATENCY_MS"),
  latency_jitter_ms: number("LATENCY_JITTER_MS"),
});

let faults = fromEnvironment();
let faultsUntil = 0;
const byStatus = new Map();
let inFlight = 0;

function currentFaults() {
  if (faultsUntil && Date.now() > faultsUntil) {
    faults = fromEnvironment();
    faultsUntil = 0;
  }
  return faults;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const escaped = (text) =>
  text.replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);

function send(response, status, body, type = "application/json") {
  const text = type === "application/json" ? JSON.stringify(body) : body;
  response.writeHead(status, { "Content-Type": `${type}; charset=utf-8`, "Content-Length": Buffer.byteLength(text) });
  response.end(text);
}

const fail = (response, status, error) => send(response, status, { error, version: VERSION, replica: REPLICA });

const page = () => `<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>${escaped(COLOR)} ${escaped(VERSION)}</title>
<style>body{margin:0;min-height:100vh;display:grid;place-content:center;text-align:center;font:1.1rem system-ui;
background:${escaped(COLOR)};color:#fff;text-shadow:0 1px 3px #0009}h1{font-size:5rem;margin:0}</style>
<h1>Hello from ${escaped(VERSION)}</h1><p>${escaped(COLOR)}, answered by ${escaped(REPLICA)}</p></html>`;

async function sick(response) {
  const now = currentFaults();
  const jitter = now.latency_jitter_ms;
  const delay = now.latency_ms + (Math.random() * 2 - 1) * jitter;
  if (delay > 0) await sleep(delay);
  if (Math.random() >= now.error_rate) return false;
  fail(response, 500, "this request was chosen to fail (error_rate)");
  return true;
}

function checked(body) {
  const names = Object.keys(BOUNDS).join(", ");
  if (typeof body !== "object" || body === null || Array.isArray(body) || Object.keys(body).length === 0)
    return `send a JSON object with some of ${names}`;
  for (const [name, value] of Object.entries(body)) {
    if (!(name in BOUNDS)) return `${name} is not known; known are ${names}`;
    if (typeof value !== "number" || !(value >= 0 && value <= BOUNDS[name]))
      return `${name} takes a number from 0 to ${BOUNDS[name]}`;
  }
  return "";
}

function read(request, limit = 65536) {
  return new Promise((resolve, reject) => {
    let text = "";
    request.on("data", (chunk) => {
      text += chunk;
      if (text.length > limit) reject(new Error("too large"));
    });
    request.on("end", () => resolve(text));
    request.on("error", reject);
  });
}

async function fault(request, response) {
  if (!SWITCHED_ON) return fail(response, 404, "not found");
  if (request.method === "DELETE") {
    faults = fromEnvironment();
    faultsUntil = 0;
  } else if (request.method === "POST") {
    let body = null;
    try {
      body = JSON.parse(await read(request));
    } catch {
      body = null;
    }
    const problem = checked(body);
    if (problem) return fail(response, 400, problem);
    const { for_s: seconds = 0, ...wanted } = body;
    faults = { ...currentFaults(), ...wanted };
    faultsUntil = seconds ? Date.now() + seconds * 1000 : 0;
  } else if (request.method !== "GET") {
    return fail(response, 405, "GET, POST or DELETE");
  }
  return send(response, 200, { replica: REPLICA, ...currentFaults() });
}

function metrics() {
  const lines = ["# TYPE http_requests_total counter"];
  for (const [status, count] of [...byStatus].sort()) lines.push(`http_requests_total{status="${status}"} ${count}`);
  lines.push("# TYPE http_requests_in_flight gauge", `http_requests_in_flight ${inFlight}`);
  lines.push("# TYPE uptime_seconds gauge", `uptime_seconds ${process.uptime().toFixed(3)}`);
  return lines.join("\n") + "\n";
}

function within(text, low, high) {
  const value = Number(text);
  return text !== "" && value >= low && value <= high ? value : null;
}

async function work(url, response) {
  if (await sick(response)) return;
  const wanted = within(url.searchParams.get("ms") ?? "10", 0, 10000);
  if (wanted === null) return fail(response, 400, "ms takes 0 to 10000");
  const end = process.hrtime.bigint() + BigInt(Math.round(wanted * 1e6));
  let rounds = 0;
  while (process.hrtime.bigint() < end) rounds += 1;
  send(response, 200, { worked_ms: wanted, rounds, version: VERSION, replica: REPLICA });
}

async function answer(request, response) {
  const url = new URL(request.url, "http://greeter");
  const [, first, second] = url.pathname.split("/");
  if (url.pathname === "/fault") return fault(request, response);
  if (request.method !== "GET" && request.method !== "HEAD") return fail(response, 405, "GET only");
  switch (first) {
    case "": {
      if (await sick(response)) return undefined;
      if ((request.headers.accept || "").includes("text/html")) return send(response, 200, page(), "text/html");
      return send(response, 200, { service: "greeter", color: COLOR, version: VERSION, replica: REPLICA });
    }
    case "version":
      return send(response, 200, { version: VERSION });
    case "healthz":
    case "readyz":
      return send(response, 200, { status: "ok" });
    case "metrics":
      return send(response, 200, metrics(), "text/plain");
    case "env":
      return send(response, 200, Object.fromEntries(SHOWN.filter((n) => n in env).map((n) => [n, env[n]])));
    case "headers":
      return send(response, 200, request.headers);
    case "delay": {
      const seconds = within(second ?? "", 0, 60);
      if (seconds === null) return fail(response, 400, "delay takes 0 to 60 seconds");
      await sleep(seconds * 1000);
      return send(response, 200, { delayed_s: seconds, version: VERSION, replica: REPLICA });
    }
    case "status": {
      const code = within(second ?? "", 200, 599);
      if (code === null || !Number.isInteger(code)) return fail(response, 400, "status takes 200 to 599");
      return send(response, code, { status: code, version: VERSION, replica: REPLICA });
    }
    case "work":
      return work(url, response);
    case "panic":
      if (SWITCHED_ON) process.exit(3);
      return fail(response, 404, "not found");
    default:
      return fail(response, 404, "not found");
  }
}

const server = http.createServer((request, response) => {
  inFlight += 1;
  response.on("close", () => {
    inFlight -= 1;
    byStatus.set(response.statusCode, (byStatus.get(response.statusCode) || 0) + 1);
  });
  answer(request, response).catch((error) => {
    if (!response.headersSent) fail(response, 500, error.message);
  });
});
server.keepAliveTimeout = 75000;

// Stop: take no more connections, finish the requests in flight, then end.
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
  setInterval(() => server.closeIdleConnections(), 50);
});

server.listen(Number(env.PORT || 3000), env.HOST || "0.0.0.0");
