//! What is asked of every model that sees images: the numbers of transformers on tiny checkpoints that it saved, and what training
//! and generation promise.

use candle_core::{DType, Device, IndexOp, Tensor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use votive_model::{
    CausalLm, CausalLmConfig, Decoder, GenerateOptions, Generated, ImageInput, ImageProcessor, Lora,
    LoraConfig, ModelError, Params, Request, Targets, TokenBatch, files, generate_watched, load_causal_lm,
    load_causal_lm_stored, next_token_logits,
};
use votive_tensor::Recorder;
use votive_tensor::Storage;

pub(crate) const CPU: Device = Device::Cpu;
/// `<|eos|>` of the fixtures' tokenizer.
const EOS: u32 = 2;

/// The fixtures of a family: a folder of tests/fixtures with a hub folder for each case.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) cases: &'static [&'static str],
}

/// A text as the processor expands it, the images that it shows, and what transformers says of both.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) ids: Vec<u32>,
    pub(crate) images: Vec<ImageInput>,
    pub(crate) per_token_logps: Vec<f32>,
    pub(crate) last_logits: Vec<f32>,
    pub(crate) greedy: Vec<u32>,
}

impl Row {
    pub(crate) fn request(&self, sample: u64) -> Request<'_> {
        Request { prompt: &self.ids, images: &self.images, sample }
    }
}

pub(crate) fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn build(config: &CausalLmConfig, params: &Params) -> Decoder {
    params.build(|scope| config.build(scope)).unwrap()
}

