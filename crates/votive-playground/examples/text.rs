#![allow(clippy::unwrap_used, clippy::print_stdout)]
use votive_playground::{Split, text};
use std::collections::BTreeMap;
fn main() {
    for i in 0..40 { let (p, a) = text::training_example(1, i); let v = text::check(&p, &a).unwrap();
        println!("{} {p}\n      {a}", if v.exact { "ok " } else { "BAD" }); }
    let mut stat: BTreeMap<text::Family, (f64, f64, f64, f64, f64, f64)> = BTreeMap::new();
    let (mut ok, mut n) = (0, 0); let mut lens = [(0f64, 0f64, 0f64); 2]; let mut worst=0; let mut longest = 0;
    for i in 0..40000 { let (p, a) = text::training_example(1, i); let v = text::check(&p, &a).unwrap();
        n += 1; ok += usize::from(v.exact);
        let w = a.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).count() as f64;
        worst = worst.max(w as usize); longest = longest.max(p.split(' ').count() + a.split(' ').count());
        let e = stat.entry(v.family).or_default(); e.0 += 1.0; 
        if v.exact { e.1 += 1.0; e.2 += w; e.4 += a.len() as f64 } else { e.3 += w; e.5 += a.len() as f64 };
        let l = &mut lens[usize::from(v.exact)]; l.0 += 1.0; l.1 += w; l.2 += a.len() as f64; }
    println!("ok {ok}/{n} longest answer {worst} words, item {longest}");
    for (f, e) in &stat { println!("{f:?} n {} right {:.3} words right {:.2} flawed {:.2} chars {:.1} {:.1}", e.0, e.1 / e.0, e.2 / e.1, e.3 / (e.0 - e.1), e.4/e.1, e.5/(e.0-e.1)); }
    println!("words flawed {:.3} right {:.3}; chars {:.2} {:.2}", lens[0].1 / lens[0].0, lens[1].1 / lens[1].0, lens[0].2 / lens[0].0, lens[1].2 / lens[1].0);
    let (mut badok, mut okbad, mut noparse) = (BTreeMap::<text::Family, usize>::new(), BTreeMap::<text::Family, usize>::new(), 0);
    for i in 0..40000 { let (p, c, r) = text::preference_pair(2, i); 
        match text::check(&p, &c) { Err(_) => noparse += 1, Ok(v) => if !v.exact { if okbad.is_empty() { println!("{p} | {c} | {v:?}") } *okbad.entry(v.family).or_default() += 1 } }
        if let Ok(v) = text::check(&p, &r) { if v.exact { if badok.len() < 3 { println!("{p} | {r} | {v:?}") } *badok.entry(v.family).or_default() += 1 } } }
    println!("right failing {okbad:?} flawed passing {badok:?} unparsed {noparse}");
    for s in [Split::Train, Split::Select, Split::Test] { let t = std::time::Instant::now(); let all = text::prompts(s, 0, 3000); let mut m = BTreeMap::<text::Family, usize>::new(); for t in &all { *m.entry(t.family()).or_default() += 1 } println!("{s:?} {} {m:?} {:?}", all.len(), t.elapsed()); }
    let t = std::time::Instant::now(); for i in 0..20000 { let _ = std::hint::black_box(text::training_example(3, i)); } println!("{:?}", t.elapsed()/20000);
}
