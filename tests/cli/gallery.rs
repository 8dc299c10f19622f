//! `votive gallery` on folders with and without anything to show.

use crate::*;

#[test]
fn a_page_is_made_from_what_lies_in_a_folder() {
    let folder = Folder::new();
    folder.text("metrics.jsonl", "{\"step\":1,\"loss\":0.69}\n{\"step\":2,\"loss\":0.5}\n");
    let dir = folder.path("");
    let [result] = &rows(&["gallery", &dir])[..] else { panic!("one line") };
    let page = fs::read_to_string(result["page"].as_str().unwrap()).unwrap();
    assert!(page.contains("Training"), "{page}");
}

#[test]
fn a_folder_without_anything_to_show_is_named() {
    let folder = Folder::new();
    fails(&["gallery", &folder.path("")], DATA, &["report.json"]);
    fails(&["gallery", &folder.path("none")], DATA, &["no such folder"]);
    folder.text("report.json", "{}");
    fails(&["gallery", &folder.path("")], DATA, &["report.json", "not valid"]);
}
