"""Programs in Node and in a page of a headless browser, without network; embeddings of texts by Transformers.js."""

import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading
import time
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
  if (env.backends.onnx.wasm) Object.assign(env.backends.onnx.wasm, { wasmPaths: WASM, numThreads: 1 });
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
# Seconds between looks at whether the browser still runs.
LOOK = 1.0


class JavaScriptError(Exception):
    """What a program said instead of an answer."""


def find_browser() -> str | None:
    """Return the path of a browser that can run without a window, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def lay_out(folder: Path, node_modules: Path, packages: dict[str, Path], texts: Sequence[str]) -> None:
    """Write into a folder what both hosts load: packages by name, the library, the program."""
    (folder / "models").mkdir()
    for name, package in packages.items():
        (folder / "models" / name).symlink_to(package.resolve())
    (folder / "node_modules").symlink_to(node_modules.resolve())
    # npm puts a release that others want, too, beside them, and else below what wants it.
    below = f"{LIBRARY}/node_modules/onnxruntime-web"
    web = below if (node_modules / below).is_dir() else "onnxruntime-web"
    constants = {"NAMES": list(packages), "TEXTS": list(texts), "WASM": f"/node_modules/{web}/dist/"}
    head = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items())
    (folder / "embed.mjs").write_text(head + _EMBED, encoding="utf-8")
    (folder / "node.mjs").write_text(_NODE, encoding="utf-8")
    (folder / "page.html").write_text(_PAGE, encoding="utf-8")


def embed_in_node(folder: Path, seconds: float) -> dict[str, NDArray[np.float64]]:
    """Return embeddings [texts, width] by package; raises as run_in_node does."""
    return _embeddings(run_in_node(folder, "node.mjs", seconds))


def embed_in_browser(folder: Path, browser: str, seconds: float) -> dict[str, NDArray[np.float64]]:
    """Return embeddings [texts, width] by package; raises as run_in_browser does."""
    return _embeddings(run_in_browser(folder, "page.html", browser, seconds))


def run_in_node(folder: Path, program: str, seconds: float) -> dict[str, Any]:
    """Return the object that the last line of a program's output holds as JSON.

    Raises JavaScriptError where it fails, and TimeoutExpired after so many seconds.
    """
    done = subprocess.run(["node", program], cwd=folder, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise JavaScriptError(done.stderr)
    return _read(done.stdout.splitlines()[-1])


def run_in_browser(folder: Path, page: str, browser: str, seconds: float) -> dict[str, Any]:
    """Return the object that a page of the folder posts to /answer as JSON.

    The folder is served as an isolated origin: WebAssembly may have threads. Raises JavaScriptError where the page
    posts a text instead, the browser ends or so many seconds pass.
    """
    with _serve(folder) as (address, answers):
        window = subprocess.Popen(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
                *("--remote-debugging-port=0", f"--user-data-dir={folder / 'browser'}", f"{address}/{page}"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return _read(_wait(window, answers, seconds))
        finally:
            window.terminate()
            window.wait()


def _wait(window: "subprocess.Popen[bytes]", answers: "queue.Queue[str]", seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return answers.get(timeout=LOOK)
        except queue.Empty:
            if window.poll() is not None:
                raise JavaScriptError(f"the browser ended with {window.returncode}") from None
    raise JavaScriptError(f"no answer in {seconds} s")


@contextmanager
def _serve(folder: Path) -> Iterator[tuple[str, "queue.Queue[str]"]]:
    """Serve a folder on this machine alone; what is posted comes in the queue."""
    answers: queue.Queue[str] = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

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


def _read(answer: str) -> dict[str, Any]:
    found = json.loads(answer)
    if not isinstance(found, dict):
        raise JavaScriptError(found)
    return found


def _embeddings(answers: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    return {name: np.asarray(rows, np.float64) for name, rows in answers.items()}
