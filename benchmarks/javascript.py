"""Embeddings of texts by Transformers.js, in Node and in a page of a headless browser, without network."""

import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LIBRARY = "@huggingface/transformers"
# The same code runs in both: models and texts in, one embedding a text out.
_EMBED = """
export async function embed({ pipeline, env }) {
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "./models/";
  if (env.backends.onnx.wasm) env.backends.onnx.wasm.wasmPaths = WASM;
  const answers = {};
  for (const name of NAMES) {
    const run = await pipeline("feature-extraction", name);
    answers[name] = [];
    for (let at = 0; at < TEXTS.length; at += 16)
      answers[name].push(...(await run(TEXTS.slice(at, at + 16), { pooling: "mean", normalize: true })).tolist());
    await run.dispose();
  }
  return JSON.stringify(answers);
}
"""
_NODE = f"""
import * as library from "{LIBRARY}";
import {{ embed }} from "./embed.mjs";
console.log(await embed(library));
"""
_PAGE = f"""<!doctype html><meta charset=utf-8><script type=module>
let answer;
try {{
  const library = await import("./node_modules/{LIBRARY}/dist/transformers.min.js");
  const {{ embed }} = await import("./embed.mjs");
  answer = await embed(library);
}} catch (error) {{ answer = JSON.stringify(String(error)); }}
await fetch("/answer", {{ method: "POST", body: answer }});
</script>"""


class JavaScriptError(Exception):
    """What Transformers.js said instead of an answer."""


def find_browser() -> str | None:
    """Return the path of a browser that can run without a window, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def lay_out(folder: Path, node_modules: Path, packages: dict[str, Path], texts: Sequence[str]) -> None:
    """Write into a folder what both hosts load: packages by name, the library, the program."""
    (folder / "models").mkdir()
    for name, package in packages.items():
        (folder / "models" / name).symlink_to(package.resolve())
    (folder / "node_modules").symlink_to(node_modules.resolve())
    constants = {"NAMES": list(packages), "TEXTS": list(texts), "WASM": "/node_modules/onnxruntime-web/dist/"}
    head = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items())
    (folder / "embed.mjs").write_text(head + _EMBED, encoding="utf-8")
    (folder / "node.mjs").write_text(_NODE, encoding="utf-8")
    (folder / "page.html").write_text(_PAGE, encoding="utf-8")


def embed_in_node(folder: Path, seconds: float) -> dict[str, NDArray[np.float64]]:
    """Return embeddings [texts, width] by package; raises JavaScriptError, or TimeoutExpired after so many seconds."""
    done = subprocess.run(
        ["node", "node.mjs"], cwd=folder, capture_output=True, text=True, check=False, timeout=seconds
    )
    if done.returncode:
        raise JavaScriptError(done.stderr)
    return _read(done.stdout)


def embed_in_browser(folder: Path, browser: str, seconds: float) -> dict[str, NDArray[np.float64]]:
    """Return embeddings [texts, width] by package; raises JavaScriptError, or queue.Empty after so many seconds."""
    with _serve(folder) as (address, answers):
        window = subprocess.Popen(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
                *("--remote-debugging-port=0", f"--user-data-dir={folder / 'browser'}", f"{address}/page.html"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return _read(answers.get(timeout=seconds))
        finally:
            window.terminate()
            window.wait()


@contextmanager
def _serve(folder: Path) -> Iterator[tuple[str, "queue.Queue[str]"]]:
    """Serve a folder on this machine alone; what is posted comes in the queue."""
    answers: queue.Queue[str] = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            answers.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is the library's)
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _read(answer: str) -> dict[str, NDArray[np.float64]]:
    found = json.loads(answer)
    if not isinstance(found, dict):
        raise JavaScriptError(found)
    return {name: np.asarray(rows, np.float64) for name, rows in found.items()}
