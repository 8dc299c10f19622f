"""The endpoint judge against a server that this project did not write, in one command:

    pip install -r tools/critic/requirements.txt
    cargo build --release
    python tools/critic/check_endpoint.py [--model DIR]

It starts `transformers serve` on a free port, lets `votive label` draw candidates of texts and judge them over HTTP, and
says what held. The embedded language model is no judge, so its answers are no verdicts: what is checked is that each one
is asked, read, counted and kept, that nothing is asked twice, and that a server without log-probabilities is named.
"""

import argparse
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPTS = ["count to three", "name two colours", "write one word that rhymes with cat"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, server):
    for _ in range(300):
        if server.poll() is not None:
            sys.exit("transformers serve ended before it answered")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return
        except OSError:
            time.sleep(1)
    sys.exit("transformers serve does not answer")


def label(*args):
    command = [ROOT / "target/release/votive", "label", "--json", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/tiny-lm")
    model = parser.parse_args().model.resolve()
    port = free_port()
    serve = pathlib.Path(sys.executable).with_name("transformers")
    server = subprocess.Popen([serve, "serve", "--host", "127.0.0.1", "--port", str(port)])
    try:
        wait_for(port, server)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "prompts.txt").write_text("\n".join(PROMPTS))
            store = ["--store", folder / "store.sqlite"]
            judge = ["--judge", f"http://127.0.0.1:{port}/v1#{model}", "--max-tokens", 24]
            drawn = ["--prompts", folder / "prompts.txt", "--model", model, "--samples", 2, "--max-new-tokens", 16]
            first = label(*store, *drawn, *judge, "--template", "text-verdict")
            assert first.returncode == 0, first.stderr
            found = json.loads(first.stdout)
            judged, cost = found["judged"], found["cost"]
            silent = sum(found["abstentions"].values())
            assert judged > 0 and judged == found["decided"] + silent, found
            assert cost["calls"] == 2 * judged, "every pair is asked in both orders, and answered at once"
            assert cost["input_tokens"] > 0 and cost["output_tokens"] > 0, cost
            assert set(found["abstentions"]) <= {"malformed", "order_flip"}, found["abstentions"]
            print(f"{judged} pairs judged, {found['decided']} decided, abstentions {found['abstentions']}, cost {cost}")
            again = json.loads(label(*store, *judge, "--template", "text-verdict").stdout)
            assert again["cost"]["calls"] == 0 and again["judged"] == judged, again
            print("nothing is asked twice")
            weighed = label(*store, *judge, "--template", "text-pair")
            assert weighed.returncode != 0 and "log-probabilities" in weighed.stderr, weighed.stderr
            print("a server without log-probabilities is named:", weighed.stderr.strip().splitlines()[-1])
    finally:
        server.terminate()
        server.wait()
    print("all held")


if __name__ == "__main__":
    main()
