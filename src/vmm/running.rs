//! A machine that runs: what can be done to it, and its end.

use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::console::ConsoleBuffer;
use super::devices::serial::SerialPort;
use super::memory::{GuestMemory, Ranges, Resident};
use super::stop::{StopReason, Stopper};
use super::vcpu::VcpuThread;

/// The parts of a machine that runs.
pub(super) struct Running {
    // Fields are dropped in this order: the processors have ended before (see Drop of Machine), then the VM, then memory.
    pub(super) vm: Arc<VmFd>,
    pub(super) memory: GuestMemory,
    /// Firmware, where the machine has any.
    pub(super) rom: Option<GuestMemory>,
    pub(super) vcpus: Vec<VcpuThread>,
    pub(super) stopper: Stopper,
    pub(super) serial: Arc<SerialPort>,
    pub(super) input_taken: EventFd,
    pub(super) power_button: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    /// Each brings some devices to rest: nothing is in flight when it returns.
    pub(super) quiet: Vec<Box<dyn Fn() + Send>>,
}

/// A running machine. Dropping it ends it.
pub struct Machine(Running);

impl Machine {
    pub(super) fn new(running: Running, console: &Arc<ConsoleBuffer>) -> Self {
        let held = console.clone();
        // A processor that is held because its output is not taken must see the end.
        console.release(false);
        running.stopper.on_stop(move || held.release(true));
        Self(running)
    }

    /// Stops it, from any thread, and says whether and why it has stopped.
    #[must_use]
    pub fn stopper(&self) -> &Stopper {
        &self.0.stopper
    }

    /// Gives the console input; returns how many bytes there was room for. [`Self::input_taken`] tells when there is
    /// room again.
    #[must_use]
    pub fn input(&self, bytes: &[u8]) -> usize {
        self.0.serial.input(bytes)
    }

    /// Readable when the guest has read all its console input.
    #[must_use]
    pub fn input_taken(&self) -> &EventFd {
        &self.0.input_taken
    }

    /// Presses the power button. The guest does what it is set up to do.
    ///
    /// # Errors
    /// What the host says.
    pub fn press_power_button(&self) -> io::Result<()> {
        (self.0.power_button)()
    }

    /// What is resident of the guest's memory and of the monitor.
    ///
    /// # Errors
    /// What reading `/proc` says.
    pub fn resident(&self) -> io::Result<Resident> {
        self.memory().resident()
    }

    /// Where the guest's memory lies in this process.
    #[must_use]
    pub fn memory(&self) -> Ranges {
        Ranges::of(&self.0.memory)
    }

    /// Ends it: no instruction of the guest is executed and no request is in flight when this returns.
    pub fn end(mut self) -> StopReason {
        self.wind_up();
        self.0.stopper.reason().cloned().unwrap_or(StopReason::Ended)
    }

    fn wind_up(&mut self) {
        self.0.stopper.stop(StopReason::Ended);
        for vcpu in &self.0.vcpus {
            vcpu.kick();
        }
        self.0.vcpus.drain(..).for_each(VcpuThread::join);
        self.0.quiet.iter().for_each(|quiet| quiet());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.wind_up();
        // The VM's descriptor goes with the last of its processors', which have ended.
        let _ = (&self.0.vm, &self.0.rom);
    }
}
