//! Who looks on while a run trains: the program shows progress and draws samples, a test counts steps.

use crate::alarms::Alarm;
use crate::error::TrainError;
use crate::front_end::FrontEnd;
use crate::run::{HeldOut, Run, StepMetrics};

/// What a run tells while it trains. An error ends the run.
///
/// A closure over [`StepMetrics`] is one that looks at steps alone.
pub trait Watch<F: FrontEnd> {
    /// What can go wrong while looking on.
    type Error: From<TrainError>;

    /// A step is made.
    ///
    /// # Errors
    /// Whatever shall end the run; the step is saved first.
    fn step(&mut self, metrics: &StepMetrics) -> Result<(), Self::Error>;

    /// The held-out rows are evaluated.
    ///
    /// # Errors
    /// Whatever shall end the run; the step is saved first.
    fn evaluated(&mut self, _: &HeldOut) -> Result<(), Self::Error> {
        Ok(())
    }

    /// An alarm is raised, for the first time in this run.
    ///
    /// # Errors
    /// Whatever shall end the run; the step is saved first.
    fn alarm(&mut self, _: &Alarm) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Samples are due: at step 0, every `sample.every` steps and at the end. A resumed run says so again for the step
    /// that it goes on from, since it may have been stopped before they were drawn.
    ///
    /// # Errors
    /// Whatever shall end the run; the step is saved first.
    fn sample(&mut self, _: &Run<F>) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl<F: FrontEnd, C: FnMut(&StepMetrics)> Watch<F> for C {
    type Error = TrainError;

    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self(metrics);
        Ok(())
    }
}
