//! Heads beside the model's own: small linear maps of what a completion's last token is predicted from, trained with the policy.
//!
//! They belong to objectives that ask for them and not to the model: a folder of weights runs without them, and they lie in a file
//! of their own beside it.

use crate::error::Result;
use candle_core::{D, Device, Tensor, Var};
use std::collections::BTreeMap;
use votive_objective::Needs;
use votive_tensor::random::{Draws, Stream};

/// The file of a run's heads, in the folder of the model.
pub(crate) const HEADS_FILE: &str = "heads.safetensors";

/// Standard deviation of the weights at the start, as transformers' `initializer_range`.
const INITIAL: f64 = 0.02;

const VALUE: &str = "value_head";
const DEGREE: &str = "degree_head";

/// What the objective of a run asks to be told of a completion's last state.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    value: Option<Linear>,
    degree: Option<Linear>,
}

/// `y = W·x + b`, with W (O, D) and b (O,).
#[derive(Debug)]
struct Linear {
    name: &'static str,
    weight: Var,
    bias: Var,
}

impl Linear {
    /// As `saved` has it, or drawn.
    fn new(
        name: &'static str,
        (outputs, inputs): (usize, usize),
        (seed, device): (u64, &Device),
        saved: &BTreeMap<String, Tensor>,
    ) -> Result<Self> {
        let [weight, bias] = ["weight", "bias"].map(|part| saved.get(&format!("{name}.{part}")));
        let weight = weight.map_or_else(
            || {
                let mut draws = Draws::new(seed, Stream::Init, 0, u64::from(name == DEGREE) + (1 << 32));
                let values: Vec<f32> =
                    draws.normals(outputs * inputs).into_iter().map(|x| x * INITIAL as f32).collect();
                Tensor::from_vec(values, (outputs, inputs), device)
            },
            |saved| Ok(saved.clone()),
        );
        let bias = bias.map_or_else(
            || Tensor::zeros(outputs, candle_core::DType::F32, device),
            |saved| Ok(saved.clone()),
        );
        Ok(Self { name, weight: Var::from_tensor(&weight?)?, bias: Var::from_tensor(&bias?)? })
    }

    /// `(R, D)` to `(R, O)`.
    fn of(&self, states: &Tensor) -> Result<Tensor> {
        Ok(states.matmul(&self.weight.t()?.contiguous()?)?.broadcast_add(&self.bias)?)
    }

    fn named(&self) -> [(String, Tensor); 2] {
        [("weight", &self.weight), ("bias", &self.bias)]
            .map(|(part, var)| (format!("{}.{part}", self.name), var.as_tensor().clone()))
    }
}

impl Heads {
    /// The heads that an objective asks for, of states of this width, as they start or as a checkpoint has them; `degrees` is how
    /// many a degree head tells apart.
    pub(crate) fn new(
        needs: Needs,
        (width, degrees): (usize, usize),
        (seed, device): (u64, &Device),
        saved: Option<BTreeMap<String, Tensor>>,
    ) -> Result<Self> {
        let saved = saved.unwrap_or_default();
        let head = |need: Needs, name, outputs| {
            let head = || Linear::new(name, (outputs, width), (seed, device), &saved);
            needs.contains(need).then(head).transpose()
        };
        Ok(Self { value: head(Needs::VALUES, VALUE, 1)?, degree: head(Needs::DEGREES, DEGREE, degrees)? })
    }

    /// What is trained of them, by name.
    pub(crate) fn trainable(&self) -> Vec<(String, Tensor)> {
        self.value.iter().chain(&self.degree).flat_map(Linear::named).collect()
    }

    /// V of each state, from −1 to 1, `(R,)`; none if nobody asks for it.
    pub(crate) fn values(&self, states: &Tensor) -> Result<Option<Tensor>> {
        let value = |head: &Linear| Ok(head.of(states)?.squeeze(1)?.tanh()?);
        self.value.as_ref().map(value).transpose()
    }

