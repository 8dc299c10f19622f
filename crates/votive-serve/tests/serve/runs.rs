//! Runs and galleries that are watched: what is shown of them, to whom, and what is never opened.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use votive_serve::Options;

use crate::browser::{Browser, Seen, send, tokens};
use crate::hostile::{hostile, markup_without, text};
use crate::running::{Running, picture};

/// Attributes whose value may come from a run, and with what it begins then.
const FROM_A_RUN: &[(&str, &str)] = &[
    ("value", "text/"),
    ("alt", "sample: "),
    ("alt", "Before: "),
    ("data-category", "text/"),
    ("href", "/runs/"),
];

fn markup(page: &str) -> Vec<(String, BTreeMap<String, String>)> {
    markup_without(page, FROM_A_RUN)
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A run of ten steps of which three are made, in which everything that can be a text is `text`.
fn run(folder: &Path, text: &str) {
    write(folder, "plan.toml", "[train]\nsteps = 10\n");
    write(folder, "run.lock", "");
    let steps = [(1, 0.69, 0.5), (2, 0.6, 0.625), (3, 0.5, 0.75)];
    let line = |(step, loss, accuracy): &(u64, f64, f64)| {
        format!("{}\n", json!({ "step": step, "loss": loss, "rewards/accuracies": accuracy }))
    };
    write(folder, "metrics.jsonl", steps.iter().map(line).collect::<String>());
    write(folder, "alarms.jsonl", format!("{}\n", json!({ "step": 2, "alarm": text, "message": text })));
    let sample =
        |image: Value, words: Value| json!({ "prompt": text, "seed": 7, "image": image, "text": words });
    let samples = json!([sample(json!("0.png"), Value::Null), sample(Value::Null, json!(text))]);
    write(folder, "samples/step-000003/samples.json", samples.to_string());
    write(folder, "samples/step-000003/0.png", picture(9).bytes());
}

/// A report in which everything that can be a text is `text`.
fn report(folder: &Path, text: &str) {
    let side =
        json!({ "text": text, "exact": true, "parts": [{ "name": text, "met": false }], "score": 1.0 });
    let category = json!({ "name": text, "n": 3, "base": 1.0, "aligned": 2.0, "gain": 1.0, "gain_low": 0.0, "gain_high": 2.0 });
    let before = json!({ "image": "before.png", "exact": false, "score": 0.0 });
    let report = json!({
        "schema_version": 1, "title": text, "command": text, "seed": 1, "created": text, "objective": text,
        "settings": { text: text },
        "text": {
            "base": 1.0, "aligned": 2.0, "gain": 1.0, "gain_low": 0.0, "gain_high": 2.0, "n_prompts": 3,
            "settings": { text: text }, "categories": [category], "not_improved": [text],
            "metrics": [{ "name": text, "base": 1.0, "aligned": 2.0 }],
            "labels": { "source": text, "pairs": 3, "flipped": 0.0 },
            "entries": [{ "prompt": text, "seed": 1, "category": text, "before": before, "after": side, "verdict": "better" }],
        },
    });
    write(folder, "report.json", report.to_string());
    write(folder, "before.png", picture(11).bytes());
}

fn watching(folder: &Path) -> Running {
    Running::start(Options { runs: vec![folder.to_owned()], ..Options::default() })
}

/// Addresses of all runs, in the order of the list.
fn addresses(browser: &Browser) -> Vec<String> {
    let page = browser.get("/runs");
    assert_eq!(page.status, 200, "{}", page.text());
    let links = tokens(&page.text()).into_iter().filter_map(|seen| match seen {
        Seen::Open(name, attributes) if name == "a" => attributes.get("href").cloned(),
        _ => None,
    });
    links.filter(|link| link.starts_with("/runs/")).collect()
}

#[test]
fn a_run_is_watched_while_it_goes_on() {
    let root = tempfile::tempdir().unwrap();
    run(&root.path().join("first"), "a red circle");
    let server = watching(root.path());
    let browser = Browser::open(&server);
    assert_eq!((browser.get("/").status, browser.get("/").header("location")), (303, "/runs"));
    let list = browser.get("/runs").text();
    for part in ["/first</a>", "running", "step 3 of 10", "0.5000", "0.75", "http-equiv=\"refresh\""] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let address = addresses(&browser).remove(0);
    let page = browser.get(&address).text();
    for part in [
        "Loss over steps 1 to 3",
        "Accuracy over steps",
        "<b>Step 2:</b> a red circle",
        "http-equiv=\"refresh\"",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // The page's own link, seen from the page.
    assert!(page.contains("src=\"samples/step-000003/0.png\""));
    let image = browser.get(&format!("{address}samples/step-000003/0.png"));
    assert_eq!((image.status, image.header("content-type")), (200, "image/png"));
    assert_eq!(image.bytes, picture(9).bytes());

    // Another step, another run, the end of the first.
    let log = root.path().join("first/metrics.jsonl");
    let more = fs::read_to_string(&log).unwrap() + "{\"step\":10,\"loss\":0.4}\n{\"step\":11,\"lo";
    fs::write(&log, more).unwrap();
    run(&root.path().join("second"), "two stars");
    write(root.path(), "first/final/config.json", "{}");
    let list = browser.get("/runs").text();
    for part in ["step 10 of 10", "finished", "/second</a>", "0.4000"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(!browser.get(&address).text().contains("http-equiv=\"refresh\""));
}

#[test]
fn a_gallery_is_shown_with_its_report_and_images() {
    let root = tempfile::tempdir().unwrap();
    report(root.path(), "Base against aligned");
    let server = watching(root.path());
    let browser = Browser::open(&server);
    let address = addresses(&browser).remove(0);
    let page = browser.get(&address).text();
    for part in
        ["<h1>Base against aligned</h1>", "Gain by category", "src=\"before.png\"", "href=\"report.json\""]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(browser.get(&format!("{address}before.png")).bytes, picture(11).bytes());
    let report = browser.get(&format!("{address}report.json"));
    assert_eq!((report.status, report.header("content-type")), (200, "application/json"));
    assert_eq!(report.bytes, fs::read(root.path().join("report.json")).unwrap());
}

/// Every name of a run, and every text in it, is a text on the pages: element by element they are those of harmless ones.
#[test]
fn hostile_names_and_texts_are_texts() {
    let [tame, wild] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let texts = hostile();
    for (n, hostile) in texts.iter().enumerate() {
        let name: String = hostile.chars().map(|c| if c == '/' || c == '\0' { '_' } else { c }).collect();
        for (root, name, text) in
            [(&tame, format!("{n:03}"), "tame"), (&wild, format!("{n:03}{name}"), hostile)]
        {
            let folder = root.path().join(name);
            run(&folder, text);
            report(&folder, text);
        }
    }
    let servers = [&tame, &wild].map(|root| watching(root.path()));
    let browsers = servers.each_ref().map(Browser::open);
    let [tame, wild] = browsers.each_ref().map(|browser| markup(&browser.get("/runs").text()));
    assert_eq!(tame.len(), wild.len());
    assert!(tame == wild, "{:?}", tame.iter().zip(&wild).find(|(tame, wild)| tame != wild));
    let [tame, wild] = browsers.each_ref().map(addresses);
    assert_eq!((tame.len(), wild.len()), (200, 200));
    for ((tame, wild), hostile) in tame.iter().zip(&wild).zip(&texts) {
        let [tame, wild] = [browsers[0].get(tame).text(), browsers[1].get(wild).text()];
        let pages = [markup(&tame), markup(&wild)];
        let difference = pages[0].iter().zip(&pages[1]).find(|(tame, wild)| tame != wild);
        assert!(difference.is_none() && pages[0].len() == pages[1].len(), "{hostile:?}: {difference:?}");
        let visible =
            |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let expected: String = hostile.chars().map(visible).collect();
        assert!(text(&wild).contains(&expected), "{hostile:?}");
    }
}

#[test]
fn whoever_has_no_token_sees_no_run() {
    let root = tempfile::tempdir().unwrap();
    run(&root.path().join("secret"), "a secret prompt");
    let server = watching(root.path());
    let browser = Browser::open(&server);
    let address = addresses(&browser).remove(0);
    let image = format!("{address}samples/step-000003/0.png");
    let host = format!("Host: 127.0.0.1:{}\r\nConnection: close\r\n", server.port);
    for path in ["/runs", &address, &image] {
        assert_eq!(browser.get(path).status, 200, "{path}");
        for more in ["", "Cookie: votive=0\r\n", &format!("Authorization: Bearer {}\r\n", server.token)] {
            let request = format!("GET {path} HTTP/1.1\r\n{host}{more}\r\n");
            let reply = send(server.port, request.as_bytes()).unwrap();
            assert_eq!(reply.status, 403, "{path}");
            assert!(!String::from_utf8_lossy(&reply.bytes).contains("secret"), "{path}");
        }
        let policy = browser.get(path).header("content-security-policy").to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    let strange = format!("GET /runs HTTP/1.1\r\n{}Origin: http://evil.example\r\n\r\n", browser.lines());
    assert_eq!(send(server.port, strange.as_bytes()).unwrap().status, 403);
}

#[test]
fn what_a_run_does_not_show_is_not_opened() {
    let root = tempfile::tempdir().unwrap();
    let (folder, outside) = (root.path().join("run"), root.path().join("outside.png"));
    run(&folder, "p");
    fs::write(&outside, picture(3).bytes()).unwrap();
    let samples = folder.join("samples/step-000003");
    fs::write(samples.join("unlisted.png"), picture(4).bytes()).unwrap();
    fs::write(samples.join("text.png"), "no image").unwrap();
    std::os::unix::fs::symlink(&outside, samples.join("link.png")).unwrap();
    let listed = ["0.png", "text.png", "link.png", "gone.png"]
        .map(|image| json!({ "prompt": "p", "seed": 1, "image": image }));
    write(&samples, "samples.json", json!(listed).to_string());
    let server = watching(root.path());
    let browser = Browser::open(&server);
    let address = addresses(&browser).remove(0);
    let at = |file: &str| {
        send(server.port, format!("GET {address}{file} HTTP/1.1\r\n{}\r\n", browser.lines()).as_bytes())
    };
    assert_eq!(at("samples/step-000003/0.png").unwrap().status, 200);
    for file in [
        "samples/step-000003/unlisted.png",
        "samples/step-000003/text.png",
        "samples/step-000003/link.png",
        "samples/step-000003/gone.png",
        "samples/step-000003/samples.json",
        "samples/step-000003/./0.png",
        "samples/step-000003/../step-000003/0.png",
        "samples%2Fstep-000003%2F..%2Fstep-000003%2F0.png",
        "plan.toml",
        "metrics.jsonl",
        "report.json",
        "../outside.png",
        "..%2Foutside.png",
        "%2Fetc%2Fpasswd",
    ] {
        let status = at(file).map_or(400, |reply| reply.status);
        assert!(matches!(status, 400 | 404), "{file}: {status}");
    }
    for id in ["run", "..", "%2e%2e", "0000000000000000", "..%2Frun", "%00"] {
        let reply =
            send(server.port, format!("GET /runs/{id}/ HTTP/1.1\r\n{}\r\n", browser.lines()).as_bytes());
        let status = reply.map_or(400, |reply| reply.status);
        assert!(matches!(status, 400 | 404), "{id}: {status}");
    }
    // A list that leads out of its folder is said to, and nothing of the run is shown.
    write(
        &samples,
        "samples.json",
        json!([{ "prompt": "p", "seed": 1, "image": "../../../outside.png" }]).to_string(),
    );
    for path in ["/runs", &address] {
        let page = browser.get(path);
        assert_eq!(page.status, 200);
        assert!(page.text().contains("../../../outside.png"), "{}", page.text());
    }
    assert_eq!(at("samples/step-000003/../../../outside.png").map_or(404, |reply| reply.status), 404);
}

#[test]
fn a_server_without_runs_says_so() {
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store.sqlite");
    crate::running::fill(&store, 1);
    let server = Running::of_store(&store);
    let browser = Browser::open(&server);
    for path in ["/runs", "/runs/0000000000000000/", "/runs/0/a.png"] {
        let reply = browser.get(path);
        assert_eq!(reply.status, 404);
        assert!(reply.text().contains("--runs"), "{}", reply.text());
    }
}
