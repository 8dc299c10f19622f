//! Votive's operations beside the same functions written with candle's own ops, forward alone and with backward.
//!
//! `cargo bench --bench operations [-- FILTER]`. Shapes are those of a DPO step of a Llama of 31.6 M parameters (2,800
//! tokens of width 512) and of a Diffusion-DPO step of a U-Net of 25.4 M (8 latents of 32×32). Matrix-like work is
//! counted in floating-point operations ("items"), the rest in the bytes of its arguments and result, each moved once:
//! no program can do with less.
#![expect(clippy::disallowed_methods, reason = "what the program must not use is what it is compared with")]

use candle_core::{D, Device, Result, Tensor, Var};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use votive_tensor::{
    Activation, AttentionMask, activate, attention, conv2d, gated, group_norm, linear, log_sigmoid, rms_norm,
    rope, token_scores, upsample_nearest_2x,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // candle's second pool of threads would spin beside rayon's; the program does the same.
    // SAFETY: nothing else runs yet.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    divan::main();
}

/// What is timed.
#[derive(Clone, Copy, Debug)]
enum Pass {
    Forward,
    Both,
}

const PASSES: [Pass; 2] = [Pass::Forward, Pass::Both];
const TOKENS: usize = 2800;
const WIDTH: usize = 512;
const INNER: usize = 1376;
const VOCABULARY: usize = 8192;
const EPS: f64 = 1e-5;

fn random(shape: &[usize]) -> Result<Var> {
    Var::from_tensor(&Tensor::randn(0f32, 1.0, shape, &Device::Cpu)?)
}

/// Times `work` on random arguments of the given shapes. `flops` are those of the forward; a backward has twice as many.
fn time(
    bencher: Bencher,
    pass: Pass,
    shapes: &[&[usize]],
    flops: Option<usize>,
    work: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let run = || -> Result<()> {
        let variables = shapes.iter().map(|shape| random(shape)).collect::<Result<Vec<_>>>()?;
        let inputs: Vec<Tensor> = variables
            .iter()
            .map(|variable| match pass {
                Pass::Forward => variable.as_tensor().detach(),
                Pass::Both => variable.as_tensor().clone(),
            })
            .collect();
        let output = work(&inputs)?;
        let moved: usize = inputs.iter().map(Tensor::elem_count).sum::<usize>() + output.elem_count();
        let passes = if matches!(pass, Pass::Both) { 3 } else { 1 };
        let one = || -> Result<Tensor> {
            let output = work(&inputs)?;
            if matches!(pass, Pass::Both) {
                output.sum_all()?.backward()?;
            }
            Ok(output)
        };
        match flops {
            Some(flops) => bencher.counter(ItemsCount::new(flops * passes)).bench_local(one),
            None => bencher.counter(BytesCount::new(moved * passes * size_of::<f32>())).bench_local(one),
        }
        Ok(())
    };
    run().unwrap_or_else(fail);
}

/// A benchmark has nobody to return an error to.
#[expect(clippy::panic, reason = "see above")]
fn fail<T>(error: candle_core::Error) -> T {
    panic!("{error}")
}

mod linear_layer {
    use super::*;

    const SHAPES: [&[usize]; 2] = [&[TOKENS, WIDTH], &[INNER, WIDTH]];
    const FLOPS: usize = 2 * TOKENS * WIDTH * INNER;

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, Some(FLOPS), |x| linear(&x[0], &x[1], None));
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, Some(FLOPS), |x| x[0].matmul(&x[1].t()?));
    }
}

mod log_probs {
    use super::*;

    const SHAPES: [&[usize]; 2] = [&[TOKENS, WIDTH], &[VOCABULARY, WIDTH]];
    const FLOPS: usize = 2 * TOKENS * WIDTH * VOCABULARY;

    fn targets() -> Vec<u32> {
        (0..TOKENS as u32).map(|i| i * 2_654_435 % VOCABULARY as u32).collect()
    }

    #[divan::bench(args = PASSES, max_time = 5)]
    fn votive(bencher: Bencher, pass: Pass) {
        let targets = targets();
        time(bencher, pass, &SHAPES, Some(FLOPS), |x| {
            token_scores(&x[0], &x[1], None, &targets)?.log_probs()
        });
    }

