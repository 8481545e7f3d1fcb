//! A machine that runs: what can be done to it, and its end.

use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::console::ConsoleBuffer;
use super::devices::serial::SerialPort;
use super::memory::{self, GuestMemory, Resident};
use super::stop::{StopReason, Stopper};
use super::vcpu::VcpuThread;
use super::virtio::mmio::MmioTransport;

/// A running machine. Dropping it ends it.
pub struct Machine {
    // Fields are dropped in this order: the processors have ended before (see Drop), then the VM, then its memory.
    vm: VmFd,
    memory: GuestMemory,
    vcpus: Vec<VcpuThread>,
    stopper: Stopper,
    serial: Arc<SerialPort>,
    input_taken: EventFd,
    power_button: EventFd,
    transports: Vec<Arc<MmioTransport>>,
}

impl Machine {
    #[allow(clippy::too_many_arguments, reason = "the builder's last line; each is a part of its own")]
    pub(super) fn new(
        vm: VmFd,
        memory: GuestMemory,
        vcpus: Vec<VcpuThread>,
        stopper: Stopper,
        serial: Arc<SerialPort>,
        input_taken: EventFd,
        power_button: EventFd,
        transports: Vec<Arc<MmioTransport>>,
        console: &Arc<ConsoleBuffer>,
    ) -> Self {
        let held = console.clone();
        // A processor that is held because its output is not taken must see the end.
        console.release(false);
        stopper.on_stop(move || held.release(true));
        Self { vm, memory, vcpus, stopper, serial, input_taken, power_button, transports }
    }

    /// Stops it, from any thread, and says whether and why it has stopped.
    #[must_use]
    pub fn stopper(&self) -> &Stopper {
        &self.stopper
    }

    /// Gives the console input; returns how many bytes there was room for. [`Self::input_taken`] tells when there is
    /// room again.
    #[must_use]
    pub fn input(&self, bytes: &[u8]) -> usize {
        self.serial.input(bytes)
    }

    /// Readable when the guest has read all its console input.
    #[must_use]
    pub fn input_taken(&self) -> &EventFd {
        &self.input_taken
    }

    /// Presses the power button. The guest does what it is set up to do.
    ///
    /// # Errors
    /// What the host says.
    pub fn press_power_button(&self) -> io::Result<()> {
        self.power_button.write(1)
    }

    /// What is resident of the guest's memory and of the monitor.
    ///
    /// # Errors
    /// What reading `/proc` says.
    pub fn resident(&self) -> io::Result<Resident> {
        memory::resident(&self.memory)
    }

    /// Ends it: no instruction of the guest is executed and no request is in flight when this returns.
    pub fn end(mut self) -> StopReason {
        self.wind_up();
        self.stopper.reason().cloned().unwrap_or(StopReason::Ended)
    }

    fn wind_up(&mut self) {
        self.stopper.stop(StopReason::Ended);
        for vcpu in &self.vcpus {
            vcpu.kick();
        }
        self.vcpus.drain(..).for_each(VcpuThread::join);
        for transport in &self.transports {
            transport.reset();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.wind_up();
        // The VM's descriptor goes with the last of its processors', which have ended.
        let _ = &self.vm;
    }
}
