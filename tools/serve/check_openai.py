"""The official `openai` client against `votive serve`, in one command:

    pip install -r tools/serve/requirements.txt
    cargo build --release
    python tools/serve/check_openai.py [--model DIR] [--images]

It starts `votive serve --model DIR` on a free port, talks to it as any program would that knows OpenAI's interface, and
says what held. `--images` is for a model that sees.
"""

import argparse
import asyncio
import base64
import json
import pathlib
import struct
import subprocess
import zlib

import openai

ROOT = pathlib.Path(__file__).resolve().parents[2]


def png(colour):
    """A PNG of 8 x 8 pixels of a colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(colour) * 8 for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refused(kind, call, **words):
    """Whether a call is refused with an error of the client's, and its message has all words."""
    try:
        call()
    except kind as error:
        body = error.body if isinstance(error.body, dict) else {}
        return all(body.get(name) == value for name, value in words.items())
    return False


def check(client, model, sees_images):
    """Every check as (what holds, whether it does)."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}]

    def ask(**more):
        return client.chat.completions.create(**({"model": model, "messages": messages, "max_tokens": 12} | more))

    yield "the model is listed", [each.id for each in client.models.list()] == [model]
    yield "the model is found by its name", client.models.retrieve(model).id == model

    greedy = ask(temperature=0)
    choice = greedy.choices[0]
    yield "an answer has words and a role", bool(choice.message.content) and choice.message.role == "assistant"
    yield "an answer has a reason to end", choice.finish_reason in ("stop", "length")
    usage = greedy.usage
    yield "tokens are counted", 0 < usage.completion_tokens <= 12 and usage.prompt_tokens > 0
    yield "the sum of tokens is one", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    yield "one token is one token", ask(max_completion_tokens=1).usage.completion_tokens == 1

    def drawn(seed):
        return ask(temperature=1.0, seed=seed).choices[0].message.content

    yield "equal seeds give equal answers", drawn(7) == drawn(7)
    yield "other seeds give other answers", len({drawn(seed) for seed in range(8)}) > 1

    stream = list(ask(temperature=0, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    yield "a stream says the same", said == choice.message.content
    yield "a stream ends with what it cost", stream[-1].usage == usage and not stream[-1].choices
    yield "a stream comes in pieces", len(stream) > 4

    scored = ask(temperature=0, logprobs=True, top_logprobs=5).choices[0]
    tokens = scored.logprobs.content
    yield "tokens together are the answer", "".join(token.token for token in tokens) == scored.message.content
    yield "log-probabilities are none above 0", all(token.logprob <= 0 for token in tokens)
    likeliest = all(abs(token.logprob - token.top_logprobs[0].logprob) < 1e-6 for token in tokens)
    yield "the greedy token is the likeliest", likeliest and all(len(token.top_logprobs) == 5 for token in tokens)

    parts = [{"type": "text", "text": "Name "}, {"type": "text", "text": "a colour."}]
    by_parts = ask(temperature=0, messages=[messages[0], {"role": "user", "content": parts}])
    yield "parts of a text are a text", by_parts.choices[0].message.content == choice.message.content

    def look(colour):
        url = "data:image/png;base64," + base64.b64encode(png(colour)).decode()
        image = {"type": "image_url", "image_url": {"url": url}}
        return ask(temperature=0, messages=[{"role": "user", "content": [image, *parts]}])

    if sees_images:
        blind = ask(temperature=0, messages=[{"role": "user", "content": parts}]).usage
        yield "an image costs tokens", look((200, 0, 0)).usage.prompt_tokens > blind.prompt_tokens
    else:
        blind = refused(openai.BadRequestError, lambda: look((200, 0, 0)), param="messages")
        yield "an image for a model without eyes is refused", blind

    other = client.with_options(api_key="wrong")
    yield "a wrong key is refused", refused(openai.AuthenticationError, other.models.list, code="invalid_api_key")
    unknown = refused(openai.NotFoundError, lambda: ask(model="gpt-4o"), code="model_not_found")
    yield "an unknown model is refused", unknown
    stop = refused(openai.BadRequestError, lambda: ask(stop="x"), param="stop", code="unsupported_parameter")
    yield "what would be passed over is refused", stop
    far = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]}]
    yield "no address is opened", refused(openai.BadRequestError, lambda: ask(messages=far))
    long = [{"role": "user", "content": "word " * 100_000}]
    yield "too long a talk is refused", refused(openai.BadRequestError, lambda: ask(messages=long))

    async def many():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as together:
            create = together.chat.completions.create
            calls = [create(model=model, messages=messages, max_tokens=12, temperature=0) for _ in range(6)]
            return [each.choices[0].message.content for each in await asyncio.gather(*calls)]

    yield "several at a time get the same answer", set(asyncio.run(many())) == {choice.message.content}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/votive")
    arguments.add_argument("--model", type=pathlib.Path, default=ROOT / "models/tiny-lm")
    arguments.add_argument("--images", action="store_true", help="the model sees images")
    chosen = arguments.parse_args()
    command = [chosen.program, "serve", "--model", chosen.model, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            started = json.loads(server.stdout.readline())
            client = openai.OpenAI(base_url=started["api"], api_key=started["token"], max_retries=0)
            failed = passed = 0
            for what, holds in check(client, started["models"][0], chosen.images):
                print("ok    " if holds else "FAILED", what)
                passed, failed = passed + bool(holds), failed + (not holds)
        finally:
            server.terminate()
    print(f"{passed} passed, {failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
