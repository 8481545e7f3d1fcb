//! The ports by which configuration space is reached (PCI 3.0, section 3.2.2.3.2), and the reset control register of the
//! chipset that lies among them (82371SB data sheet, section 2.5.13).

use std::sync::{Arc, Mutex, PoisonError};

use super::DevFn;
use super::bus::PciBus;
use crate::vmm::bus::BusDevice;

/// The first port: `CONFIG_ADDRESS`.
pub const CONFIG_PORTS: u64 = 0xcf8;
/// How many ports.
pub const CONFIG_PORTS_LEN: u64 = 8;

const RESET_CONTROL: u64 = 1;
const CONFIG_DATA: u64 = 4;

const ENABLE: u32 = 1 << 31;
/// The bits of `CONFIG_ADDRESS` that hold a value.
const ADDRESS_MASK: u32 = 0x80ff_fffc;
/// `Reset Control`: reset of the whole machine instead of the processor alone.
const HARD_RESET: u8 = 1 << 1;
/// `Reset Control`: going from 0 to 1 resets.
const RESET_CPU: u8 = 1 << 2;

/// Ports 0xcf8 to 0xcff.
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    on_reset: Box<dyn Fn() + Send + Sync>,
    registers: Mutex<Registers>,
}

#[derive(Default)]
struct Registers {
    address: u32,
    reset_control: u8,
}

impl ConfigPorts {
    /// The ports of a bus. `on_reset` is called when the guest resets the machine through port 0xcf9.
    #[must_use]
    pub fn new(bus: Arc<PciBus>, on_reset: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { bus, on_reset, registers: Mutex::default() }
    }

    /// The register that a data access is for. Configuration accesses are enabled, for bus 0, and within one dword.
    fn target(&self, offset: u64, len: usize) -> Option<(DevFn, u8)> {
        let address = self.registers.lock().unwrap_or_else(PoisonError::into_inner).address;
        let [register, devfn, bus, _] = address.to_le_bytes();
        let byte = u8::try_from(offset.checked_sub(CONFIG_DATA)?).ok()?;
        let within = matches!(len, 1 | 2 | 4) && usize::from(byte) + len <= 4;
        (address & ENABLE != 0 && bus == 0 && within).then_some((DevFn(devfn), register & 0xfc | byte))
    }

    fn write_reset_control(&self, value: u8) {
        let mut registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        let rises = value & !registers.reset_control & RESET_CPU != 0;
        registers.reset_control = value & (HARD_RESET | RESET_CPU);
        drop(registers);
        if rises {
            (self.on_reset)();
        }
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some((slot, register)) = self.target(offset, data.len()) {
            return self.bus.read_config(slot, register, data);
        }
        data.fill(0xff);
        let registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        match (offset, data) {
            (0, [a, b, c, d]) => [*a, *b, *c, *d] = registers.address.to_le_bytes(),
            (RESET_CONTROL, [byte]) => *byte = registers.reset_control,
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((slot, register)) = self.target(offset, data.len()) {
            return self.bus.write_config(slot, register, data);
        }
        match (offset, data) {
            // Only a whole dword is the address; anything less is an ordinary port.
            (0, &[a, b, c, d]) => {
                let address = u32::from_le_bytes([a, b, c, d]) & ADDRESS_MASK;
                self.registers.lock().unwrap_or_else(PoisonError::into_inner).address = address;
            }
            (RESET_CONTROL, &[value]) => self.write_reset_control(value),
            _ => {}
        }
    }
}
