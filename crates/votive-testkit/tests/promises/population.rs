//! A softmax policy in a table, and a method's loss over all pairs that people would make of its completions.

use candle_core::{Device, Tensor, Var};
use serde_json::Value;
use votive_objective::{Objective, PairInputs, PairObjective, find};
use votive_testkit::simplex::softmax;

/// A pair objective of the registry.
pub(crate) fn pair_objective(id: &str, options: Value) -> Box<dyn PairObjective> {
    match (find(id).unwrap().build)(options).unwrap() {
        Objective::Pair(objective) => objective,
        Objective::Unpaired(_) | Objective::List(_) => panic!("{id} is not of pairs"),
    }
}

pub(crate) fn tensor(values: &[f64]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

/// `log softmax` of logits, in f64 with its gradient.
pub(crate) fn log_policy(logits: &Tensor) -> Tensor {
    logits.broadcast_sub(&logits.log_sum_exp(0).unwrap()).unwrap()
}

/// The values at some places.
pub(crate) fn at(values: &Tensor, places: &[usize]) -> Tensor {
    let places: Vec<u32> = places.iter().map(|place| *place as u32).collect();
    values.index_select(&Tensor::new(places, &Device::Cpu).unwrap(), 0).unwrap()
}

/// Pairs (chosen, rejected) with how often each is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) chosen: Vec<usize>,
    pub(crate) rejected: Vec<usize>,
    pub(crate) shares: Vec<f64>,
}

impl Pairs {
    /// All ordered pairs of different completions, each as often as both are drawn and the first one is preferred.
    pub(crate) fn new(drawn: &[f64], prefers: impl Fn(usize, usize) -> f64) -> Self {
        let mut pairs = Self::default();
        for i in 0..drawn.len() {
            for j in (0..drawn.len()).filter(|j| *j != i) {
                pairs.chosen.push(i);
                pairs.rejected.push(j);
                pairs.shares.push(drawn[i] * drawn[j] * prefers(i, j));
            }
        }
        pairs
    }

    /// Log-probabilities of both sides under a policy and a reference.
    pub(crate) fn inputs(&self, policy: &Tensor, reference: &[f64]) -> PairInputs {
        let reference = logs(reference);
        PairInputs::new(at(policy, &self.chosen), at(policy, &self.rejected))
            .with_reference(at(&reference, &self.chosen), at(&reference, &self.rejected))
    }

    /// The sides' values of something that every completion has.
    pub(crate) fn sides(&self, values: &[f64]) -> [Tensor; 2] {
        [&self.chosen, &self.rejected].map(|side| at(&tensor(values), side))
    }

    /// The mean loss, a scalar.
    pub(crate) fn mean_loss(&self, objective: &dyn PairObjective, inputs: &PairInputs) -> Tensor {
        let losses = objective.evaluate(inputs).unwrap().per_pair;
        (losses * tensor(&self.shares)).unwrap().sum_all().unwrap()
    }
}

pub(crate) fn logs(probabilities: &[f64]) -> Tensor {
    tensor(&probabilities.iter().map(|p| p.ln()).collect::<Vec<_>>())
}

/// Gradient descent on logits, from a policy.
pub(crate) struct Descent {
    pub(crate) rate: f64,
    pub(crate) steps: usize,
}

impl Descent {
    /// The policy where the loss is least; fails if the gradient is not 0 there.
    pub(crate) fn minimise(&self, start: &[f64], loss: impl Fn(&Tensor) -> Tensor) -> Vec<f64> {
        let (logits, slope) = self.descend(start, &loss);
        assert!(slope < 1e-7, "a gradient of {slope} is left");
        softmax(&logits)
    }

    /// The logits after all steps, and the largest slope there.
    pub(crate) fn descend(&self, start: &[f64], loss: impl Fn(&Tensor) -> Tensor) -> (Vec<f64>, f64) {
        let mut logits: Vec<f64> = start.iter().map(|p| p.ln()).collect();
        let mut largest = f64::INFINITY;
        for _ in 0..self.steps {
            let slopes = gradient(&logits, &loss);
            largest = slopes.iter().fold(0.0, |most: f64, slope| most.max(slope.abs()));
            if largest < 1e-9 {
                break;
            }
            logits.iter_mut().zip(&slopes).for_each(|(logit, slope)| *logit -= self.rate * slope);
        }
        (logits, largest)
    }
}

/// The gradient of a loss of log-probabilities by the logits.
pub(crate) fn gradient(logits: &[f64], loss: impl Fn(&Tensor) -> Tensor) -> Vec<f64> {
    let var = Var::new(logits, &Device::Cpu).unwrap();
    let gradients = loss(&log_policy(&var)).backward().unwrap();
    gradients.get(&var).unwrap().to_vec1().unwrap()
}
