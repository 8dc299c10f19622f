#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
use candle_core::{Device, Tensor};
use serde_json::Value;
use votive_diffusion::*;
fn nums(v: &Value) -> Vec<f32> { v.as_array().unwrap().iter().map(|x| x.as_f64().map_or(f32::NAN, |x| x as f32)).collect() }
fn t(v: &Value) -> Tensor { Tensor::from_vec(nums(v), (1, 1, 2, 3), &Device::Cpu).unwrap() }
#[test]
fn tmp() {
    let text = std::fs::read_to_string("/tmp/sched/cases.json").unwrap().replace("NaN", "null").replace("-Infinity", "null").replace("Infinity","null");
    let cases: Value = serde_json::from_str(&text).unwrap();
    let mut worst = 0f32;
    for c in cases.as_array().unwrap() {
        let kind: SamplerKind = c["kind"].as_str().unwrap().parse().unwrap();
        let steps = c["steps"].as_u64().unwrap() as usize;
        let config = SchedulerConfig::parse(&c["config"].to_string(), "x").unwrap();
        let name = format!("{kind} {steps} eta {} {}", c["eta"], c["config"]);
        let built: Result<Box<dyn Sampler>> = if kind == SamplerKind::Ddim { sampler::Ddim::new(&config, steps, c["eta"].as_f64().unwrap()).map(|d| Box::new(d) as Box<dyn Sampler>) } else { kind.build(&config, steps) };
        let mut s = match built { Ok(s) => s, Err(e) => { println!("REFUSED {name}: {e}"); continue } };
        let ab = NoiseSchedule::new(&config).unwrap();
        for (i, a) in nums(&c["abar"]).iter().enumerate() { let m = ab.alphas_cumprod()[i*37]; if (m-a).abs() > 1e-6*a.abs() { println!("ABAR {name} {i} {m} {a}"); break } }
        let ts: Vec<f64> = c["timesteps"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        if ts.iter().map(|x| *x as f32).collect::<Vec<_>>() != s.timesteps().iter().map(|x| *x as f32).collect::<Vec<_>>() { println!("TIMESTEPS {name}: {ts:?} {:?}", s.timesteps()); continue }
        let sig = c["sigma"].as_f64().unwrap();
        if (s.init_noise_sigma() - sig).abs() > 1e-6 * sig { println!("SIGMA {name} {sig} {}", s.init_noise_sigma()); }
        let mut x = (t(&c["init"]) * sig).unwrap();
        let noise = StepNoise::Given(c["noises"].as_array().unwrap().iter().map(t).collect());
        let mut w = 0f32;
        for i in 0..ts.len() {
            let inp = s.scale_input(&x, i).unwrap();
            w = w.max(diff(&inp, &t(&c["ins"][i])));
            x = s.step(&t(&c["outs"][i]), i, &x, &noise).unwrap();
            let d = diff(&x, &t(&c["xs"][i])); if !(d < 1e-5) && w < 1e-5 { println!("at {i} {d:e} {x} {}", t(&c["xs"][i])); }
            w = w.max(d);
        }
        worst = worst.max(w);
        if !(w < 1e-5) { println!("DIFF {w:e} {name}"); }
    }
    println!("worst {worst:e}");
}
fn diff(a: &Tensor, b: &Tensor) -> f32 {
    let (a, b): (Vec<f32>, Vec<f32>) = (a.flatten_all().unwrap().to_vec1().unwrap(), b.flatten_all().unwrap().to_vec1().unwrap());
    let scale = b.iter().fold(1f32, |m, x| m.max(x.abs()));
    a.iter().zip(&b).map(|(a, b)| if a.is_nan() || b.is_nan() { f32::INFINITY } else { (a - b).abs() / scale }).fold(0.0, f32::max)
}
