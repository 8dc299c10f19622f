//! `votive doctor`: what this program and this machine can do, with a check of a second.

use crate::cli::embedded;
use crate::cli::image_model::ImageModel;
use crate::cli::text_model::TextModel;
use crate::cli::{Code, Context, DeviceName, Failure, Outcome, device};
use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use votive_tensor::gradcheck::{gradient_error, sample_tensor};
use votive_train::checkpoint;

/// Check the program, the machine and the shipped models.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Side of the matrices whose product is timed.
const SIDE: usize = 1024;
/// How long products are timed for.
const TIMED: Duration = Duration::from_millis(500);
/// Finite differences in f64 agree with a right gradient far better than this.
const GRADIENT_TOLERANCE: f64 = 1e-6;

pub(crate) fn run(_args: &Args, ctx: &Context) -> Outcome {
    let device = ctx.device()?;
    let gradient_error = gradient_check()?;
    let facts = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "devices": compiled_in(),
        "device": ctx.device_name(),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "threads": ctx.threads,
        "memory_mib": memory("MemTotal:"),
        "available_memory_mib": memory("MemAvailable:"),
        "simd": simd(),
        "models": models(),
        "matmul_gflops": matmul_rate(&device)?,
        "gradient_error": gradient_error,
    });
    if ctx.output.wants_json() {
        ctx.output.json(&facts)?;
    } else {
        ctx.output.line(as_text(&facts))?;
    }
    if gradient_error > GRADIENT_TOLERANCE {
        let message =
            format!("the gradient of a norm is off by {gradient_error:e}: this build computes wrongly");
        return Err(
            Failure::new(Code::Numbers, message).hint("build again; if that does not help, report it")
        );
    }
    Ok(())
}

fn compiled_in() -> Vec<&'static str> {
    DeviceName::value_variants().iter().filter(|name| name.is_compiled_in()).map(|name| name.name()).collect()
}

/// An entry of Linux's account of memory, MiB; nothing on other systems.
fn memory(entry: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(entry))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// The vector instructions that matter here and that the processor has.
fn simd() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found = [("neon", cfg!(target_feature = "neon"))];
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// The shipped models, where the demo finds them.
fn models() -> Value {
    let model = |name: &str, load: fn(&Path) -> Outcome| match embedded::folder(name) {
        Ok(folder) => state(&folder, load(&folder)),
        Err(missing) => state(Path::new(name), Err(missing)),
    };
    json!([
        model("tiny-lm", |folder| TextModel::load(folder, None, &Device::Cpu).map(|_| ())),
        model("tiny-sd", |folder| ImageModel::load(folder, None, &Device::Cpu).map(|_| ())),
    ])
}

fn state(folder: &Path, loads: Outcome) -> Value {
    let problem = loads.err().map(|failure| failure.message().to_owned());
    let manifest = folder.join("manifest.json").is_file().then(|| match checkpoint::verify(folder) {
        Ok(_) => "verified".to_owned(),
        Err(error) => error.to_string(),
    });
    json!({"folder": folder, "loads": problem.is_none(), "problem": problem, "manifest": manifest})
}

/// Billions of floating-point operations a second in a product of f32 matrices.
fn matmul_rate(device: &Device) -> Outcome<f64> {
    let matrix = Tensor::ones((SIDE, SIDE), DType::F32, device)?;
    // The first product starts threads or compiles kernels.
    matrix.matmul(&matrix)?;
    device.synchronize()?;
    let (start, mut n) = (Instant::now(), 0);
    while start.elapsed() < TIMED {
        matrix.matmul(&matrix)?;
        device.synchronize()?;
        n += 1;
    }
    Ok(2.0 * (SIDE as f64).powi(3) * f64::from(n) / start.elapsed().as_secs_f64() / 1e9)
}

/// How far a backward is from finite differences.
fn gradient_check() -> Outcome<f64> {
    let inputs = [sample_tensor(&[3, 8], 1)?, sample_tensor(&[8], 2)?];
    Ok(gradient_error(&inputs, |x| votive_tensor::rms_norm(&x[0], &x[1], 1e-6))?)
}

fn as_text(facts: &Value) -> String {
    let list = |value: &Value| {
        let items: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if items.is_empty() { "none".to_owned() } else { items.join(", ") }
    };
    let mib = |value: &Value| value.as_u64().map_or_else(|| "unknown".to_owned(), |mib| format!("{mib} MiB"));
    let model = |value: &Value| {
        let (folder, problem) = (value["folder"].as_str().unwrap_or_default(), value["problem"].as_str());
        let state = problem.map_or_else(|| "loads".to_owned(), |problem| format!("does not load: {problem}"));
        let manifest =
            value["manifest"].as_str().map(|state| format!(", manifest {state}")).unwrap_or_default();
        format!("\nmodel        {folder}: {state}{manifest}")
    };
    let models: String = facts["models"].as_array().into_iter().flatten().map(model).collect();
    format!(
        "version      votive {}\nsystem       {}\ncores        {}, using {} threads\nmemory       {}, {} available\n\
         simd         {}\ndevice       {}{models}\nmatmul       {:.1} GFLOP/s on {}\ngradients    off by {:.1e}",
        device::VERSION,
        facts["system"].as_str().unwrap_or_default(),
        facts["cores"],
        facts["threads"],
        mib(&facts["memory_mib"]),
        mib(&facts["available_memory_mib"]),
        list(&facts["simd"]),
        facts["device"].as_str().unwrap_or_default(),
        facts["matmul_gflops"].as_f64().unwrap_or_default(),
        facts["device"].as_str().unwrap_or_default(),
        facts["gradient_error"].as_f64().unwrap_or_default(),
    )
}
