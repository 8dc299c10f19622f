//! What the networks promise beside their numbers: rows are independent, sizes are checked, every size fits.

use crate::CPU;
use crate::gradients::{clip_config, noise, prompts, unets, vae_config};
use candle_core::{DType, Tensor};
use votive_model::stable_diffusion::{AutoencoderKl, ClipTextModel, UNet2DConditionModel};
use votive_model::{Denoiser, Params};

fn largest(difference: &Tensor) -> f32 {
    difference.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn a_batch_is_its_samples_each_at_its_own_time() {
    for config in unets() {
        let (unet, _) = Params::fresh(1, &CPU, |scope| UNet2DConditionModel::new(scope, &config)).unwrap();
        let (latents, prompt) =
            (noise(&[3, 4, 6, 4], 1, DType::F32), prompts(&config, [3, 5, 6], DType::F32));
        let timesteps = [0.0, 17.0, 999.0];
        let together = unet.predict(&latents, &timesteps, &prompt).unwrap();
        assert_eq!(together.dims(), [3, 4, 6, 4]);
        for (row, timestep) in timesteps.into_iter().enumerate() {
            let one = |t: &Tensor| t.narrow(0, row, 1).unwrap();
            let alone = unet.predict(&one(&latents), &[timestep], &prompt.narrow(row, 1).unwrap()).unwrap();
            assert!(largest(&(alone - one(&together)).unwrap()) < 1e-5, "row {row}");
        }
        let elsewhere = unet.predict(&latents, &[0.0, 17.0, 998.0], &prompt).unwrap();
        let moved = (elsewhere - &together).unwrap();
        assert_eq!(largest(&moved.narrow(0, 0, 2).unwrap()), 0.0);
        assert!(largest(&moved.narrow(0, 2, 1).unwrap()) > 0.0);
    }
}

#[test]
fn heights_and_widths_need_not_be_even() {
    for config in unets() {
        let (unet, _) = Params::fresh(1, &CPU, |scope| UNet2DConditionModel::new(scope, &config)).unwrap();
        let prompt = prompts(&config, [1, 2, 6], DType::F32);
        let output = unet.predict(&noise(&[1, 4, 5, 7], 1, DType::F32), &[5.0], &prompt).unwrap();
        assert_eq!(output.dims(), [1, 4, 5, 7]);
    }
}

#[test]
fn an_asymmetric_unet_refuses_sizes_that_it_cannot_return_to() {
    let mut config = unets()[0].clone();
    config.downsample_padding = 0;
    let (unet, _) = Params::fresh(1, &CPU, |scope| UNet2DConditionModel::new(scope, &config)).unwrap();
    let prompt = prompts(&config, [1, 2, 6], DType::F32);
    unet.predict(&noise(&[1, 4, 6, 4], 1, DType::F32), &[5.0], &prompt).unwrap();
    let message =
        unet.predict(&noise(&[1, 4, 5, 4], 1, DType::F32), &[5.0], &prompt).unwrap_err().to_string();
    assert!(message.contains("height and width") && message.contains("5×4"), "{message}");
}

#[track_caller]
fn check_refusal<T: std::fmt::Debug>(result: votive_model::Result<T>, parts: &[&str]) {
    let message = result.unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn the_unet_refuses_what_does_not_fit() {
    let [config, .., xl_config] = unets();
    let build = |config| Params::fresh(1, &CPU, |scope| UNet2DConditionModel::new(scope, config)).unwrap().0;
    let unet = build(&config);
    let (latents, prompt) = (noise(&[2, 4, 4, 4], 1, DType::F32), prompts(&config, [2, 3, 6], DType::F32));
    let three = noise(&[2, 3, 4, 4], 1, DType::F32);
    check_refusal(unet.predict(&three, &[1.0, 2.0], &prompt), &["latents", "(B, 4, H, W)", "[2, 3, 4, 4]"]);
    check_refusal(unet.predict(&latents, &[1.0], &prompt), &["timesteps", "2, one per sample", "found 1"]);
    let wide = prompts(&config, [2, 3, 8], DType::F32);
    check_refusal(
        unet.predict(&latents, &[1.0, 2.0], &wide),
        &["prompt embeddings", "(2, S, 6)", "[2, 3, 8]"],
    );
    let times = [1.0, 2.0];
    let told = prompts(&xl_config, [2, 3, 6], DType::F32);
    check_refusal(unet.predict(&latents, &times, &told), &["expected nothing", "a pooled prompt and sizes"]);
    let xl = build(&xl_config);
    check_refusal(xl.predict(&latents, &times, &prompt), &["a pooled prompt and sizes", "found nothing"]);
    let wide = prompt.with_pooled(noise(&[2, 6], 1, DType::F32)).unwrap();
    check_refusal(xl.predict(&latents, &times, &wide), &["found a pooled prompt alone"]);
    let wide = wide.with_time_ids(noise(&[2, 6], 1, DType::F32)).unwrap();
    check_refusal(xl.predict(&latents, &times, &wide), &["beside 6 sizes", "(2, 5)", "[2, 6]"]);
}

#[test]
fn slices_of_a_batch_are_the_batch() {
    let (vae, _) = Params::fresh(1, &CPU, |scope| AutoencoderKl::new(scope, &vae_config())).unwrap();
    let (images, latents) = (noise(&[5, 3, 8, 8], 1, DType::F32), noise(&[5, 4, 4, 4], 1, DType::F32));
    let (whole, decoded) = (vae.encode(&images).unwrap(), vae.decode(&latents).unwrap());
    // One image, two, and as many as there are.
    for pixels in [0, 2 * 64 + 1, 5 * 64] {
        let sliced = vae.clone().with_slice(pixels);
        let posterior = sliced.encode(&images).unwrap();
        assert!(largest(&(posterior.mean - &whole.mean).unwrap()) < 1e-5);
        assert!(largest(&(posterior.log_variance - &whole.log_variance).unwrap()) < 1e-5);
        assert!(largest(&(sliced.decode(&latents).unwrap() - &decoded).unwrap()) < 1e-5);
    }
}

#[test]
fn the_autoencoder_refuses_what_does_not_fit() {
    let (vae, _) = Params::fresh(1, &CPU, |scope| AutoencoderKl::new(scope, &vae_config())).unwrap();
    check_refusal(vae.encode(&noise(&[1, 4, 8, 8], 1, DType::F32)), &["images", "(B, 3, H, W)"]);
    check_refusal(vae.decode(&noise(&[1, 3, 4, 4], 1, DType::F32)), &["latents", "(B, 4, H, W)"]);
}

#[test]
fn the_text_encoder_refuses_what_does_not_fit() {
    let (clip, _) = Params::fresh(1, &CPU, |scope| ClipTextModel::new(scope, &clip_config())).unwrap();
    let ids = |ids: &[u32]| Tensor::new(ids, &CPU).unwrap().unsqueeze(0).unwrap();
    check_refusal(clip.forward(&ids(&[1; 7])), &["prompt", "at most 6 tokens", "7"]);
    check_refusal(clip.forward(&ids(&[1, 10])), &["position 1", "token id 10", "tokenizer"]);
}

#[test]
fn the_text_encoder_is_causal() {
    let (clip, _) = Params::fresh(1, &CPU, |scope| ClipTextModel::new(scope, &clip_config())).unwrap();
    let encode = |ids: [u32; 4]| clip.forward(&Tensor::new(&[ids], &CPU).unwrap()).unwrap();
    let moved = (encode([8, 1, 2, 9]) - encode([8, 1, 3, 9])).unwrap();
    assert_eq!(largest(&moved.narrow(1, 0, 2).unwrap()), 0.0);
    assert!(largest(&moved.narrow(1, 2, 2).unwrap()) > 0.0);
}

#[test]
fn the_divergence_is_zero_for_the_prior_only() {
    let zeros = Tensor::zeros((2, 1, 1, 2), DType::F64, &CPU).unwrap();
    let prior =
        votive_model::stable_diffusion::Posterior { mean: zeros.clone(), log_variance: zeros.clone() };
    assert_eq!(prior.divergence().unwrap().to_vec1::<f64>().unwrap(), [0.0, 0.0]);
    let shifted =
        votive_model::stable_diffusion::Posterior { mean: (&zeros + 2.0).unwrap(), log_variance: zeros };
    // ½·2² for each of two numbers.
    assert_eq!(shifted.divergence().unwrap().to_vec1::<f64>().unwrap(), [4.0, 4.0]);
}