    #[divan::bench(args = PASSES, max_time = 5)]
    fn candle(bencher: Bencher, pass: Pass) {
        let targets = targets();
        time(bencher, pass, &SHAPES, Some(FLOPS), |x| {
            let logits = x[0].matmul(&x[1].t()?)?;
            let chosen = Tensor::new(targets.as_slice(), &Device::Cpu)?.unsqueeze(1)?;
            logits.gather(&chosen, 1)?.squeeze(1)? - logits.log_sum_exp(D::Minus1)?
        });
    }
}

mod self_attention {
    use super::*;

    const HEADS: usize = 8;
    const KV_HEADS: usize = 4;
    const ROWS: usize = 8;
    const LENGTH: usize = 350;
    const HEAD: usize = WIDTH / HEADS;
    const SHAPES: [&[usize]; 3] =
        [&[ROWS, LENGTH, WIDTH], &[ROWS, LENGTH, KV_HEADS * HEAD], &[ROWS, LENGTH, KV_HEADS * HEAD]];
    /// Two products over the half of the keys that come before.
    const FLOPS: usize = 2 * 2 * ROWS * HEADS * HEAD * LENGTH * LENGTH / 2;

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        let scale = (HEAD as f64).powf(-0.5);
        time(bencher, pass, &SHAPES, Some(FLOPS), |x| {
            attention((&x[0], &x[1], &x[2]), HEADS, KV_HEADS, scale, &AttentionMask::causal())
        });
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        let mask: Vec<f32> = (0..LENGTH * LENGTH)
            .map(|at| if at % LENGTH > at / LENGTH { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        time(bencher, pass, &SHAPES, Some(FLOPS), |x| {
            let split = |x: &Tensor, heads: usize| {
                x.reshape((ROWS, LENGTH, heads, HEAD))?.transpose(1, 2)?.contiguous()
            };
            let repeat = |x: &Tensor| {
                let x = split(x, KV_HEADS)?.unsqueeze(2)?;
                x.expand((ROWS, KV_HEADS, HEADS / KV_HEADS, LENGTH, HEAD))?
                    .reshape((ROWS, HEADS, LENGTH, HEAD))
            };
            let (q, k, v) = (split(&x[0], HEADS)?, repeat(&x[1])?, repeat(&x[2])?);
            let scores = (q.matmul(&k.t()?)? * (HEAD as f64).powf(-0.5))?;
            let mask = Tensor::from_slice(&mask, (LENGTH, LENGTH), &Device::Cpu)?;
            let scores = scores.broadcast_add(&mask)?;
            let most = scores.max_keepdim(D::Minus1)?.detach();
            let weights = scores.broadcast_sub(&most)?.exp()?;
            let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
            weights.matmul(&v)?.transpose(1, 2)?.reshape((ROWS, LENGTH, WIDTH))
        });
    }
}

/// Attention of a U-Net's first level: many keys, and heads too narrow for a matrix library.
mod self_attention_of_an_image {
    use super::*;

    const HEADS: usize = 8;
    const PIXELS: usize = 32 * 32;
    const HEAD: usize = 8;
    const SHAPE: [usize; 3] = [2, PIXELS, HEADS * HEAD];
    const FLOPS: usize = 2 * 2 * 2 * HEADS * HEAD * PIXELS * PIXELS;

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        let scale = (HEAD as f64).powf(-0.5);
        time(bencher, pass, &[&SHAPE[..]; 3], Some(FLOPS), |x| {
            attention((&x[0], &x[1], &x[2]), HEADS, HEADS, scale, &AttentionMask::full())
        });
    }
}

mod root_mean_square_norm {
    use super::*;

    const SHAPES: [&[usize]; 2] = [&[TOKENS, WIDTH], &[WIDTH]];

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| rms_norm(&x[0], &x[1], EPS));
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| {
            let scale = (x[0].sqr()?.mean_keepdim(D::Minus1)? + EPS)?.sqrt()?;
            x[0].broadcast_div(&scale)?.broadcast_mul(&x[1])
        });
    }
}

mod gated_activation {
    use super::*;

    const SHAPES: [&[usize]; 2] = [&[TOKENS, INNER], &[TOKENS, INNER]];

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| gated(&x[0], &x[1], Activation::Silu));
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| x[0].silu()? * &x[1]);
    }
}