    /// `log p(d)` of each state's own degree, nats, `(R,)`; none if nobody asks for it.
    pub(crate) fn degree_logps(&self, states: &Tensor, degrees: &[u32]) -> Result<Option<Tensor>> {
        let logps = |head: &Linear| {
            let logits = head.of(states)?;
            let own = Tensor::new(degrees, states.device())?.unsqueeze(1)?;
            let own = logits.gather(&own, D::Minus1)?.squeeze(1)?;
            Ok((own - logits.log_sum_exp(D::Minus1)?)?)
        };
        self.degree.as_ref().map(logps).transpose()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A head with these weights and biases.
    fn heads(needs: Needs, name: &str, weight: &[[f32; 2]], bias: &[f32]) -> Heads {
        let device = Device::Cpu;
        let saved = [
            (
                format!("{name}.weight"),
                Tensor::new(weight.concat(), &device).unwrap().reshape((weight.len(), 2)).unwrap(),
            ),
            (format!("{name}.bias"), Tensor::new(bias, &device).unwrap()),
        ];
        Heads::new(needs, (2, weight.len()), (0, &device), Some(saved.into())).unwrap()
    }

    #[test]
    fn hand_arithmetic() {
        let states = Tensor::new(&[[1f32, 2.0], [0.0, -1.0]], &Device::Cpu).unwrap();
        let value = heads(Needs::VALUES, VALUE, &[[0.5, -0.25]], &[0.5]);
        let found = value.values(&states).unwrap().unwrap().to_vec1::<f32>().unwrap();
        assert!(
            (found[0] - 0.5f32.tanh()).abs() < 1e-6 && (found[1] - 0.75f32.tanh()).abs() < 1e-6,
            "{found:?}"
        );
        assert!(value.degree_logps(&states, &[0, 1]).unwrap().is_none());
        // Of three degrees the logits are 0, ln 2 and ln 5 at the first state, and 0, 0, 0 at the second.
        let degree =
            heads(Needs::DEGREES, DEGREE, &[[0.0; 2], [2f32.ln(), 0.0], [5f32.ln(), 0.0]], &[0.0; 3]);
        let found = degree.degree_logps(&states, &[2, 1]).unwrap().unwrap().to_vec1::<f32>().unwrap();
        assert!(
            (found[0] - (5f32 / 8.0).ln()).abs() < 1e-6 && (found[1] - (1f32 / 3.0).ln()).abs() < 1e-6,
            "{found:?}"
        );
        assert!(degree.values(&states).unwrap().is_none());
    }

    #[test]
    fn gradients_are_those_of_finite_differences_and_reach_the_states() {
        let states = Var::new(&[[0.3f32, -0.7], [1.1, 0.4]], &Device::Cpu).unwrap();
        let degree =
            heads(Needs::DEGREES, DEGREE, &[[0.2, 0.1], [-0.4, 0.3], [0.5, -0.2]], &[0.1, 0.0, -0.1]);
        let value = heads(Needs::VALUES, VALUE, &[[0.5, -0.25]], &[0.5]);
        let loss = |states: &Tensor| {
            let degrees = degree.degree_logps(states, &[2, 0]).unwrap().unwrap();
            (degrees + value.values(states).unwrap().unwrap()).unwrap().sum_all().unwrap()
        };
        let found = loss(&states)
            .backward()
            .unwrap()
            .get(&states)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let base: Vec<f32> = states.flatten_all().unwrap().to_vec1().unwrap();
        for (place, slope) in found.iter().enumerate() {
            let at = |delta: f32| {
                let mut moved = base.clone();
                moved[place] += delta;
                loss(&Tensor::from_vec(moved, (2, 2), &Device::Cpu).unwrap()).to_scalar::<f32>().unwrap()
            };
            let expected = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - expected).abs() < 1e-3 && *slope != 0.0, "{slope} {expected}");
        }
    }

    #[test]
    fn who_asks_for_nothing_has_nothing_to_train() {
        let heads = Heads::new(Needs::REFERENCE, (8, 4), (0, &Device::Cpu), None).unwrap();
        assert!(heads.trainable().is_empty());
        let both = Heads::new(Needs::VALUES.or(Needs::DEGREES), (8, 4), (0, &Device::Cpu), None).unwrap();
        let sizes: Vec<_> =
            both.trainable().iter().map(|(name, tensor)| (name.clone(), tensor.elem_count())).collect();
        let expected = [
            ("value_head.weight", 8),
            ("value_head.bias", 1),
            ("degree_head.weight", 32),
            ("degree_head.bias", 4),
        ];
        assert_eq!(sizes, expected.map(|(name, count)| (name.to_owned(), count)));
    }
}
