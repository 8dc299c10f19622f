//! The program as a whole: help, version, devices, and what happens when nobody reads.

use crate::*;

#[test]
fn help_is_there_at_once() {
    // The first start reads the program from disk.
    ok(&["--help"]);
    let fastest = (0..5).map(|_| {
        let start = Instant::now();
        ok(&["--help"]);
        start.elapsed().as_millis()
    });
    let fastest = fastest.min().unwrap();
    assert!(fastest < 50, "--help took {fastest} ms");
}

#[test]
fn the_version_names_the_devices() {
    let version = ok(&["--version"]);
    assert!(version.starts_with(concat!("votive ", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.contains("devices: cpu"), "{version}");
}

#[test]
fn a_mistyped_command_or_value_gets_a_suggestion() {
    fails(&["methodz"], USAGE, &["similar subcommand", "'methods'"]);
    fails(&["methods", "show", "simp"], USAGE, &["possible values", "similar value exists: 'simpo'"]);
    let sample = ["sample", "--model", "m", "--prompt", "p", "--out", "o", "--sampler", "dpmp"];
    fails(&sample, USAGE, &["similar value exists: 'dpmpp'"]);
}

#[test]
fn a_device_that_is_not_compiled_in_is_a_missing_resource() {
    for (device, is_compiled_in) in [("cuda", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal"))] {
        if !is_compiled_in {
            fails(&["doctor", "--device", device], RESOURCES, &["built without", device, "--features"]);
        }
    }
}

#[test]
fn a_reader_that_leaves_ends_the_program_without_a_message() {
    let mut child = votive(["methods"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_missing_resource() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = votive(["methods"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(RESOURCES));
    assert!(stderr(&output).contains("stdout"), "{}", stderr(&output));
}

#[test]
fn the_doctor_reports_and_passes_its_own_check() {
    let [facts] = &rows(&["doctor", "--threads", "1"])[..] else { panic!("one line") };
    assert_eq!(facts["threads"], 1);
    assert!(facts["gradient_error"].as_f64().unwrap() < 1e-6, "{facts}");
    assert!(facts["matmul_gflops"].as_f64().unwrap() > 0.0, "{facts}");
    assert!(ok(&["doctor"]).contains("gradients"));
}
