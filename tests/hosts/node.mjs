// The native runtime in Node.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import { answer } from "./answer.mjs";

const models = JSON.parse(await readFile("feeds.json"));
console.log(JSON.stringify(await answer(ort, "cpu", models, (file) => readFile(file))));
