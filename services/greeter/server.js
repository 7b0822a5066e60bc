// greeter: greets in the colour of its version, and fails or dawdles as told. A service to try rollouts on.
"use strict";

const {readFileSync} = require("node:fs");
const {createServer} = require("node:http");
const {hostname} = require("node:os");
const {join} = require("node:path");
const {setImmediate: soon, setTimeout: sleep} = require("node:timers/promises");
const {BadFault, Faults, fromEnvironment} = require("./faults.js");

const env = process.env;
const IDENTITY = {
  color: env.COLOR || "teal", version: env.VERSION || "v1", replica: env.REPLICA || hostname(), service: "greeter",
};
const USER_PATHS = ["/", "/work", "/greet"]; // faults strike here
const PROBES = ["/healthz", "/readyz", "/metrics"]; // never counted, never struck
const SHOWN = ["COLOR", "VERSION", "ERROR_RATE", "LATENCY_MS", "LATENCY_JITTER_MS", "PORT", "REPLICA"];
const LONGEST_DELAY_S = 60;
const LONGEST_WORK_MS = 10_000;
const SLICE_MS = 5; // work lets other requests through so often
const LARGEST_BODY = 16 * 1024; // bytes
const QUIET_MS = 250; // without a request for so long, a draining replica has nothing more to expect
const LONGEST_DRAIN_MS = 5000; // then no new requests are taken; those in flight still finish

const faults = new Faults(fromEnvironment(env));
const page = readFileSync(join(__dirname, "page.html"), "utf8");
const byStatus = new Map();
let inFlight = 0;
let lastRequest = -Infinity;
let draining = false;

class Refused extends Error {
  constructor(status, message, headers = {}) {
    super(message);
    Object.assign(this, {status, headers});
  }
}

function send(response, status, body, headers = {}) {
  const bare = status === 204 || status === 205 || status === 304;
  const text = typeof body === "string" ? body : JSON.stringify(body) + "\n";
  if (draining) response.setHeader("Connection", "close");
  response.writeHead(status, {
    ...(bare ? {} : {"Content-Type": "application/json", "Content-Length": Buffer.byteLength(text)}),
    "Cache-Control": "no-store", ...headers,
  });
  response.end(bare ? undefined : text); // Node.js leaves the body out for HEAD
}

// A number from 0 to `highest`, or a refusal
function number(what, text, highest) {
  const value = text.trim() === "" ? NaN : Number(text);
  if (Number.isFinite(value) && value >= 0 && value <= highest) return value;
  throw new Refused(400, `${what} must be a number from 0 to ${highest}`);
}

function greet({response, query}, headers) {
  const name = [...(query.get("name") || "").trim()].slice(0, 100).join("") || "world";
  send(response, 200, {greeting: `Hello, ${name}!`, ...IDENTITY}, headers);
}

// Whether the client likes HTML better than JSON, by the q values of its Accept header
function wantsHtml(accept = "") {
  const liking = {"text/html": 0, "application/json": 0};
  for (const part of accept.split(",")) {
    const [kind, ...options] = part.split(";").map((word) => word.trim().toLowerCase());
    const q = options.map((word) => /^q=([\d.]+)$/.exec(word)).find(Boolean);
    if (Object.hasOwn(liking, kind)) liking[kind] = q ? Number(q[1]) : 1;
  }
  return liking["text/html"] > liking["application/json"];
}

function root(exchange) {
  const {request, response, query} = exchange;
  const vary = {Vary: "Accept"};
  if (wantsHtml(request.headers.accept)) {
    const paint = /^([A-Za-z]{1,30}|#[0-9A-Fa-f]{3,8})$/.test(IDENTITY.color) ? IDENTITY.color : "gray";
    const values = {...IDENTITY, paint};
    const escaped = (value) => value.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
    const text = page.replace(/\{\{(\w+)\}\}/g, (_, name) => escaped(values[name]));
    send(response, 200, text, {...vary, "Content-Type": "text/html; charset=utf-8"});
  } else if (query.has("name")) {
    greet(exchange, vary);
  } else {
    send(response, 200, IDENTITY, vary);
  }
}

function metrics({response}) {
  const quoted = (value) => value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
  const labels = Object.entries(IDENTITY).map(([name, value]) => `${name}="${quoted(value)}"`).join(",");
  const statuses = [...byStatus].sort(([a], [b]) => a - b);
  const lines = [
    "# HELP http_requests_total User requests answered, by status.",
    "# TYPE http_requests_total counter",
    ...statuses.map(([status, count]) => `http_requests_total{${labels},status="${status}"} ${count}`),
    "# HELP http_requests_in_flight User requests being answered.",
    "# TYPE http_requests_in_flight gauge",
    `http_requests_in_flight{${labels}} ${inFlight}`,
    "# HELP uptime_seconds Seconds since the replica started.",
    "# TYPE uptime_seconds gauge",
    `uptime_seconds{${labels}} ${process.uptime().toFixed(3)}`,
  ];
  send(response, 200, lines.join("\n") + "\n", {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"});
}

async function work({response, query}) {
  const wished = number("ms", query.get("ms") ?? "10", LONGEST_WORK_MS);
  const deadline = performance.now() + wished;
  let rounds = 0;
  while (performance.now() < deadline) {
    const slice = Math.min(deadline, performance.now() + SLICE_MS);
    while (performance.now() < slice) rounds += 1;
    await soon();
  }
  send(response, 200, {worked_ms: wished, rounds, ...IDENTITY});
}

async function readJson(request) {
  if (!/^application\/json\s*(;|$)/i.test(request.headers["content-type"] || "")) { // also keeps forms of other sites out
    throw new Refused(415, "send application/json");
  }
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > LARGEST_BODY) throw new Refused(413, `the body is larger than ${LARGEST_BODY} bytes`, {Connection: "close"});
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString("utf8"));
  } catch {
    throw new Refused(400, "the body is not JSON");
  }
}

