"""The page of `votive serve` in headless Chromium, in one command:

    pip install -r tools/serve/requirements.txt       # and a `chromium` on the path, or: playwright install chromium
    cargo build --release && cargo build --release -p votive-serve --example practice_store
    python tools/serve/check_page.py [--screenshots DIR]

It makes a store to practise on, starts `votive serve`, and compares pairs with the keyboard as a person would: answers,
undo, a reason in words, a kill and a restart, no script at all, and another site that tries to answer.
"""

import argparse
import http.server
import json
import pathlib
import shutil
import sqlite3
import subprocess
import tempfile
import threading

from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAIRS = 24


class Serve:
    """A `votive serve` of a store."""

    def __init__(self, program, store):
        command = [program, "serve", "--store", store, "--port", "0", "--json", "--repeat", "0.25"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = json.loads(self.process.stdout.readline())["url"]
        self.origin = self.url.split("/?")[0]

    def kill(self):
        self.process.kill()
        self.process.wait()


class Evil(http.server.BaseHTTPRequestHandler):
    """A page of another port of this machine that tries to answer, to read and to embed."""

    target = ""

    def do_GET(self):
        page = f"""<!doctype html><title>other</title><iframe name=f></iframe>
        <img id=i src="{self.target}/icon.svg">
        <form id=a method=post action="{self.target}/answer" target=f>
        <input name=rater value=ann><input name=item value=1><input name=draw value=0>
        <input name=shown value=0><input name=since value=0><input name=answer value=left></form>
        <script>window.read = fetch("{self.target}/results", {{credentials: "include"}}).then(
        (reply) => reply.text(), () => "refused"); a.submit()</script>"""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_):
        pass


def shown(page):
    """The look that a page of a comparison shows."""
    value = lambda name: page.locator(f"#answer input[name={name}]").get_attribute("value")
    return value("item"), value("draw"), value("shown")


def done(page):
    return int(page.locator("header progress").get_attribute("value"))


def press(page, key):
    with page.expect_navigation():
        page.keyboard.press(key)


def click(page, role, name):
    with page.expect_navigation():
        page.get_by_role(role, name=name).first.click()


def judgments(store):
    with sqlite3.connect(store) as connection:
        sql = "SELECT count(*) FROM judgment WHERE withdrawn = 0"
        return connection.execute(sql).fetchone()[0]


