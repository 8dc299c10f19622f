#![allow(clippy::unwrap_used)]
use super::*;

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                      '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
                      {% endif %}";

fn render(source: &str) -> Result<String> {
    let messages = [Message::new("user", "Hi"), Message::new("assistant", "Yes?")];
    let special_tokens = Map::from_iter([("eos_token".to_owned(), Value::from("</s>"))]);
    ChatTemplate::compile(source, Path::new("chat_template.jinja"))?.render(
        &messages,
        true,
        &ChatOptions::default(),
        &special_tokens,
    )
}

#[track_caller]
fn check(source: &str, expected: &str) {
    assert_eq!(render(source).unwrap(), expected);
}

#[track_caller]
fn check_error(source: &str, line: usize, expected: &str) {
    let error = render(source).unwrap_err();
    let DataError::Template { line: found, message, .. } = &error else { unreachable!("{error}") };
    assert!(message.contains(expected), "{message}");
    assert_eq!(*found, line, "{message}");
}

#[test]
fn chatml() {
    check(
        CHATML,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>assistant\n",
    );
}

#[test]
fn variables_methods_and_python_constants() {
    check("{{ messages[0].content.upper().removesuffix('I') }}{{ eos_token }}", "H</s>");
    check("{{ none }}{{ true }}{{ missing }}", "NoneTrue");
    check("{% if tools is none %}no tools{% endif %}", "no tools");
    check("{{ messages[-1]['content'].split('s')[-1] }}{{ messages[1:] | length }}", "?1");
    check("{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user");
}

#[test]
fn to_json_writes_what_python_does() {
    check("{{ {'b': [1, 2.5, none], 'a': 'é<'} | tojson }}", r#"{"b": [1, 2.5, null], "a": "é<"}"#);
    check(
        "{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true) }}",
        r#"{"a": "\u00e9", "b": 1}"#,
    );
    check("{{ {'a': [1, {}]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    {}\n  ]\n}");
}

#[test]
fn blocks_are_trimmed_and_generation_marks_render_their_body() {
    check(
        "{% for m in messages %}\n  {% generation %}\n{{ m.role }}\n  {%- endgeneration -%}\n{% endfor %}\nend",
        "userassistantend",
    );
}

#[test]
fn time_is_read_only_if_given() {
    let source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}fixed{% endif %}";
    check(source, "fixed");
    let template =
        ChatTemplate::compile(source, Path::new("t")).unwrap().with_time(UtcTime::from_unix_seconds(0));
    assert_eq!(template.render(&[], false, &ChatOptions::default(), &Map::new()).unwrap(), "01 Jan 1970");
    check_error("\n{{ strftime_now('%Y') }}", 2, "the template reads the time, and none was given");
}

#[test]
fn reasoning_is_found_and_null_fields_are_absent() {
    let mut message = Message::new("assistant", "4");
    message.0.insert("thinking".to_owned(), "2+2".into());
    message.0.insert("tool_calls".to_owned(), Value::Null);
    let template = ChatTemplate::compile(
        "{{ messages[0].reasoning_content }}{{ messages[0].tool_calls is defined }}",
        Path::new("t"),
    );
    let text = template.unwrap().render(&[message], false, &ChatOptions::default(), &Map::new()).unwrap();
    assert_eq!(text, "2+2False");
}

#[test]
fn the_variables_of_a_row_win_over_special_tokens() {
    let variables = Map::from_iter([("eos_token".to_owned(), Value::from("!"))]);
    let special_tokens = Map::from_iter([("eos_token".to_owned(), Value::from("</s>"))]);
    let options = ChatOptions { tools: Some(serde_json::json!([{"z": 1, "a": 2}])), variables };
    let template = ChatTemplate::compile("{{ eos_token }}{{ tools[0] | tojson }}", Path::new("t")).unwrap();
    assert_eq!(template.render(&[], false, &options, &special_tokens).unwrap(), r#"!{"z": 1, "a": 2}"#);
}

#[test]
fn failures_name_the_line() {
    check_error("\n{{ raise_exception('roles must alternate') }}", 2, "roles must alternate");
    check_error("a\nb\n{% if %}", 3, "syntax error");
    check_error("\n\n{{ messages[0].missing.deeper }}", 3, "undefined");
}

#[test]
fn endless_templates_are_stopped() {
    let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{{ '' }}{% endfor %}{% endfor %}";
    check_error(nested, 1, "instructions");
    let long = "{% set s = 'x' * 100000 %}{% for a in range(9999) %}{{ s }}{% endfor %}";
    check_error(long, 1, "writes more than");
}
