"""What transformers makes of captions and conversations: CLIP ids, rendered chat templates.

Writes tokenizing/:
  clip/<end|bang>/ a CLIP tokenizer in both layouts, padding with the end token and with "!" (as Stable Diffusion 2)
  clip.json        captions and their ids under both, padded to 77
  templates.json   chat templates in the idioms of published ones, each with conversations and its rendering
"""

from __future__ import annotations

import json

from common import target_folder, write_json, write_made_by

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

# Written by hand: training breaks ties differently every time.
MERGES = [
    "r e", "re d</w>", "s m", "a l", "sm al", "smal l</w>", "c i", "ci r", "c l", "cl e</w>", "cir cle</w>", "e n</w>", "g re",
    "gre en</w>", "i t</w>", "d o", "do g</w>", "' s</w>", "' r", "'r e</w>", "o n</w>", "c a", "f Ã", "fÃ ©</w>", "! !</w>",
    "1 2", "æ Ĺ", "t h", "th e", "< |", "| ></w>",
]  # fmt: skip
PADDING = {"end": "<|endoftext|>", "bang": "!"}

CAPTIONS = [
    "a small red circle",
    "  Two   GREEN triangles,\n on white!! ",
    "it's a dog's life, they'll say: we've won",
    "3 circles and 12345 squares (50%)",
    "café naïve Ångström ÉCLAIR e\u0301",
    "a 😀 smile… “quoted” – dash",
    "日本語 Ελληνικά русский",
    "<|startoftext|> inside <|endoftext|>",
    "don't 'd 'RE 'S",
    "!'s ?!'ll",
    "x" * 90,
    "",
]

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TURNS = [
    {"role": "system", "content": "  Be brief. "},
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "<think>\nsum\n</think>\n\n4"},
    {"role": "user", "content": "And 3+3?\n"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds <two> numbers & says \"é\".",
            "parameters": {"type": "object", "properties": {"b": {"type": "number"}, "a": {"type": "number"}}, "required": ["b", "a"]},
        },
    }
]
CALL = [
    {"role": "user", "content": "add 1 and 2"},
    {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"b": 2, "a": 1.5, "c": None, "d": True}}}]},
    {"role": "tool", "name": "add", "content": "3"},
]

TEMPLATES = {
    # A header per turn, trimmed contents, an optional date: the manner of Llama 3.
    "headers": """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\n\nToday: " + date_string + "\n\n" + system_message + "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception("one call at a time") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}<|eot|>" }}
    {%- else %}
        {{- "<|start|>ipython<|end|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\n\n' }}{%- endif %}
""",
    # Instructions in brackets, strict alternation, the system prompt inside the first turn: the manner of Mistral.
    "brackets": """{%- if messages[0]["role"] == "system" %}{%- set system = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate user/assistant/user/assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system is defined %}
            {{- "[INST] " + system + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
""",
    # Tools as JSON, thoughts cut from earlier turns, reversed search: the manner of Qwen 3.
    "thoughts": """{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- "# Tools\n<tools>" }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<r>') and message.content.endswith('</r>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}
""",
    # Blocks on lines of their own, marks around the assistant's text, a macro, a break, printed constants.
    "blocks": """{% macro turn(role, text='none') -%}
<{{ role }}>{{ text }}
{%- endmacro %}
{% for message in messages %}
  {% if loop.index > 3 %}
    {% break %}
  {% endif %}
  {% if message.role == 'assistant' %}
    {% generation %}
{{ turn(message.role, message.content or '') }}
    {% endgeneration %}
  {% else %}
{{ turn(message['role'], text=message.content | upper) }} {{ loop.first }} {{ message.missing }} {{ none }} {{ 7 // 2 }} {{ 7 / 2 }}
  {% endif %}
{% endfor %}
{{ {'one': [1, 2.0, none, false]} | tojson(indent=2) }}
{{ messages | map(attribute='role') | join(',') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}

""",
}

CONVERSATIONS = {
    "turns": (TURNS, None, {}),
    "tail": (TURNS[1:], None, {"enable_thinking": False}),
    "thought": (TURNS[1:2] + [{"role": "assistant", "content": "4", "reasoning": "two and two"}], None, {}),
    "tools": (CALL, TOOLS, {}),
    "wrong": (TURNS[2:3], None, {}),
}


def clip_tokenizer(folder, pad_token: str) -> CLIPTokenizer:
    """CLIP's byte-pair encoding with few merges, saved as transformers 5 does and as CLIP repositories are."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [char + "</w>" for char in alphabet] + [merge.replace(" ", "") for merge in MERGES]
    vocab = {token: index for index, token in enumerate(tokens + ["<|startoftext|>", "<|endoftext|>"])}
    merges = [tuple(merge.split()) for merge in MERGES]
    CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, pad_token=pad_token).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(merge + "\n" for merge in MERGES))
    return CLIPTokenizer.from_pretrained(folder)


def render(template: str, name: str, add_generation_prompt: bool) -> dict:
    messages, tools, variables = CONVERSATIONS[name]
    # `apply_chat_template` drops fields that are null before it renders.
    cleaned = [{key: value for key, value in message.items() if value is not None} for message in messages]
    result = {"messages": messages, "tools": tools, "variables": variables, "add_generation_prompt": add_generation_prompt}
    try:
        rendered, _ = render_jinja_template(
            [cleaned], tools=tools, chat_template=template, add_generation_prompt=add_generation_prompt, **SPECIAL_TOKENS, **variables
        )
        return result | {"text": rendered[0]}
    except Exception as error:
        return result | {"error": str(error)}


def main() -> None:
    folder = target_folder("tokenizing", __doc__)
    clip = {}
    for name, pad_token in PADDING.items():
        tokenizer = clip_tokenizer(folder / "clip" / name, pad_token)
        ids = [tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids for text in CAPTIONS]
        clip[name] = [{"caption": text, "ids": row} for text, row in zip(CAPTIONS, ids)]
    write_json(folder / "clip.json", clip)
    templates = []
    for name, source in TEMPLATES.items():
        renderings = [render(source, conversation, prompt) for conversation in CONVERSATIONS for prompt in (False, True)]
        templates.append({"name": name, "source": source, "special_tokens": SPECIAL_TOKENS, "renderings": renderings})
    write_json(folder / "templates.json", templates)
    write_made_by(folder, "tokenizing.py", ["transformers", "tokenizers", "jinja2"])


if __name__ == "__main__":
    main()