def check(browser, program, store, screenshots):
    """Every check as (what holds, whether it does)."""
    server = Serve(program, store)
    context = browser.new_context()
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))

    page.goto(server.url)
    yield "the token leaves the address", page.url == server.origin + "/"
    page.locator("input[name=rater]").fill("ann")
    press(page, "Enter")
    yield "a name begins a comparison", "/compare?rater=ann" in page.url and done(page) == 0
    seen = [shown(page)]
    keys = ["1", "ArrowLeft", "2", "ArrowRight", "0", "ArrowDown", "x", "s"]
    for n, key in enumerate(keys, 1):
        press(page, key)
        yield f"{key} answers", done(page) == n and shown(page) not in seen
        seen.append(shown(page))
    while not page.locator("#answer img").count():
        press(page, "1")
        seen.append(shown(page))
    loaded = page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth === 32)")
    yield "both images are shown", loaded and page.locator("#answer img").count() == 2
    yield "small images keep their pixels", page.locator("img.small").count() == 2
    if screenshots:
        page.screenshot(path=screenshots / "compare.png", full_page=True)

    before = done(page)
    for back in (2, 3, 4):
        press(page, "u")
        yield f"undo shows what was undone ({back - 1})", shown(page) == seen[-back]
    yield "undo takes answers back", done(page) == before - 3
    for _ in range(3):
        press(page, "1")
    yield "what was undone can be answered again", shown(page) == seen[-1] and done(page) == before

    before, reasoned = done(page), shown(page)[0]
    page.keyboard.press("w")
    page.keyboard.type("12x the colour")
    page.keyboard.press("Enter")
    page.keyboard.type("is right")
    yield "letters of a reason are no answers", done(page) == before and shown(page) == seen[-1]
    page.keyboard.press("Escape")
    press(page, "2")
    yield "Escape goes back to answering", done(page) == before + 1
    seen.append(shown(page))
    page.keyboard.press("Control+1")
    page.keyboard.press("z")
    page.wait_for_timeout(200)
    yield "other keys do nothing", shown(page) == seen[-1]

    image = """<img src=x onerror="window.bad = 1">"""
    page.evaluate("(image) => document.body.insertAdjacentHTML('beforeend', image)", image)
    page.wait_for_timeout(200)
    yield "no script of a text's would run", page.evaluate("window.bad === undefined")
    complaints.clear()

    Evil.target = server.origin
    evil = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=evil.serve_forever, daemon=True).start()
    count = judgments(store)
    other = context.new_page()
    other.goto(f"http://127.0.0.1:{evil.server_port}/")
    yield "another site reads nothing", other.evaluate("window.read") == "refused"
    other.wait_for_timeout(300)
    yield "another site answers nothing", judgments(store) == count
    yield "another site embeds nothing", other.evaluate("document.images[0].naturalWidth") == 0
    other.close()
    evil.shutdown()

    expected, so_far = shown(page), done(page)
    server.kill()
    server = Serve(program, store)
    page.goto(server.url)
    click(page, "link", "ann")
    yield "after a kill and a restart it goes on where it was", shown(page) == expected and done(page) == so_far

    without = browser.new_context(java_script_enabled=False)
    plain = without.new_page()
    plain.goto(server.url)
    plain.locator("input[name=rater]").fill("bob")
    click(plain, "button", "Begin")
    for n, name in enumerate(["Left is better", "Tie", "Right is better", "say", "Skip"], 1):
        click(plain, "button", name)
        yield f"without a script, “{name}” answers", plain.locator("header").inner_text().find(f"{n} of") >= 0
    click(plain, "button", "Undo")
    yield "without a script, undo works", plain.locator("header").inner_text().find("4 of") >= 0
    without.close()

    press(page, "s")
    while page.locator("#answer").count():
        press(page, "1")
    yield "it ends", "That was all" in page.content()
    yield "what was skipped can be seen again", page.get_by_role("button", name="skipped").count() == 1
    click(page, "link", "Results")
    rows = page.locator("tbody tr").all_inner_texts()
    yield "both people are among the results", any("ann" in r for r in rows) and any("bob" in r for r in rows)
    if screenshots:
        page.screenshot(path=screenshots / "results.png", full_page=True)
    click(page, "link", "Items")
    if screenshots:
        page.screenshot(path=screenshots / "items.png", full_page=True)
    page.goto(f"{server.origin}/items/{reasoned}")
    yield "the reason stands with its item", "12x the colour\nis right" in page.locator("main").inner_text()
    if screenshots:
        page.screenshot(path=screenshots / "item.png", full_page=True)
    yield f"the browser had nothing to complain of {complaints}", not complaints
    server.kill()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/votive")
    arguments.add_argument("--practice", type=pathlib.Path, default=ROOT / "target/release/examples/practice_store")
    arguments.add_argument("--screenshots", type=pathlib.Path)
    chosen = arguments.parse_args()
    failed = passed = 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = pathlib.Path(folder) / "store.sqlite"
        subprocess.run([chosen.practice, store, str(PAIRS)], check=True)
        # Chromium has no sandbox of its own where it is run by root.
        options = {"args": ["--no-sandbox"], "executable_path": shutil.which("chromium")}
        browser = playwright.chromium.launch(**options)
        for what, holds in check(browser, chosen.program, store, chosen.screenshots):
            print("ok    " if holds else "FAILED", what, flush=True)
            passed, failed = passed + bool(holds), failed + (not holds)
        browser.close()
    print(f"{passed} passed, {failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
