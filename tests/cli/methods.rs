//! `votive methods` against the registry and against what trl computes.

use crate::*;

#[test]
fn every_method_is_listed_with_its_defaults() {
    let [Value::Array(list)] = &rows(&["methods"])[..] else { panic!("one list") };
    assert_eq!(list.len(), votive::objective::METHODS.len());
    let find = |id: &str| list.iter().find(|method| method["id"] == id).unwrap();
    assert_eq!(find("dpo")["needs"], json!(["REFERENCE"]));
    assert_eq!(find("dspo")["needs"], json!(["REFERENCE", "ERRORS", "DISTANCES"]));
    assert_eq!(find("dpo")["options"]["beta"]["default"], 0.1);
    let text = ok(&["methods"]);
    for spec in votive::objective::METHODS {
        let shown = ok(&["methods", "show", spec.id]);
        let parts = [spec.paper, "Minimises", "Departures", "Checked against", "In a recipe", "Inputs of"];
        assert!(text.contains(spec.title) && parts.iter().all(|part| shown.contains(part)), "{shown}");
    }
    let [shown] = &rows(&["methods", "show", "dpo"])[..] else { panic!("one method") };
    assert_eq!(
        shown["options"]["beta"]["range"],
        json!({"symbol": "β", "low": {"at": 0.0, "allowed": false}, "high": null})
    );
    assert!(shown["with"].as_array().unwrap().contains(&json!("label_smoothing")), "{shown}");
}

#[test]
fn the_schema_of_recipes_is_the_one_in_the_documentation() {
    let [schema] = &rows(&["recipes", "schema"])[..] else { panic!("one schema") };
    let documented =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipe.schema.json")).unwrap();
    assert_eq!(*schema, serde_json::from_str::<Value>(&documented).unwrap());
}

/// An option as `--set` takes it; those of wrappers lie deeper.
fn settings(name: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(inner) => {
            inner.iter().flat_map(|(below, value)| settings(&format!("{name}.{below}"), value)).collect()
        }
        value => vec![format!("{name}={value}")],
    }
}

/// Losses, rewards and gradients of every recorded case whose options exist here, in the type of its inputs.
#[test]
fn eval_gives_what_trl_and_the_papers_formulas_give() {
    let folder = Folder::new();
    let cases = ["objectives", "objectives_papers"].into_iter().flat_map(|fixtures| {
        let cases = fs::read_to_string(fixture(&format!("{fixtures}/cases.json"))).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
        cases.into_iter().map(move |case| (fixtures, case))
    });
    let mut checked = 0;
    for (fixtures, case) in cases {
        let id = case["objective"].as_str().unwrap();
        let options = case["options"].as_object().unwrap();
        let file = fixture(&format!("{fixtures}/{}", case["file"].as_str().unwrap()));
        let expected = tensors(&file);
        let names = |key: &str| -> Vec<String> { serde_json::from_value(case[key].clone()).unwrap() };
        let given = names("inputs").into_iter().map(|name| (name.clone(), expected[&name].clone()));
        let (inputs, out) = (folder.path("inputs.safetensors"), folder.path("out.safetensors"));
        files::write(Path::new(&inputs), given, DType::F64, BTreeMap::new()).unwrap();
        let mut args = vec!["methods", "eval", id, "--inputs", &inputs, "--out", &out];
        let settings: Vec<String> = options.iter().flat_map(|(name, value)| settings(name, value)).collect();
        settings.iter().for_each(|setting| args.extend(["--set", setting]));
        ok(&args);
        let found = tensors(&out);
        for name in names("outputs") {
            assert_eq!(found[&name].dtype(), expected[&name].dtype(), "{file}: {name}");
            // Only rounding remains: absolute below 1 and relative above, as in the objectives' own tests.
            let size = distance(&expected[&name], &expected[&name].zeros_like().unwrap()).max(1.0);
            let distance = distance(&found[&name], &expected[&name]);
            assert!(distance < 1e-9 * size, "{file}: {name} is off by {distance}");
        }
        checked += 1;
    }
    assert!(checked >= votive::objective::METHODS.len(), "{checked} cases");
}

#[test]
fn wrong_options_and_inputs_are_named() {
    let folder = Folder::new();
    let out = folder.path("out.safetensors");
    let row = || Tensor::new(&[1.0f64, 2.0], &Device::Cpu).unwrap();
    let policy = || [("policy_chosen_logps", row()), ("policy_rejected_logps", row())];
    let [chosen, rejected] = policy();
    let inputs = folder.tensors("good.safetensors", policy());
    let check = |inputs: &str, extra: &[&str], code, parts: &[&str]| {
        fails(&[&["methods", "eval", "dpo", "--inputs", inputs, "--out", &out], extra].concat(), code, parts);
    };
    check(&inputs, &[], DATA, &["missing input reference_chosen_logps, reference_rejected_logps"]);
    check(&inputs, &["--set", "bta=1"], USAGE, &["no option `bta`", "did you mean `beta`?"]);
    check(&inputs, &["--set", "beta"], USAGE, &["expected OPTION=VALUE"]);
    check(&inputs, &["--set", "beta=-1"], USAGE, &["`beta` = -1", "above 0"]);
    check(&inputs, &["--set", "beta=x"], USAGE, &["dpo"]);
    check(&inputs, &["--set", "with.nl.weight=1"], USAGE, &["no wrapper `nl`", "did you mean `nll`?"]);
    check(&inputs, &["--set", "with.nll.wieght=1"], USAGE, &["no option `wieght`", "did you mean `weight`?"]);
    check(&inputs, &["--set", "with.nll=1"], USAGE, &["no option ``; it has weight, per_token"]);
    let strange = [chosen.clone(), rejected.clone()].map(|(_, tensor)| tensor);
    let [a, b] = strange;
    let inputs =
        folder.tensors("strange.safetensors", [("policy_chosen_logp", a), ("policy_rejected_logps", b)]);
    check(&inputs, &[], DATA, &["unknown input `policy_chosen_logp`", "did you mean `policy_chosen_logps`?"]);
    let short = Tensor::new(&[1.0f64], &Device::Cpu).unwrap();
    let reference = [("reference_chosen_logps", row()), ("reference_rejected_logps", short)];
    let [c, d] = reference;
    let inputs = folder.tensors("short.safetensors", [chosen, rejected, c, d]);
    check(&inputs, &[], DATA, &["reference_rejected_logps", "[2]", "[1]"]);
    let square = |name| (name, Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap());
    let inputs = [
        "policy_chosen_logps",
        "policy_rejected_logps",
        "reference_chosen_logps",
        "reference_rejected_logps",
    ];
    let inputs = folder.tensors("square.safetensors", inputs.map(square));
    check(&inputs, &[], DATA, &["policy_chosen_logps", "expected shape (B,), found [2, 2]"]);
    check(&folder.path("absent.safetensors"), &[], DATA, &["absent.safetensors"]);
    check(&folder.text("text.safetensors", "no tensors"), &[], DATA, &["text.safetensors", "safetensors"]);
}
