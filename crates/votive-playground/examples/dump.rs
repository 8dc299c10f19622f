#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stdout)]
use std::io::Write;
use votive_playground::{Split, image};
fn grid(name: &str, get: impl Fn(u64) -> (String, image::Picture)) {
    let (cols, rows, scale) = (8usize, 5usize, 4usize);
    let (w, h) = (cols * 36 * scale, rows * 36 * scale);
    let mut out = vec![100u8; w * h * 3];
    let mut text = String::new();
    for i in 0..cols * rows {
        let (caption, p) = get(i as u64);
        text += &format!("{i} {caption}\n");
        for y in 0..32 * scale { for x in 0..32 * scale {
            let (ox, oy) = ((i % cols) * 36 * scale + x, (i / cols) * 36 * scale + y);
            for c in 0..3 { out[(oy * w + ox) * 3 + c] = p.rgb[((y / scale) * 32 + x / scale) * 3 + c]; }
        } }
    }
    let mut f = std::fs::File::create(format!("/tmp/playground/{name}.ppm")).unwrap();
    write!(f, "P6\n{w} {h}\n255\n").unwrap();
    f.write_all(&out).unwrap();
    std::fs::write(format!("/tmp/playground/{name}.txt"), text).unwrap();
}
fn main() {
    grid("clean", |i| image::clean_example(1, i));
    grid("training", |i| image::training_example(1, i));
    grid("rejected", |i| { let (c, _, r) = image::preference_pair(1, i); (c, r) });
    for split in [Split::Train, Split::Select, Split::Test] {
        let all = image::prompts(split, 0, 100_000);
        let count = |n: usize| [image::Category::Single, image::Category::Count, image::Category::Relation].map(|k| all.iter().take(n).filter(|c| image::category(c) == Some(k)).count());
        std::println!("{split:?} {} {:?} first 150 {:?} first 300 {:?}", all.len(), count(all.len()), count(150), count(300));
    }
}
