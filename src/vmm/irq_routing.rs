//! KVM's interrupt routing table: the lines of the in-kernel interrupt controllers, and behind them a number for each
//! MSI-X vector, with an event that raises it (KVM API documentation, 4.52 `KVM_SET_GSI_ROUTING` and 4.75 `KVM_IRQFD`).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::pci::msix::{MsiController, MsiMessage, MsiRoute};

/// Inputs of the I/O APIC: these numbers keep their lines, and vectors follow.
pub const LINES: u32 = 24;
/// Inputs of the two legacy interrupt controllers together.
const PIC_LINES: u32 = 16;
/// The most vectors, of all functions together: KVM's table has 4096 entries.
const MAX_VECTORS: usize = 4096 - (LINES + PIC_LINES) as usize;

/// What is asked of the kernel.
pub trait RoutingTarget: Send + Sync {
    /// Replaces the whole table.
    ///
    /// # Errors
    /// What the kernel says; it keeps the table before.
    fn set_routes(&self, routes: &[kvm_irq_routing_entry]) -> io::Result<()>;

    /// Makes a write of `event` an interrupt of this number.
    ///
    /// # Errors
    /// What the kernel says.
    fn connect(&self, event: &EventFd, gsi: u32) -> io::Result<()>;
}

impl RoutingTarget for VmFd {
    fn set_routes(&self, routes: &[kvm_irq_routing_entry]) -> io::Result<()> {
        let table = KvmIrqRouting::from_entries(routes).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.set_gsi_routing(&table).map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }

    fn connect(&self, event: &EventFd, gsi: u32) -> io::Result<()> {
        self.register_irqfd(event, gsi).map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}

/// The routing table of a virtual machine.
pub struct IrqRouting(Arc<Table>);

struct Table {
    target: Arc<dyn RoutingTarget>,
    timer_pin: u32,
    /// By vector number; `None` until the guest programs it.
    vectors: Mutex<Vec<Option<MsiMessage>>>,
}

impl IrqRouting {
    /// Nothing but the lines: number 0 to 15 go to the legacy controllers, 0 to 23 to the I/O APIC, each to its own
    /// input; only number 0, the timer, goes to input `timer_pin` of the I/O APIC: 2 where the MADT says so by an
    /// interrupt source override, as on a PC, else 0. The table is given to KVM with the first MSI-X message, or by
    /// [`Self::install`].
    #[must_use]
    pub fn new(target: Arc<dyn RoutingTarget>, timer_pin: u32) -> Self {
        Self(Arc::new(Table { target, timer_pin, vectors: Mutex::default() }))
    }

    /// Gives KVM the table as it is: needed where the timer's input is not 0, which is what KVM begins with.
    ///
    /// # Errors
    /// What KVM says.
    pub fn install(&self) -> io::Result<()> {
        let vectors = self.0.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.target.set_routes(&routes(self.0.timer_pin, &vectors))
    }
}

impl MsiController for IrqRouting {
    fn allocate(&self, count: u16) -> io::Result<Arc<dyn MsiRoute>> {
        let mut vectors = self.0.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        let first = vectors.len();
        let end = first + usize::from(count);
        if end > MAX_VECTORS {
            return Err(io::Error::other(format!("the machine has no more than {MAX_VECTORS} interrupt vectors")));
        }
        let events = (first..end)
            .map(|vector| {
                let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
                self.0.target.connect(&event, gsi(vector))?;
                Ok(event)
            })
            .collect::<io::Result<_>>()?;
        vectors.resize(end, None);
        Ok(Arc::new(Vectors { table: self.0.clone(), first, events }))
    }
}

/// The vectors of one function.
struct Vectors {
    table: Arc<Table>,
    first: usize,
    events: Vec<EventFd>,
}

impl MsiRoute for Vectors {
    fn program(&self, vector: u16, message: MsiMessage) -> io::Result<()> {
        if usize::from(vector) >= self.events.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut vectors = self.table.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = vectors.get_mut(self.first + usize::from(vector)).ok_or(io::ErrorKind::InvalidInput)?;
        let before = entry.replace(message);
        let result = self.table.target.set_routes(&routes(self.table.timer_pin, &vectors));
        if result.is_err() {
            // One message that KVM does not take must not keep all others from being changed.
            if let Some(entry) = vectors.get_mut(self.first + usize::from(vector)) {
                *entry = before;
            }
        }
        result
    }

    fn send(&self, vector: u16) {
        if let Some(event) = self.events.get(usize::from(vector)) {
            // Fails only where the counter is full, and then the interrupt is on its way.
            let _ = event.write(1);
        }
    }
}

fn gsi(vector: usize) -> u32 {
    u32::try_from(vector).unwrap_or(u32::MAX).saturating_add(LINES)
}

/// The whole table.
fn routes(timer_pin: u32, vectors: &[Option<MsiMessage>]) -> Vec<kvm_irq_routing_entry> {
    let mut routes = Vec::with_capacity((LINES + PIC_LINES) as usize + vectors.len());
    for gsi in 0..PIC_LINES {
        let (chip, pin) = if gsi < 8 { (KVM_IRQCHIP_PIC_MASTER, gsi) } else { (KVM_IRQCHIP_PIC_SLAVE, gsi - 8) };
        routes.push(line(gsi, chip, pin));
    }
    routes.push(line(0, KVM_IRQCHIP_IOAPIC, timer_pin));
    routes.extend((1..LINES).filter(|&gsi| gsi != timer_pin).map(|gsi| line(gsi, KVM_IRQCHIP_IOAPIC, gsi)));
    routes.extend((0..).zip(vectors).filter_map(|(vector, message)| Some(msi(gsi(vector), (*message)?))));
    routes
}

fn line(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
    entry
}

fn msi(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: half(message.address),
        address_hi: half(message.address >> 32),
        data: message.data,
        ..Default::default()
    };
    entry
}
