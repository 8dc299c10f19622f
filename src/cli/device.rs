//! The devices that the program was built for.

use crate::cli::{Failure, Outcome};
use candle_core::Device;
use clap::ValueEnum;

/// The version with the devices that were compiled in.
pub(crate) const VERSION: &str = match (cfg!(feature = "cuda"), cfg!(feature = "metal")) {
    (false, false) => concat!(env!("CARGO_PKG_VERSION"), " (devices: cpu)"),
    (true, false) => concat!(env!("CARGO_PKG_VERSION"), " (devices: cpu, cuda)"),
    (false, true) => concat!(env!("CARGO_PKG_VERSION"), " (devices: cpu, metal)"),
    (true, true) => concat!(env!("CARGO_PKG_VERSION"), " (devices: cpu, cuda, metal)"),
};

/// The values of `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceName {
    /// The processor's own cores.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
    /// The GPU of an Apple computer.
    Metal,
}

impl DeviceName {
    /// The value as it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        }
    }

    /// Whether the program was built with it.
    pub(crate) fn is_compiled_in(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Metal => cfg!(feature = "metal"),
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// If the program was built without it, or the machine has none that works.
    pub(crate) fn open(self) -> Outcome<Device> {
        let name = self.name();
        if !self.is_compiled_in() {
            let missing = Failure::resources(format!("this program was built without {name}"));
            return Err(missing.hint(format!(
                "build it with `cargo build --release --features {name}`, or use --device cpu"
            )));
        }
        let opened = match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(0),
            Self::Metal => Device::new_metal(0),
        };
        opened.map_err(|error| Failure::resources(format!("device {name} cannot be used: {error}")))
    }
}
