//! `votive bench`: the shape of its result, and that the work is what it says.

use crate::*;

#[track_caller]
fn check(args: &[&str], steps: usize) -> Value {
    let result =
        rows(&[&["bench"], args, &["--steps", &steps.to_string(), "--threads", "2"]].concat()).pop().unwrap();
    assert_eq!(result["bench"], args[0]);
    for times in ["wall_s", "cpu_s"] {
        assert_eq!(result[times].as_array().unwrap().len(), steps, "{result}");
    }
    for number in ["peak_rss_mib", "first_step_done_s"] {
        assert!(result[number].as_f64().unwrap() > 0.0, "{result}");
    }
    assert_eq!((&result["device"], &result["threads"]), (&json!("cpu"), &json!(2)));
    result
}

/// Step 0 compares a model with itself: DPO's loss is log 2 there.
#[track_caller]
fn check_losses(result: &Value) {
    let losses: Vec<f64> = serde_json::from_value(result["losses"].clone()).unwrap();
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-6, "{result}");
}

#[test]
fn every_work_is_measured() {
    let (text, image) = (fixture("text/llama"), fixture("diffusion/sd1"));
    let data = fixture("text/prefs.jsonl");
    for mode in ["full", "lora"] {
        check_losses(&check(
            &["text-step", "--model", &text, "--data", &data, "--mode", mode, "--batch", "2"],
            3,
        ));
        check_losses(&check(
            &["diffusion-step", "--model", &image, "--mode", mode, "--batch", "2", "--latent", "8"],
            2,
        ));
    }
    let made = check(&["generate", "--model", &text, "--batch", "2", "--new-tokens", "5"], 2);
    assert_eq!(made["new_tokens"], 10);
    check(&["sample", "--model", &image, "--latent", "8"], 1);
}
