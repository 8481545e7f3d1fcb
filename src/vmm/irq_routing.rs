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

    /// Takes that back.
    ///
    /// # Errors
    /// What the kernel says.
    fn disconnect(&self, event: &EventFd, gsi: u32) -> io::Result<()>;
}

impl RoutingTarget for VmFd {
    fn set_routes(&self, routes: &[kvm_irq_routing_entry]) -> io::Result<()> {
        let table = KvmIrqRouting::from_entries(routes).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.set_gsi_routing(&table).map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }

    fn connect(&self, event: &EventFd, gsi: u32) -> io::Result<()> {
        self.register_irqfd(event, gsi).map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }

    fn disconnect(&self, event: &EventFd, gsi: u32) -> io::Result<()> {
        self.unregister_irqfd(event, gsi).map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}

/// The routing table of a virtual machine.
pub struct IrqRouting(Arc<Table>);

struct Table {
    target: Arc<dyn RoutingTarget>,
    timer_pin: u32,
    /// By number.
    vectors: Mutex<Vec<Vector>>,
}

/// A vector of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Vector {
    /// No function's.
    #[default]
    Free,
    /// Of a function; the guest has not programmed it.
    Silent,
    /// Of a function.
    Sends(MsiMessage),
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
        let first = first_fit(&vectors, count.into());
        let end = first + usize::from(count);
        if end > MAX_VECTORS {
            return Err(io::Error::other(format!("the machine has no more than {MAX_VECTORS} interrupt vectors")));
        }
        let len = vectors.len().max(end);
        vectors.resize(len, Vector::Free);
        // What is connected so far is taken back where the next cannot be: by Drop, after the lock.
        let mut taken = Vectors { table: self.0.clone(), first, events: Vec::with_capacity(count.into()) };
        let connected = (first..end).try_for_each(|vector| {
            let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
            self.0.target.connect(&event, gsi(vector))?;
            taken.events.push(event);
            if let Some(entry) = vectors.get_mut(vector) {
                *entry = Vector::Silent;
            }
            Ok(())
        });
        drop(vectors);
        connected.map(|()| Arc::new(taken) as Arc<dyn MsiRoute>)
    }
}

/// Where so many vectors in a row begin that are free, or would be if there were more.
fn first_fit(vectors: &[Vector], count: usize) -> usize {
    let mut first = 0;
    for (at, vector) in vectors.iter().enumerate() {
        if at - first == count {
            break;
        }
        if *vector != Vector::Free {
            first = at + 1;
        }
    }
    first
}

/// The vectors of one function. Dropping it gives them back, for another function to have.
struct Vectors {
    table: Arc<Table>,
    first: usize,
    events: Vec<EventFd>,
}

impl Drop for Vectors {
    fn drop(&mut self) {
        let mut vectors = self.table.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        for (vector, event) in (self.first..).zip(&self.events) {
            // What cannot be disconnected is connected to an event that nobody writes to any more. Its message stays in the
            // kernel's table until the next change, and nothing sends it.
            let _ = self.table.target.disconnect(event, gsi(vector));
            if let Some(entry) = vectors.get_mut(vector) {
                *entry = Vector::Free;
            }
        }
    }
}

