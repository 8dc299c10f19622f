//! Every trainable parameter gets a finite gradient that is not zero, and the gradients are right.

use crate::CPU;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use votive_diffusion::{Conditioning, ImageSizes};
use votive_model::stable_diffusion::{
    AdditionConfig, AutoencoderKl, ClipTextConfig, ClipTextModel, TransformerLayers, UNet2DConditionModel,
    UNetConfig, UNetLevel, VaeConfig,
};
use votive_model::{Denoiser, LoraConfig, Params};
use votive_tensor::random::{Draws, Stream};

pub(crate) fn noise(shape: &[usize], salt: u64, dtype: DType) -> Tensor {
    let mut draws = Draws::new(salt, Stream::Init, 0, 0);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| draws.normal()).collect();
    Tensor::from_vec(values, shape, &CPU).unwrap().to_dtype(dtype).unwrap()
}

/// Prompts of some rows, tokens and width, and what else a U-Net is told.
pub(crate) fn prompts(config: &UNetConfig, shape: [usize; 3], dtype: DType) -> Conditioning {
    let prompts = Conditioning::new(noise(&shape, 2, dtype)).unwrap();
    let Some(addition) = config.addition else { return prompts };
    let pooled = [shape[0], addition.input_dim - ImageSizes::COUNT * addition.time_embed_dim];
    let size = |row: u32| ImageSizes { original: (40 + row, 30), crop: (row, 3), target: (32, 32) };
    let sizes: Vec<ImageSizes> = (0..shape[0] as u32).map(size).collect();
    config.with_sizes(prompts.with_pooled(noise(&pooled, 4, dtype)).unwrap(), &sizes).unwrap()
}

/// A fixed weighted sum, so that every output matters and none cancels.
fn loss(output: &Tensor) -> Tensor {
    (output * noise(output.dims(), 99, output.dtype())).unwrap().sum_all().unwrap()
}

fn level(channels: usize, attention: bool) -> UNetLevel {
    let (down_attention, up_attention) = (attention, attention);
    let (down_transformers, up_transformers) = (TransformerLayers::Same(1), TransformerLayers::Same(1));
    UNetLevel {
        channels,
        layers: 1,
        down_attention,
        up_attention,
        heads: 2,
        down_transformers,
        up_transformers,
    }
}

fn transformers(layers: usize, level: UNetLevel) -> UNetLevel {
    let same = TransformerLayers::Same(layers);
    UNetLevel { down_transformers: same.clone(), up_transformers: same, ..level }
}

/// Small U-Nets that differ in everything that changes the set of parameters.
pub(crate) fn unets() -> [UNetConfig; 4] {
    let linear = UNetConfig {
        levels: vec![level(8, true), level(16, false)],
        cross_attention_dim: 6,
        norm_num_groups: 4,
        ..UNetConfig::default()
    };
    let convolution = UNetConfig {
        levels: vec![level(8, false), UNetLevel { layers: 2, ..transformers(2, level(8, true)) }],
        use_linear_projection: false,
        center_input_sample: true,
        mid_block_scale_factor: 1.5,
        ..linear.clone()
    };
    let plain = UNetConfig { levels: vec![level(8, false)], ..linear.clone() };
    let xl = UNetConfig {
        levels: vec![
            level(8, false),
            UNetLevel {
                layers: 2,
                down_transformers: TransformerLayers::Each(vec![2, 0]),
                up_transformers: TransformerLayers::Each(vec![0, 1, 2]),
                ..level(12, true)
            },
        ],
        use_linear_projection: true,
        addition: Some(AdditionConfig { time_embed_dim: 3, input_dim: 6 * 3 + 5 }),
        ..linear.clone()
    };
    [UNetConfig { use_linear_projection: true, ..linear }, convolution, plain, xl]
}

fn unet_loss(params: &Params, config: &UNetConfig, dtype: DType) -> Tensor {
    let unet = params.build(|scope| UNet2DConditionModel::new(scope, config)).unwrap();
    let (latents, prompt) = (noise(&[2, 4, 4, 4], 1, dtype), prompts(config, [2, 3, 6], dtype));
    loss(&unet.predict(&latents, &[3.0, 700.0], &prompt).unwrap())
}

pub(crate) fn vae_config() -> VaeConfig {
    VaeConfig {
        block_out_channels: vec![4, 8],
        layers_per_block: 1,
        norm_num_groups: 2,
        ..VaeConfig::default()
    }
}

fn vae_loss(params: &Params, dtype: DType) -> Tensor {
    let vae = params.build(|scope| AutoencoderKl::new(scope, &vae_config())).unwrap();
    let posterior = vae.encode(&noise(&[2, 3, 8, 8], 1, dtype)).unwrap();
    let decoded = vae.decode(&posterior.sample(&noise(&[2, 4, 4, 4], 2, dtype)).unwrap()).unwrap();
    (loss(&decoded) + loss(&posterior.divergence().unwrap())).unwrap()
}

pub(crate) fn clip_config() -> ClipTextConfig {
    ClipTextConfig {
        vocab_size: 10,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        max_position_embeddings: 6,
        ..ClipTextConfig::default()
    }
}

fn clip_loss(params: &Params) -> Tensor {
    let clip = params.build(|scope| ClipTextModel::new(scope, &clip_config())).unwrap();
    let ids = Tensor::new(&[[8u32, 1, 2, 3, 9], [8, 4, 9, 9, 9]], &CPU).unwrap();
    loss(&clip.forward(&ids).unwrap())
}

