// Run models of text in turns in WebAssembly on one thread, as run_turns.py does in other runtimes:
// node run_turns.mjs node|chromium ROWS TOKENS ROUNDS MODEL.onnx...
// from a folder with onnxruntime-web, and for Chromium puppeteer-core, in its node_modules.

import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const [where, rows, tokens, rounds, ...paths] = process.argv.slice(2);
const require = createRequire(join(process.cwd(), "package.json"));
const script = require.resolve("onnxruntime-web");
const chromium = process.env.CHROMIUM ?? "/usr/bin/chromium";

// Runs in the page, too, and so refers to nothing outside.
async function measure(ort, models, rows, tokens, rounds) {
  const size = rows * tokens;
  const tensor = (value) =>
    new ort.Tensor("int64", BigInt64Array.from({ length: size }, (_, i) => BigInt(value(i))), [rows, tokens]);
  const inputs = {
    input_ids: tensor((i) => 1000 + ((i * 7919) % 20000)),
    attention_mask: tensor(() => 1),
    token_type_ids: tensor(() => 0),
  };
  ort.env.wasm.numThreads = 1;
  const found = {};
  const runs = {};
  const times = {};
  const answers = {};
  for (const [path, load] of Object.entries(models)) {
    try {
      const bytes = await load();
      const begin = performance.now();
      const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 4 });
      found[path] = { load: performance.now() - begin };
      const feeds = Object.fromEntries(session.inputNames.map((name) => [name, inputs[name]]));
      runs[path] = async () => (await session.run(feeds))[session.outputNames[0]].data;
      answers[path] = Float32Array.from(await runs[path]());
      times[path] = [];
    } catch (error) {
      found[path] = { trouble: String(error).split("\n")[0] };
      delete runs[path];
    }
  }
  for (let round = 0; round < rounds; round++) {
    for (const [path, run] of Object.entries(runs)) {
      const begin = performance.now();
      await run();
      times[path].push(performance.now() - begin);
    }
  }
  const exact = answers[Object.keys(models)[0]];
  for (const path of Object.keys(runs)) {
    const sorted = times[path].sort((a, b) => a - b);
    let difference = 0;
    let norm = 0;
    answers[path].forEach((value, i) => {
      difference += (value - exact[i]) ** 2;
      norm += exact[i] ** 2;
    });
    Object.assign(found[path], { least: sorted[0], median: sorted[sorted.length >> 1], error: Math.sqrt(difference / norm) });
  }
  return found;
}

async function inNode() {
  const ort = await import(pathToFileURL(script));
  const models = Object.fromEntries(paths.map((path) => [path, async () => new Uint8Array(readFileSync(path))]));
  return measure(ort.default ?? ort, models, +rows, +tokens, +rounds);
}

async function inChromium() {
  const puppeteer = (await import(pathToFileURL(require.resolve("puppeteer-core")))).default;
  const types = { ".mjs": "text/javascript", ".wasm": "application/wasm" };
  const server = createServer((request, response) => {
    const name = request.url.slice(1);
    if (!name) return response.setHeader("Content-Type", "text/html").end("<!doctype html>");
    const path = /^\d+$/.test(name) ? paths[+name] : join(dirname(script), basename(name));
    if (!existsSync(path)) return response.writeHead(404).end();
    response.setHeader("Content-Type", types[path.slice(path.lastIndexOf("."))] ?? "application/octet-stream");
    response.end(readFileSync(path));
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"], protocolTimeout: 600000 });
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.addScriptTag({ content: `window.measure = ${measure}` });
    return await page.evaluate(
      async (paths, rows, tokens, rounds) => {
        const ort = await import("/ort.wasm.min.mjs");
        ort.env.wasm.wasmPaths = "/";
        const load = (i) => async () => new Uint8Array(await (await fetch(`/${i}`)).arrayBuffer());
        const models = Object.fromEntries(paths.map((path, i) => [path, load(i)]));
        return window.measure(ort, models, rows, tokens, rounds);
      },
      paths, +rows, +tokens, +rounds,
    );
  } finally {
    await browser.close();
    server.close();
  }
}

console.log(JSON.stringify(await (where === "node" ? inNode() : inChromium())));
process.exit(0);
