"use strict";
// Shows /status.json, asked for again and again. Everything from the cluster goes in as text only.
const interval = 5000;
const kept = 240; // samples of the charts: 20 minutes
const samples = [];
const $ = (id) => document.getElementById(id);

function make(name, attributes = {}, ...inside) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...inside.map((one) => (one instanceof Node ? one : String(one))));
  return node;
}
function draw(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
const number = (value) => Number(value || 0);
function size(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let value = number(bytes), unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; ++unit; }
  return (value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)) + units[unit];
}
function count(value) {
  if (value >= 1e6) return (value / 1e6).toFixed(1) + "M";
  if (value >= 1e4) return Math.round(value / 1e3) + "k";
  return value < 10 && value % 1 ? value.toFixed(1) : String(Math.round(value));
}
function duration(ms) {
  const s = Math.floor(number(ms) / 1000);
  if (s >= 86400) return Math.floor(s / 86400) + "d " + Math.floor((s % 86400) / 3600) + "h";
  if (s >= 3600) return Math.floor(s / 3600) + "h " + Math.floor((s % 3600) / 60) + "m";
  return s >= 60 ? Math.floor(s / 60) + "m " + (s % 60) + "s" : s + "s";
}
const good = ["healthy", "active", "avail", "ok", "INF", "void", "deleting"];
const poor = ["degraded", "inactive", "unknown", "releasing", "learning", "joining", "low", "WRN", "urgent",
  "replicating", "overcommitted", "slow"];
const tag = (word) => make("span",
  { class: "tag " + (good.includes(word) ? "ok" : poor.includes(word) ? "warn" : "bad") }, word);

// headers: ">NAME" is a number's column.
function table(id, headers, rows) {
  const head = make("tr", {}, ...headers.map((one) =>
    make("th", one.startsWith(">") ? { class: "number" } : {}, one.replace(">", ""))));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell, i) =>
    make("td", headers[i].startsWith(">") ? { class: "number" } : {}, cell ?? ""))));
  if (!rows.length) body.push(make("tr", {}, make("td", { class: "none", colspan: headers.length }, "none")));
  $(id).replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
}

function card(title, value, more, part) {
  const node = make("div", { class: "card" }, make("small", {}, title), make("b", {}, value), make("small", {}, more));
  if (part !== undefined) {
    const fill = make("i");
    fill.style.width = Math.min(100, Math.max(0, part * 100)) + "%";
    node.append(make("div", { class: "bar" }, fill));
  }
  return node;
}

