//! The part of the HVM machine's ACPI that fills and empties slots of its PCI bus while the guest runs: devices with `_EJ0`
//! (ACPI 6.5, section 6.3.3) for the slots of volumes but the root's, and the general-purpose event that notifies them
//! (section 5.6.4). The registers behind are [`crate::vmm::pci::hotplug`].
//!
//! ```text
//! Scope (_SB.PCI0) {
//!     OperationRegion (SLTS, SystemIO, 0xae00, 12)
//!     Field (SLTS, DWordAcc, NoLock, WriteAsZeros) { ADDD, 32, WNTD, 32, EJCT, 32 }
//!     Device (S04_) { Name (_ADR, 0x00040000)  Name (_SUN, 4)  Method (_EJ0, 1) { EJCT = 1 << 4 } }
//!     ...
//!     Method (NTFY, 2) { If (Arg0 & 1 << 4) { Notify (S04_, Arg1) } ... }
//! }
//! Scope (_GPE) {
//!     Method (_L01) {
//!         Local0 = ADDD  ADDD = Local0  NTFY (Local0, 1)      // device check
//!         Local0 = WNTD  WNTD = Local0  NTFY (Local0, 3)      // eject request
//!     }
//! }
//! ```

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Arg, Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, Local, Method,
    MethodCall, Name, Notify, OpRegion, OpRegionSpace, Path, Scope, Store, ZERO,
};

use super::hvm;
use crate::vmm::pci::hotplug;

const BUS: &str = "_SB_.PCI0";
/// Values of Notify (ACPI 6.5, table 5.165).
const DEVICE_CHECK: u8 = 1;
const EJECT_REQUEST: u8 = 3;
/// A bit for each slot.
const REGISTER_BITS: usize = 32;

/// Writes AML that goes into the DSDT behind the device of the bus.
pub(super) fn slots(aml: &mut Vec<u8>) {
    let slots = || hvm::VOLUME_SLOTS.skip(1);
    let registers = || [*b"ADDD", *b"WNTD", *b"EJCT"].map(|name| FieldEntry::Named(name, REGISTER_BITS));
    let base = u16::try_from(hvm::PCI_HOTPLUG).unwrap_or(u16::MAX);
    let len = u8::try_from(hotplug::PORTS).unwrap_or(u8::MAX);
    Scope::new(
        BUS.into(),
        vec![
            &OpRegion::new("SLTS".into(), OpRegionSpace::SystemIO, &base, &len),
            &Field::new(
                "SLTS".into(),
                FieldAccessType::DWord,
                FieldLockRule::NoLock,
                FieldUpdateRule::WriteAsZeroes,
                registers().to_vec(),
            ),
        ],
    )
    .to_aml_bytes(aml);
    slots().for_each(|slot| device(aml, slot));

    let mut notify = Vec::new();
    for slot in slots() {
        If::new(&And::new(&ZERO, &Arg(0), &bit(slot)), vec![&Notify::new(&name(slot), &Arg(1))])
            .to_aml_bytes(&mut notify);
    }
    let notify = Raw(notify);
    Scope::new(BUS.into(), vec![&Method::new("NTFY".into(), 2, true, vec![&notify])]).to_aml_bytes(aml);

    let mut event = Vec::new();
    for (register, what) in [("ADDD", DEVICE_CHECK), ("WNTD", EJECT_REQUEST)] {
        let register = Path::new(&format!("\\{BUS}.{register}"));
        let seen = Local(0);
        Store::new(&seen, &register).to_aml_bytes(&mut event);
        Store::new(&register, &seen).to_aml_bytes(&mut event);
        MethodCall::new(Path::new(&format!("\\{BUS}.NTFY")), vec![&seen, &what]).to_aml_bytes(&mut event);
    }
    let handler = Path::new(&format!("_L{:02X}", hvm::PCI_HOTPLUG_EVENT));
    Scope::new("\\_GPE".into(), vec![&Method::new(handler, 0, true, vec![&Raw(event)])]).to_aml_bytes(aml);
}

/// AML that was written before.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn name(slot: u8) -> Path {
    Path::new(&format!("S{slot:02X}_"))
}

fn bit(slot: u8) -> u32 {
    1_u32.checked_shl(slot.into()).unwrap_or(0)
}

fn device(aml: &mut Vec<u8>, slot: u8) {
    let (address, eject) = (u32::from(slot) << 16, bit(slot));
    let register = Path::new("EJCT");
    let eject = Store::new(&register, &eject);
    let (address, number) = (Name::new("_ADR".into(), &address), Name::new("_SUN".into(), &slot));
    let eject = Method::new("_EJ0".into(), 1, false, vec![&eject]);
    let device = Device::new(name(slot), vec![&address, &number, &eject]);
    Scope::new(BUS.into(), vec![&device]).to_aml_bytes(aml);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_but_the_roots_can_be_ejected() {
        let mut aml = Vec::new();
        slots(&mut aml);
        let count = |what: &[u8]| aml.windows(what.len()).filter(|w| *w == what).count();
        assert_eq!((count(b"_EJ0"), count(b"_SUN"), count(b"_L01")), (26, 26, 1));
        assert_eq!((count(b"S03_"), count(b"S04_"), count(b"S1D_"), count(b"S1E_")), (0, 2, 2, 0));
        // _ADR of slot 4, and what its _EJ0 writes: StoreOp, value, EJCT.
        assert_eq!(count(b"_ADR\x0c\x00\x00\x04\x00"), 1);
        assert_eq!(count(b"\x70\x0a\x10EJCT"), 1);
        assert_eq!(count(b"\x70\x0c\x00\x00\x00\x20EJCT"), 1);
    }
}