async function changeFault({request, response}) {
  const wanted = await readJson(request);
  try {
    faults.change(wanted);
  } catch (error) {
    throw error instanceof BadFault ? new Refused(400, error.message) : error;
  }
  send(response, 200, {replica: IDENTITY.replica, ...faults.show()});
}

const panic = () => process.exit(3); // at once: as PID 1 of a container a process cannot kill itself by a signal

const ROUTES = [
  ["/", {GET: root}],
  ["/greet", {GET: greet}],
  ["/version", {GET: ({response}) => send(response, 200, IDENTITY)}],
  ["/healthz", {GET: ({response}) => send(response, 200, {status: "ok"})}],
  ["/readyz", {GET: ({response}) => {
    if (draining) throw new Refused(503, "draining");
    send(response, 200, {status: "ready"});
  }}],
  ["/metrics", {GET: metrics}],
  ["/env", {GET: ({response}) => {
    send(response, 200, Object.fromEntries(SHOWN.filter((name) => name in env).map((name) => [name, env[name]])));
  }}],
  ["/headers", {GET: ({request, response}) => send(response, 200, {headers: request.headers})}],
  ["/delay/", {GET: async ({response, rest}) => {
    const wait = number("seconds", rest, LONGEST_DELAY_S);
    await sleep(wait * 1000);
    send(response, 200, {delayed_s: wait, ...IDENTITY});
  }}],
  ["/status/", {GET: ({response, rest}) => {
    if (!/^[2-5][0-9][0-9]$/.test(rest)) throw new Refused(400, "the code must be from 200 to 599");
    send(response, Number(rest), {status: Number(rest), ...IDENTITY});
  }}],
  ["/work", {GET: work}],
];
if (env.FAULTS === "1") {
  const show = ({response}) => send(response, 200, {replica: IDENTITY.replica, ...faults.show()});
  ROUTES.push(["/fault", {GET: show, POST: changeFault, DELETE: (exchange) => { faults.reset(); show(exchange); }}]);
  ROUTES.push(["/panic", {GET: panic, POST: panic}]);
}

// The routes' handler for a path, and the rest of the path where the route ends with a slash
function find(path, method) {
  for (const [route, methods] of ROUTES) {
    const open = route !== "/" && route.endsWith("/");
    const fits = open ? path.startsWith(route) && /^[^/]+$/.test(path.slice(route.length)) : path === route;
    if (!fits) continue;
    const handler = methods[method === "HEAD" ? "GET" : method];
    if (handler) return [handler, path.slice(route.length)];
    throw new Refused(405, "Method Not Allowed", {Allow: Object.keys(methods).join(", ")});
  }
  throw new Refused(404, "Not Found");
}

async function answer(request, response) {
  const [rawPath, rawQuery = ""] = request.url.split(/\?(.*)/s, 2);
  if (!PROBES.includes(rawPath)) {
    inFlight += 1;
    lastRequest = performance.now();
    response.once("close", () => {
      inFlight -= 1;
      lastRequest = performance.now();
      if (response.headersSent) byStatus.set(response.statusCode, (byStatus.get(response.statusCode) || 0) + 1);
    });
  }
  try {
    if (USER_PATHS.includes(rawPath) && await faults.strike()) throw new Refused(500, "a fault, as told by error_rate");
    const [handler, rest] = find(rawPath, request.method);
    await handler({request, response, rest, query: new URLSearchParams(rawQuery)});
  } catch (error) {
    const known = error instanceof Refused;
    if (!known) console.error(error);
    if (response.headersSent) return;
    const {service, replica} = IDENTITY;
    send(response, known ? error.status : 500, {error: known ? error.message : "it broke", service, replica}, error.headers);
  }
}

const server = createServer(answer);
server.keepAliveTimeout = 75_000; // longer than nginx keeps an idle connection, so that nginx closes it first
server.headersTimeout = 80_000;
server.requestTimeout = 120_000;
server.on("error", (error) => {
  console.error(`greeter cannot listen: ${error.message}`);
  process.exit(1);
});
server.listen(Number(env.PORT || 3000), env.HOST || "0.0.0.0", () => {
  console.log(`greeter ${IDENTITY.version} listens on ${server.address().address}:${server.address().port}`);
});

// First drain: /readyz says 503 while requests that still come are answered; then stop once all are finished.
async function stop() {
  if (draining) return;
  draining = true;
  const deadline = performance.now() + LONGEST_DRAIN_MS;
  while (performance.now() < deadline && (inFlight > 0 || performance.now() - lastRequest < QUIET_MS)) await sleep(20);
  server.close(() => process.exit(0));
  server.closeIdleConnections();
}
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
