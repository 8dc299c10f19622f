//! The networks of a pipeline under adapters.

use super::component::Component;
use super::pipeline::StableDiffusionFolder;
use crate::error::{ModelError, Result};
use crate::lora::{Adaptable, PipelineLora};
use crate::params::Params;
use candle_core::Device;

impl StableDiffusionFolder {
    /// The networks of this pipeline that an adapter can be for.
    pub fn adaptable(&self) -> impl Iterator<Item = Adaptable> {
        Adaptable::ALL.into_iter().filter(|network| self.component(*network).is_some())
    }

    /// The parameters of one network, under its adapter if there is one.
    ///
    /// # Errors
    /// If the pipeline has no such network, its weights cannot be read, or the adapter was made for another.
    pub fn adapted(&self, network: Adaptable, adapters: &PipelineLora, device: &Device) -> Result<Params> {
        let component = self.component(network).ok_or_else(|| absent(network))?;
        adapters.put_on(network, self.params(component, device)?)
    }

    /// Checks that the pipeline has every network that an adapter is for.
    ///
    /// # Errors
    /// If it lacks one, which is named.
    pub fn check_networks_of(&self, adapters: &PipelineLora) -> Result<()> {
        let lacking = adapters.networks().find(|network| self.component(*network).is_none());
        lacking.map_or(Ok(()), |network| Err(absent(network)))
    }

    /// Where a network's files lie; none if the pipeline has no such network.
    #[must_use]
    pub fn component(&self, network: Adaptable) -> Option<Component> {
        match network {
            Adaptable::UNet => Some(Component::UNet),
            Adaptable::TextEncoder => Some(Component::TextEncoder),
            Adaptable::TextEncoder2 => self.text_encoder_configs().get(1).map(|_| Component::TextEncoder2),
        }
    }
}

fn absent(network: Adaptable) -> ModelError {
    ModelError::Adapter(format!("it is for `{}` too, which the model does not have", network.folder()))
}
