//! A function made of parts: BARs with devices in them, MSI-X, an interrupt pin, capabilities.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::{self, BarKind, ConfigSpace, Decoded, Identity};
use super::intx::Intx;
use super::msix::{self, Msix, MsixPba, MsixTable};
use super::{Doorbell, PciError, PciFunction, Region, Space};
use crate::vmm::bus::{Bus, BusDevice};

/// Where in a BAR MSI-X keeps its table and its pending bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixPlace {
    /// 0 to 5; it is to be a memory BAR.
    pub bar: u8,
    /// Offset of the table ([`Msix::table_len`] bytes); a multiple of 8.
    pub table: u32,
    /// Offset of the pending bits ([`Msix::pba_len`] bytes); a multiple of 8.
    pub pba: u32,
}

#[derive(Default)]
struct BarParts {
    size: u64,
    contents: Bus,
    doorbells: Vec<Doorbell>,
}

/// Puts an [`Endpoint`] together.
pub struct EndpointBuilder {
    config: ConfigSpace,
    bars: [BarParts; 6],
    msix: Option<(Arc<Msix>, MsixPlace)>,
    intx: Option<Arc<Intx>>,
}

impl EndpointBuilder {
    /// Adds a BAR of `size` bytes, in which `contents` answer at their offsets.
    ///
    /// # Errors
    /// [`PciError::BadBar`].
    pub fn bar(mut self, index: u8, kind: BarKind, size: u64, contents: Bus) -> Result<Self, PciError> {
        self.config.add_bar(index.into(), kind, size)?;
        if let Some(bar) = self.bars.get_mut(usize::from(index)) {
            *bar = BarParts { size, contents, doorbells: Vec::new() };
        }
        Ok(self)
    }

    /// Lets events take writes to a memory BAR that was added before.
    #[must_use]
    pub fn doorbells(mut self, bar: u8, doorbells: Vec<Doorbell>) -> Self {
        if let Some(bar) = self.bars.get_mut(usize::from(bar)) {
            bar.doorbells = doorbells;
        }
        self
    }

    /// Adds MSI-X: the capability, and its table and pending bits to a BAR that was added before.
    ///
    /// # Errors
    /// [`PciError`] where they find no room in the BAR or in configuration space.
    pub fn msix(mut self, msix: Arc<Msix>, place: MsixPlace) -> Result<Self, PciError> {
        let index = usize::from(place.bar);
        let bad = |size, why| PciError::BadBar { index, size, why };
        let bar = self.bars.get_mut(index).ok_or(bad(0, "MSI-X is in a BAR that exists"))?;
        let (table, pba) = (u64::from(place.table), u64::from(place.pba));
        if !(table | pba).is_multiple_of(8) || table + msix.table_len() > bar.size || pba + msix.pba_len() > bar.size {
            return Err(bad(bar.size, "MSI-X does not fit there"));
        }
        let contents = |cause| PciError::BarContents { index, cause };
        bar.contents.claim(table, msix.table_len(), Arc::new(MsixTable(msix.clone()))).map_err(contents)?;
        bar.contents.claim(pba, msix.pba_len(), Arc::new(MsixPba(msix.clone()))).map_err(contents)?;
        self.msix = Some((msix, place));
        Ok(self)
    }

    /// Gives it INTA#, or nothing.
    #[must_use]
    pub fn intx(mut self, intx: Option<Arc<Intx>>) -> Self {
        self.config.set_interrupt_pin(intx.is_some().into());
        self.intx = intx;
        self
    }

    /// Adds a capability; `body` follows its ID and link, and the guest may change the bits of `writable`. Gives its
    /// offset.
    ///
    /// # Errors
    /// [`PciError::CapabilityTooLong`].
    pub fn capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<usize, PciError> {
        self.config.add_capability(id, body, writable)
    }