// curves: [{name, color, values}], values as long as samples, null: not known.
function chart(id, curves, text) {
  const svg = $(id), left = 58, width = 530, top = 10, height = 118;
  const all = curves.flatMap((one) => one.values).filter((one) => one !== null);
  const high = Math.max(...all, 0) * 1.1 || 1;
  const nodes = [];
  for (let i = 0; i <= 2; ++i) {
    const y = top + height * i / 2;
    nodes.push(draw("line", { class: "grid", x1: left, x2: left + width, y1: y, y2: y }));
    nodes.push(draw("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, text(high * (2 - i) / 2)));
  }
  let at = left;
  for (const curve of curves) {
    const points = curve.values.map((value, i) => value === null ? null :
      (left + width * (1 - (curve.values.length - 1 - i) / Math.max(samples.length - 1, 11))).toFixed(1) + "," +
      (top + height * (1 - value / high)).toFixed(1)).filter((one) => one);
    nodes.push(draw("polyline", { class: "curve", stroke: curve.color, points: points.join(" ") }));
    const last = curve.values.filter((one) => one !== null).pop();
    const legend = curve.name + " " + (last === undefined ? "" : text(last));
    nodes.push(draw("text", { x: at, y: 154, style: "fill:" + curve.color }, legend));
    at += 24 + legend.length * 7;
  }
  svg.replaceChildren(...nodes);
}

const sum = (list, field) => list.reduce((total, one) => total + number(one[field]), 0);
// Per second between two samples; a service that was started again begins at 0.
function rate(field) {
  return samples.map((one, i) => {
    const before = samples[i - 1];
    if (!before || one.at <= before.at) return null;
    return Math.max(0, (one[field] - before[field]) / (one.at - before.at) * 1000);
  });
}
function charts(services, at) {
  const clients = services.filter((one) => one.kind === "CLIENT");
  const servers = services.filter((one) => one.kind === "CS");
  samples.push({ at, read: sum(clients, "read_bytes"), write: sum(clients, "write_bytes"),
    reads: sum(clients, "read_ops"), writes: sum(clients, "write_ops"),
    latency: Object.fromEntries(servers.map((one) => [one.id, number(one.io_latency_us) / 1000])) });
  if (samples.length > kept) samples.shift();
  const pair = (a, b) => [{ name: "read", color: "var(--read)", values: rate(a) },
    { name: "write", color: "var(--write)", values: rate(b) }];
  chart("bytes", pair("read", "write"), size);
  chart("requests", pair("reads", "writes"), count);
  const shown = servers.slice().sort((a, b) => number(b.io_latency_us) - number(a.io_latency_us)).slice(0, 5);
  chart("latency", shown.map((one, i) => ({ name: "CS#" + one.id, color: `hsl(${i * 67 + 210} 65% 50%)`,
    values: samples.map((sample) => sample.latency[one.id] ?? null) })), (value) => value.toFixed(1));
}

function show(data) {
  const status = data.status, services = status.services || [];
  const of = (kind) => services.filter((one) => one.kind === kind);
  $("cluster").textContent = status.cluster;
  document.title = status.cluster + ": " + status.health;
  $("health").replaceChildren(tag(status.health));
  $("reason").textContent = status.health_reason || "";
  $("seen").textContent = new Date(number(data.time_ms)).toLocaleString();
  const total = number(status.total_bytes), free = number(status.free_bytes);
  const servers = of("CS"), active = servers.filter((one) => one.state === "active").length;
  const members = of("MDS"), avail = members.filter((one) => one.state === "avail").length;
  $("summary").replaceChildren(
    card("Space used", size(total - free), "of " + size(total), total ? (total - free) / total : 0),
    card("Allocatable", size(status.allocatable_bytes), "of " + size(status.allocatable_total_bytes) +
      ", state " + status.space_state),
    card("Chunk servers", active + " of " + servers.length, "active"),
    card("Metadata servers", avail + " of " + members.length, "epoch " + number(status.epoch) + ", for " +
      duration(status.epoch_uptime_ms)),
    card("Replication", status.replication_norm + ":" + status.replication_min, "of the root directory"),
    card("To repair", number(status.repair_replicas) + " replicas", size(status.repair_bytes_per_s) + "/s" +
      (number(status.repair_eta_s) ? ", ready in about " + duration(status.repair_eta_s * 1000) : "")));
  const chunks = Object.entries(status.chunks || {}).filter(([name, many]) => number(many) || name === "healthy");
  $("chunks").replaceChildren(...chunks.flatMap(([name, many]) => [tag(name), " " + many + "  "]));
  table("mds", [">MDSID", "STATUS", "HOST", "ADDRESS", ">LAG", ""], members.map((one) => [one.id, tag(one.state),
    one.host_name, one.address, number(one.lag), one.is_master ? "master" : ""]));
  table("cs", [">CSID", "STATUS", "HOST", ">TIER", ">SPACE", ">FREE", ">REPLICAS", ">UNIQUE", ">IOWAIT", ">IOLAT(ms)",
    ">QDEPTH", "FLAGS"], servers.map((one) => [one.id, tag(one.state), one.host_name, number(one.tier),
    size(one.total_bytes), size(one.free_bytes), number(one.replicas), number(one.unique),
    number(one.io_wait_percent) + "%", (number(one.io_latency_us) / 1000).toFixed(1) + "/" +
    (number(one.io_latency_max_us) / 1000).toFixed(1), number(one.queue_depth),
    make("span", {}, one.flags || "", one.slow ? " " : "", ...(one.slow ? [tag("slow")] : []))]));
  table("volumes", ["NAME", ">SIZE", ">CHUNKS", "REPLICAS", "USED BY"], data.volumes.map((one) => [one.name,
    size(one.size), number(one.chunks), one.replicas, one.holder]));
  table("clients", ["NAME", ">LEASES", ">READ", ">WRITTEN", ">READS", ">WRITES", ">FLUSHES"], of("CLIENT").map((one) => [
    one.name, number(one.leases), size(one.read_bytes), size(one.write_bytes), number(one.read_ops),
    number(one.write_ops), number(one.syncs)]));
  table("events", ["TIME", "SYS", "SEV", "MESSAGE"], data.events.map((one) => [
    new Date(number(one.time_ms)).toLocaleString(), one.source, tag(one.severity), one.text]));
  charts(services, number(data.time_ms));
}

async function ask() {
  try {
    // Not relative to an address that has a password in it: browsers refuse that.
    const reply = await fetch(new URL("status.json", location.origin + location.pathname), { cache: "no-store" });
    if (reply.ok) {
      show(await reply.json());
    } else {
      const text = (await reply.text()).trim();
      $("health").replaceChildren(tag("unknown"));
      $("reason").textContent = text;
      document.title = "pstorage: " + text;
    }
  } catch (error) {
    $("health").replaceChildren(tag("unknown"));
    $("reason").textContent = "The metadata server does not answer.";
  }
  setTimeout(ask, interval);
}
ask();
