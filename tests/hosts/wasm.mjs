// WebAssembly in Node.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web/wasm";
import { answer } from "./answer.mjs";

ort.env.wasm.numThreads = 1;
const models = JSON.parse(await readFile("feeds.json"));
console.log(JSON.stringify(await answer(ort, "wasm", models, (file) => readFile(file))));
