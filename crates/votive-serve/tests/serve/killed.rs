//! What was acknowledged is there after the process was killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use votive_critic::Store;
use votive_serve::Server;

use crate::browser::{Browser, Comparison};
use crate::running::{fill, options};

/// Names the store of the process below.
const STORE: &str = "VOTIVE_SERVE_TEST_STORE";

/// Not a test but the process that is killed: this program again, which then serves the store.
#[test]
#[expect(clippy::print_stdout, reason = "the other process reads it")]
fn child() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let server = Server::bind(options(Path::new(&path))).unwrap();
    println!("\nready {} {}", server.port(), server.url());
    server.run(|| false).unwrap();
}

#[test]
fn answers_survive_the_death_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 200);
    let mut known = 0;
    // Three deaths, each while answers are under way.
    for answers in [10, 17, 5] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child", "--nocapture"])
            .env(STORE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready =
            lines.map_while(Result::ok).find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
        let ready = ready.unwrap();
        let (port, url) = ready.split_once(' ').unwrap();
        let browser = Browser::open_url(port.parse().unwrap(), url);
        let mut killer = Some(child);
        let mut killing = None;
        let mut acknowledged = known;
        while let Some(page) = browser.try_get("/compare?rater=ann") {
            let comparison = Comparison::read(&page.text()).unwrap();
            let Some(reply) = browser.post("/answer", &comparison.fields("left")) else { break };
            assert_eq!(reply.status, 303);
            acknowledged += 1;
            if acknowledged - known == answers {
                // From here on, answers and the signal race each other.
                killing = killer.take().map(|mut child| {
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(answers as u64));
                        child.kill().unwrap();
                        child.wait().unwrap();
                    })
                });
            }
        }
        killing.unwrap().join().unwrap();
        let kept = Store::open(&path).unwrap().judgments(None, Some("person:ann")).unwrap().len();
        // One that was under way may have been written without having been acknowledged.
        assert!((acknowledged..=acknowledged + 1).contains(&kept), "{kept} of {acknowledged}");
        known = kept;
    }
    assert!(known >= 10 + 17 + 5);
}
