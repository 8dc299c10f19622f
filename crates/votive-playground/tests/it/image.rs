use std::collections::BTreeSet;

use votive_playground::image::{
    Category, FlawRates, Picture, SIDE, Scene, Verdict, category, check, clean_example, held_out,
    preference_pair, prompts, see, training_example, training_example_with, uglify, wrong,
};
use votive_playground::{PlaygroundError, Split};
use votive_tensor::random::{Draws, Stream};

/// What a good autoencoder does to a picture: a little blur and noise.
fn degraded(picture: &Picture, sigma: f64, noise: f64, draws: &mut Draws) -> Picture {
    let weights: Vec<f64> = (-3..=3).map(|d| (-0.5 * (f64::from(d) / sigma).powi(2)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut values: Vec<f64> = picture.rgb.iter().map(|value| f64::from(*value)).collect();
    for (dx, dy) in [(1, 0), (0, 1)] {
        values = (0..values.len())
            .map(|index| {
                let (x, y) = ((index / 3 % SIDE) as i32, (index / 3 / SIDE) as i32);
                let at = |d: i32| {
                    let inside = |place: i32| place.clamp(0, SIDE as i32 - 1) as usize;
                    values[(inside(y + d * dy) * SIDE + inside(x + d * dx)) * 3 + index % 3]
                };
                weights.iter().zip(-3..=3).map(|(weight, d)| weight * at(d)).sum::<f64>() / total
            })
            .collect();
    }
    let rgb = values.iter().map(|value| (value + noise * draws.normal()).round().clamp(0.0, 255.0) as u8);
    Picture { rgb: rgb.collect(), ..*picture }
}

fn degrading() -> Draws {
    Draws::new(77, Stream::Noise, 0, 0)
}

/// How many of `n` captions and pictures are exact.
fn exact(n: u64, mut example: impl FnMut(u64) -> (String, Picture)) -> usize {
    (0..n)
        .filter(|index| {
            let (caption, picture) = example(*index);
            check(&caption, &picture).unwrap().exact
        })
        .count()
}

/// A caption with the picture of a scene that differs in one attribute.
fn mismatch(index: u64, draws: &mut Draws) -> (String, Picture) {
    let (caption, _) = clean_example(5, index);
    let picture = wrong(Scene::parse(&caption).unwrap(), draws).render(draws);
    (caption, picture)
}

#[test]
fn every_caption_names_its_scene_and_no_other() {
    let mut captions = BTreeSet::new();
    for scene in Scene::all() {
        assert_eq!(Scene::parse(&scene.caption()), Some(scene));
        assert!(captions.insert(scene.caption()));
    }
    assert_eq!(captions.len(), 126 + 126 + 21 * 20 * 4 * 3);
    let loose = "  A small ORANGE circle on a  white background. ";
    assert_eq!(Scene::parse(loose).unwrap().caption(), "a small orange circle on a white background");
    for other in [
        "",
        "a circle",
        "two red circle on a white background",
        "a red circle above a red circle on a gray background",
    ] {
        assert_eq!(Scene::parse(other), None, "{other}");
    }
}

#[test]
fn clean_pictures_are_exact_and_not_ugly() {
    assert_eq!(exact(1000, |index| clean_example(5, index)), 1000);
    for index in 0..200 {
        let (_, picture) = clean_example(6, index);
        assert_eq!(see(&picture).unwrap().ugliness, 0.0);
    }
}

#[test]
fn a_little_blur_and_noise_does_not_matter() {
    let mut draws = degrading();
    let blurred = exact(1000, |index| {
        let (caption, picture) = clean_example(5, index);
        (caption, degraded(&picture, 0.7, 6.0, &mut draws))
    });
    assert!(blurred >= 995, "{blurred}");
}

#[test]
fn one_wrong_attribute_is_never_accepted() {
    let mut draws = degrading();
    assert_eq!(exact(1000, |index| mismatch(index, &mut draws)), 0);
    let blurred = exact(1000, |index| {
        let (caption, picture) = mismatch(index, &mut draws);
        (caption, degraded(&picture, 0.7, 6.0, &mut draws))
    });
    assert!(blurred <= 2, "{blurred}");
}

#[test]
fn ugly_pictures_are_ugly_and_still_mostly_exact() {
    let mut draws = degrading();
    let (mut right, mut ugly, n) = (0, 0, 500);
    for index in 0..n {
        let (caption, picture) = clean_example(8, index);
        let verdict =
            check(&caption, &degraded(&uglify(&picture, &mut draws), 0.7, 4.0, &mut draws)).unwrap();
        right += usize::from(verdict.exact);
        ugly += usize::from(verdict.ugliness > 0.2);
    }
    assert!(right >= 480, "{right}");
    assert!(ugly >= 475, "{ugly}");
}

#[test]
fn parts_and_utility_follow_from_what_is_wrong() {
    let mut draws = Draws::new(3, Stream::World, 0, 0);
    let mut judged = |caption: &str, shown: &str| {
        check(caption, &Scene::parse(shown).unwrap().render(&mut draws)).unwrap()
    };
    let caption = "a red circle left of a blue square on a white background";
    let verdict = judged(caption, caption);
    assert!(verdict.exact && verdict.part == 1.0 && verdict.utility == 1.5);
    let swapped = judged(caption, "a blue circle left of a red square on a white background");
    assert!(swapped.object && !swapped.colour && swapped.relation == Some(true) && !swapped.exact);
    assert_eq!(swapped.part, 0.8);
    let turned = judged(caption, "a red circle right of a blue square on a white background");
    assert!(turned.object && turned.colour && turned.relation == Some(false) && turned.size.is_none());
    let three =
        judged("two cyan triangles on a black background", "three cyan triangles on a black background");
    assert!(!three.count && three.object && three.colour && three.background && three.part == 0.75);
    let large =
        judged("a small green square on a gray background", "a large green square on a black background");
    assert!(large.size == Some(false) && !large.background && large.part == 0.6);
}

#[test]
fn an_empty_picture_satisfies_nothing_but_its_background() {
    let blank = Picture { width: SIDE, height: SIDE, rgb: vec![250; SIDE * SIDE * 3] };
    for caption in prompts(Split::Test, 0, 50) {
        let verdict = check(&caption, &blank).unwrap();
        assert!(!verdict.object && !verdict.colour && !verdict.count && !verdict.exact);
        assert_ne!(verdict.relation, Some(true));
        assert_ne!(verdict.size, Some(true));
    }
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let picture = Picture { width: 64, height: 64, rgb: vec![0; 64 * 64 * 3] };
    let known = "a small red circle on a white background";
    assert!(matches!(check("a dog", &picture), Err(PlaygroundError::UnknownCaption { .. })));
    assert!(matches!(
        check(known, &picture),
        Err(PlaygroundError::PictureSize { width: 64, side: SIDE, .. })
    ));
}

#[test]
fn splits_are_disjoint_and_large_enough() {
    let [train, select, test] =
        [Split::Train, Split::Select, Split::Test].map(|split| prompts(split, 1, usize::MAX));
    assert!(select.len() >= 150 && test.len() >= 300, "{} {}", select.len(), test.len());
    let all: BTreeSet<&String> = train.iter().chain(&select).chain(&test).collect();
    assert_eq!(all.len(), train.len() + select.len() + test.len());
    assert_eq!(all.len(), Scene::all().count());
    assert!(train.iter().all(|caption| !held_out(caption)));
    assert!(select.iter().chain(&test).all(|caption| held_out(caption)));
    assert_eq!(prompts(Split::Test, 1, 100), test[..100]);
    for kind in [Category::Single, Category::Count] {
        let of_kind =
            |captions: &[String]| captions.iter().filter(|caption| category(caption) == Some(kind)).count();
        assert!(of_kind(&select) >= 10 && of_kind(&test) >= 25);
    }
}

#[test]
fn sentences_with_one_meaning_are_held_out_together() {
    for colour in ["orange", "green", "cyan", "blue", "purple"] {
        let left = format!("a red circle left of a {colour} square on a gray background");
        let right = format!("a {colour} square right of a red circle on a gray background");
        let right = right.replace("a orange", "an orange");
        let left = left.replace("a orange", "an orange");
        assert_eq!(held_out(&left), held_out(&right));
    }
}

#[test]
fn training_examples_are_flawed_at_the_promised_rates() {
    let (mut right, mut ugly, n) = (0, 0, 2000);
    for index in 0..n {
        let (caption, picture) = training_example(2, index);
        assert!(!held_out(&caption));
        let verdict = check(&caption, &picture).unwrap();
        right += usize::from(verdict.exact);
        ugly += usize::from(verdict.ugliness > 0.2);
    }
    assert!((1200..1360).contains(&right), "{right}");
    assert!((430..560).contains(&ugly), "{ugly}");
    let none = FlawRates {
        three_as_two: 0.0,
        below_as_above: 0.0,
        purple_as_blue: 0.0,
        other_wrong: 0.0,
        ugly: 0.0,
    };
    assert_eq!(exact(300, |index| training_example_with(2, index, &none)), 300);
}

#[test]
fn the_chosen_picture_of_a_pair_is_worth_more() {
    let better = (0..500)
        .filter(|index| {
            let (caption, chosen, rejected) = preference_pair(4, *index);
            assert!(!held_out(&caption));
            check(&caption, &chosen).unwrap().utility > check(&caption, &rejected).unwrap().utility
        })
        .count();
    assert!(better >= 495, "{better}");
}

#[test]
fn scenes_and_verdicts_survive_json() {
    for index in 0..50 {
        let (caption, picture) = training_example(9, index);
        let scene = Scene::parse(&caption).unwrap();
        let verdict = check(&caption, &picture).unwrap();
        assert_eq!(serde_json::from_str::<Scene>(&serde_json::to_string(&scene).unwrap()).unwrap(), scene);
        let json = serde_json::to_string(&verdict).unwrap();
        let read: Verdict = serde_json::from_str(&json).unwrap();
        assert!((read.utility - verdict.utility).abs() < 1e-12);
        assert_eq!((read.exact, read.size, read.relation), (verdict.exact, verdict.size, verdict.relation));
        assert_eq!(json.contains("\"size\""), category(&caption) == Some(Category::Single));
    }
}

#[test]
fn examples_are_functions_of_seed_and_index() {
    assert_eq!(training_example(1, 17), training_example(1, 17));
    assert_ne!(training_example(1, 17).1, training_example(1, 18).1);
    assert_ne!(training_example(1, 17).1, training_example(2, 17).1);
    let sum: u64 = training_example(1, 17).1.rgb.iter().map(|value| u64::from(*value)).sum();
    assert_eq!(
        (training_example(1, 17).0.as_str(), sum),
        ("a green circle left of a purple triangle on a gray background", 387_283)
    );
}
