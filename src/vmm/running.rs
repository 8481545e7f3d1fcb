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
use super::virtio::net::NetCounters;
use super::virtio::net::carrier::Carrier;
use super::volumes::{DiskConfig, Ejected, Ejections, PlugError, Volumes};

/// What can be done to a network card from outside.
pub struct NetworkCard {
    carrier: Arc<Carrier>,
    counters: Arc<NetCounters>,
    changed: Box<dyn Fn() + Send + Sync>,
}

impl NetworkCard {
    /// `changed` calls the driver because of its configuration.
    pub(super) fn new(
        (carrier, counters): (Arc<Carrier>, Arc<NetCounters>),
        changed: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { carrier, counters, changed }
    }

    /// Plugs the cable in or pulls it; the guest is told where that changes anything.
    pub fn set_link(&self, up: bool) {
        if self.carrier.set(up) {
            (self.changed)();
        }
    }

    /// Whether the guest sees the link up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.carrier.is_up()
    }

    /// What the card has done.
    #[must_use]
    pub fn counters(&self) -> &NetCounters {
        &self.counters
    }
}

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
    pub(super) volumes: Arc<dyn Volumes>,
    pub(super) network: Option<NetworkCard>,
    /// Each brings some devices to rest: nothing is in flight when it returns.
    pub(super) quiet: Vec<Box<dyn Fn() + Send>>,
}

/// What is left of a machine.
pub struct Ended {
    /// Why it stopped.
    pub reason: StopReason,
    /// The volumes that it had last, the root first: what a machine that goes on in its place should have.
    pub disks: Vec<DiskConfig>,
    /// Volumes that the guest had let go and that nobody had looked at.
    pub ejected: Vec<Ejected>,
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

    /// Its volumes, in the order of their slots: the root first.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskConfig> {
        self.0.volumes.disks()
    }

    /// Whether it keeps the volumes that it was started with.
    #[must_use]
    pub fn has_fixed_volumes(&self) -> bool {
        self.0.volumes.is_fixed()
    }

    /// Attaches a volume. The guest is told; when and whether it looks is its own business.
    ///
    /// # Errors
    /// [`PlugError`]; the disk is released then.
    pub fn plug(&self, disk: DiskConfig) -> Result<(), PlugError> {
        self.0.volumes.plug(disk)
    }

    /// Asks the guest to let go of the volume with this serial number or device name. [`Self::ejections`] tells when it has;
    /// it may be asked again. A guest that restarts has not been asked.
    ///
    /// # Errors
    /// [`PlugError`].
    pub fn unplug(&self, name: &str) -> Result<(), PlugError> {
        self.0.volumes.unplug(name)
    }

    /// Takes a volume away, whatever the guest does with it. When this returns, requests that were begun have ended, those
    /// behind them are lost, and the disk is durable and released.
    ///
    /// # Errors
    /// [`PlugError`].
    pub fn remove(&self, name: &str) -> Result<(), PlugError> {
        self.0.volumes.remove(name)
    }

    /// Tells the guest that a volume has another size; its disk says which already. Gives it in bytes.
    ///
    /// # Errors
    /// [`PlugError`].
    pub fn resize(&self, name: &str) -> Result<u64, PlugError> {
        self.0.volumes.resized(name)
    }

    /// Volumes that the guest has let go, asked or not, and whose disks are released.
    #[must_use]
    pub fn ejections(&self) -> &Ejections {
        self.0.volumes.ejections()
    }

    /// Its network card, if it has one.
    #[must_use]
    pub fn network(&self) -> Option<&NetworkCard> {
        self.0.network.as_ref()
    }

    /// Ends it: no instruction of the guest is executed and no request is in flight when this returns.
    pub fn end(mut self) -> Ended {
        self.wind_up();
        let reason = self.0.stopper.reason().cloned().unwrap_or(StopReason::Ended);
        Ended { reason, disks: self.0.volumes.disks(), ejected: self.0.volumes.ejections().take() }
    }

    fn wind_up(&mut self) {
        self.0.stopper.stop(StopReason::Ended);
        for vcpu in &self.0.vcpus {
            vcpu.kick();
        }
        self.0.vcpus.drain(..).for_each(VcpuThread::join);
        self.0.quiet.iter().for_each(|quiet| quiet());
        self.0.volumes.settle();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.wind_up();
        // The VM's descriptor goes with the last of its processors', which have ended.
        let _ = (&self.0.vm, &self.0.rom);
    }
}