impl MsiRoute for Vectors {
    fn program(&self, vector: u16, message: MsiMessage) -> io::Result<()> {
        if usize::from(vector) >= self.events.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut vectors = self.table.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = vectors.get_mut(self.first + usize::from(vector)).ok_or(io::ErrorKind::InvalidInput)?;
        let before = std::mem::replace(entry, Vector::Sends(message));
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
fn routes(timer_pin: u32, vectors: &[Vector]) -> Vec<kvm_irq_routing_entry> {
    let mut routes = Vec::with_capacity((LINES + PIC_LINES) as usize + vectors.len());
    for gsi in 0..PIC_LINES {
        let (chip, pin) = if gsi < 8 { (KVM_IRQCHIP_PIC_MASTER, gsi) } else { (KVM_IRQCHIP_PIC_SLAVE, gsi - 8) };
        routes.push(line(gsi, chip, pin));
    }
    routes.push(line(0, KVM_IRQCHIP_IOAPIC, timer_pin));
    routes.extend((1..LINES).filter(|&gsi| gsi != timer_pin).map(|gsi| line(gsi, KVM_IRQCHIP_IOAPIC, gsi)));
    routes.extend((0..).zip(vectors).filter_map(|(number, vector)| match vector {
        Vector::Sends(message) => Some(msi(gsi(number), *message)),
        Vector::Free | Vector::Silent => None,
    }));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Number, kind, and chip with pin or address with data.
    type Route = (u32, u32, u64, u32);

    #[derive(Default)]
    struct Recorder {
        tables: Mutex<Vec<Vec<Route>>>,
        connected: Mutex<Vec<u32>>,
        /// Data of a message that the kernel does not take.
        refuse: Option<u32>,
        /// A number that cannot be connected.
        refuse_gsi: Option<u32>,
    }

    fn plain(entry: &kvm_irq_routing_entry) -> Route {
        // SAFETY: `type_` says which part of the union was written; both are plain numbers.
        unsafe {
            if entry.type_ == KVM_IRQ_ROUTING_IRQCHIP {
                (entry.gsi, entry.type_, entry.u.irqchip.irqchip.into(), entry.u.irqchip.pin)
            } else {
                let address = u64::from(entry.u.msi.address_hi) << 32 | u64::from(entry.u.msi.address_lo);
                (entry.gsi, entry.type_, address, entry.u.msi.data)
            }
        }
    }

    impl RoutingTarget for Recorder {
        fn set_routes(&self, routes: &[kvm_irq_routing_entry]) -> io::Result<()> {
            let routes: Vec<Route> = routes.iter().map(plain).collect();
            if routes.iter().any(|route| route.1 == KVM_IRQ_ROUTING_MSI && Some(route.3) == self.refuse) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.tables.lock().unwrap().push(routes);
            Ok(())
        }

        fn connect(&self, _event: &EventFd, gsi: u32) -> io::Result<()> {
            if Some(gsi) == self.refuse_gsi {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.connected.lock().unwrap().push(gsi);
            Ok(())
        }

        fn disconnect(&self, _event: &EventFd, gsi: u32) -> io::Result<()> {
            let mut connected = self.connected.lock().unwrap();
            let at = connected.iter().position(|of| *of == gsi).expect("what is disconnected was connected");
            connected.remove(at);
            Ok(())
        }
    }

    impl Recorder {
        fn messages(&self) -> Vec<(u32, u64, u32)> {
            let tables = self.tables.lock().unwrap();
            let of_msi = tables.last().unwrap().iter().filter(|route| route.1 == KVM_IRQ_ROUTING_MSI);
            of_msi.map(|&(gsi, _, address, data)| (gsi, address, data)).collect()
        }
    }

    fn message(data: u32) -> MsiMessage {
        MsiMessage { address: 0x1_fee0_0000, data }
    }

    #[test]
    fn lines_go_to_both_controllers_and_the_timer_where_it_is_told() {
        let line_routes = |timer_pin| {
            let recorder = Arc::new(Recorder::default());
            IrqRouting::new(recorder.clone(), timer_pin).install().unwrap();
            let table = recorder.tables.lock().unwrap()[0].clone();
            let io_apic: Vec<_> =
                table.iter().filter(|r| r.2 == u64::from(KVM_IRQCHIP_IOAPIC)).map(|r| (r.0, r.3)).collect();
            assert_eq!(table.len() - io_apic.len(), 16);
            for gsi in 0..16 {
                let chip = if gsi < 8 { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
                assert!(table.contains(&(gsi, KVM_IRQ_ROUTING_IRQCHIP, chip.into(), gsi % 8)));
            }
            io_apic
        };
        assert_eq!(line_routes(0), (0..24).map(|gsi| (gsi, gsi)).collect::<Vec<_>>());
        let shifted: Vec<_> = [(0, 2), (1, 1)].into_iter().chain((3..24).map(|gsi| (gsi, gsi))).collect();
        assert_eq!(line_routes(2), shifted);
    }

    #[test]
    fn every_vector_has_a_number_of_its_own_behind_the_lines() {
        let recorder = Arc::new(Recorder::default());
        let routing = IrqRouting::new(recorder.clone(), 0);
        let (a, b) = (routing.allocate(2).unwrap(), routing.allocate(3).unwrap());
        assert_eq!(*recorder.connected.lock().unwrap(), [24, 25, 26, 27, 28]);
        b.program(2, message(7)).unwrap();
        assert_eq!(recorder.messages(), [(28, 0x1_fee0_0000, 7)]);
        a.program(0, message(8)).unwrap();
        a.program(0, message(9)).unwrap();
        assert_eq!(recorder.messages(), [(24, 0x1_fee0_0000, 9), (28, 0x1_fee0_0000, 7)]);
        assert!(a.program(2, message(1)).is_err());
        a.send(2);
        assert_eq!(recorder.tables.lock().unwrap().len(), 3);
    }

    #[test]
    fn a_refused_message_leaves_the_table_as_it_was() {
        let recorder = Arc::new(Recorder { refuse: Some(13), ..Recorder::default() });
        let routing = IrqRouting::new(recorder.clone(), 0);
        let route = routing.allocate(2).unwrap();
        route.program(0, message(7)).unwrap();
        assert!(route.program(0, message(13)).is_err());
        assert!(route.program(1, message(13)).is_err());
        route.program(1, message(8)).unwrap();
        assert_eq!(recorder.messages(), [(24, 0x1_fee0_0000, 7), (25, 0x1_fee0_0000, 8)]);
    }

    #[test]
    fn the_table_does_not_outgrow_what_the_kernel_takes() {
        let recorder = Arc::new(Recorder::default());
        let routing = IrqRouting::new(recorder.clone(), 0);
        // No descriptors are wasted on what has no room.
        assert!(routing.allocate(u16::try_from(MAX_VECTORS).unwrap() + 1).is_err());
        assert!(recorder.connected.lock().unwrap().is_empty());
        let full = vec![Vector::Sends(message(1)); MAX_VECTORS];
        assert_eq!(routes(0, &full).len(), 4096);
    }

    #[test]
    fn vectors_that_are_given_back_are_used_again() {
        let recorder = Arc::new(Recorder::default());
        let routing = IrqRouting::new(recorder.clone(), 0);
        let connected = || recorder.connected.lock().unwrap().clone();
        let (a, b, c) = (routing.allocate(2).unwrap(), routing.allocate(3).unwrap(), routing.allocate(1).unwrap());
        b.program(1, message(7)).unwrap();
        c.program(0, message(8)).unwrap();
        drop(b);
        assert_eq!(connected(), [24, 25, 29]);
        // The gap is taken by what fits into it, and its old message is gone.
        let d = routing.allocate(2).unwrap();
        d.program(0, message(9)).unwrap();
        assert_eq!(
            (connected(), recorder.messages()),
            (vec![24, 25, 29, 26, 27], vec![(26, 0x1_fee0_0000, 9), (29, 0x1_fee0_0000, 8)])
        );
        let e = routing.allocate(2).unwrap();
        let f = routing.allocate(1).unwrap();
        assert_eq!(connected()[5..], [30, 31, 28]);
        drop((a, c, d, e, f));
        for _ in 0..1000 {
            routing.allocate(65).unwrap();
        }
        assert!(connected().is_empty());
        assert!(routing.0.vectors.lock().unwrap().len() < 100);
    }

    #[test]
    fn vectors_that_cannot_all_be_had_are_given_back() {
        let recorder = Arc::new(Recorder { refuse_gsi: Some(27), ..Recorder::default() });
        let routing = IrqRouting::new(recorder.clone(), 0);
        let _kept = routing.allocate(1).unwrap();
        assert!(routing.allocate(5).is_err());
        assert_eq!(*recorder.connected.lock().unwrap(), [24]);
        let _fits = routing.allocate(2).unwrap();
        assert_eq!(*recorder.connected.lock().unwrap(), [24, 25, 26]);
    }
}