pub(crate) fn integers(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

impl Family {
    pub(crate) fn folder(self, case: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(self.name).join(case)
    }

    pub(crate) fn load(self, case: &str) -> (CausalLmConfig, Params) {
        load_causal_lm(&self.folder(case), &CPU).unwrap()
    }

    pub(crate) fn processor(self, case: &str) -> Arc<dyn ImageProcessor> {
        let config = CausalLmConfig::read_folder(&self.folder(case)).unwrap();
        config.image_processor(&self.folder(case)).unwrap().unwrap()
    }

    /// The fixture's images as the processor makes them, and everything that the fixture says of them.
    pub(crate) fn images(self, case: &str) -> (Vec<ImageInput>, BTreeMap<String, Tensor>) {
        let file = files::read(&self.folder(case).join("expected/images.safetensors"), &CPU).unwrap().tensors;
        let processor = self.processor(case);
        let read = |index: usize| {
            let image = file.get(&format!("image.{index}"))?;
            let (height, width, _) = image.dims3().unwrap();
            let rgb: Vec<u8> = image.flatten_all().unwrap().to_vec1().unwrap();
            Some(processor.image(&rgb, (width, height)).unwrap())
        };
        ((0..).map_while(read).collect(), file)
    }

    pub(crate) fn rows(self, case: &str) -> Vec<Row> {
        let tensors =
            files::read(&self.folder(case).join("expected/rows.safetensors"), &CPU).unwrap().tensors;
        let images = self.images(case).0;
        let row = |(index, about): (usize, &Value)| {
            let ids = tensors[&format!("ids.{index}")].to_dtype(DType::U32).unwrap();
            Row {
                ids: ids.to_vec1().unwrap(),
                images: integers(&about["images"]).into_iter().map(|n| images[n as usize].clone()).collect(),
                per_token_logps: tensors[&format!("per_token_logps.{index}")].to_vec1().unwrap(),
                last_logits: tensors[&format!("last_logits.{index}")].to_vec1().unwrap(),
                greedy: integers(&about["token_ids"]),
            }
        };
        let about = json_of(&self.folder(case).join("expected/rows.json"));
        about.as_array().unwrap().iter().enumerate().map(row).collect()
    }

    /// Images are byte for byte those of transformers, and texts hold as many placeholders as they have vectors.
    pub(crate) fn check_images_and_placeholders(self, placeholder: u32) {
        for case in self.cases {
            let ((found, file), tokens) = (self.images(case), self.processor(case).tokens());
            assert!(found.len() >= 5, "{case}");
            for (index, image) in found.iter().enumerate() {
                let pixels = &file[&format!("pixels.{index}")];
                let (_, height, width) = pixels.dims3().unwrap();
                let pixels = pixels.flatten_all().unwrap().to_vec1().unwrap();
                let expected = ImageInput::new(pixels, (width, height)).unwrap();
                assert_eq!(image.identity(), expected.identity(), "{case}, image {index}");
            }
            assert_eq!(tokens.placeholder, placeholder, "{case}");
            for row in self.rows(case) {
                let placeholders = row.ids.iter().filter(|id| **id == placeholder).count();
                let vectors = row.images.iter().map(|image| tokens.count(image.size())).sum::<usize>();
                assert_eq!(placeholders, vectors, "{case}");
            }
        }
    }

    pub(crate) fn check_log_probs_and_logits(self) {
        for case in self.cases {
            let (config, params) = self.load(case);
            let (model, rows) = (build(&config, &params), self.rows(case));
            let expected: Vec<f32> = rows.iter().flat_map(|row| row.per_token_logps.clone()).collect();
            let together = model.log_probs(&batch(&rows), None).unwrap().to_vec1().unwrap();
            assert_close(&together, &expected, case);
            let requests: Vec<Request> = rows.iter().map(|row| row.request(0)).collect();
            for (row, logits) in rows.iter().zip(next_token_logits(&model, &requests).unwrap()) {
                assert_close(&logits, &row.last_logits, case);
            }
        }
    }

    pub(crate) fn check_greedy_continuations(self) {
        for case in self.cases {
            let (config, params) = self.load(case);
            let (model, rows) = (build(&config, &params), self.rows(case));
            let found = greedy(&model, &rows.iter().collect::<Vec<_>>(), 16);
            for (index, (row, found)) in rows.iter().zip(found).enumerate() {
                assert_eq!(found.token_ids, row.greedy, "{case}, row {index}");
            }
        }
    }

    /// Every parameter has a gradient, and it is as long as transformers' in float64, with recomputation and without.
    pub(crate) fn check_gradients(self) {
        for case in self.cases {
            let (config, params) = self.load(case);
            let params = params.into_trainable().unwrap();
            let expected = json_of(&self.folder(case).join("expected/gradient.json"));
            // A head that is the embedding again has a name in some files.
            let others = |name: &String| name != "lm_head.weight";
            let own: BTreeSet<String> =
                params.trainable().into_iter().map(|(name, _)| name).filter(others).collect();
            let names: BTreeSet<String> =
                expected.as_object().unwrap().keys().filter(|name| others(name)).cloned().collect();
            assert_eq!(own, names, "{case}");
            let batch = batch(&self.rows(case));
            let largest =
                expected.as_object().unwrap().values().filter_map(Value::as_f64).fold(0.0, f64::max);
            for recompute in [false, true] {
                let recorder = Recorder::new(
                    &params.trainable().into_iter().map(|(_, tensor)| tensor).collect::<Vec<_>>(),
                );
                let model = build(&config, &params);
                let sum = model.log_probs(&batch, recompute.then_some(&recorder)).unwrap().sum_all().unwrap();
                recorder.backward(&sum).unwrap();
                for ((name, _), gradient) in params.trainable().into_iter().zip(recorder.take()) {
                    assert!(gradient.is_some(), "{case}: {name} has no gradient");
                    let norm =
                        gradient.unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                    let (norm, expected) = (f64::from(norm).sqrt(), expected[&name].as_f64().unwrap());
                    assert!(norm > 0.0 && norm.is_finite(), "{case}: {name}");
                    // What is 0 but for rounding (a bias of keys moves all scores alike) is compared with the rest.
                    let allowed = GRADIENT * expected.max(1e-3 * largest);
                    assert!(
                        (norm - expected).abs() <= allowed,
                        "{case}: {name}: {norm}, expected {expected}"
                    );
                }
            }
        }
    }

    /// The adapter in a case's `expected`, beside the weights and put into them.
    pub(crate) fn check_adapter(self, case: &str) {
        let (config, params) = self.load(case);
        let expected = self.folder(case).join("expected");
        let lora = Lora::load(&expected.join("adapter"), &CPU).unwrap();
        let params = params.with_lora(lora).unwrap();
        let rows = self.rows(case);
        let tensors = files::read(&expected.join("adapter.safetensors"), &CPU).unwrap().tensors;
        let logps: Vec<f32> = (0..rows.len())
            .flat_map(|row| tensors[&format!("per_token_logps.{row}")].to_vec1::<f32>().unwrap())
            .collect();
        let found = build(&config, &params).log_probs(&batch(&rows), None).unwrap().to_vec1().unwrap();
        assert_close(&found, &logps, "adapter");
        let merged = build(&config, &params.merged().unwrap());
        assert_close(&merged.log_probs(&batch(&rows), None).unwrap().to_vec1().unwrap(), &logps, "merged");
    }

    /// An adapter on all linear maps is on either network, and on no table; a base in fewer bytes is what those stand for.
    pub(crate) fn check_all_linear_maps(self, case: &str, expected: &[&str]) {
        let batch = batch(&self.rows(case));
        let log_probs = |config: &CausalLmConfig, params: &Params| -> Vec<f32> {
            build(config, params).log_probs(&batch, None).unwrap().to_vec1().unwrap()
        };
        let (config, params) = load_causal_lm_stored(&self.folder(case), &CPU, Storage::Int8).unwrap();
        let stored: BTreeSet<&str> = params.stored().map(|(name, _)| name).collect();
        let whole = params.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        let full = params.stored().map(|(name, matrix)| (name.to_owned(), matrix.to_tensor().unwrap()));
        let in_full = Params::new("in full", whole.chain(full).collect(), &CPU);
        assert_close(&log_probs(&config, &params), &log_probs(&config, &in_full), case);
        let targets = LoraConfig { targets: Targets::AllLinear, ..LoraConfig::new(2, 4.0, vec![]) };
        let adapted = params.with_new_lora(targets, 3).unwrap();
        assert_close(&log_probs(&config, &adapted), &log_probs(&config, &params), case);
        let paths: BTreeSet<&str> = adapted.lora().unwrap().paths().collect();
        for path in expected {
            assert!(paths.contains(path) && stored.contains(&*format!("{path}.weight")), "{path}");
        }
        let is_table = |name: &&str| name.contains("embed") && !name.contains("patch_embed");
        assert!(!paths.iter().chain(&stored).any(is_table), "{paths:?} {stored:?}");
    }

    /// Token by token through the cache, and all at once.
    pub(crate) fn check_cached_generation(self) {
        for case in self.cases {
            let (config, params) = self.load(case);
            let model = build(&config, &params);
            for row in self.rows(case) {
                let made = greedy(&model, &[&row], 10).remove(0).token_ids;
                let mut ids = row.ids.clone();
                for token in made {
                    let batch =
                        TokenBatch::new(vec![[&ids[..], &[token]].concat()], vec![(0, ids.len())]).unwrap();
                    let head = model.head(&batch.with_images(vec![row.images.clone()]), None).unwrap();
                    let logits: Vec<f32> =
                        model.logits(&head.hidden).unwrap().i(0).unwrap().to_vec1().unwrap();
                    let best = logits.iter().copied().fold(f32::MIN, f32::max);
                    assert!(best - logits[token as usize] < 1e-4, "{case}");
                    ids.push(token);
                }
            }
        }
    }
}

/// transformers computes attention's softmax in f32 in all types, which is how exact its gradients are.
const GRADIENT: f64 = 1e-4;

/// Every token of some rows that follows another.
pub(crate) fn batch(rows: &[Row]) -> TokenBatch {
    let wanted = |(row, Row { ids, .. }): (usize, &Row)| (1..ids.len()).map(move |at| (row, at));
    let wanted = rows.iter().enumerate().flat_map(wanted).collect();
    let ids = rows.iter().map(|row| row.ids.clone()).collect();
    TokenBatch::new(ids, wanted).unwrap().with_images(rows.iter().map(|row| row.images.clone()).collect())
}

#[track_caller]
pub(crate) fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(found.len() == expected.len() && worst < 1e-4, "{what}: off by {worst}");
}

pub(crate) fn greedy(model: &Decoder, rows: &[&Row], new_tokens: usize) -> Vec<Generated> {
    let requests: Vec<Request> = (0..).zip(rows).map(|(sample, row)| row.request(sample)).collect();
    let mut go_on = |_, _| Ok::<_, ModelError>(ControlFlow::Continue(()));
    generate_watched(model, &requests, &GenerateOptions::greedy(new_tokens, vec![EOS]), &mut go_on).unwrap()
}