/// Softmax does not see what is added to every key, so these have a gradient of zero, up to rounding.
fn cancels(name: &str) -> bool {
    ["k_proj.bias", "to_k.bias", "key.bias"].iter().any(|suffix| name.ends_with(suffix))
}

#[track_caller]
fn check_reach(params: &Params, loss: &Tensor, expected: usize) {
    let grads = loss.backward().unwrap();
    let trainable = params.trainable();
    assert_eq!(trainable.len(), expected);
    for (name, tensor) in trainable {
        let grad = grads.get_id(tensor.id()).unwrap_or_else(|| panic!("{name} has no gradient"));
        assert_eq!(grad.dims(), tensor.dims(), "{name}");
        let size = grad
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .to_dtype(DType::F64)
            .unwrap()
            .to_scalar::<f64>()
            .unwrap()
            .sqrt();
        assert!(size.is_finite() && (size > 1e-6 || cancels(&name)), "{name}: gradient of length {size}");
    }
}

#[test]
fn every_parameter_of_the_unet_gets_a_gradient() {
    for config in unets() {
        let (_, params) = Params::fresh(1, &CPU, |scope| UNet2DConditionModel::new(scope, &config)).unwrap();
        let params = params.into_trainable().unwrap();
        check_reach(&params, &unet_loss(&params, &config, DType::F32), params.iter().count());
    }
}

#[test]
fn every_parameter_of_the_vae_gets_a_gradient() {
    let (_, params) = Params::fresh(1, &CPU, |scope| AutoencoderKl::new(scope, &vae_config())).unwrap();
    let params = params.into_trainable().unwrap();
    check_reach(&params, &vae_loss(&params, DType::F32), params.iter().count());
}

#[test]
fn every_parameter_of_the_text_encoder_gets_a_gradient() {
    let (_, params) = Params::fresh(1, &CPU, |scope| ClipTextModel::new(scope, &clip_config())).unwrap();
    let params = params.into_trainable().unwrap();
    check_reach(&params, &clip_loss(&params), params.iter().count());
}

#[test]
fn every_matrix_of_an_adapter_gets_a_gradient_and_the_network_none() {
    for config in unets() {
        let (_, params) = Params::fresh(1, &CPU, |scope| UNet2DConditionModel::new(scope, &config)).unwrap();
        let targets = ["to_q", "to_k", "to_v", "to_out.0"].map(str::to_owned).to_vec();
        let params = params.with_new_lora(LoraConfig::new(2, 4.0, targets), 5).unwrap();
        // B starts at zero, which gives A no gradient; one step of any size ends that.
        let lora =
            params.trainable().into_iter().map(|(name, tensor)| (name, noise(tensor.dims(), 7, DType::F32)));
        for ((_, tensor), (_, value)) in params.trainable().into_iter().zip(lora) {
            candle_core::Var::from_tensor(&tensor).unwrap().set(&value).unwrap();
        }
        let attentions = 2 * params.iter().filter(|(name, _)| name.ends_with("attn1.to_q.weight")).count();
        check_reach(&params, &unet_loss(&params, &config, DType::F32), attentions * 4 * 2);
    }
}

/// Slope of the loss along a random direction in all parameters at once: backward against central differences, f64.
#[track_caller]
fn check_slope(params: &Params, loss: impl Fn(&Params) -> Tensor) {
    // Small, because the direction is as long as the root of the number of parameters.
    const STEP: f64 = 1e-6;
    let double: BTreeMap<String, Tensor> =
        params.iter().map(|(name, tensor)| (name.to_owned(), tensor.to_dtype(DType::F64).unwrap())).collect();
    let along = |name: &str| noise(double[name].dims(), name.len() as u64, DType::F64);
    let moved = |delta: f64| {
        let tensors =
            double.iter().map(|(n, t)| (n.clone(), (t + (along(n) * delta).unwrap()).unwrap())).collect();
        loss(&Params::new("moved", tensors, &CPU)).to_scalar::<f64>().unwrap()
    };
    let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
    let params = Params::new("double", double.clone(), &CPU).into_trainable().unwrap();
    let grads = loss(&params).backward().unwrap();
    let backward: f64 = params
        .trainable()
        .iter()
        .map(|(name, tensor)| (grads.get_id(tensor.id()).unwrap() * along(name)).unwrap().sum_all().unwrap())
        .map(|product| product.to_scalar::<f64>().unwrap())
        .sum();
    let error = (slope - backward).abs() / slope.abs().max(1.0);
    assert!(error < 1e-6, "differences {slope}, backward {backward}: off by {error}");
}

#[test]
fn the_unet_s_gradient_is_the_slope_of_its_loss() {
    for config in unets() {
        let (_, params) = Params::fresh(2, &CPU, |scope| UNet2DConditionModel::new(scope, &config)).unwrap();
        check_slope(&params, |params| unet_loss(params, &config, DType::F64));
    }
}

#[test]
fn the_vae_s_gradient_is_the_slope_of_its_loss() {
    let (_, params) = Params::fresh(2, &CPU, |scope| AutoencoderKl::new(scope, &vae_config())).unwrap();
    check_slope(&params, |params| vae_loss(params, DType::F64));
}

#[test]
fn the_text_encoder_s_gradient_is_the_slope_of_its_loss() {
    let (_, params) = Params::fresh(2, &CPU, |scope| ClipTextModel::new(scope, &clip_config())).unwrap();
    check_slope(&params, clip_loss);
}
