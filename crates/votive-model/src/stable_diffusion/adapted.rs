//! The networks of a pipeline under adapters.

use super::pipeline::{Component, StableDiffusionFolder};
use crate::error::{ModelError, Result};
use crate::lora::{Adaptable, PipelineLora};
use crate::params::Params;
use candle_core::Device;

impl StableDiffusionFolder {
    /// The networks of this pipeline that an adapter can be for.
    pub fn adaptable(&self) -> impl Iterator<Item = Adaptable> {
        Adaptable::ALL.into_iter().filter(|network| component(*network).is_some())
    }

    /// The parameters of one network, under its adapter if there is one.
    ///
    /// # Errors
    /// If the pipeline has no such network, its weights cannot be read, or the adapter was made for another.
    pub fn adapted(&self, network: Adaptable, adapters: &PipelineLora, device: &Device) -> Result<Params> {
        let component = component(network).ok_or_else(|| absent(network))?;
        adapters.put_on(network, self.params(component, device)?)
    }

    /// Checks that the pipeline has every network that an adapter is for.
    ///
    /// # Errors
    /// If it lacks one, which is named.
    pub fn check_networks_of(&self, adapters: &PipelineLora) -> Result<()> {
        adapters.networks().try_for_each(|network| match component(network) {
            Some(_) => Ok(()),
            None => Err(absent(network)),
        })
    }
}

fn component(network: Adaptable) -> Option<Component> {
    match network {
        Adaptable::UNet => Some(Component::UNet),
        Adaptable::TextEncoder => Some(Component::TextEncoder),
        Adaptable::TextEncoder2 => None,
    }
}

fn absent(network: Adaptable) -> ModelError {
    ModelError::Adapter(format!("it is for `{}` too, which the model does not have", network.folder()))
}
