"""The page of a run in headless Chromium, in one command:

    pip install -r tools/gallery/requirements.txt     # and a `chromium` on the path, or: playwright install chromium
    python tools/gallery/check_page.py [--votive target/release/votive] [--screenshots DIR]

It trains four steps of the embedded image model with samples on the way, opens the page that the run wrote, and walks
the samples with the keyboard: prompts to the left and right, checkpoints up and down, zoomed and not. The same page is
read once more without scripts, and with nothing to be had from anywhere.
"""

import argparse
import pathlib
import shutil
import subprocess
import tempfile

from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPTS = ["a small red circle on a white background", "two blue squares on a black background"]
STEPS = [0, 2, 4]


def train(votive, out):
    prompts = "[" + ", ".join(f'"{prompt}"' for prompt in PROMPTS) + "]"
    sets = [f"sample.prompts={prompts}", "sample.every=2", "train.steps=4", "train.save_every=2"]
    command = [votive, "--quiet", "train", ROOT / "examples/recipes/image/dpo.toml", "--out", out]
    subprocess.run([*command, *(part for setting in sets for part in ("--set", setting))], check=True)


def place(page):
    """Row and column of the cell that has the focus."""
    cell = page.evaluate("() => { const c = document.activeElement.closest('td.item');"
                         " return c && [Number(c.dataset.row), Number(c.dataset.column)]; }")  # fmt: skip
    return cell and tuple(cell)


def zoomed(page):
    """What the zoom shows: its step with the seed, and its prompt."""
    captions = page.locator("#zoom figcaption .zoomed")
    return captions.nth(0).inner_text().strip(), captions.nth(1).inner_text().strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votive", default=str(ROOT / "target/release/votive"))
    parser.add_argument("--screenshots", type=pathlib.Path)
    args = parser.parse_args()
    failed = 0

    def check(what, holds):
        nonlocal failed
        failed += not holds
        print("ok  " if holds else "FAIL", what, flush=True)

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = pathlib.Path(folder) / "run"
        train(args.votive, run)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 900, "height": 700})
        errors, requests = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: line.type == "error" and errors.append(line.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((run / "index.html").as_uri())

        check("a row for every checkpoint", page.locator("#samples tbody tr").count() == len(STEPS))
        check("a column for every prompt", page.locator("#samples thead th").count() == 1 + len(PROMPTS))
        check("every picture is shown", page.evaluate(
            "() => [...document.querySelectorAll('#samples img')].every((i) => i.complete && i.naturalWidth > 0)"))  # fmt: skip

        page.locator("td.item").first.focus()
        check("begins at the first checkpoint's first prompt", place(page) == (0, 0))
        walk = [("ArrowDown", (1, 0)), ("ArrowDown", (2, 0)), ("ArrowDown", (2, 0)), ("ArrowRight", (2, 1)),
                ("ArrowRight", (2, 1)), ("ArrowUp", (1, 1)), ("ArrowUp", (0, 1)), ("ArrowUp", (0, 1)),
                ("ArrowLeft", (0, 0)), ("ArrowLeft", (0, 0)), ("j", (0, 1)), ("k", (0, 0))]  # fmt: skip
        for key, expected in walk:
            page.keyboard.press(key)
            check(f"{key} leads to checkpoint {STEPS[expected[0]]}, prompt {expected[1] + 1}", place(page) == expected)
        if args.screenshots:
            args.screenshots.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=args.screenshots / "samples.png")

        page.keyboard.press("Enter")
        check("Enter zooms", page.locator("#zoom").evaluate("(zoom) => zoom.open"))
        first = zoomed(page)
        check("what is zoomed says which step, and of which prompt", first[0].startswith("step 0 ") and first[1] == PROMPTS[0])
        page.keyboard.press("ArrowDown")
        second = zoomed(page)
        check("down in the zoom is the same prompt at the next checkpoint",
              second[0].startswith("step 2 ") and second[1] == PROMPTS[0])  # fmt: skip
        check("with the same seed", first[0].split("seed")[1] == second[0].split("seed")[1])
        if args.screenshots:
            page.screenshot(path=args.screenshots / "zoomed.png")
        page.keyboard.press("ArrowRight")
        check("right in the zoom is the next prompt", zoomed(page)[1] == PROMPTS[1])
        page.keyboard.press("Escape")
        check("Escape leaves the zoom where it was", place(page) == (1, 1))
        page.keyboard.press("?")
        check("? lists the keys", page.locator("#help").evaluate("(help) => help.open"))
        page.keyboard.press("Escape")

        plain = browser.new_context(java_script_enabled=False).new_page()
        plain.goto((run / "index.html").as_uri())
        check("without scripts all samples are there", plain.locator("td.item img").count() == len(STEPS) * len(PROMPTS))
        check("without scripts nothing speaks of keys", not plain.locator("#samples .scripted").first.is_visible())
        check("nothing is asked of a server", all(url.startswith(("file:", "data:")) for url in requests))
        check(f"the browser has nothing to complain of {errors[:2]}", not errors)
        browser.close()
    print("all held" if not failed else f"{failed} failed")
    return failed != 0


if __name__ == "__main__":
    raise SystemExit(main())