    /// The function.
    ///
    /// # Errors
    /// [`PciError::CapabilityTooLong`] where MSI-X finds no room.
    pub fn build(mut self) -> Result<Endpoint, PciError> {
        let msix = match self.msix {
            None => None,
            Some((msix, place)) => {
                let control = (msix.vectors() - 1).to_le_bytes();
                let writable = (msix::CONTROL_ENABLE | msix::CONTROL_FUNCTION_MASK).to_le_bytes();
                let at = |offset: u32| (offset | u32::from(place.bar)).to_le_bytes();
                let body = [&control[..], &at(place.table), &at(place.pba)].concat();
                Some((self.config.add_capability(msix::CAPABILITY_ID, &body, &writable)?, msix))
            }
        };
        let bars = self
            .bars
            .map(|bar| EndpointBar { device: Arc::new(Contents(bar.contents)), doorbells: bar.doorbells.into() });
        Ok(Endpoint { config: Mutex::new(self.config), bars, msix, intx: self.intx })
    }
}

/// What is in a BAR.
struct Contents(Bus);

impl BusDevice for Contents {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }
}

struct EndpointBar {
    device: Arc<dyn BusDevice>,
    doorbells: Arc<[Doorbell]>,
}

/// A function with BARs, MSI-X and INTA#, of whatever kind its devices make it.
pub struct Endpoint {
    config: Mutex<ConfigSpace>,
    bars: [EndpointBar; 6],
    /// With the offset of its capability.
    msix: Option<(usize, Arc<Msix>)>,
    intx: Option<Arc<Intx>>,
}

impl Endpoint {
    /// Begins a function.
    #[must_use]
    pub fn builder(identity: Identity) -> EndpointBuilder {
        let config = ConfigSpace::new(identity);
        EndpointBuilder { config, bars: std::array::from_fn(|_| BarParts::default()), msix: None, intx: None }
    }

    /// Reads from a BAR's contents, whether or not it answers on the bus.
    pub fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        match self.bars.get(usize::from(bar)) {
            Some(bar) => bar.device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes to a BAR's contents, whether or not it answers on the bus.
    pub fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        if let Some(bar) = self.bars.get(usize::from(bar)) {
            bar.device.write(offset, data);
        }
    }

    /// The registers as they are now.
    #[must_use]
    pub fn config(&self) -> ConfigSpace {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What follows from registers that the guest may have written.
    fn follow(&self, config: &ConfigSpace) {
        let control = self.msix.as_ref().map_or(0, |(at, _)| config.word(at + 2));
        if let Some((_, msix)) = &self.msix {
            msix.set_control(control);
        }
        if let Some(intx) = &self.intx {
            let disabled = config.command() & config::COMMAND_INTX_DISABLE != 0;
            intx.block(disabled || control & msix::CONTROL_ENABLE != 0);
        }
    }
}

impl PciFunction for Endpoint {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        let offset = usize::from(offset);
        self.lock().read(offset, data);
        let status = config::STATUS.wrapping_sub(offset);
        if let (Some(byte), Some(intx)) = (data.get_mut(status), &self.intx)
            && intx.is_pending()
        {
            *byte |= config::STATUS_INTERRUPT;
        }
    }

    fn write_config(&self, offset: u8, data: &[u8]) {
        let mut config = self.lock();
        config.write(offset.into(), data);
        self.follow(&config);
    }

    fn regions(&self) -> Vec<Region> {
        let region = |Decoded { index, space, base, len }| {
            let bar = self.bars.get(index)?;
            let doorbells = if space == Space::Memory { bar.doorbells.clone() } else { Arc::default() };
            Some(Region { space, base, len, device: bar.device.clone(), doorbells })
        };
        self.lock().decoded().filter_map(region).collect()
    }

    fn reset(&self) {
        if let Some((_, msix)) = &self.msix {
            msix.reset();
        }
        if let Some(intx) = &self.intx {
            intx.update(|| false);
        }
        let mut config = self.lock();
        config.reset();
        self.follow(&config);
    }
}