mod rotary_embedding {
    use super::*;

    const HEADS: usize = 8;
    const HEAD: usize = WIDTH / HEADS;
    const ROWS: usize = 8;
    const LENGTH: usize = 350;
    const SHAPES: [&[usize]; 1] = [&[ROWS, LENGTH, WIDTH]];

    /// cos and sin, `(1, LENGTH, HEAD / 2)`.
    fn angles() -> (Tensor, Tensor) {
        let table = |function: fn(f32) -> f32| {
            let numbers = (0..LENGTH * HEAD / 2).map(|at| function(at as f32 * 0.01)).collect();
            Tensor::from_vec(numbers, (1, LENGTH, HEAD / 2), &Device::Cpu).unwrap_or_else(fail)
        };
        (table(f32::cos), table(f32::sin))
    }

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        let (cos, sin) = angles();
        time(bencher, pass, &SHAPES, None, |x| rope(&x[0], &cos, &sin, HEADS));
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        let (cos, sin) = angles();
        time(bencher, pass, &SHAPES, None, |x| {
            let x = x[0].reshape((ROWS, LENGTH, HEADS, HEAD))?.transpose(1, 2)?;
            let (a, b) = (x.narrow(D::Minus1, 0, HEAD / 2)?, x.narrow(D::Minus1, HEAD / 2, HEAD / 2)?);
            let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
            let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
            Tensor::cat(&[first, second], D::Minus1)?.transpose(1, 2)?.reshape((ROWS, LENGTH, WIDTH))
        });
    }
}

mod convolution {
    use super::*;

    const CHANNELS: usize = 64;
    const SHAPES: [&[usize]; 3] = [&[8, CHANNELS, 32, 32], &[CHANNELS, CHANNELS, 3, 3], &[CHANNELS]];
    const FLOPS: usize = 2 * 8 * 32 * 32 * CHANNELS * CHANNELS * 9;

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, Some(FLOPS), |x| conv2d(&x[0], &x[1], &x[2], 1, 1));
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, Some(FLOPS), |x| {
            x[0].conv2d(&x[1], 1, 1, 1, 1)?.broadcast_add(&x[2].reshape((1, CHANNELS, 1, 1))?)
        });
    }
}

mod group_normalisation {
    use super::*;

    const CHANNELS: usize = 128;
    const GROUPS: usize = 32;
    const SHAPES: [&[usize]; 3] = [&[8, CHANNELS, 32, 32], &[CHANNELS], &[CHANNELS]];

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| group_norm(&x[0], &x[1], &x[2], GROUPS, EPS));
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| {
            let rows = x[0].reshape((8 * GROUPS, CHANNELS / GROUPS * 32 * 32))?;
            let rows = rows.broadcast_sub(&rows.mean_keepdim(1)?)?;
            let rows = rows.broadcast_div(&(rows.sqr()?.mean_keepdim(1)? + EPS)?.sqrt()?)?;
            let column = |x: &Tensor| x.reshape((1, CHANNELS, 1, 1));
            rows.reshape(x[0].shape())?.broadcast_mul(&column(&x[1])?)?.broadcast_add(&column(&x[2])?)
        });
    }
}

mod upsampling {
    use super::*;

    const SHAPES: [&[usize]; 1] = [&[8, 128, 16, 16]];

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| upsample_nearest_2x(&x[0]));
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| x[0].upsample_nearest2d(32, 32));
    }
}

mod exact_gelu {
    use super::*;

    const SHAPES: [&[usize]; 1] = [&[8 * 1024, 256]];

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| activate(&x[0], Activation::GeluErf));
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| x[0].gelu_erf());
    }
}

mod log_of_sigmoid {
    use super::*;

    const SHAPES: [&[usize]; 1] = [&[4096]];

    #[divan::bench(args = PASSES)]
    fn votive(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| log_sigmoid(&x[0]));
    }

    #[divan::bench(args = PASSES)]
    fn candle(bencher: Bencher, pass: Pass) {
        time(bencher, pass, &SHAPES, None, |x| (x[0].neg()?.exp()? + 1.0)?.log()?.neg());
    }
}
